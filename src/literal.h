/*
 * literal.h -- tables of Lua as the text of arrays and of JSON: parameters.
 */
#ifndef DBL_LITERAL_H
#define DBL_LITERAL_H

#include "compat.h"

extern const luaL_Reg dbl_literal_functions[];

#endif
