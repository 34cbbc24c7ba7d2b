/*
 * request.h -- asking the server to drop what it is doing.
 *
 * A request travels on a connection of its own, as the protocol wants it.  It
 * is driven like an Attempt and never waits.  From libpq 17 on that is
 * PQcancelStart and PQcancelPoll, with the session's own encryption.  Before,
 * libpq can only cancel at one stroke, blocking, without a time limit; that is
 * done in a thread of its own (the host's, if there is one), which may hang as long as it likes: nobody waits
 * for it.  (A thread, because PQcancel is made for being called anywhere, and a
 * forked child would be the host's to bury.)  No Lua in here.
 *
 * A request names a backend, not a query: one that arrives late stops whatever
 * runs then.  So it has two owners, who asked for it and the connection, and
 * when the first loses his patience the second still knows of it, and sends
 * nothing before it is over.
 */
#ifndef DBL_REQUEST_H
#define DBL_REQUEST_H

#include "hooks.h"
#include "memory.h"
#include "pq.h"

typedef struct Request Request;

/* Begins a request to cancel what runs on pg, and adds it to the list, which is
 * its second owner.  hooks: of the host, or NULL.  NULL: no memory. */
Request *dbl_request_new(Memory memory, PGconn *pg, Request **list, const dblink_hooks *hooks);

/* Goes on.  What to wait for, 0: over.  The descriptor is for who asked for the
 * request: it stays open until he asks for the next, or leaves. */
int dbl_request_step(Request *r);
int dbl_request_fd(Request *r);

/* Of a request that is over: NULL if it was sent, else why it was not. */
const char *dbl_request_error(const Request *r);

/* Who asked for it goes, at any point.  If nothing was sent yet, nothing will be. */
void dbl_request_leave(Request *r);

/* Whether one of the list is still under way.  Goes on with it, and drops what is
 * over. */
int dbl_requests_pending(Request **list);

/* The connection goes. */
void dbl_requests_forget(Request **list);

/* Cancels what runs on pg, and again until the server is gone from there, if the host lets us;
 * without looking back: pg is to be closed at once. */
void dbl_request_errand(PGconn *pg, const dblink_hooks *hooks);

#endif
