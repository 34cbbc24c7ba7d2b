/*
 * notice.c -- the server's notices, queued.
 *
 * A bounded queue: a function that raises notices in a loop must not fill the
 * memory of a program that never asks for them.  The newest are dropped, and
 * counted.
 */
#include "notice.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 1000 };

static const char codes[] = {
    PG_DIAG_SEVERITY_NONLOCALIZED, PG_DIAG_SQLSTATE,        PG_DIAG_MESSAGE_PRIMARY,
    PG_DIAG_MESSAGE_DETAIL,        PG_DIAG_MESSAGE_HINT,    PG_DIAG_STATEMENT_POSITION,
    PG_DIAG_INTERNAL_POSITION,     PG_DIAG_INTERNAL_QUERY,  PG_DIAG_CONTEXT,
    PG_DIAG_SCHEMA_NAME,           PG_DIAG_TABLE_NAME,      PG_DIAG_COLUMN_NAME,
    PG_DIAG_DATATYPE_NAME,         PG_DIAG_CONSTRAINT_NAME, PG_DIAG_SOURCE_FILE,
    PG_DIAG_SOURCE_LINE,           PG_DIAG_SOURCE_FUNCTION,
};

static void receive(void *queue, const PGresult *res)
{
    Notices *q = queue;
    size_t size = 1;
    if (q->count >= MOST) {
        q->dropped++;
        return;
    }
    for (size_t i = 0; i < sizeof codes; i++) {
        const char *text = PQresultErrorField(res, codes[i]);
        size += text ? strlen(text) + 2 : 0;
    }
    Notice *n = malloc(sizeof *n + size);
    if (!n) {
        q->dropped++;
        return;
    }
    char *to = n->fields;
    for (size_t i = 0; i < sizeof codes; i++) {
        const char *text = PQresultErrorField(res, codes[i]);
        if (text) {
            *to++ = codes[i];
            strcpy(to, text);
            to += strlen(text) + 1;
        }
    }
    *to = '\0';
    n->next = NULL;
    if (q->last)
        q->last->next = n;
    else
        q->first = n;
    q->last = n;
    q->count++;
}

void dbl_notices_watch(Notices *q, PGconn *pg)
{
    PQsetNoticeReceiver(pg, receive, q);
}

Notice *dbl_notices_take(Notices *q)
{
    Notice *n = q->first;
    if (n) {
        q->first = n->next;
        if (!q->first)
            q->last = NULL;
        q->count--;
    }
    return n;
}

void dbl_notices_free(Notices *q)
{
    Notice *n;
    while ((n = dbl_notices_take(q)))
        free(n);
}
