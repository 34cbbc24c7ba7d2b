#ifndef DBL_CORE_H
#define DBL_CORE_H

#include "compat.h"

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
int luaopen_dblink_core(lua_State *L);

#endif
