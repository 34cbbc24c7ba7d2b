/*
 * hooks.h -- what the host of this lua_State lends: dblink.h has the list.
 *
 * An ordinary module has no host: dbl_hooks gives NULL, and it waits by loops
 * that Lua knows and starts threads for errands.
 */
#ifndef DBL_HOOKS_H
#define DBL_HOOKS_H

#include "compat.h"
#include "dblink.h"

/* Where they live as long as the lua_State; NULL: there is no host. */
const dblink_hooks *dbl_hooks(lua_State *L);

/* Tells the host that the descriptor goes.  hooks may be NULL, fd -1. */
void dbl_forget(const dblink_hooks *hooks, int fd);

/* Has run(what) called in another thread: 1, or 0 where there is none to be had. */
int dbl_elsewhere(const dblink_hooks *hooks, void (*run)(void *), void *what);

extern const luaL_Reg dbl_hooks_functions[];

#endif
