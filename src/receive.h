/*
 * receive.h -- driving a connection forward, and taking what has arrived.
 */
#ifndef DBL_RECEIVE_H
#define DBL_RECEIVE_H

#include "conn.h"

/* Advances whatever is going on, without waiting: connecting, sending, reading
 * towards the goal.  What to wait for on the socket (a sum of DBL_READ and
 * DBL_WRITE) before it makes sense to call again; 0: nothing is left to do. */
int dbl_step(Conn *c);

/* When dbl_step wants to be called even if the socket stays silent. */
double dbl_wake(const Conn *c);

/* Whether the deadline of what is under way has come, or of what that is part of. */
int dbl_overdue(const Conn *c);

/* Drives to the goal in place (conn: the connection's stack index), for a connection whose wait is poll(2): 1 done;
 * 0: Lua must go on, for the wait is another, or the deadline has come.  Raises
 * where a signal made Lua want to (Ctrl-C); the query is stopped then. */
int dbl_settle_at(lua_State *L, Conn *c, int conn);
static inline int dbl_settle(lua_State *L, Conn *c)
{
    return dbl_settle_at(L, c, 1);
}

/* Whether libpq needs more input.  It says so, too, where it had no memory for a
 * message that is all there, after which nothing more may come: so it is asked again
 * while there is memory, else there is no way on.  In a pipeline, whatever it complains
 * of by itself can make it wait for a sync that it has met. */
int dbl_is_busy(Conn *c);

/* Where libpq gets no memory for a result any more it can wait, or say that there is
 * nothing, for ever: the connection is ended then. */
void dbl_check_memory(Conn *c);

/* Takes what libpq has ready (it must not be busy): a whole result, a piece of one
 * that is kept back, or the end of a query. */
enum { DBL_PIECE, DBL_RESULT, DBL_END };
int dbl_take(Conn *c, PGresult **res);

/* Whether it says that a COPY has begun. */
int dbl_is_copy(const PGresult *res);

/* A session that listens is told apart, so that a pool does not lend it on; and
 * one that has lost its prepared statements. */
void dbl_note_command(Conn *c, PGresult *res);

/* Of all the results of a query its first error is kept, else the last. */
void dbl_keep(Conn *c, PGresult *res);

/* The bytes that a row takes, as max_bytes counts them. */
size_t dbl_weigh(const PGresult *res, int row);

/* From now on the goal is the end, and what still comes goes nowhere. */
void dbl_drain(Conn *c);

/* Takes a line of the served COPY that has arrived into c->line: 1 when one is there. */
int dbl_copy_line(Conn *c);

/* Pushes what is kept as a result, or as nil and an error: how many values.
 * conn: the connection's stack index. */
int dbl_push_kept(lua_State *L, Conn *c, int conn);

/* Gives the notices that came to options.on_notice, if there is one. */
void dbl_tell(lua_State *L, Conn *c, int conn);

/* Pushes the table with `null` and `codecs` for what the query under way gives: its
 * stack index, or 0 and nothing where there is neither. */
int dbl_push_habits(lua_State *L, const Conn *c, int conn);

/* Pushes what core.turn gives for what dbl_step wanted, and holds the connection for the
 * time of the wait: how many values. */
int dbl_push_wait(lua_State *L, Conn *c, int need);

/* That wait has ended: 1, or 0 where the deadline has come, or somebody has closed the
 * connection. */
int dbl_has_waited(Conn *c);

/* Steps the connection at stack index 1, and pushes false and what core.turn gives; where
 * nothing is left to do as dbl_push_kept: how many values. */
int dbl_push_arrived(lua_State *L, Conn *c);

/* nil and why the query had to be stopped. */
int dbl_fail_stopped(lua_State *L, const Conn *c);

extern const luaL_Reg dbl_receive_methods[];
extern const luaL_Reg dbl_receive_functions[];

#endif
