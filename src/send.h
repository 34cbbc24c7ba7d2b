#ifndef DBL_SEND_H
#define DBL_SEND_H

#include "compat.h"

extern const luaL_Reg dbl_send_functions[];

#endif
