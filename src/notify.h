/*
 * notify.h -- notifications and notices, for whoever asks.
 */
#ifndef DBL_NOTIFY_H
#define DBL_NOTIFY_H

#include "compat.h"

extern const luaL_Reg dbl_notify_methods[];
extern const luaL_Reg dbl_notify_functions[];

#endif
