/*
 * host.c -- the whole house inside a C program: what dblink.h declares.
 *
 * Only libdblink.a has this room.  The Lua rooms are in the archive as text
 * (dbl_sources, made from src/ by `make static`).  They run in an environment
 * of their own instead of the globals: the functions of Lua that they use, taken
 * from the globals once, and a require that knows these rooms and nothing else.
 * So they need no package library, cannot write a global, and do not care what a
 * sandbox or a script does to the globals later.
 */
#include "dblink.h"

#include <string.h>

#include "conn.h"
#include "core.h"
#include "hooks.h"

typedef struct Source {
    const char *module; /* "dblink.await" */
    const char *chunk;  /* "=dblink/await.lua" */
    const char *text;
    size_t size;
} Source;
extern const Source dbl_sources[]; /* ended by a module of NULL */

#define REQUIRE "dblink.require"

/* What of the globals our Lua rooms see: functions, and libraries. */
static const char *const functions[] = {
    "_VERSION", "assert",   "error",    "getmetatable", "ipairs", "newproxy", "next",
    "pairs",    "pcall",    "rawequal", "rawget",       "rawset", "select",   "setmetatable",
    "tonumber", "tostring", "type",     "unpack",       "xpcall", NULL,
};
static const char *const libraries[] = {"coroutine", "math", "string", "table", NULL};

/* Pushes the raw field of the table at i. */
static void get(lua_State *L, int i, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, i);
}

static void push_copy(lua_State *L, int from)
{
    lua_newtable(L);
    int to = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, from); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, to);
    }
}

/* require(name) of our Lua rooms.  Upvalues: the environment, and the rooms loaded. */
static int require_room(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const Source *s = dbl_sources;
    lua_settop(L, 1);
    lua_pushvalue(L, 1);
    lua_rawget(L, lua_upvalueindex(2));
    if (!lua_isnil(L, -1))
        return 1;
    while (s->module && strcmp(s->module, name) != 0)
        s++;
    if (!s->module)
        return luaL_error(L, "module '%s' not found: libdblink.a has none of that name", name);
    if (luaL_loadbuffer(L, s->text, s->size, s->chunk) != 0)
        return lua_error(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    dbl_setenvironment(L, -2);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -2);
    lua_rawset(L, lua_upvalueindex(2));
    return 1;
}

/* Pushes that require, with an environment made from the globals of now. */
static void push_require(lua_State *L)
{
    lua_newtable(L);
    int environment = lua_gettop(L);
    dbl_pushglobals(L);
    int globals = lua_gettop(L);
    for (const char *const *name = functions; *name; name++) {
        get(L, globals, *name);
        lua_setfield(L, environment, *name);
    }
    for (const char *const *name = libraries; *name; name++) {
        get(L, globals, *name);
        if (!lua_istable(L, -1))
            luaL_error(L, "luaopen_dblink: Lua's library '%s' is not there", *name);
        push_copy(L, lua_gettop(L));
        lua_setfield(L, environment, *name);
        lua_pop(L, 1);
    }
    lua_newtable(L); /* environment, globals, package */
    lua_newtable(L); /* environment, globals, package, loaded */
    luaopen_dblink_core(L);
    lua_setfield(L, -2, "dblink.core");
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "loaded");
    lua_insert(L, -2);
    lua_setfield(L, environment, "package"); /* environment, globals, loaded */
    lua_pushvalue(L, environment);
    lua_insert(L, -2);
    lua_pushcclosure(L, require_room, 2); /* environment, globals, require */
    lua_pushvalue(L, -1);
    lua_setfield(L, environment, "require");
    lua_replace(L, environment);
    lua_settop(L, environment);
}

/* Pushes a Lua room; the first time all is opened. */
static void push_room(lua_State *L, const char *name)
{
    dbl_getprivate(L, REQUIRE);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        if (!dbl_hooks(L))
            dblink_set_hooks(L, NULL); /* there is a host, though it lends nothing */
        push_require(L);
        lua_pushvalue(L, -1);
        dbl_setprivate(L, REQUIRE);
    }
    lua_pushstring(L, name);
    lua_call(L, 1, 1);
}

int luaopen_dblink(lua_State *L)
{
    luaL_checkstack(L, 20, "luaopen_dblink");
    push_room(L, "dblink");
    return 1;
}

void dblink_push(lua_State *L, PGconn *pg, int how)
{
    luaL_checkstack(L, 20, "dblink_push");
    push_room(L, "dblink"); /* the verbs */
    push_room(L, "dblink.connection");
    lua_remove(L, -2);
    lua_getfield(L, -1, "adopt"); /* room, adopt */
    Conn *c = dbl_conn_new(L);
    lua_replace(L, -3);
    lua_pushvalue(L, -2); /* connection, adopt, connection */
    lua_call(L, 1, 0);
    if (how == DBLINK_BORROW)
        c->borrowed = PQisnonblocking(pg) ? DBL_WAS_NONBLOCKING : DBL_WAS_BLOCKING;
    dbl_conn_adopt(c, pg);
}

PGconn *dblink_toconn(lua_State *L, int i)
{
    Conn *c = dbl_testudata(L, i, DBL_CONN);
    return c ? c->pg : NULL;
}
