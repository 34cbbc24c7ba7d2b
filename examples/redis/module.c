/*
 * module.c -- DBLINK.EVAL: Lua scripts inside Redis that query PostgreSQL.
 *
 *     loadmodule dblink.so "host=/var/run/postgresql dbname=postgres"
 *     > DBLINK.EVAL "return db:query('select $1::int + 1', ...)(1, 1)" 41
 *     (integer) 42
 *
 * Each script is a coroutine in a sandbox, with a pool of connections as `db`.  While
 * it waits for PostgreSQL its client is blocked, and Redis serves all others.  The
 * Lua is one of the module's own, not that of EVAL: see the Makefile for how the two
 * are kept apart.  One thread; all that is static here is Redis's single event loop.
 */
#include "redis.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <dblink.h>

#include <stdio.h>
#include <string.h>

enum { LIMIT = 64 << 20, DEEPEST = 16 };

typedef struct Task {
    struct Task *next;
    RedisModuleBlockedClient *client;
    lua_State *co;
    int ref;                  /* keeps co from the collector */
    int fd, mask;             /* what it waits for; fd -1: no descriptor */
    RedisModuleTimerID timer; /* of the wait */
    int timed, parked, woken, ready, status;
} Task;

static struct {
    lua_State *L;
    int answer, new_coroutine; /* references to these functions */
    RedisModuleCtx *ctx;       /* for timers: callbacks bring none that lasts */
    Task *tasks, *running;
    size_t used;
} host;

static void *allocate(void *data, void *p, size_t old, size_t size)
{
    (void)data;
    if (!p)
        old = 0; /* else it is a type */
    if (size > old && host.used - old + size > LIMIT)
        return NULL;
    host.used += size - old;
    if (size > 0)
        return RedisModule_Realloc(p, size);
    if (p)
        RedisModule_Free(p);
    return NULL;
}

/* ---- answers ---- */

static void reply_error(RedisModuleCtx *ctx, const char *message)
{
    char line[512] = "ERR ";
    strncat(line, message, sizeof line - 5);
    for (char *s = line; *s; s++)
        if (*s == '\n' || *s == '\r')
            *s = ' ';
    RedisModule_ReplyWithError(ctx, line);
}

/* As EVAL does: integers, strings, arrays; true is 1, false and nil are null.  There is
 * room on the stack, and nothing in here allocates. */
static void reply(RedisModuleCtx *ctx, lua_State *L, int i, int depth)
{
    char digits[40];
    size_t size;
    lua_Number number = lua_tonumber(L, i);
    const char *text = digits;
    switch (lua_type(L, i)) {
    case LUA_TNUMBER:
        if (number == (lua_Number)(long long)number) {
            RedisModule_ReplyWithLongLong(ctx, (long long)lua_tonumber(L, i));
            return;
        }
        size = (size_t)snprintf(digits, sizeof digits, "%.17g", (double)number);
        RedisModule_ReplyWithStringBuffer(ctx, digits, size);
        return;
    case LUA_TSTRING:
        text = lua_tolstring(L, i, &size);
        RedisModule_ReplyWithStringBuffer(ctx, text, size);
        return;
    case LUA_TBOOLEAN:
        if (lua_toboolean(L, i))
            RedisModule_ReplyWithLongLong(ctx, 1);
        else
            RedisModule_ReplyWithNull(ctx);
        return;
    case LUA_TTABLE:
        if (depth < DEEPEST) {
            int n = 0, end = 0;
            while (!end) {
                lua_rawgeti(L, i, ++n);
                end = lua_isnil(L, -1);
                lua_pop(L, 1);
            }
            RedisModule_ReplyWithArray(ctx, n - 1);
            for (int k = 1; k < n; k++) {
                lua_rawgeti(L, i, k);
                reply(ctx, L, lua_gettop(L), depth + 1);
                lua_pop(L, 1);
            }
            return;
        } /* fall through */
    default:
        RedisModule_ReplyWithNull(ctx);
    }
}

/* answer(task, ctx): what it returned, or why it failed; nil, err is a failure too. */
static int answer(lua_State *L)
{
    Task *t = lua_touserdata(L, 1);
    RedisModuleCtx *ctx = lua_touserdata(L, 2);
    lua_settop(L, 2);
    luaL_checkstack(L, 2 * DEEPEST + 10, NULL);
    lua_settop(t->co, t->status == 0 ? 2 : lua_gettop(t->co));
    if (t->status != 0) {
        lua_pushnil(L);
        lua_xmove(t->co, L, 1);
    } else {
        lua_xmove(t->co, L, 2);
    }
    if (!lua_isnil(L, 3) || lua_isnil(L, 4)) /* task, ctx, value, error */
        reply(ctx, L, 3, 0);
    else if (luaL_callmeta(L, 4, "__tostring") || lua_isstring(L, 4))
        reply_error(ctx, lua_tostring(L, -1));
    else
        reply_error(ctx, "the error is no string");
    return 0;
}

/* ---- tasks ---- */

static int resume(lua_State *co, int arguments)
{
#if LUA_VERSION_NUM >= 504
    int results;
    return lua_resume(co, host.L, arguments, &results);
#elif LUA_VERSION_NUM >= 502
    return lua_resume(co, host.L, arguments);
#else
    return lua_resume(co, arguments);
#endif
}

/* Calls one of the functions above in protected mode: outside of it a full memory would
 * be the end of Redis. */
static int call(int function, void *first, void *second, int third)
{
    lua_rawgeti(host.L, LUA_REGISTRYINDEX, function);
    lua_pushlightuserdata(host.L, first);
    lua_pushlightuserdata(host.L, second);
    lua_pushinteger(host.L, third);
    return lua_pcall(host.L, 3, 0, 0);
}

static void end(Task *t, int status)
{
    RedisModuleCtx *ctx = RedisModule_GetThreadSafeContext(t->client);
    Task **at = &host.tasks;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    t->status = status;
    if (call(host.answer, t, ctx, 0) != 0) {
        reply_error(ctx, "not enough memory for the answer");
        lua_pop(host.L, 1);
    }
    RedisModule_FreeThreadSafeContext(ctx);
    RedisModule_UnblockClient(t->client, NULL);
    luaL_unref(host.L, LUA_REGISTRYINDEX, t->ref);
    RedisModule_Free(t);
    if (status == LUA_ERRMEM)
        lua_gc(host.L, LUA_GCCOLLECT, 0); /* 5.1 does not by itself */
}

static void run(Task *t, int arguments)
{
    host.running = t;
    int status = resume(t->co, arguments);
    host.running = NULL;
    if (status != LUA_YIELD)
        end(t, status);
}

static void stop_waiting(Task *t)
{
    if (t->fd >= 0)
        RedisModule_EventLoopDel(t->fd, t->mask);
    if (t->timed)
        RedisModule_StopTimer(host.ctx, t->timer, NULL);
    t->fd = -1;
    t->timed = t->parked = t->ready = 0;
}

static void wake(Task *t, int in_time)
{
    stop_waiting(t);
    if (in_time) {
        lua_pushboolean(t->co, 1);
    } else {
        lua_pushnil(t->co);
        lua_pushliteral(t->co, "timeout");
    }
    run(t, in_time ? 1 : 2);
}

/* Whoever was unparked, or lost his descriptor, by what just ran. */
static void run_the_ready(void)
{
    for (Task *t = host.tasks; t;)
        if (t->ready) {
            wake(t, 1);
            t = host.tasks;
        } else {
            t = t->next;
        }
}

static void on_event(int fd, void *data, int mask)
{
    (void)fd;
    (void)mask;
    wake(data, 1);
    run_the_ready();
}

static void on_timer(RedisModuleCtx *ctx, void *data)
{
    Task *t = data;
    (void)ctx;
    t->timed = 0;
    wake(t, 0);
    run_the_ready();
}

/* ---- the hooks ---- */

static void start_timer(lua_State *L, int i, Task *t)
{
    if (lua_isnoneornil(L, i))
        return;
    double ms = lua_tonumber(L, i) * 1e3 + 1;
    t->timer =
        RedisModule_CreateTimer(host.ctx, ms < 1e9 ? (long long)ms : 1000000000, on_timer, t);
    t->timed = 1;
}

/* The loop takes each direction by a call of its own: given both at once, Redis 7.0
 * calls back for reading only. */
static int hook_wait(lua_State *L)
{
    Task *t = host.running;
    int fd = (int)lua_tointeger(L, 1);
    const char *what = lua_tostring(L, 2);
    if (!t)
        return luaL_error(L, "only a script can wait");
    t->mask = (strchr(what, 'r') ? REDISMODULE_EVENTLOOP_READABLE : 0) |
              (strchr(what, 'w') ? REDISMODULE_EVENTLOOP_WRITABLE : 0);
    for (int bit = 1; bit <= 2; bit <<= 1)
        if ((t->mask & bit) && RedisModule_EventLoopAdd(fd, bit, on_event, t) != REDISMODULE_OK) {
            RedisModule_EventLoopDel(fd, t->mask);
            return luaL_error(L, "Redis watches no more descriptors: raise maxclients");
        }
    t->fd = fd;
    start_timer(L, 3, t);
    return lua_yield(L, 0);
}

/* Redis must not watch what is closed: it would take the next client of that number
 * for watched. */
static void hook_forget(void *data, int fd)
{
    (void)data;
    for (Task *t = host.tasks; t; t = t->next)
        if (t->fd == fd) {
            stop_waiting(t);
            t->ready = 1;
        }
}

static int hook_self(lua_State *L)
{
    if (!host.running)
        return 0;
    host.running->woken = 0;
    lua_pushlightuserdata(L, host.running);
    return 1;
}

static int hook_park(lua_State *L)
{
    Task *t = host.running;
    if (t->woken) {
        t->woken = 0;
        lua_pushboolean(L, 1);
        return 1;
    }
    t->parked = 1;
    start_timer(L, 1, t);
    return lua_yield(L, 0);
}

static int hook_unpark(lua_State *L)
{
    for (Task *t = host.tasks; t; t = t->next)
        if (t == lua_touserdata(L, 1)) {
            t->ready = t->parked;
            t->woken = !t->parked;
        }
    return 0;
}

/* ---- the sandbox ---- */

/* The text runs with what dblink gives, outside of the sandbox.  Scripts get `db`. */
static const char prelude[] =
    "local dblink, conninfo, size = ...\n"
    "db = dblink.pool{conninfo = conninfo, max = size, min = 0}\n"
    "for _, name in ipairs{'dofile', 'loadfile', 'load', 'loadstring', 'require', 'module',\n"
    "  'package', 'collectgarbage', 'print'} do _G[name] = nil end\n"
    "local error, tostring = error, tostring\n"
    "local function no(_, name) error('no global ' .. tostring(name), 2) end\n"
    "setmetatable(_G, {__index = no, __newindex = no, __metatable = false})\n";

/* new_coroutine(task, argv, argc): with the script and its arguments on its stack. */
static int new_coroutine(lua_State *L)
{
    Task *t = lua_touserdata(L, 1);
    RedisModuleString **argv = lua_touserdata(L, 2);
    int argc = (int)lua_tointeger(L, 3);
    size_t size;
    const char *text = RedisModule_StringPtrLen(argv[1], &size);
    t->co = lua_newthread(L);
    t->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    if (luaL_loadbuffer(L, text, size, "=script") != 0)
        return lua_error(L);
    luaL_checkstack(L, argc, "too many arguments");
    for (int i = 2; i < argc; i++) {
        text = RedisModule_StringPtrLen(argv[i], &size);
        lua_pushlstring(L, text, size);
    }
    if (!lua_checkstack(t->co, argc))
        return luaL_error(L, "too many arguments");
    lua_xmove(L, t->co, argc - 1);
    return 0;
}

static int open_sandbox(lua_State *L)
{
    static const luaL_Reg libraries[] = {
        {"_G",            luaopen_base     },
        {LUA_TABLIBNAME,  luaopen_table    },
        {LUA_STRLIBNAME,  luaopen_string   },
        {LUA_MATHLIBNAME, luaopen_math     },
#if LUA_VERSION_NUM >= 502
        {LUA_COLIBNAME,   luaopen_coroutine},
#endif
        {NULL,            NULL             },
    };
    for (const luaL_Reg *l = libraries; l->name; l++) {
#if LUA_VERSION_NUM >= 502
        luaL_requiref(L, l->name, l->func, 1);
        lua_pop(L, 1);
#else
        lua_pushcfunction(L, l->func);
        lua_pushstring(L, l->name[0] == '_' ? "" : l->name);
        lua_call(L, 1, 0);
#endif
    }
    if (luaL_loadbuffer(L, prelude, sizeof prelude - 1, "=prelude") != 0)
        return lua_error(L);
    luaopen_dblink(L);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_call(L, 3, 0);
    lua_pushcfunction(L, answer);
    host.answer = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushcfunction(L, new_coroutine);
    host.new_coroutine = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int eval(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    if (argc < 2)
        return RedisModule_WrongArity(ctx);
    if (RedisModule_GetContextFlags(ctx) &
        (REDISMODULE_CTX_FLAGS_LUA | REDISMODULE_CTX_FLAGS_MULTI |
         REDISMODULE_CTX_FLAGS_DENY_BLOCKING)) {
        reply_error(ctx, "DBLINK.EVAL cannot wait in a script or a transaction");
        return REDISMODULE_OK;
    }
    Task *t = RedisModule_Alloc(sizeof *t);
    memset(t, 0, sizeof *t);
    t->fd = -1;
    t->ref = LUA_NOREF;
    if (call(host.new_coroutine, t, argv, argc) != 0) {
        reply_error(ctx, lua_tostring(host.L, -1));
        lua_pop(host.L, 1);
        luaL_unref(host.L, LUA_REGISTRYINDEX, t->ref);
        RedisModule_Free(t);
        return REDISMODULE_OK;
    }
    t->client = RedisModule_BlockClient(ctx, NULL, NULL, NULL, 0);
    t->next = host.tasks;
    host.tasks = t;
    run(t, argc - 2);
    run_the_ready();
    return REDISMODULE_OK;
}

/* loadmodule dblink.so CONNINFO [CONNECTIONS] */
__attribute__((visibility("default"))) int RedisModule_OnLoad(RedisModuleCtx *ctx,
                                                              RedisModuleString **argv, int argc)
{
    size_t size;
    long long connections = 0;
    if (!redis_init(ctx, "dblink", 1) || argc < 1)
        return REDISMODULE_ERR;
    for (const char *s = argc > 1 ? RedisModule_StringPtrLen(argv[1], &size) : "10"; *s; s++)
        connections = connections * 10 + (*s - '0');
    host.ctx = RedisModule_GetDetachedThreadSafeContext(ctx);
#if LUA_VERSION_NUM >= 505
    host.L = lua_newstate(allocate, NULL, 0);
#else
    host.L = lua_newstate(allocate, NULL);
#endif
    if (!host.L)
        return REDISMODULE_ERR;
    dblink_hooks hooks = {.wait = hook_wait,
                          .forget = hook_forget,
                          .self = hook_self,
                          .park = hook_park,
                          .unpark = hook_unpark,
                          .errand = dblink_thread};
    dblink_set_hooks(host.L, &hooks);
    lua_pushcfunction(host.L, open_sandbox);
    lua_pushstring(host.L, RedisModule_StringPtrLen(argv[0], &size));
    lua_pushinteger(host.L, (lua_Integer)connections);
    if (lua_pcall(host.L, 2, 0, 0) != 0)
        return REDISMODULE_ERR;
    return RedisModule_CreateCommand(ctx, "dblink.eval", eval, "deny-script", 0, 0, 0);
}
