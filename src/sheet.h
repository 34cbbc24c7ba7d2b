/*
 * sheet.h -- values of a result as plain memory, for LuaJIT's ffi: rows.lua.
 */
#ifndef DBL_SHEET_H
#define DBL_SHEET_H

#include "compat.h"

extern const luaL_Reg dbl_sheet_functions[];

#endif
