#ifndef DBL_STREAM_H
#define DBL_STREAM_H

#include "compat.h"

extern const luaL_Reg dbl_stream_functions[];

#endif
