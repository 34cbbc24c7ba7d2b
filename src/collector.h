/*
 * collector.h -- what the collector is told: of memory that it does not see, and when
 * to rest.
 */
#ifndef DBL_COLLECTOR_H
#define DBL_COLLECTOR_H

#include "compat.h"

/* The bytes that libpq holds for values of this lua_State.  Lives as long as it. */
typedef struct Outside {
    size_t bytes, bearable;
} Outside;

/* So many bytes more are outside, counted in *where, from which whoever frees them takes
 * them off. */
void dbl_outside(lua_State *L, Outside **where, size_t bytes);

/* lua_call of a function that makes about so many bytes, all of which stay, so that the
 * collector would look at them in vain: it rests meanwhile, where they are more than all
 * that Lua has (then it would wait anyway, and come right after). */
void dbl_call_at_rest(lua_State *L, int args, int results, size_t bytes);

/* The same in pieces: from now on the collector rests (1), if it was not at rest and Lua has
 * fewer bytes; whether it goes on so (it does not, where Lua has so many). */
int dbl_rest(lua_State *L, size_t bytes);
int dbl_rest_on(lua_State *L, size_t bytes);

#endif
