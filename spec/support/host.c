/*
 * host.c -- what dblink.h promises, asked one by one: for spec/host_spec.lua.
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <dblink.h>

#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) ((what) ? (void)0 : complain(__LINE__, #what))

static void complain(int line, const char *what)
{
    printf("line %d: not so: %s\n", line, what);
    exit(1);
}

static const char *conninfo;

typedef struct Host {
    size_t used;
    int waits, forgets;
    int refuse; /* 1: every allocation is refused, n: from the n-th on but one; 0: none */
} Host;

static void *allocate(void *data, void *p, size_t old, size_t size)
{
    Host *h = data;
    void *q = NULL;
    size_t was = malloc_usable_size(p); /* LuaJIT forgets an array when its hash part is refused */
    if (size > (p ? old : 0) && h->refuse > 0 && (h->refuse == 1 || --h->refuse == 1))
        return NULL;
    if (size == 0)
        free(p);
    else if (!(q = realloc(p, size)))
        return NULL;
    h->used += malloc_usable_size(q) - was;
    return q;
}

/* A host that waits in place counts well. */
static int hook_wait(lua_State *L)
{
    Host *h = dblink_data(L);
    struct pollfd p = {.fd = (int)lua_tointeger(L, 1)};
    p.events = strchr(lua_tostring(L, 2), 'w') ? POLLIN | POLLOUT : POLLIN;
    poll(&p, 1, lua_isnoneornil(L, 3) ? -1 : (int)(lua_tonumber(L, 3) * 1e3) + 1);
    h->waits++;
    lua_pushboolean(L, 1);
    return 1;
}

static void hook_forget(void *data, int fd)
{
    (void)fd;
    ((Host *)data)->forgets++;
}

static lua_State *open_state(Host *h)
{
#if LUA_VERSION_NUM >= 505
    lua_State *L = lua_newstate(allocate, h, 0);
#else
    lua_State *L = lua_newstate(allocate, h);
#endif
    CHECK(L != NULL);
    luaL_openlibs(L);
    return L;
}

/* Runs the text with the values above `base` as its arguments; what it gives is left. */
static void run(lua_State *L, int base, const char *text)
{
    CHECK(luaL_loadbuffer(L, text, strlen(text), "=spec") == 0);
    lua_insert(L, base + 1);
    if (lua_pcall(L, lua_gettop(L) - base - 1, LUA_MULTRET, 0) != 0)
        complain(0, lua_tostring(L, -1));
}

static int opens_dblink(lua_State *L)
{
    return luaopen_dblink(L);
}

static int pushes_conn(lua_State *L)
{
    dblink_push(L, lua_touserdata(L, 1), (int)lua_tointeger(L, 2));
    return 1;
}

static void push(lua_State *L, PGconn *pg, int how)
{
    lua_pushcfunction(L, pushes_conn);
    lua_pushlightuserdata(L, pg);
    lua_pushinteger(L, how);
    CHECK(lua_pcall(L, 2, 1, 0) == 0);
}

static PGconn *open_pg(void)
{
    PGconn *pg = PQconnectdb(conninfo);
    CHECK(PQstatus(pg) == CONNECTION_OK);
    return pg;
}

/* No global is written, and none is read later: a sandbox may take all away. */
static void globals(void)
{
    Host h = {0};
    lua_State *L = open_state(&h);
    run(L, 0,
        "local names, _G, ipairs, error, rawset = {}, _G, ipairs, error, rawset\n"
        "local function no(_, name) error('global ' .. name) end\n"
        "for name in pairs(_G) do names[#names + 1] = name end\n"
        "package.loaded.dblink, package.preload, package.path = false, nil, ''\n"
        "setmetatable(_G, {__newindex = no, __index = no})\n"
        "return function() for _, name in ipairs(names) do rawset(_G, name, nil) end end");
    luaopen_dblink(L);
    luaopen_dblink(L);
    CHECK(lua_rawequal(L, -1, -2));
    lua_pop(L, 1);
    lua_insert(L, -2);
    CHECK(lua_pcall(L, 0, 0, 0) == 0); /* without globals, from here on */
    lua_pushstring(L, conninfo);
    run(L, 0,
        "local dblink, conninfo = ...\n"
        "local conn = dblink.assert(dblink.connect(conninfo))\n"
        "local res = dblink.assert(conn:query('select $1::int + 1', 41))\n"
        "local none, err = conn:query{'select pg_sleep(5)', timeout = 0.05}\n"
        "local again = dblink.assert(conn:query 'select 1')\n"
        "return res(1, 1), err.kind, again(1, 1), conn");
    CHECK(lua_tointeger(L, 1) == 42);
    CHECK(strcmp(lua_tostring(L, 2), "timeout") == 0);
    CHECK(lua_tointeger(L, 3) == 1);
    CHECK(dblink_toconn(L, 4) != NULL && PQstatus(dblink_toconn(L, 4)) == CONNECTION_OK);
    CHECK(dblink_toconn(L, 1) == NULL);
    lua_close(L);
    CHECK(h.used == 0);
}

/* A misuse is the script's line, not one of ours. */
static void blame(void)
{
    Host h = {0};
    lua_State *L = open_state(&h);
    luaopen_dblink(L);
    run(L, 0,
        "local ok, err = ...\n"
        "return select(2, pcall(function(dblink) dblink.connect('', {\n"
        "timeout = 'soon'}) end, (...)))");
    CHECK(strncmp(lua_tostring(L, -1), "spec:", 5) == 0);
    luaopen_dblink(L);
    run(L, lua_gettop(L) - 1,
        "return select(2, pcall(function(dblink)\n"
        "dblink.ping 'a\\0b' end, (...)))");
    CHECK(strncmp(lua_tostring(L, -1), "spec:2: ", 8) == 0);
    lua_close(L);
}

/* What is opened says what it lacks: a library of Lua's, or memory wherever that ends. */
static void opening(void)
{
    Host h = {0};
    lua_State *L = open_state(&h);
    run(L, 0, "string = nil");
    lua_pushcfunction(L, opens_dblink);
    CHECK(lua_pcall(L, 0, 1, 0) == LUA_ERRRUN);
    CHECK(strstr(lua_tostring(L, -1), "Lua's library 'string' is not there"));
    lua_close(L);
    for (int n = 2, done = 0; !done; n += 1 + n / 8) {
        L = open_state(&h);
        lua_pushcfunction(L, opens_dblink);
        h.refuse = n;
        int status = lua_pcall(L, 0, 1, 0);
        done = h.refuse > 1;
        h.refuse = 0;
        CHECK(status == 0 || (!done && strstr(lua_tostring(L, -1), "not enough memory")));
        lua_close(L);
        CHECK(h.used == 0);
    }
}

static int refuses(void *data, void (*run)(void *), void *what)
{
    (void)data;
    (void)run;
    (void)what;
    return 0;
}

/* A host may lend less than all: then names are looked up in place, and nobody parks. */
static void lending(void)
{
    Host h = {0};
    dblink_hooks lent[] = {
        {.wait = hook_wait },
        {.wait = hook_wait,  .self = hook_wait},
        {.wait = hook_wait,                  .self = hook_wait, .park = hook_wait, .errand = refuses},
        {.wait = hook_wait,.errand = dblink_thread},
        {.errand = dblink_thread},
    };
    lua_State *L = open_state(&h);
    for (size_t i = 0; i < sizeof lent / sizeof *lent; i++) {
        lent[i].data = &h;
        dblink_set_hooks(L, &lent[i]);
        luaopen_dblink(L);
        run(L, lua_gettop(L) - 1,
            "local conn, err = (...).connect('host=localhost port=1 sslmode=disable')\n"
            "assert(not conn and err.kind == 'connection' and err.connection_lost, err)");
    }
    dblink_set_hooks(L, NULL);
    CHECK(dblink_data(L) == NULL);
    lua_close(L);
    CHECK(h.used == 0);
}

/* Each lua_State has hooks of its own; what is closed or collected is forgotten first. */
static void hooks(void)
{
    Host a = {0}, b = {0};
    lua_State *A = open_state(&a), *B = open_state(&b);
    dblink_hooks lent = {.data = &a, .wait = hook_wait, .forget = hook_forget};
    dblink_set_hooks(A, &lent);
    CHECK(dblink_data(A) == &a && dblink_data(B) == NULL);
    lua_pushcfunction(A, opens_dblink);
    CHECK(lua_pcall(A, 0, 1, 0) == 0);
    luaopen_dblink(B);
    const char *text = "local dblink, conninfo = ...\n"
                       "conn = dblink.assert(dblink.connect(conninfo, {wait = 'poll'}))\n"
                       "dblink.assert(conn:query 'select 1')\n";
    lua_pushstring(A, conninfo);
    run(A, 0, text);
    int waits = a.waits;
    CHECK(waits > 0);
    lua_pushstring(B, conninfo);
    run(B, 0, text);
    CHECK(a.waits == waits && b.waits == 0);
    int forgets = a.forgets;
    lua_close(A);
    CHECK(a.forgets > forgets);
    lua_close(B);
    CHECK(a.used == 0 && b.used == 0);
}

/* A PGconn handed over is finished with its connection; one that is borrowed is not. */
static void pushing(void)
{
    Host h = {0};
    lua_State *L = open_state(&h);
    PGconn *pg = open_pg(), *mine = open_pg();
    push(L, pg, DBLINK_OWN);
    push(L, mine, DBLINK_BORROW);
    CHECK(dblink_toconn(L, 1) == pg && dblink_toconn(L, 2) == mine);
    CHECK(PQisnonblocking(mine));
    lua_pushlightuserdata(L, NULL);
    run(L, 0,
        "local own, borrowed, null = ...\n"
        "assert(own:query('select $1::int is null', null)(1, 1))\n"
        "assert(own:query('select $1::text', 'x')(1, 1) == 'x')\n"
        "assert(borrowed:query('select 2')(1, 1) == 2)\n"
        "borrowed:close()\n"
        "return borrowed");
    CHECK(dblink_toconn(L, 1) == NULL);
    CHECK(!PQisnonblocking(mine));
    lua_close(L);
    PGresult *res = PQexec(mine, "select 1");
    CHECK(PQresultStatus(res) == PGRES_TUPLES_OK);
    PQclear(res);
    L = open_state(&h);
    PQsetnonblocking(mine, 1);
    push(L, mine, DBLINK_BORROW);
    lua_close(L); /* collected: it stays the host's */
    CHECK(PQisnonblocking(mine));
    PQsetnonblocking(mine, 0);
    res = PQexec(mine, "select 1");
    CHECK(PQresultStatus(res) == PGRES_TUPLES_OK);
    PQclear(res);
    PQfinish(mine);
    CHECK(h.used == 0);
}

/* A forked child says nothing on its parent's connection, whatever goes on upon it, and ends in peace. */
static void forking(void)
{
    static const char *const going_on[][2] = {
        {"",                                                      ""                            },
        {"conn:send_query 'select pg_sleep(0.05)'",               "assert(conn:get_result())"   },
        {"it = conn:copy_in 'copy t from stdin' it:row {1, 'x'}",
         "assert(it:finish().affected == 1)"                                                    },
        {"it = conn:copy_out 'copy t to stdout'",                 "it:close()"                  },
        {"it = conn:pipeline() ticket = it:query 'select 7'",
         "assert(ticket:result()(1, 1) == 7) it:close()"                                        },
        {"it = conn:rows 'select 1'",                             "assert(it:next()) it:close()"},
    };
    for (size_t i = 0; i < sizeof going_on / sizeof *going_on; i++) {
        Host h = {0};
        lua_State *L = open_state(&h);
        luaopen_dblink(L);
        lua_pushstring(L, conninfo);
        run(L, 0,
            "dblink, conninfo = ...\n"
            "conn = dblink.assert(dblink.connect(conninfo))\n"
            "conn:query 'create temporary table t (a int, b text)'\n"
            "local function at_once() return true end\n"
            "local wait = {wait = at_once, forget = function() forgotten = true end}\n"
            "waiting = dblink.assert(dblink.connect(conninfo, {wait = wait}))\n"
            "forgotten = nil");
        run(L, 0, going_on[i][0]);
        pid_t child = fork();
        if (child == 0) {
            run(L, 0,
                "assert(not pcall(conn.query, conn, 'select 1'))\n"
                "if ticket then assert(it:close()) end\n"
                "it = nil collectgarbage() collectgarbage()\n"
                "conn:close() waiting:close() assert(not forgotten)");
            run(L, 0,
                "local own = dblink.assert(dblink.connect(conninfo))\n"
                "assert(own:query('select 43')(1, 1) == 43)\n"
                "own:send_query 'select 1'\n"
                "dblink.assert(own:cancel())\n" /* in here, and counted anew */
                "own:get_result() own:close()");
            lua_close(L);
#ifdef __SANITIZE_ADDRESS__
            _exit(
                0); /* its copy of the parent's PGconn is left as it is, which would count as a leak */
#else
            exit(0); /* gcov writes what it has counted */
#endif
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        run(L, 0, going_on[i][1]);
        run(L, 0, "assert(conn:get_result() == nil) assert(conn:query('select 42')(1, 1) == 42)");
        run(L, 0, "assert(waiting:query('select 44')(1, 1) == 44)");
        lua_close(L);
        CHECK(h.used == 0);
    }
}

static void ignore(void *data, const char *message)
{
    (void)data;
    (void)message;
}

/* A connection that was given back with something under way upon it. */
static void finish(PGconn *pg)
{
    PGresult *res;
    while ((res = PQgetResult(pg)) != NULL ||
           (PQstatus(pg) == CONNECTION_OK && !PQexitPipelineMode(pg))) {
        char *line;
        if (PQresultStatus(res) == PGRES_COPY_IN)
            PQputCopyEnd(pg, "given back");
        else if (PQresultStatus(res) == PGRES_COPY_OUT)
            while (PQgetCopyData(pg, &line, 0) > 0)
                PQfreemem(line);
        PQclear(res);
    }
}

/* Wherever memory ends, nothing is lost, and the connection goes on. */
static void refusals(const char *function)
{
    PGconn *mine = open_pg();
    PQsetNoticeProcessor(mine, ignore, NULL);
    PQclear(PQexec(mine, "create temporary table t (a int, b text); listen c"));
    for (int n = 2, done = 0; !done; n++) {
        Host h = {0};
        lua_State *L = open_state(&h);
        push(L, mine, DBLINK_BORROW);
        run(L, 1, function);
        lua_pushvalue(L, 1);
        h.refuse = n;
        int status = lua_pcall(L, 1, 0, 0);
        done = h.refuse > 1;
        h.refuse = 0;
        if (done && status != 0)
            fprintf(stderr, "%s\n",
                    lua_tostring(L, -1) ? lua_tostring(L, -1) : lua_typename(L, lua_type(L, -1)));
        CHECK(!done || status == 0);
        lua_close(L);
        CHECK(h.used == 0);
        finish(mine);
        CHECK(PQstatus(mine) == CONNECTION_OK);
        if (PQtransactionStatus(mine) != PQTRANS_IDLE)
            PQclear(PQexec(mine, "rollback"));
    }
    PQfinish(mine);
}

static const char *const queries =
    "return function(conn)\n"
    "local res = conn:query('select $1::int as a, $2::text as b, null as c', 1, 'x')\n"
    "local row, list = res and res[1], {}\n"
    "for r in (res and res:rows() or next), {} do list[#list + 1] = r end\n"
    "local none, err = conn:query 'select nonsense'\n"
    "local ok = conn:send_query \"do $$begin raise notice 'hello'; end$$\"\n"
    "while ok and conn:get_result() do end\n"
    "return tostring(err), #conn:notices()\n"
    "end";

static const char *const operations =
    "return function(conn)\n"
    "local ok, err = conn:transaction(function()\n"
    "  local writer = assert(conn:copy_in 'copy t from stdin')\n"
    "  for i = 1, 3 do assert(writer:row {i, 'a\\tb'}) end\n"
    "  assert(writer:write '4\\tx\\n')\n"
    "  assert(writer:finish())\n"
    "  assert(conn:notify('c', 'hello'))\n"
    "  return nil, conn:transaction(function() return conn:query 'select nonsense' end)\n"
    "end)\n"
    "assert(ok or err == nil or err.kind == 'memory', err)\n"
    "for row in assert(conn:copy_out 'copy t to stdout'):rows {'int4'} do\n"
    "  if row[1] == 3 then break end\n"
    "end\n"
    "local n = conn:notifications {limit = 1, timeout = 5}()\n"
    "assert(n.payload == 'hello')\n"
    "end";

static const char *const pipelines =
    "return function(conn)\n"
    "local p, tickets = assert(conn:pipeline()), {}\n"
    "for i = 1, 4 do tickets[i] = p:query('select $1::int, repeat($2, 1000)', i, 'x') end\n"
    "local bad, behind = p:query 'select nonsense', p:query 'select 1'\n"
    "p:sync()\n"
    "for i = 1, 4 do assert(tickets[i]:result()(1, 1) == i) end\n"
    "assert(select(2, bad:result()).sqlstate == '42703')\n"
    "assert(select(2, behind:result()).kind == 'pipeline_aborted')\n"
    "assert(p:close())\n"
    "assert(conn:query 'select 1'(1, 1) == 1)\n"
    "end";

int main(int argc, char **argv)
{
    conninfo = argc > 1 ? argv[1] : "";
    globals();
    blame();
    opening();
    lending();
    hooks();
    pushing();
    forking();
    refusals(queries);
    refusals(operations);
    refusals(pipelines);
    printf("all is well\n");
    return 0;
}
