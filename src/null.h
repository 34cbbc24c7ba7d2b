/*
 * null.h -- dblink.null: what stands for NULL where nil cannot.
 */
#ifndef DBL_NULL_H
#define DBL_NULL_H

#include "compat.h"

/* One userdata for each state. */
void dbl_push_null(lua_State *L);
int dbl_is_null(lua_State *L, int i);

void dbl_null_open(lua_State *L);

#endif
