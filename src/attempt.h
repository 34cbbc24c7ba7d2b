/*
 * attempt.h -- opening a PGconn, host by host, without ever waiting.
 *
 * libpq's own PQconnectPoll ignores connect_timeout.  An Attempt keeps it, for
 * each host (and each address of a host) afresh: a host that lets the time
 * pass is taken out of the list, and the attempt begins again with the others.
 * No Lua in here.
 */
#ifndef DBL_ATTEMPT_H
#define DBL_ATTEMPT_H

#include "memory.h"
#include "pq.h"

typedef struct Attempt {
    Memory memory;             /* set before it starts */
    PGconn *pg;                /* the try under way; whoever drives may take it at the end */
    PQconninfoOption *options; /* all that the try was made of; hosts go as they time out */
    char *earlier;             /* what the hosts that went had to say, or NULL */
    double limit;              /* seconds for each host; 0: none */
    double deadline;           /* of the present host, or DBL_NEVER; 0: it was the last one */
    char address[128];         /* of the present host, to notice the next */
    int fresh;                 /* nothing was polled yet */
} Attempt;

/* Begins with keywords and values as PQconnectStartParams takes them; look at
 * PQstatus(a->pg) for a failure.  The names of hosts are looked up by libpq in
 * here, which can wait for a name server.  0: no memory. */
int dbl_attempt_start(Attempt *a, const char *const *keywords, const char *const *values);

/* Goes on as far as that is possible.  The socket to wait for, and for what;
 * it may be another at each call.  0: over, as PQstatus(a->pg) says. */
int dbl_attempt_step(Attempt *a);

/* Ends it as if the present host had been the last, and its time were over. */
void dbl_attempt_give_up(Attempt *a);

/* Gives back everything, the PGconn too.  Harmless on a zeroed or freed one. */
void dbl_attempt_free(Attempt *a);

#endif
