/*
 * notice.h -- what the server says unasked, queued: notices and notifications.
 *
 * libpq hands a notice to a callback from within its own functions, where
 * nothing of Lua may run; and it keeps notifications without bound.  Both are
 * copied into bounded queues; Lua asks for them.  No Lua in here.
 */
#ifndef DBL_NOTICE_H
#define DBL_NOTICE_H

#include <stddef.h>

#include "memory.h"
#include "pq.h"

typedef struct Note {
    struct Note *next;
    size_t size;
    unsigned number; /* no other in its queue has it */
    int pid;         /* of a notification: who sent it */
    char text[];     /* of a notice: code, text, NUL; and again; a code of 0 ends them.
                    of a notification: channel, NUL, payload, NUL */
} Note;

typedef struct Notes {
    Memory memory;
    Note *first, *last;
    size_t bytes;
    unsigned number; /* of the last one */
    int dropped;     /* by a full queue or a full memory */
} Notes;

/* From now on the notices of pg come into this queue, which must outlive it. */
void dbl_notices_watch(Notes *q, PGconn *pg);

/* Takes over the notifications that libpq has found in what it read. */
void dbl_notifications_take(Notes *q, PGconn *pg);

/* The oldest, no longer in the queue, for the caller to dbl_free; or NULL. */
Note *dbl_notes_take(Notes *q);

void dbl_notes_free(Notes *q);

#endif
