#ifndef DBL_CANCEL_H
#define DBL_CANCEL_H

#include "compat.h"

extern const luaL_Reg dbl_cancel_functions[];
void dbl_cancel_open(lua_State *L);

#endif
