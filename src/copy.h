/*
 * copy.h -- COPY: bytes and rows to the server, lines and rows from it.
 */
#ifndef DBL_COPY_H
#define DBL_COPY_H

#include "compat.h"

extern const luaL_Reg dbl_copy_functions[];

/* Registers the classes and sets core.Writer and core.Reader, their metatables,
 * in the table on the top: copy.lua gives them methods. */
void dbl_copy_open(lua_State *L);

#endif
