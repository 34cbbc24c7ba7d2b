/*
 * attempt.c -- opening a PGconn, host by host, without ever waiting.
 *
 * libpq tries the hosts of a list one after the other by itself, but only when
 * a host refuses; one that is silent holds it for ever.  There is no call that
 * says "next host".  So when a host's time is over, the try is dropped and a
 * new one begun with what PQconninfo knows (defaults, environment and service
 * file included) less that host.  Hosts that have already refused are asked
 * again then, which costs a round trip each and keeps the order of the list.
 */
#include "attempt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"

static char *option(const Attempt *a, const char *keyword)
{
    for (PQconninfoOption *o = a->options; o && o->keyword; o++)
        if (strcmp(o->keyword, keyword) == 0)
            return o->val;
    return NULL;
}

/* The clock of a host starts when its address shows up. */
static void watch_address(Attempt *a)
{
    char now[sizeof a->address];
    const char *host = PQhost(a->pg), *address = PQhostaddr(a->pg), *port = PQport(a->pg);
    snprintf(now, sizeof now, "%s %s %s", host ? host : "", address ? address : "",
             port ? port : "");
    if (strcmp(now, a->address) != 0) {
        strcpy(a->address, now);
        a->deadline = a->limit > 0 ? dbl_now() + a->limit : DBL_NEVER;
    }
}

static int start(Attempt *a, const char *const *keywords, const char *const *values)
{
    a->fresh = 1;
    a->address[0] = '\0';
    a->deadline = DBL_NEVER;
    a->pg = PQconnectStartParams(keywords, values, 0);
    if (!a->pg)
        return 0;
    if (PQstatus(a->pg) != CONNECTION_BAD && a->limit > 0)
        watch_address(a);
    return 1;
}

int dbl_attempt_start(Attempt *a, const char *const *keywords, const char *const *values)
{
    *a = (Attempt){.memory = a->memory};
    if (!start(a, keywords, values))
        return 0;
    if (PQstatus(a->pg) == CONNECTION_BAD)
        return 1;
    a->options = PQconninfo(a->pg);
    if (!a->options)
        return 0;
    const char *limit = option(a, "connect_timeout");
    a->limit = limit ? atof(limit) : 0;
    watch_address(a);
    return 1;
}

/* Takes entry n out of the list of that keyword; lists of one entry stand for
 * every host and stay.  What remains, in place. */
static void cut(char *list, int n)
{
    if (!list || !strchr(list, ','))
        return;
    char *from = list;
    while (n-- > 0 && (from = strchr(from, ',')))
        from++;
    if (!from)
        return;
    char *to = strchr(from, ',');
    if (to)
        memmove(from, to + 1, strlen(to + 1) + 1);
    else if (from > list)
        from[-1] = '\0';
}

/* Whether entry n of the list is that text; a list of one entry stands for all. */
static int names(const char *list, int n, const char *text)
{
    if (!list || !*list)
        return 1;
    if (strchr(list, ','))
        for (; n > 0; n--) {
            list = strchr(list, ',');
            if (!list)
                return 0;
            list++;
        }
    size_t size = strcspn(list, ",");
    return !text || size == 0 || (strlen(text) == size && strncmp(list, text, size) == 0);
}

static int count(const char *list)
{
    int n = 1;
    for (; list && (list = strchr(list, ',')); list++)
        n++;
    return n;
}

/* Adds what the present host has to say (its silence) to the earlier texts. */
static void complain(Attempt *a)
{
    const char *host = PQhost(a->pg), *port = PQport(a->pg), *was = a->earlier ? a->earlier : "";
    const char *form = "%sconnection to server at \"%s\", port %s failed: timeout expired\n";
    host = host ? host : "";
    port = port ? port : "";
    size_t size = strlen(form) + strlen(was) + strlen(host) + strlen(port);
    char *text = dbl_alloc(a->memory, size);
    if (!text)
        return;
    snprintf(text, size, form, was, host, port);
    dbl_free(a->earlier);
    a->earlier = text;
}

/* Begins again without the present host.  0: there is no other. */
static int next_host(Attempt *a)
{
    char *host = option(a, "host"), *address = option(a, "hostaddr"), *port = option(a, "port");
    int hosts = host && *host ? count(host) : count(address), n = 0;
    if (hosts < 2)
        return 0;
    const char *present = PQhost(a->pg), *at = PQport(a->pg);
    while (n < hosts - 1 && !(names(host && *host ? host : address, n, present) &&
                              names(address, n, PQhostaddr(a->pg)) && names(port, n, at)))
        n++;
    cut(host, n);
    cut(address, n);
    cut(port, n);

    enum { MOST = 128 };
    const char *keywords[MOST], *values[MOST];
    int k = 0;
    for (PQconninfoOption *o = a->options; o->keyword && k < MOST - 1; o++)
        if (o->val) {
            keywords[k] = o->keyword;
            values[k++] = o->val;
        }
    keywords[k] = values[k] = NULL;
    PQfinish(a->pg);
    return start(a, keywords, values);
}

int dbl_attempt_step(Attempt *a)
{
    for (;;) {
        if (!a->pg || PQstatus(a->pg) == CONNECTION_BAD || a->deadline == 0)
            return 0;
        if (a->fresh) {
            a->fresh = 0;
            return DBL_WRITE;
        }
        if (a->deadline < DBL_NEVER && dbl_now() >= a->deadline) {
            complain(a);
            if (next_host(a))
                continue;
            a->deadline = 0;
            return 0;
        }
        switch (PQconnectPoll(a->pg)) {
        case PGRES_POLLING_READING:
            watch_address(a);
            return DBL_READ;
        case PGRES_POLLING_WRITING:
            watch_address(a);
            return DBL_WRITE;
        default:
            return 0;
        }
    }
}

void dbl_attempt_give_up(Attempt *a)
{
    complain(a);
    a->deadline = 0;
}

void dbl_attempt_free(Attempt *a)
{
    if (a->pg)
        PQfinish(a->pg);
    if (a->options)
        PQconninfoFree(a->options);
    dbl_free(a->earlier);
    *a = (Attempt){.memory = a->memory};
}
