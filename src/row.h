/*
 * row.h -- rows and values out of a result: the one place that knows their shape.
 */
#ifndef DBL_ROW_H
#define DBL_ROW_H

#include "result.h"

/* The shapes of a row. */
enum { DBL_ROW_NAMED, DBL_ROW_ARRAY, DBL_ROW_VALUES };

/* "row", "array" or "values" at stack index i; the result's own where nothing. */
int dbl_check_shape(lua_State *L, int i, const Result *r);

/* Pushes the values of a row, between dbl_begin_reading and dbl_end_reading; result: the stack index of r, which may be 0 where there is no
 * `null` and dbl_is_called says 0: no value goes through a function of a codec. */
void dbl_push_values(lua_State *L, Result *r, int result, int row);

/* Pushes what stands for NULL; result: the stack index of r. */
void dbl_push_sentinel(lua_State *L, const Result *r, int result);

/* Likewise a table for a row: by name or as an array with n.  names: the stack
 * index of what dbl_push_names pushed, or 0. */
void dbl_push_row(lua_State *L, Result *r, int result, int row, int shape, int names);

int dbl_is_called(const Result *r);

/* Pushes a table of the column names: [i] = name, false for one that a later
 * column hides. */
void dbl_push_names(lua_State *L, Result *r);

/* Whether a later column has the same name. */
int dbl_is_hidden(const Result *r, int column);

extern const luaL_Reg dbl_row_methods[];
void dbl_row_open(lua_State *L);

#endif
