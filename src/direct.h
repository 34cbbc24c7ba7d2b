/*
 * direct.h -- our descriptors in the event loop of nginx itself.
 */
#ifndef DBL_DIRECT_H
#define DBL_DIRECT_H

#include "compat.h"

extern const luaL_Reg dbl_direct_functions[];
void dbl_direct_open(lua_State *L);

#endif
