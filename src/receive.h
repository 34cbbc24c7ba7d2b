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

/* Drives to the goal in place, for a connection whose wait is poll(2): 1 done;
 * 0: Lua must go on, for the wait is another, or the deadline has come.  Raises
 * where a signal made Lua want to (Ctrl-C); the query is stopped then. */
int dbl_settle(lua_State *L, Conn *c);

/* From now on the goal is the end, and what still comes goes nowhere. */
void dbl_drain(Conn *c);

/* Takes a line of the served COPY that has arrived into c->line: 1 when one is there. */
int dbl_copy_line(Conn *c);

/* Pushes what is kept as a result, or as nil and an error: how many values.
 * conn: the connection's stack index. */
int dbl_push_kept(lua_State *L, Conn *c, int conn);

extern const luaL_Reg dbl_receive_methods[];
extern const luaL_Reg dbl_receive_functions[];

#endif
