/*
 * serve.h -- queries that wait for the same connection, one after the other, without Lua.
 */
#ifndef DBL_SERVE_H
#define DBL_SERVE_H

#include "compat.h"

extern const luaL_Reg dbl_serve_functions[];

#endif
