/*
 * null.c -- dblink.null: what stands for NULL where nil cannot.
 *
 * A full userdata: a light one has no metatable of its own to print itself by.
 */
#include "null.h"

void dbl_push_null(lua_State *L)
{
    dbl_getprivate(L, "dblink.null");
}

int dbl_is_null(lua_State *L, int i)
{
    if (lua_type(L, i) != LUA_TUSERDATA)
        return 0;
    dbl_getprivate(L, "dblink.null");
    int is = lua_rawequal(L, i < 0 ? i - 1 : i, -1);
    lua_pop(L, 1);
    return is;
}

static int null_tostring(lua_State *L)
{
    lua_pushliteral(L, "dblink.null");
    return 1;
}

void dbl_null_open(lua_State *L)
{
    dbl_getprivate(L, "dblink.null");
    if (lua_isnil(L, -1)) {
        lua_newuserdata(L, 1);
        lua_newtable(L);
        lua_pushcfunction(L, null_tostring);
        lua_setfield(L, -2, "__tostring");
        lua_pushliteral(L, "dblink.null");
        lua_setfield(L, -2, "__name");
        lua_setmetatable(L, -2);
        dbl_setprivate(L, "dblink.null");
    }
    lua_pop(L, 1);
}
