/*
 * collector.c -- as the collector paces itself by the memory that it sees, so it is
 * hurried by what it does not: not before there is twice what the last cycle left.
 * To hurry it for each result, as lua_gc invites to, has LuaJIT begin a cycle with each.
 */
#include "collector.h"

#define BEARABLE ((size_t)4 << 20)

#if LUA_VERSION_NUM >= 505
#define SO_MANY(bytes) (bytes)
#else
#define SO_MANY(bytes) ((int)((bytes) >> 10))
#endif

static Outside *outside(lua_State *L)
{
    static const char key = 0; /* its address: quicker than a name */
    dbl_push_class(L, &key);
    Outside *o = lua_touserdata(L, -1);
    if (!o) {
        o = lua_newuserdata(L, sizeof *o); /* without a finalizer, so there to the very end */
        *o = (Outside){0, BEARABLE};
        dbl_keep_class(L, &key);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return o;
}

void dbl_outside(lua_State *L, Outside **where, size_t bytes)
{
    Outside *o = outside(L);
    *where = o;
    o->bytes += bytes;
    if (o->bytes > o->bearable && lua_gc(L, LUA_GCSTEP, SO_MANY(bytes)))
        o->bearable = 2 * o->bytes + BEARABLE; /* a cycle has ended */
}

int dbl_rest(lua_State *L, size_t bytes)
{
#ifdef LUA_GCISRUNNING
    if (bytes >> 10 > (size_t)lua_gc(L, LUA_GCCOUNT, 0) && lua_gc(L, LUA_GCISRUNNING, 0)) {
        lua_gc(L, LUA_GCSTOP, 0);
        return 1;
    }
#endif
    (void)L;
    (void)bytes;
    return 0;
}

int dbl_rest_on(lua_State *L, size_t bytes)
{
    if (bytes >> 10 > (size_t)lua_gc(L, LUA_GCCOUNT, 0))
        return 1;
    lua_gc(L, LUA_GCRESTART, 0);
    return 0;
}

void dbl_call_at_rest(lua_State *L, int args, int results, size_t bytes)
{
    if (!dbl_rest(L, bytes)) {
        lua_call(L, args, results);
        return;
    }
    int status = lua_pcall(L, args, results, 0);
    dbl_rest_on(L, 0);
    if (status != 0)
        lua_error(L);
}
