/*
 * hooks.c -- what the host of this lua_State lends.
 *
 * Connections point to the hooks, and call forget when they are collected: at
 * lua_close too, when nothing of Lua may be asked any more.  So they are in a
 * userdata without a finalizer, which the registry holds to the very end.
 */
#include "hooks.h"

#define HOOKS "dblink.hooks"
#define WAIT  "dblink.host_wait"

const dblink_hooks *dbl_hooks(lua_State *L)
{
    dbl_getprivate(L, HOOKS);
    const dblink_hooks *hooks = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return hooks;
}

void dblink_set_hooks(lua_State *L, const dblink_hooks *given)
{
    static const dblink_hooks none;
    dblink_hooks *hooks;
    dbl_getprivate(L, HOOKS);
    hooks = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (!hooks) {
        hooks = lua_newuserdata(L, sizeof *hooks);
        dbl_setprivate(L, HOOKS);
    }
    *hooks = given ? *given : none;
    lua_pushnil(L);
    dbl_setprivate(L, WAIT);
}

void *dblink_data(lua_State *L)
{
    const dblink_hooks *hooks = dbl_hooks(L);
    return hooks ? hooks->data : NULL;
}

int dbl_elsewhere(const dblink_hooks *hooks, void (*run)(void *), void *what)
{
    if (!hooks)
        return dblink_thread(NULL, run, what);
    return hooks->errand && hooks->errand(hooks->data, run, what);
}

void dbl_forget(const dblink_hooks *hooks, int fd)
{
    if (hooks && hooks->forget && fd >= 0)
        hooks->forget(hooks->data, fd);
}

static int forget(lua_State *L)
{
    dbl_forget(dbl_hooks(L), (int)luaL_checkinteger(L, 1));
    return 0;
}

static void set_function(lua_State *L, const char *name, lua_CFunction f)
{
    lua_pushcfunction(L, f);
    lua_setfield(L, -2, name);
}

/* core.host_wait(): the wait that the host lends, or nil. */
static int host_wait(lua_State *L)
{
    const dblink_hooks *hooks = dbl_hooks(L);
    if (!hooks || !hooks->wait)
        return 0;
    dbl_getprivate(L, WAIT);
    if (lua_istable(L, -1))
        return 1;
    lua_createtable(L, 0, 5);
    set_function(L, "wait", hooks->wait);
    set_function(L, "forget", forget);
    if (hooks->self && hooks->park && hooks->unpark) {
        set_function(L, "self", hooks->self);
        set_function(L, "park", hooks->park);
        set_function(L, "unpark", hooks->unpark);
    }
    lua_pushvalue(L, -1);
    dbl_setprivate(L, WAIT);
    return 1;
}

const luaL_Reg dbl_hooks_functions[] = {
    {"host_wait", host_wait},
    {NULL,        NULL     },
};
