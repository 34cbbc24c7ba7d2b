/*
 * compat.h -- one Lua API for 5.1, LuaJIT and 5.2 to 5.5.
 *
 * The rest of the code is written for current Lua.  What an older one lacks
 * it learns here; no other file mentions a version of Lua.  Everything has
 * our prefix, since a host may export names of its own (Redis does).
 */
#ifndef DBL_COMPAT_H
#define DBL_COMPAT_H

#include <stddef.h>

#include <lauxlib.h>
#include <lua.h>

/* Marks what is called when something does not go well: what leads there lies apart from
 * what runs all the time. */
#if defined(__GNUC__)
#define DBL_COLD __attribute__((cold))
#else
#define DBL_COLD
#endif

/* 1 where lua_Integer holds every int8; else a number is a double. */
#define DBL_HAS_INTEGER (LUA_VERSION_NUM >= 503)

#if DBL_HAS_INTEGER
#define dbl_isinteger lua_isinteger
#else
#define dbl_isinteger(L, i) 0
#endif

#if LUA_VERSION_NUM >= 502
#define dbl_rawlen lua_rawlen
#else
#define dbl_rawlen lua_objlen
#endif

#if LUA_VERSION_NUM >= 504
#define dbl_newuserdata(L, size) lua_newuserdatauv(L, size, 1)
#define dbl_newbare(L, size)     lua_newuserdatauv(L, size, 0) /* takes no table */
#else
#define dbl_newuserdata(L, size) lua_newuserdata(L, size)
#define dbl_newbare(L, size)     lua_newuserdata(L, size)
#endif

/* A stack index that stays right when something is pushed. */
static inline int dbl_absindex(lua_State *L, int i)
{
    return i > 0 ? i : lua_gettop(L) + i + 1;
}

/* One Lua table with each userdata.  get pushes the table, or nil where none
 * was set; set takes the table from the top of the stack. */
void dbl_getuservalue(lua_State *L, int i);
void dbl_setuservalue(lua_State *L, int i);

/* The table of globals, pushed. */
void dbl_pushglobals(lua_State *L);

/* The table on the top, which it pops, becomes the globals of the chunk at i. */
void dbl_setenvironment(lua_State *L, int i);

/* luaL_setfuncs: adds the functions to the table below the nup upvalues on
 * the top, which it pops. */
void dbl_setfuncs(lua_State *L, const luaL_Reg *functions, int nup);

/* luaL_testudata: the userdata at i if its metatable is the one of that name. */
void *dbl_testudata(lua_State *L, int i, const char *name);

/* The userdata at i if it has that size at least and begins with that address, which nobody
 * else's does; else NULL.  A third of what it costs to compare metatables. */
static inline void *dbl_marked(lua_State *L, int i, const void *mark, size_t size)
{
    void *box = lua_touserdata(L, i);
    return box && dbl_rawlen(L, i) >= size && *(const void *const *)box == mark ? box : NULL;
}

/* A class that is asked for all the time is found by an address, not by its name.  keep: the
 * metatable on the top is that of key; push: pushes it. */
void dbl_keep_class(lua_State *L, const void *key);
void dbl_push_class(lua_State *L, const void *key);

/* Makes the metatable of a class and leaves it on the stack: __index holds the
 * methods, __name the name, __metatable hides it all.  0 where it was there. */
int dbl_newclass(lua_State *L, const char *name, const luaL_Reg *metamethods,
                 const luaL_Reg *methods);

/* lua_rawsetp and lua_rawgetp on the registry. */
void dbl_setprivate(lua_State *L, const char *name);
void dbl_getprivate(lua_State *L, const char *name);

/* lua_pushlstring of what a finalizer may free: copies it before finalizers run.  (On older Luas
 * only what is shorter than luaL_Buffer.) */
#if LUA_VERSION_NUM >= 503
#define dbl_pushcopy lua_pushlstring
#else
void dbl_pushcopy(lua_State *L, const char *s, size_t size);
#endif

/* An int8: an integer where Lua has them; else a number while that is exact,
 * and beyond it the decimal digits as a string. */
#define DBL_EXACT (1LL << 53)
void dbl_pushint8(lua_State *L, long long value);

/* What tostring() gives, pushed; NULL never. */
const char *dbl_tolstring(lua_State *L, int i, size_t *size);

#endif
