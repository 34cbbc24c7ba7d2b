/*
 * request.h -- asking the server to drop what it is doing.
 *
 * A request travels on a connection of its own, as the protocol wants it.  It
 * is driven like an Attempt and never waits.  From libpq 17 on that is
 * PQcancelStart and PQcancelPoll, with the session's own encryption.  Before,
 * libpq can only cancel at one stroke, blocking, without a time limit; that is
 * done in a thread of its own, which may hang as long as it likes: nobody waits
 * for it.  (A thread, because PQcancel is made for being called anywhere, and a
 * forked child would be the host's to bury.)  No Lua in here.
 */
#ifndef DBL_REQUEST_H
#define DBL_REQUEST_H

#include "pq.h"

typedef struct Request Request;

/* Begins a request to cancel what runs on pg.  NULL: no memory. */
Request *dbl_request_new(PGconn *pg);

/* Goes on.  What to wait for on dbl_request_fd; 0: over. */
int dbl_request_step(Request *r);
int dbl_request_fd(const Request *r);

/* Of a request that is over: NULL if it was sent, else why it was not. */
const char *dbl_request_error(const Request *r);

/* Gives up a request, at any point, without waiting. */
void dbl_request_free(Request *r);

/* Cancels what runs on pg without looking back; pg may be closed at once. */
void dbl_request_errand(PGconn *pg);

#endif
