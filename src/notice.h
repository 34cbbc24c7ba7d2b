/*
 * notice.h -- the server's notices, queued.
 *
 * libpq hands a notice to a callback from within its own functions, where
 * nothing of Lua may run.  The callback copies the fields into this queue;
 * Lua asks for them at its safe points.  No Lua in here.
 */
#ifndef DBL_NOTICE_H
#define DBL_NOTICE_H

#include "pq.h"

typedef struct Notice {
    struct Notice *next;
    char fields[]; /* code, text, NUL; and again; a code of 0 ends them */
} Notice;

typedef struct Notices {
    Notice *first, *last;
    int count;
    int dropped; /* by a full queue or a full memory */
} Notices;

/* From now on the notices of pg come into this queue, which must outlive it. */
void dbl_notices_watch(Notices *q, PGconn *pg);

/* The oldest notice, no longer in the queue, for the caller to free; or NULL. */
Notice *dbl_notices_take(Notices *q);

void dbl_notices_free(Notices *q);

#endif
