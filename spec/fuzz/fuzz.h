/*
 * fuzz.h -- what both fuzzers share: a lua_State that lives through all runs, and a function of it for each input.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <dblink.h>

#include <stdio.h>
#include <stdlib.h>

/* The state, with what the text gave, called with dblink, on its stack. */
static lua_State *fuzz_open(const char *text)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    if (luaL_loadstring(L, text) == 0) {
        luaopen_dblink(L);
        if (lua_pcall(L, 1, 1, 0) == 0)
            return L;
    }
    fprintf(stderr, "fuzz: %s\n", lua_tostring(L, -1));
    abort();
}

/* Calls the function at 1 with the values above it.  Errors are what comes of nonsense; but memory is there. */
static void fuzz_run(lua_State *L, int count)
{
    lua_pushvalue(L, 1);
    lua_insert(L, -count - 1);
    int status = lua_pcall(L, count, 0, 0);
    if (status != 0 && status != LUA_ERRRUN)
        abort();
    lua_settop(L, 1);
}

#endif
