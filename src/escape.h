#ifndef DBL_ESCAPE_H
#define DBL_ESCAPE_H

#include "compat.h"

extern const luaL_Reg dbl_escape_functions[];
extern const luaL_Reg dbl_escape_methods[];
void dbl_escape_open(lua_State *L);

#endif
