/*
 * fail.h -- the one way to say no.
 *
 * What can happen to a correct program is returned as nil and an error object:
 * a table of the fields that design and reference name, whose metatable makes
 * print(err), "failed: " .. err and assert() read well.
 */
#ifndef DBL_FAIL_H
#define DBL_FAIL_H

#include "compat.h"
#include "pq.h"

/* The kinds of an error object. */
#define DBL_SERVER      "server"
#define DBL_CONNECTION  "connection"
#define DBL_TIMEOUT     "timeout"
#define DBL_CANCELLED   "cancelled"
#define DBL_ABORTED     "pipeline_aborted"
#define DBL_USAGE       "usage"
#define DBL_UNSUPPORTED "unsupported"
#define DBL_TOO_BIG     "too_big"
#define DBL_MEMORY      "memory"

/* Pushes an error object of that kind.  The message is formatted as by
 * lua_pushfstring; newlines at its end are dropped. */
DBL_COLD void dbl_push_error(lua_State *L, const char *kind, const char *format, ...);

/* Pushes the error object of a failed result: the server's fields where it
 * spoke; else libpq's text, of a connection that was lost if `lost`.  The result
 * stays the caller's, and must be in a box that Lua collects. */
DBL_COLD void dbl_push_result_error(lua_State *L, const PGresult *res, int lost);

/* Pushes libpq's own last error on this connection. */
DBL_COLD void dbl_push_conn_error(lua_State *L, const PGconn *pg);

/* nil and the error object of dbl_push_error, as a C function returns them. */
DBL_COLD int dbl_fail(lua_State *L, const char *kind, const char *format, ...);
DBL_COLD int dbl_fail_conn(lua_State *L, const PGconn *pg);

/* The fields of a server's message: their codes and their names in Lua. */
typedef struct Field {
    int code;
    const char *name;
} Field;
extern const Field dbl_fields[];

/* Sets that field of the error object on the top: a number where it is one. */
void dbl_set_field(lua_State *L, const Field *f, const char *value);

/* Raises what only a wrong program can cause, with the line of the caller who is
 * not of this library: our Lua verbs stand between the user and C. */
int dbl_fail_home(lua_State *L); /* called by a Lua room: all in its folder are ours */
DBL_COLD int dbl_misuse(lua_State *L, const char *format, ...);

/* The same of what stands before a verb's colon, at index i: it should be one of that class. */
DBL_COLD int dbl_bad_self(lua_State *L, int i, const char *class);
void *dbl_check_self(lua_State *L, int i, const char *class); /* the userdata there, if it is */

/* The string at stack index i, or a misuse that names the argument. */
const char *dbl_check_string(lua_State *L, int i, const char *name, size_t *size);

/* Registers the class of error objects; pushes nothing. */
void dbl_fail_open(lua_State *L);

#endif
