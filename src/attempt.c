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

/* The value of an option that every libpq has. */
static char *option(const Attempt *a, const char *keyword)
{
    const PQconninfoOption *o = a->options;
    while (strcmp(o->keyword, keyword) != 0)
        o++;
    return o->val;
}

/* The clock of a host starts when its address shows up. */
static void watch_address(Attempt *a)
{
    char now[sizeof a->address];
    snprintf(now, sizeof now, "%s %s %s", dbl_said(PQhost(a->pg)), dbl_said(PQhostaddr(a->pg)),
             dbl_said(PQport(a->pg)));
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

/* Whether it has entries of its own for the hosts: one alone stands for every host. */
static int is_list(const char *list)
{
    return list && strchr(list, ',');
}

/* Where entry n begins: libpq has seen to it that lists are of one length. */
static char *entry(char *list, int n)
{
    while (n-- > 0)
        list = strchr(list, ',') + 1;
    return list;
}

/* Takes entry n out of a list, in place. */
static void cut(char *list, int n)
{
    if (!is_list(list))
        return;
    char *from = entry(list, n), *to = strchr(from, ',');
    if (to)
        memmove(from, to + 1, strlen(to + 1) + 1);
    else
        from[-1] = '\0';
}

/* Whether entry n may be what has that text: one that is empty stands for libpq's default. */
static int names(char *list, int n, const char *text)
{
    if (!is_list(list))
        return 1;
    const char *from = entry(list, n);
    size_t size = strcspn(from, ",");
    return size == 0 || (strlen(text) == size && strncmp(from, text, size) == 0);
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
    const char *host = dbl_said(PQhost(a->pg)), *port = dbl_said(PQport(a->pg));
    const char *was = dbl_said(a->earlier);
    const char *form = "%sconnection to server at \"%s\", port %s failed: timeout expired\n";
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
    int named = count(host), found = count(address), n = 0;
    int hosts = named > found ? named : found;
    if (hosts < 2)
        return 0;
    const char *name = dbl_said(PQhost(a->pg)), *at = dbl_said(PQhostaddr(a->pg));
    const char *by = dbl_said(PQport(a->pg));
    while (n < hosts - 1 && !(names(host, n, name) && names(address, n, at) && names(port, n, by)))
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
        if (PQstatus(a->pg) == CONNECTION_BAD || a->deadline == 0) /* also where there is none */
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
