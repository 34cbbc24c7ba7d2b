/*
 * crowd.h -- waiting for many descriptors as if for one.
 */
#ifndef DBL_CROWD_H
#define DBL_CROWD_H

#include "compat.h"

extern const luaL_Reg dbl_crowd_functions[];
void dbl_crowd_open(lua_State *L);

#endif
