#include "compat.h"

#include <stdio.h>

#if LUA_VERSION_NUM < 502
/* A new userdata inherits the environment of the C function that made it: the globals, or the
 * loader's table.  Ours are marked by this address, which calls no finalizers as a string would. */
static const char uservalue = 0;
#endif

void dbl_getuservalue(lua_State *L, int i)
{
#if LUA_VERSION_NUM >= 504
    lua_getiuservalue(L, i, 1);
#elif LUA_VERSION_NUM >= 502
    lua_getuservalue(L, i);
#else
    lua_getfenv(L, i);
    lua_pushlightuserdata(L, (void *)(size_t)&uservalue);
    lua_rawget(L, -2);
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 2);
        lua_pushnil(L);
        return;
    }
    lua_pop(L, 1);
#endif
}

void dbl_setuservalue(lua_State *L, int i)
{
#if LUA_VERSION_NUM >= 504
    lua_setiuservalue(L, i, 1);
#elif LUA_VERSION_NUM >= 502
    lua_setuservalue(L, i);
#else
    i = dbl_absindex(L, i);
    lua_pushlightuserdata(L, (void *)(size_t)&uservalue);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_setfenv(L, i);
#endif
}

void dbl_pushglobals(lua_State *L)
{
#if LUA_VERSION_NUM >= 502
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
#else
    lua_pushvalue(L, LUA_GLOBALSINDEX);
#endif
}

void dbl_setenvironment(lua_State *L, int i)
{
#if LUA_VERSION_NUM >= 502
    lua_setupvalue(L, i, 1); /* _ENV, which every chunk has */
#else
    lua_setfenv(L, i);
#endif
}

void dbl_setfuncs(lua_State *L, const luaL_Reg *functions, int nup)
{
    luaL_checkstack(L, nup + 1, "too many upvalues");
    for (; functions->name; functions++) {
        for (int i = 0; i < nup; i++)
            lua_pushvalue(L, -nup);
        lua_pushcclosure(L, functions->func, nup);
        lua_setfield(L, -(nup + 2), functions->name);
    }
    lua_pop(L, nup);
}

void *dbl_testudata(lua_State *L, int i, const char *name)
{
    void *box = lua_touserdata(L, i);
    if (!box || !lua_getmetatable(L, i))
        return NULL;
    lua_getfield(L, LUA_REGISTRYINDEX, name);
    if (!lua_rawequal(L, -1, -2))
        box = NULL;
    lua_pop(L, 2);
    return box;
}

void dbl_keep_class(lua_State *L, const void *key)
{
    lua_pushlightuserdata(L, (void *)(size_t)key);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

void dbl_push_class(lua_State *L, const void *key)
{
#if LUA_VERSION_NUM >= 502
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
#else
    lua_pushlightuserdata(L, (void *)(size_t)key);
    lua_rawget(L, LUA_REGISTRYINDEX);
#endif
}

int dbl_newclass(lua_State *L, const char *name, const luaL_Reg *metamethods,
                 const luaL_Reg *methods)
{
    int fresh = luaL_newmetatable(L, name);
    if (!fresh)
        return 0;
    dbl_setfuncs(L, metamethods, 0);
    if (methods) {
        lua_newtable(L); /* metatable, methods */
        dbl_setfuncs(L, methods, 0);
        lua_setfield(L, -2, "__index");
    }
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    return 1;
}

void dbl_setprivate(lua_State *L, const char *name)
{
    lua_setfield(L, LUA_REGISTRYINDEX, name);
}

void dbl_getprivate(lua_State *L, const char *name)
{
    lua_getfield(L, LUA_REGISTRYINDEX, name);
}

void dbl_pushint8(lua_State *L, long long value)
{
#if DBL_HAS_INTEGER
    lua_pushinteger(L, (lua_Integer)value);
#else
    if (value >= -DBL_EXACT && value <= DBL_EXACT) {
        lua_pushnumber(L, (lua_Number)value);
    } else {
        char digits[24];
        lua_pushlstring(L, digits, (size_t)snprintf(digits, sizeof digits, "%lld", value));
    }
#endif
}

#if LUA_VERSION_NUM < 503
void dbl_pushcopy(lua_State *L, const char *s, size_t size)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addlstring(&b, s, size);
    luaL_pushresult(&b);
}
#endif

const char *dbl_tolstring(lua_State *L, int i, size_t *size)
{
#if LUA_VERSION_NUM >= 502
    return luaL_tolstring(L, i, size);
#else
    if (!luaL_callmeta(L, i, "__tostring")) {
        switch (lua_type(L, i)) {
        case LUA_TNUMBER:
        case LUA_TSTRING:
            lua_pushvalue(L, i);
            break;
        case LUA_TBOOLEAN:
            lua_pushstring(L, lua_toboolean(L, i) ? "true" : "false");
            break;
        case LUA_TNIL:
            lua_pushliteral(L, "nil");
            break;
        default:
            lua_pushfstring(L, "%s: %p", luaL_typename(L, i), lua_topointer(L, i));
        }
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "'__tostring' must return a string");
    return lua_tolstring(L, -1, size);
#endif
}
