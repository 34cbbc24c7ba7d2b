/*
 * host.c -- a C program of its own event loop that lets Lua scripts query PostgreSQL.
 *
 * As Redis or a game server would do it: one thread, epoll, an allocator with a
 * limit, scripts in a sandbox without require, os or io, each a coroutine.  The
 * loop knows nothing of PostgreSQL; dblink knows nothing of the loop but the hooks.
 *
 *     cc host.c $(pkg-config --cflags --libs dblink lua5.4) -o host
 *     ./host "host=/var/run/postgresql dbname=postgres"
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <dblink.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { SCRIPTS = 100, CONNECTIONS = 10, QUERIES = 3, LIMIT = 4 << 20, FDS = 1024 };
#define SLEEP 0.05 /* seconds that each query takes on the server */

typedef struct Task {
    struct Task *next;
    lua_State *co;
    int ref;         /* keeps co from the collector */
    int fd;          /* it waits for, or -1 */
    int parked;      /* it waits to be unparked */
    int woken;       /* that came before it parked */
    int ready;       /* it waits for its turn only */
    double deadline; /* of either wait */
} Task;

/* All that one lua_State has of the host: the `data` of its hooks. */
typedef struct Host {
    size_t used, peak;
    int epoll;
    Task *tasks, *running;
    Task *waiting[FDS]; /* by descriptor */
    int alive, failed;
    double spent; /* on the server, as the scripts say */
} Host;

/* ---- the allocator: not a byte more than LIMIT ---- */

static void *allocate(void *data, void *p, size_t old, size_t size)
{
    Host *h = data;
    if (!p)
        old = 0; /* else it is a type, from 5.2 on */
    if (size > old && h->used - old + size > LIMIT)
        return NULL;
    void *q = NULL;
    if (size == 0)
        free(p);
    else if (!(q = realloc(p, size)))
        return NULL;
    h->used += size - old;
    if (h->used > h->peak)
        h->peak = h->used;
    return q;
}

/* ---- the loop ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int resume(lua_State *co, lua_State *from, int arguments)
{
#if LUA_VERSION_NUM >= 504
    int results;
    return lua_resume(co, from, arguments, &results);
#elif LUA_VERSION_NUM >= 502
    return lua_resume(co, from, arguments);
#else
    (void)from;
    return lua_resume(co, arguments);
#endif
}

static void drop(Host *h, Task *t)
{
    Task **at = &h->tasks;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    free(t);
    h->alive--;
}

/* Runs a task until it waits or ends; its function and arguments are on its stack. */
static void run(Host *h, lua_State *L, Task *t, int arguments)
{
    h->running = t;
    int status = resume(t->co, L, arguments);
    h->running = NULL;
    if (status == LUA_YIELD)
        return;
    if (status == 0) {
        h->spent += lua_tonumber(t->co, -1);
    } else {
        h->failed++;
        printf("script: %s\n", lua_tostring(t->co, -1));
    }
    luaL_unref(L, LUA_REGISTRYINDEX, t->ref);
    if (status == LUA_ERRMEM)
        lua_gc(L, LUA_GCCOLLECT, 0); /* 5.1 does not by itself */
    drop(h, t);
}

/* The function and its arguments on the top of the stack become a task. */
static void spawn(Host *h, lua_State *L, int arguments)
{
    Task *t = calloc(1, sizeof *t);
    t->co = lua_newthread(L);
    t->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    t->fd = -1;
    t->deadline = 1e300;
    lua_xmove(L, t->co, arguments + 1);
    t->next = h->tasks;
    h->tasks = t;
    h->alive++;
    run(h, L, t, arguments);
}

/* What a task waited for is there, or its time is over. */
static void wake(Host *h, lua_State *L, Task *t, int in_time)
{
    if (t->fd >= 0)
        h->waiting[t->fd] = NULL;
    t->fd = -1;
    t->parked = t->ready = 0;
    t->deadline = 1e300;
    if (in_time)
        lua_pushboolean(t->co, 1);
    else
        lua_pushnil(t->co), lua_pushliteral(t->co, "timeout");
    run(h, L, t, in_time ? 1 : 2);
}

/* The next task whose turn has come, or NULL; *first: when that will be. */
static Task *due(Host *h, double *first)
{
    double moment = now();
    *first = 1e300;
    for (Task *t = h->tasks; t; t = t->next) {
        if (t->ready || t->deadline <= moment)
            return t;
        if (t->deadline < *first)
            *first = t->deadline;
    }
    return NULL;
}

static void loop(Host *h, lua_State *L)
{
    while (h->alive > 0) {
        struct epoll_event events[64];
        double first;
        for (Task *t; (t = due(h, &first)) != NULL;)
            wake(h, L, t, t->ready);
        if (h->alive == 0)
            break;
        int ms = first > 1e299 ? -1 : (int)((first - now()) * 1e3) + 1;
        int n = epoll_wait(h->epoll, events, 64, ms);
        for (int i = 0; i < n; i++)
            if (h->waiting[events[i].data.fd])
                wake(h, L, h->waiting[events[i].data.fd], 1);
    }
}

/* ---- the hooks that dblink gets ---- */

static int hook_wait(lua_State *L)
{
    Host *h = dblink_data(L);
    Task *t = h->running;
    int fd = (int)lua_tointeger(L, 1);
    const char *what = lua_tostring(L, 2);
    if (!t || fd < 0 || fd >= FDS)
        return luaL_error(L, "only a script can wait, and only for descriptors below %d", FDS);
    struct epoll_event e = {.events = EPOLLONESHOT, .data.fd = fd};
    if (strchr(what, 'r'))
        e.events |= EPOLLIN;
    if (strchr(what, 'w'))
        e.events |= EPOLLOUT;
    if (epoll_ctl(h->epoll, EPOLL_CTL_MOD, fd, &e) != 0)
        epoll_ctl(h->epoll, EPOLL_CTL_ADD, fd, &e);
    t->fd = fd;
    t->deadline = lua_isnoneornil(L, 3) ? 1e300 : now() + lua_tonumber(L, 3);
    h->waiting[fd] = t;
    return lua_yield(L, 0);
}

static void hook_forget(void *data, int fd)
{
    Host *h = data;
    epoll_ctl(h->epoll, EPOLL_CTL_DEL, fd, NULL);
    if (fd < FDS && h->waiting[fd]) { /* it will look again, and see */
        h->waiting[fd]->ready = 1;
        h->waiting[fd]->fd = -1;
        h->waiting[fd] = NULL;
    }
}

/* A task waits for another one, in the queue below. */
static int hook_self(lua_State *L)
{
    Host *h = dblink_data(L);
    h->running->woken = 0;
    lua_pushlightuserdata(L, h->running);
    return 1;
}

static int hook_park(lua_State *L)
{
    Host *h = dblink_data(L);
    Task *t = h->running;
    if (t->woken) {
        t->woken = 0;
        lua_pushboolean(L, 1);
        return 1;
    }
    t->parked = 1;
    t->deadline = lua_isnoneornil(L, 1) ? 1e300 : now() + lua_tonumber(L, 1);
    return lua_yield(L, 0);
}

static int hook_unpark(lua_State *L)
{
    Host *h = dblink_data(L);
    for (Task *t = h->tasks; t; t = t->next) /* it may be gone */
        if (t == lua_touserdata(L, 1)) {
            t->ready = t->parked;
            t->woken = !t->parked;
        }
    return 0;
}

/* ---- the scripts ---- */

/* What they may use of dblink is this pool. */
static const char prelude[] = "local dblink, conninfo, size = ...\n"
                              "return dblink.pool{conninfo = conninfo, max = size}\n";

static const char opener[] = "local db, size = ... return db:fill(size) and 0\n";

/* A script returns what the server says that its queries took. */
static const char script[] =
    "local db, id, queries, sleep = ...\n"
    "local spent = 0\n"
    "for i = 1, queries do\n"
    "  local res, err = db:query('select $1::int + $2::int, pg_sleep($3),'\n"
    "    .. ' extract(epoch from clock_timestamp() - statement_timestamp())::float8', id, i, sleep)\n"
    "  if not res then error('query failed: ' .. err, 0) end\n"
    "  assert(res(1, 1) == id + i)\n"
    "  spent = spent + res(1, 3)\n"
    "end\n"
    "return spent\n";

/* And one that would take all the memory there is. */
static const char greedy[] = "local t = {} for i = 1, 1e9 do t[i] = i .. 'x' end\n";

/* Base, table, string, math and coroutine; without what reads files or compiles. */
static void open_libraries(lua_State *L)
{
    static const char *const unwanted[] = {"dofile",  "loadfile", "load",    "loadstring",
                                           "require", "module",   "package", NULL};
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
    for (const char *const *name = unwanted; *name; name++) {
        lua_pushnil(L);
        lua_setglobal(L, *name);
    }
}

static void load(lua_State *L, const char *text, const char *name)
{
    if (luaL_loadbuffer(L, text, strlen(text), name) != 0)
        lua_error(L);
}

/* The script with `db`, which is at 1, and these numbers, as a task. */
static void start(Host *h, lua_State *L, const char *text, int first, int second)
{
    load(L, text, "=script");
    lua_pushvalue(L, 1);
    lua_pushinteger(L, first);
    lua_pushinteger(L, second);
    lua_pushnumber(L, SLEEP);
    spawn(h, L, 4);
}

static int serve(lua_State *L)
{
    Host *h = dblink_data(L);
    const char *conninfo = lua_touserdata(L, 1);
    lua_settop(L, 0);
    open_libraries(L);

    load(L, prelude, "=prelude");
    luaopen_dblink(L);
    lua_pushstring(L, conninfo);
    lua_pushinteger(L, CONNECTIONS);
    lua_call(L, 3, 1); /* db */

    /* From here on nobody reads or writes a global that is not there. */
    load(L,
         "local error = error\n"
         "local function no(_, name) error('no global ' .. tostring(name), 2) end\n"
         "setmetatable((...), {__index = no, __newindex = no})\n",
         "=seal");
#if LUA_VERSION_NUM >= 502
    lua_pushglobaltable(L);
#else
    lua_pushvalue(L, LUA_GLOBALSINDEX);
#endif
    lua_call(L, 1, 0);

    start(h, L, opener, CONNECTIONS, 0);
    loop(h, L);
    double begin = now();
    for (int i = 1; i <= SCRIPTS; i++)
        start(h, L, script, i, QUERIES);
    loop(h, L);
    double took = now() - begin, ideal = h->spent / CONNECTIONS;
    int failed = h->failed;
    start(h, L, greedy, 0, 0);
    int stopped = h->failed == failed + 1;

    printf("%d scripts, %d connections, %d queries each: %.3f s, ideal %.3f s, ratio %.3f\n",
           SCRIPTS, CONNECTIONS, QUERIES, took, ideal, took / ideal);
    printf("failed %d, greedy stopped %d, peak %d KiB\n", failed, stopped, (int)(h->peak / 1024));

    start(h, L, script, 1, 1); /* which still waits when all is closed */
    return 0;
}

static int descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

int main(int argc, char **argv)
{
    static Host h;
    int before = descriptors();
    h.epoll = epoll_create1(EPOLL_CLOEXEC);
#if LUA_VERSION_NUM >= 505
    lua_State *L = lua_newstate(allocate, &h, 0);
#else
    lua_State *L = lua_newstate(allocate, &h);
#endif
    dblink_hooks hooks = {.data = &h,
                          .wait = hook_wait,
                          .forget = hook_forget,
                          .self = hook_self,
                          .park = hook_park,
                          .unpark = hook_unpark};
    dblink_set_hooks(L, &hooks);
    lua_pushcfunction(L, serve);
    lua_pushlightuserdata(L, argc > 1 ? argv[1] : "");
    int status = lua_pcall(L, 1, 0, 0);
    if (status != 0)
        printf("host: %s\n", lua_tostring(L, -1));
    lua_close(L); /* also of one who waits: its connection tells hook_forget first */
    while (h.tasks)
        drop(&h, h.tasks);
    close(h.epoll);
    printf("left: %d bytes, %d descriptors\n", (int)h.used, descriptors() - before);
    return status != 0;
}
