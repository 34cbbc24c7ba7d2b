/*
 * lane.h -- queries that wait for the same connection, one after the other, without Lua.
 */
#ifndef DBL_LANE_H
#define DBL_LANE_H

#include "compat.h"

extern const luaL_Reg dbl_lane_functions[];

#endif
