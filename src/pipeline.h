#ifndef DBL_PIPELINE_H
#define DBL_PIPELINE_H

#include "compat.h"

extern const luaL_Reg dbl_pipeline_functions[];

#endif
