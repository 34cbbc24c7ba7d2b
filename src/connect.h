#ifndef DBL_CONNECT_H
#define DBL_CONNECT_H

#include "compat.h"

extern const luaL_Reg dbl_connect_functions[];
void dbl_connect_open(lua_State *L);

#endif
