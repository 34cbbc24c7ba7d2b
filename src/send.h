/*
 * send.h -- verbs that send: send_query and query; prepare and close.
 */
#ifndef DBL_SEND_H
#define DBL_SEND_H

#include "conn.h"

/* Begins the query of the connection at stack index 1, as dbl_query_read takes it from
 * first on: 1; or 0 and two values pushed, nil and why not, or nil and nil where a statement
 * is to be cached first. */
int dbl_ask(lua_State *L, Conn *c, int first);

/* The same for SQL alone, in which there is no NUL. */
int dbl_ask_text(lua_State *L, Conn *c, const char *sql, size_t size);

extern const luaL_Reg dbl_send_functions[];

#endif
