/*
 * relay.h -- a thread that watches descriptors for an nginx worker.
 */
#ifndef DBL_RELAY_H
#define DBL_RELAY_H

#include "compat.h"

extern const luaL_Reg dbl_relay_functions[];
void dbl_relay_open(lua_State *L);

#endif
