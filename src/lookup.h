/*
 * lookup.h -- names of hosts become addresses, in a thread.
 */
#ifndef DBL_LOOKUP_H
#define DBL_LOOKUP_H

#include "compat.h"

extern const luaL_Reg dbl_lookup_functions[];
void dbl_lookup_open(lua_State *L);

#endif
