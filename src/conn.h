/*
 * conn.h -- a PGconn owned by Lua, and what is going on upon it.
 */
#ifndef DBL_CONN_H
#define DBL_CONN_H

#include "attempt.h"
#include "block.h"
#include "compat.h"
#include "hooks.h"
#include "memory.h"
#include "notice.h"
#include "pq.h"
#include "process.h"
#include "request.h"

#define DBL_CONN "dblink.connection"

/* What dbl_step drives at. */
enum {
    DBL_GOAL_NEXT,         /* the next result can be had without waiting */
    DBL_GOAL_LAST,         /* the query is over, its last result or first error kept */
    DBL_GOAL_COPY,         /* a COPY has begun, its answer kept; without one as LAST */
    DBL_GOAL_NOTIFICATION, /* there is one, or the connection is lost */
    DBL_GOAL_LINE,         /* a line of the COPY is there; after the last one as LAST */
    DBL_GOAL_TAKE,         /* dbl_take gives something, even if output is left */
    DBL_GOAL_ROOM,         /* the same, or no output is left */
};

/* Why a query has to be stopped, though its socket may have more. */
enum { DBL_OVER_BUDGET = 1, DBL_OVER_MEMORY, DBL_OVER_TIME };

/* Who keeps others off the connection. */
enum { DBL_HELD_BY_COROUTINE = 1, DBL_HELD_BY_HANDLER, DBL_HELD_BY_RUN };

/* Who sees a COPY through. */
enum {
    DBL_COPY_NONE,
    DBL_COPY_REFUSE,  /* nobody: one from us is made to fail */
    DBL_COPY_SWALLOW, /* nobody: one to us is read to its end */
    DBL_COPY_SERVED,  /* copy.c */
};

enum { DBL_WAS_BLOCKING = 1, DBL_WAS_NONBLOCKING };

/* What every query touches comes first, and so lies together. */
typedef struct Conn {
    const void *mark;   /* by which we know our own */
    PGconn *pg;         /* NULL: closed, or still connecting */
    Attempt *attempt;   /* while connecting */
    PGresult *kept;     /* on its way to Lua: nothing is lost when Lua raises */
    Request *requests;  /* to cancel, that are or were under way */
    double deadline;    /* of the operation under way, or DBL_NEVER */
    double last;        /* the deadline of the last query */
    double limit;       /* of all that goes on until it is lifted: a transaction's */
    size_t budget;      /* bytes that the rows of a query may have, or 0 */
    size_t most, bytes; /* the same of the query under way, and how many they have */
    unsigned turn;      /* counts what begins: a stream knows by it that its time is over */
    unsigned born;      /* the fork generation it was opened in */
    unsigned char goal; /* DBL_GOAL_... */
    unsigned char need; /* what the last step wanted */
    unsigned char closed;
    unsigned char fresh;     /* sent just now: nothing can have arrived yet */
    unsigned char again;     /* the next query is another try of the last, within its time */
    unsigned char failed;    /* kept is the first error of the query */
    unsigned char cancelled; /* a cancel was sent while this query ran */
    unsigned char barred;    /* all is read, but a cancel request is under way */
    unsigned char copy;      /* DBL_COPY_... */
    unsigned char copy_out;  /* the COPY under way brings lines to us */
    unsigned char borrowed;  /* pg is the host's, to be given back: DBL_WAS_... */
    unsigned char listening; /* LISTEN was run in this session */
    unsigned char tells;     /* notices are for options.on_notice */
    unsigned char over;      /* DBL_OVER_..., or 0: the query has to be stopped */
    unsigned char astray;   /* libpq has complained in a pipeline: of what, its next result tells */
    unsigned char done;     /* how many of its statements went well */
    unsigned char occupied; /* by a stream, a pipeline or a COPY, which state(conn).occupant ends */
    unsigned char discarded; /* its prepared statements were */
    unsigned char caching;   /* queries with parameters are prepared: state(conn).statements */
    unsigned char plain;     /* its wait is poll(2): C may block in place */
    unsigned char asks;      /* its wait is not possible everywhere, and has a check */
    unsigned char runs_on;   /* what runs on the server when it is closed may go on */
    unsigned char held;      /* DBL_HELD_..., or 0 */
    unsigned char habits;    /* how results are read by default: DBL_READ_... of result.h */
    unsigned char reading;   /* how those of this query are */
    unsigned char own_null;  /* this query has a `null` of its own */
    char sql[96];            /* how the query under way begins, for error messages */
    PGresult *whole;         /* of rows that come one by one, under a budget */
    char *line;              /* likewise, of a COPY */
    int line_size;           /* -1: there was the last one */
    unsigned copies;         /* how many were served: the number of the last one */
    Notes notices, notifications;
    Memory memory;
    const dblink_hooks *hooks; /* of the host, or NULL */
    lua_Integer clock;         /* counts the uses of cached statements */
    unsigned codecs;           /* counts the changes of its codecs */
    unsigned puts;             /* counts what was put into pipelines */
    int lane;                  /* its number in the gather that it was last given to */
} Conn;

/* A new connection, closed yet, on the top of the stack. */
Conn *dbl_conn_new(lua_State *L);

/* The connection at stack index i, in whatever state; raises if it is none. */
Conn *dbl_conn_any(lua_State *L, int i);

/* The same: NULL where it is none of our own. */
Conn *dbl_conn_known(lua_State *L, int i);

/* The same, open: raises where it is closed, or is a parent process's. */
Conn *dbl_conn(lua_State *L, int i);

/* The same, connected, with no coroutine waiting on it, and nothing that occupies it.
 * NULL with nil and an error object pushed where it is not. */
Conn *dbl_conn_free(lua_State *L, int i);
int dbl_conn_is_free(lua_State *L, Conn *c);
int dbl_conn_is_still(lua_State *L, Conn *c); /* it may be occupied */

/* The coroutine L is about to wait on it, within one of core.loops.  Whether somebody waits
 * on it: who is dead, or has left those functions by an error, does not any more. */
void dbl_conn_hold(lua_State *L, Conn *c);
int dbl_conn_is_held(lua_State *L, Conn *c);

/* Pushes the wait of the connection at stack index i.  From now on it waits as the table on the
 * top says, which is popped: C may block in place for it where that is `plain`. */
void dbl_conn_push_wait(lua_State *L, int i);
void dbl_conn_use(lua_State *L, Conn *c, int i);

/* The same for a verb that sends: no cancel request is under way either. */
Conn *dbl_conn_ready(lua_State *L, int i);
int dbl_conn_is_ready(lua_State *L, Conn *c, int i);

/* Open, and this process's: may be spoken on. */
static inline int dbl_conn_is_ours(const Conn *c)
{
    return !c->closed && c->born == dbl_fork_count; /* dbl_conn_new has asked dbl_forks */
}

/* What it says then: a format for c->sql. */
#define DBL_HELD "connection is in use: another coroutine waits for: %s"
/* Whether nothing may be sent though nothing runs: a cancel request is under way, and
 * would stop whatever comes next. */
int dbl_conn_barred(Conn *c);

/* Whether its attempt to connect has come to a bad end. */
int dbl_conn_failed(const Conn *c);

/* Whether its status is "ok". */
int dbl_conn_is_open(const Conn *c);

/* nil and the error of a connection that is not open: still connecting, or why not. */
DBL_COLD int dbl_conn_fail(lua_State *L, Conn *c);

/* Ends the connection where it cannot be brought back to order.  libpq meets the
 * end of file and says so to whoever asks next. */
DBL_COLD void dbl_conn_sever(Conn *c);

/* Closes the connection at stack index i without waiting: what runs on the server
 * is asked to stop, and the connection's wait to forget the socket. */
void dbl_conn_close(lua_State *L, int i);

/* It is open: takes the PGconn, of a good attempt or from a host. */
void dbl_conn_adopt(Conn *c, PGconn *pg);

/* Notes how a query begins, and that it begins. */
void dbl_conn_begin(Conn *c, const char *sql, size_t size, int goal);

/* The events as the words of the design: "r", "w", "rw"; nil for 0. */
void dbl_push_events(lua_State *L, int events);

/* A number of seconds from now at i, or nothing: a deadline. */
double dbl_opt_deadline(lua_State *L, int i);

extern const luaL_Reg dbl_conn_methods[];
extern const luaL_Reg dbl_conn_functions[];
void dbl_conn_open(lua_State *L);

#endif
