/*
 * pair.h -- two ends of a socket, for examining waits.
 */
#ifndef DBL_PAIR_H
#define DBL_PAIR_H

#include "compat.h"

extern const luaL_Reg dbl_pair_functions[];
void dbl_pair_open(lua_State *L);

#endif
