/*
 * dblink.h -- dblink inside a C program: the header of libdblink.a.
 *
 * The whole library is in the archive, its Lua part too.  It needs no require,
 * no package, no os or io; it writes no global, starts no thread, sets no signal
 * handler, and keeps all that it keeps in the lua_State.  docs/hosts.md has the
 * rest.
 *
 *     lua_State *L = ...;              the base, table, string, math and coroutine
 *     dblink_set_hooks(L, &hooks);     libraries are open
 *     luaopen_dblink(L);               pushes what require "dblink" gives
 */
#ifndef DBLINK_H
#define DBLINK_H

#include <libpq-fe.h>
#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How a host waits, and what else it lends.  Each may be NULL. */
typedef struct dblink_hooks {
    void *data; /* the host's; see dblink_data */

    /* Called from Lua as wait(fd, "r" | "w" | "rw", seconds or nil), to give true, or
     * nil and "timeout".  It notes what is waited for and ends with lua_yield(L, 0);
     * the host later resumes that coroutine with these values.  NULL: poll(2). */
    lua_CFunction wait;

    /* The descriptor will be closed, or become another one under the same number.
     * Called also by the collector, so without Lua; and perhaps for one that the host
     * does not know, or twice. */
    void (*forget)(void *data, int fd);

    /* A cheaper way for coroutines to wait for each other than a descriptor; all or
     * none.  See docs/wait-contract.md. */
    lua_CFunction self, park, unpark;

    /* Has run(what) called once, in another thread, and returns 1; or 0 where that
     * cannot be.  It is how a connection that is closed while its query runs has that
     * query cancelled, and, before libpq 17, how any cancel is sent.  NULL: nothing is
     * cancelled by a close, and before libpq 17 conn:cancel() waits for one round
     * trip in place. */
    int (*errand)(void *data, void (*run)(void *), void *what);
} dblink_hooks;

/* Gives this lua_State its hooks, which are copied.  They serve connections
 * opened from now on; NULL takes them back. */
void dblink_set_hooks(lua_State *L, const dblink_hooks *hooks);

/* The data of this lua_State's hooks. */
void *dblink_data(lua_State *L);

/* An errand that starts a thread for each, for a host that does not mind. */
int dblink_thread(void *data, void (*run)(void *), void *what);

/* Pushes the module.  The functions it needs are taken from the globals now, so a
 * sandbox may take them away later. */
int luaopen_dblink(lua_State *L);

/* What becomes of a PGconn when its connection is closed or collected. */
enum {
    DBLINK_OWN,    /* PQfinish */
    DBLINK_BORROW, /* nothing: it is the host's, who must close the connection first */
};

/* Pushes a connection for a PGconn that is open and has no query under way.  While it
 * lives libpq is in nonblocking mode, and notices go to conn:notices().  May raise
 * for lack of memory; the PGconn then is still the host's. */
void dblink_push(lua_State *L, PGconn *pg, int how);

/* The PGconn of the connection at stack index i; NULL where there is none, or it is
 * not open.  It stays the connection's. */
PGconn *dblink_toconn(lua_State *L, int i);

#ifdef __cplusplus
}
#endif

#endif
