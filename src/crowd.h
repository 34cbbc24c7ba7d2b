/*
 * crowd.h -- waiting for many descriptors as if for one.
 */
#ifndef DBL_CROWD_H
#define DBL_CROWD_H

#include "compat.h"

typedef struct Crowd Crowd;

/* The crowd at stack index i; raises if it is none. */
Crowd *dbl_crowd(lua_State *L, int i);

/* From now on it looks for these events of fd, and no others; whether it can. */
int dbl_crowd_watch(Crowd *w, int fd, int need);

/* The next descriptor that is known to be ready; -1 when all were told.  The same, but waits for
 * one: -1 at the deadline, or -2 when a signal came. */
int dbl_crowd_more(Crowd *w);
int dbl_crowd_next(Crowd *w, double deadline);

extern const luaL_Reg dbl_crowd_functions[];
void dbl_crowd_open(lua_State *L);

#endif
