/*
 * query.h -- how one query is asked for: what is run, its parameters and options.
 *
 * A prepared statement is a table of Lua's (statement.lua), known by its
 * metatable's `dblink_statement`.
 */
#ifndef DBL_QUERY_H
#define DBL_QUERY_H

#include "conn.h"

/* The entries of a statement that C reads. */
enum {
    DBL_STATEMENT_NAME = 1,
    DBL_STATEMENT_SQL,
    DBL_STATEMENT_BINARY, /* dbl_binary_habit of its results, or false; nil: not prepared */
    DBL_STATEMENT_OLD,    /* what dbl_send_close closes before, or nil */
    DBL_STATEMENT_USED,   /* when a cached one was run last, on conn->clock */
};

typedef struct Query {
    double deadline;
    size_t budget; /* bytes that its rows may have, or 0 */
    int reading;   /* DBL_READ_... of result.h */
    int shape;     /* of a stream's rows: DBL_ROW_... of row.h */
    int binary;    /* 1: yes, 0: no, -1: what suits */
    int extended;  /* the extended protocol also without parameters */
    int params;    /* how many lie from stack index 3 on */
    int list;      /* they are many: these are the entries of our own table at 3 */
    int statement; /* the stack index of a prepared one; 0: SQL lies at 2 */
    int null;      /* the stack index of its own `null`, or 0 */
} Query;

/* Reads the query from stack index 2 on: SQL or a statement, then parameters; or
 * one table of all that from its first entry on, and options.  Raises what only a
 * wrong program can cause. */
void dbl_query_read(lua_State *L, const Conn *c, int first, Query *q);

/* Sends it: 1, or 0 with nil and an error pushed; what is in progress is not
 * disturbed then. */
int dbl_query_send(lua_State *L, Conn *c, const Query *q);

/* Likewise: Parse and Describe of a statement. */
int dbl_query_prepare(lua_State *L, Conn *c, const Query *q);

/* Whether a statement may be kept for its SQL.  A marked parameter may bring a type of
 * its own, which another call would not. */
int dbl_query_is_cacheable(lua_State *L, const Conn *c, const Query *q);

/* From now on the connection, at stack index 1, is about this query, just sent. */
void dbl_query_begin(lua_State *L, Conn *c, const Query *q, int goal);

/* All of that at once, for SQL alone, in which there is no NUL: sends it and begins. */
int dbl_query_text(lua_State *L, Conn *c, const char *sql, size_t size, int goal);

/* What a statement keeps of the dbl_binary_traits of its results, negative as they are;
 * and which format is asked for then, or of SQL that has no such habit (-1).  The values
 * are the same in either, so it is text where the session has settings that the binary
 * decoders do not know of. */
int dbl_binary_habit(const Conn *c, int traits);
int dbl_choose_format(const Conn *c, const Query *q, int habit);

/* max_bytes as a budget; none where it is a number that nothing reaches. */
size_t dbl_budget(lua_Number bytes);

/* Sends what closes a statement: given its name from libpq 17 on, before that the
 * SQL which does it. */
int dbl_send_close(PGconn *pg, const char *statement);

/* The SQL at stack index i: no NUL, which libpq would take for its end. */
const char *dbl_check_sql(lua_State *L, int i, size_t *size);

#endif
