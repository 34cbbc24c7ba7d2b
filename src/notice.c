/*
 * notice.c -- what the server says unasked, queued: notices and notifications.
 *
 * Bounded queues: a function that raises notices in a loop, or a channel that
 * nobody asks for, must not fill the memory of a program.  The newest are
 * dropped, and counted.
 */
#include "notice.h"

#include <string.h>

enum { MOST_BYTES = 4 << 20 };

static const char codes[] = {
    PG_DIAG_SEVERITY_NONLOCALIZED, PG_DIAG_SQLSTATE,        PG_DIAG_MESSAGE_PRIMARY,
    PG_DIAG_MESSAGE_DETAIL,        PG_DIAG_MESSAGE_HINT,    PG_DIAG_STATEMENT_POSITION,
    PG_DIAG_INTERNAL_POSITION,     PG_DIAG_INTERNAL_QUERY,  PG_DIAG_CONTEXT,
    PG_DIAG_SCHEMA_NAME,           PG_DIAG_TABLE_NAME,      PG_DIAG_COLUMN_NAME,
    PG_DIAG_DATATYPE_NAME,         PG_DIAG_CONSTRAINT_NAME, PG_DIAG_SOURCE_FILE,
    PG_DIAG_SOURCE_LINE,           PG_DIAG_SOURCE_FUNCTION,
};

/* A new last one with room for that much text; NULL, and counted, where it has no place. */
static Note *append(Notes *q, size_t size)
{
    Note *n = q->bytes + size < MOST_BYTES ? dbl_alloc(q->memory, sizeof *n + size) : NULL;
    if (!n) {
        q->dropped++;
        return NULL;
    }
    n->next = NULL;
    n->size = sizeof *n + size;
    n->number = ++q->number;
    if (q->last)
        q->last->next = n;
    else
        q->first = n;
    q->last = n;
    q->bytes += n->size;
    return n;
}

static char *copy(char *to, const char *text)
{
    size_t size = strlen(text) + 1;
    memcpy(to, text, size);
    return to + size;
}

static void receive(void *queue, const PGresult *res)
{
    size_t size = 1;
    for (size_t i = 0; i < sizeof codes; i++) {
        const char *text = PQresultErrorField(res, codes[i]);
        size += text ? strlen(text) + 2 : 0;
    }
    Note *n = append(queue, size);
    if (!n)
        return;
    char *to = n->text;
    for (size_t i = 0; i < sizeof codes; i++) {
        const char *text = PQresultErrorField(res, codes[i]);
        if (text) {
            *to++ = codes[i];
            to = copy(to, text);
        }
    }
    *to = '\0';
}

void dbl_notices_watch(Notes *q, PGconn *pg)
{
    PQsetNoticeReceiver(pg, receive, q);
}

void dbl_notifications_take(Notes *q, PGconn *pg)
{
    PGnotify *from;
    while ((from = PQnotifies(pg))) {
        Note *n = append(q, strlen(from->relname) + strlen(from->extra) + 2);
        if (n) {
            n->pid = from->be_pid;
            copy(copy(n->text, from->relname), from->extra);
        }
        PQfreemem(from);
    }
}

Note *dbl_notes_take(Notes *q)
{
    Note *n = q->first;
    if (n) {
        q->first = n->next;
        if (!q->first)
            q->last = NULL;
        q->bytes -= n->size;
    }
    return n;
}

void dbl_notes_free(Notes *q)
{
    Note *n;
    while ((n = dbl_notes_take(q)))
        dbl_free(n);
}
