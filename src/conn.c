/*
 * conn.c -- a PGconn owned by Lua: closing it, and asking what it knows.
 *
 * A getter never goes to the network.  close never waits: it serves __gc and
 * __close too, in a loop's thread, with a query running, or in a forked child.
 * A child must not speak on its parent's connection, not even to say good-bye:
 * it closes its copy of the descriptor and lets the memory go with the process.
 */
#include "conn.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fail.h"
#include "process.h"

static const char class_key = 0;

Conn *dbl_conn_new(lua_State *L)
{
    Conn *c = dbl_newuserdata(L, sizeof *c);
    memset(c, 0, sizeof *c);
    c->mark = &class_key;
    c->closed = 1;
    c->deadline = c->last = c->limit = DBL_NEVER;
    c->hooks = dbl_hooks(L);
    c->memory = c->notices.memory = c->notifications.memory = dbl_memory(L);
    c->born = dbl_forks();
    dbl_push_class(L, &class_key);
    lua_setmetatable(L, -2);
    return c;
}

Conn *dbl_conn_known(lua_State *L, int i)
{
    return dbl_marked(L, i, &class_key, sizeof(Conn));
}

Conn *dbl_conn_any(lua_State *L, int i)
{
    Conn *c = dbl_conn_known(L, i);
    return c ? c : dbl_check_self(L, i, DBL_CONN);
}

static Conn *check_ours(lua_State *L, Conn *c)
{
    if (c->closed)
        dbl_misuse(L, "connection is closed");
    if (c->born != dbl_fork_count)
        dbl_misuse(L, "connection belongs to the parent process: open one after fork");
    return c;
}

Conn *dbl_conn(lua_State *L, int i)
{
    return check_ours(L, dbl_conn_any(L, i));
}

static const char holders_key = 0, loops_key = 0;

void dbl_conn_hold(lua_State *L, Conn *c)
{
    dbl_push_class(L, &holders_key);
    lua_pushlightuserdata(L, c);
    lua_pushthread(L);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    c->held = DBL_HELD_BY_COROUTINE;
}

/* Whether a coroutine is within one of the functions that wait. */
static int is_within_loops(lua_State *L, lua_State *co)
{
    lua_Debug ar;
    int within = 0;
    if (!lua_checkstack(co, 1))
        return 1;
    dbl_push_class(L, &loops_key);
    for (int level = 0; !within && lua_getstack(co, level, &ar); level++) {
        lua_getinfo(co, "f", &ar);
        if (co != L)
            lua_xmove(co, L, 1);
        lua_rawget(L, -2);
        within = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return within;
}

int dbl_conn_is_held(lua_State *L, Conn *c)
{
    if (c->held == DBL_HELD_BY_COROUTINE) {
        luaL_checkstack(L, 6, "too many arguments");
        dbl_push_class(L, &holders_key);
        lua_pushlightuserdata(L, c);
        lua_rawget(L, -2);
        lua_State *co = lua_tothread(L, -1);
        if (!co || lua_status(co) > LUA_YIELD || !is_within_loops(L, co))
            c->held = 0;
        lua_pop(L, 2);
    }
    return c->held;
}

/* core.loops(...): the functions in which a coroutine that holds a connection waits. */
static int loops(lua_State *L)
{
    int count = lua_gettop(L);
    lua_createtable(L, 0, count);
    while (count > 0) {
        lua_pushvalue(L, count--);
        lua_pushboolean(L, 1);
        lua_rawset(L, -3);
    }
    dbl_keep_class(L, &loops_key);
    return 0;
}

int dbl_conn_is_still(lua_State *L, Conn *c)
{
    if (!c->pg)
        dbl_conn_fail(L, c);
    else if (c->held == DBL_HELD_BY_HANDLER)
        dbl_fail(L, DBL_USAGE, "on_notice cannot use the connection that called it");
    else if (dbl_conn_is_held(L, c))
        dbl_fail(L, DBL_USAGE, DBL_HELD, c->sql);
    else
        return 1;
    return 0;
}

int dbl_conn_is_free(lua_State *L, Conn *c)
{
    if (!dbl_conn_is_still(L, c))
        return 0;
    if (!c->occupied)
        return 1;
    dbl_fail(L, DBL_USAGE, "connection is in use: a stream, a pipeline or a COPY was not closed");
    return 0;
}

void dbl_conn_push_wait(lua_State *L, int i)
{
    dbl_getuservalue(L, i);
    lua_getfield(L, -1, "wait");
    lua_remove(L, -2);
}

void dbl_conn_use(lua_State *L, Conn *c, int i)
{
    int how = lua_gettop(L);
    dbl_getuservalue(L, i);
    lua_pushvalue(L, how);
    lua_setfield(L, -2, "wait");
    lua_getfield(L, how, "plain");
    c->plain = (unsigned char)lua_toboolean(L, -1);
    lua_setfield(L, -2, "plain");
    lua_getfield(L, how, "check");
    c->asks = !lua_isnil(L, -1);
    lua_settop(L, how - 1);
}

/* core.use(conn, how): from now on the connection waits so. */
static int use(lua_State *L)
{
    lua_settop(L, 2);
    dbl_conn_use(L, dbl_conn_any(L, 1), 1);
    return 0;
}

/* 0 with nil and an error object pushed, where its wait says that one cannot wait here. */
static int can_wait(lua_State *L, int i)
{
    int top = lua_gettop(L);
    dbl_conn_push_wait(L, i);
    lua_getfield(L, -1, "check");
    lua_call(L, 0, 2);
    if (!lua_toboolean(L, -2))
        return 0;
    lua_settop(L, top);
    return 1;
}

static int is_usable(lua_State *L, Conn *c, int i)
{
    return dbl_conn_is_free(L, check_ours(L, c)) && (!c->asks || can_wait(L, i));
}

Conn *dbl_conn_free(lua_State *L, int i)
{
    Conn *c = dbl_conn_any(L, i);
    return is_usable(L, c, i) ? c : NULL;
}

int dbl_conn_is_ready(lua_State *L, Conn *c, int i)
{
    if (!is_usable(L, c, i))
        return 0;
    if (!dbl_conn_barred(c))
        return 1;
    dbl_fail(L, DBL_USAGE, "a cancel request is under way: collect the results first");
    return 0;
}

Conn *dbl_conn_ready(lua_State *L, int i)
{
    Conn *c = dbl_conn_any(L, i);
    return dbl_conn_is_ready(L, c, i) ? c : NULL;
}

int dbl_conn_barred(Conn *c)
{
    return c->requests && PQstatus(c->pg) == CONNECTION_OK &&
           PQtransactionStatus(c->pg) != PQTRANS_ACTIVE && dbl_requests_pending(&c->requests);
}

int dbl_conn_failed(const Conn *c)
{
    return c->attempt && (c->attempt->deadline == 0 || PQstatus(c->attempt->pg) == CONNECTION_BAD);
}

int dbl_conn_is_open(const Conn *c)
{
    return !c->closed && c->pg && PQstatus(c->pg) == CONNECTION_OK;
}

int dbl_conn_fail(lua_State *L, Conn *c)
{
    if (!dbl_conn_failed(c))
        return dbl_fail(L, DBL_USAGE, "connection is not open yet: conn:step() until it gives nil");
    luaL_Buffer b;
    const char *earlier = c->attempt->earlier;
    lua_pushnil(L);
    luaL_buffinit(L, &b);
    if (earlier)
        luaL_addstring(&b, earlier);
    if (c->attempt->deadline != 0)
        luaL_addstring(&b, PQerrorMessage(c->attempt->pg));
    luaL_pushresult(&b);
    dbl_push_error(L, DBL_CONNECTION, "%s", lua_tostring(L, -1));
    lua_remove(L, -2);
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "connection_lost");
    return 2;
}

void dbl_conn_adopt(Conn *c, PGconn *pg)
{
    c->pg = pg;
    c->closed = c->listening = 0;
    if (!c->borrowed) /* else there may be a receiver, and nobody can ask for its argument */
        dbl_notices_watch(&c->notices, pg);
    PQsetnonblocking(pg, 1);
}

void dbl_conn_begin(Conn *c, const char *sql, size_t size, int goal)
{
    if (size >= sizeof c->sql)
        size = sizeof c->sql - 1;
    memcpy(c->sql, sql, size);
    c->sql[size] = '\0';
    c->goal = (unsigned char)goal;
    c->fresh = 1;
    c->failed = c->cancelled = c->copy = c->barred = c->over = c->done = 0;
    c->bytes = 0;
    c->turn++;
    if (c->kept) {
        PQclear(c->kept);
        c->kept = NULL;
    }
}

/* What runs on the server would run on for nobody. */
static void stop_query(const Conn *c, PGconn *pg)
{
    if (PQtransactionStatus(pg) == PQTRANS_ACTIVE)
        dbl_request_errand(pg, c->hooks);
}

/* What is left of a pipeline has an end that can be waited for. */
static void give_back(Conn *c, PGconn *pg)
{
    if (PQpipelineStatus(pg) != PQ_PIPELINE_OFF && !PQexitPipelineMode(pg))
        PQpipelineSync(pg);
    PQsetnonblocking(pg, c->borrowed == DBL_WAS_NONBLOCKING);
    c->borrowed = 0;
}

/* An event loop that still watches a closed descriptor stops, or watches whatever
 * gets the number next.  Lua's forget may raise as it likes. */
static void forget_socket(lua_State *L, int i, int fd)
{
    int top = lua_gettop(L);
    if (fd < 0)
        return;
    dbl_getuservalue(L, i);
    lua_getfield(L, -1, "wait");
    lua_getfield(L, -1, "forget");
    lua_pushinteger(L, fd);
    lua_pcall(L, 1, 0, 0);
    lua_settop(L, top);
}

void dbl_conn_close(lua_State *L, int i)
{
    Conn *c = dbl_conn_any(L, i);
    if (c->closed)
        return;
    int fd = PQsocket(c->attempt ? c->attempt->pg : c->pg);
    if (c->hooks)
        dbl_forget(c->hooks, fd);
    else if (!c->plain && c->born == dbl_fork_count)
        forget_socket(L, i, fd);
    PGconn *pg = c->pg;
    Attempt *attempt = c->attempt;
    if (c->closed) /* by forget, perhaps */
        return;
    c->closed = 1;
    c->pg = NULL;
    c->attempt = NULL;
    c->copy = DBL_COPY_NONE;
    c->occupied = 0;
    c->turn++;
    if (c->born != dbl_fork_count) {
        if (fd >= 0 && !c->borrowed)
            close(fd);
        return;
    }
    PQclear(c->kept);
    PQclear(c->whole);
    PQfreemem(c->line);
    c->kept = c->whole = NULL;
    c->line = NULL;
    dbl_requests_forget(&c->requests);
    if (attempt) {
        dbl_attempt_free(attempt);
        dbl_free(attempt);
    }
    if (pg && c->borrowed) {
        give_back(c, pg);
    } else if (pg) {
        if (!c->runs_on)
            stop_query(c, pg);
        PQfinish(pg);
    }
    dbl_notes_free(&c->notices);
    dbl_notes_free(&c->notifications);
}

void dbl_push_events(lua_State *L, int events)
{
    static const char *const words[] = {NULL, "r", "w", "rw"};
    if (events)
        lua_pushlstring(L, words[events], events == (DBL_READ | DBL_WRITE) ? 2 : 1);
    else
        lua_pushnil(L);
}

double dbl_opt_deadline(lua_State *L, int i)
{
    if (lua_isnoneornil(L, i))
        return DBL_NEVER;
    if (!lua_isnumber(L, i))
        dbl_misuse(L, "bad argument 'seconds' (number expected, got %s)", luaL_typename(L, i));
    lua_Number seconds = lua_tonumber(L, i);
    if (!(seconds >= 0))
        dbl_misuse(L, "bad argument 'seconds' (must not be negative)");
    return seconds < 1e9 ? dbl_now() + seconds : DBL_NEVER;
}

/* The PGconn that getters ask: also one that is connecting. */
static PGconn *any_pg(Conn *c)
{
    return c->pg ? c->pg : c->attempt ? c->attempt->pg : NULL;
}

static int conn_close(lua_State *L)
{
    dbl_conn_close(L, 1);
    return 0;
}

static int conn_tostring(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    PGconn *pg = any_pg(c);
    char text[512] = "dblink.connection (closed)"; /* not Lua's: a finalizer may close it */
    if (!c->closed)
        snprintf(text, sizeof text, "dblink.connection (%s@%s/%s, %s)", dbl_said(PQuser(pg)),
                 dbl_said(PQhost(pg)), dbl_said(PQdb(pg)),
                 PQstatus(pg) == CONNECTION_BAD ? "lost"
                 : c->pg                        ? "open"
                                                : "connecting");
    lua_pushstring(L, text);
    return 1;
}

static int conn_status(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    lua_pushstring(L, c->closed             ? "closed"
                      : dbl_conn_failed(c)  ? "bad"
                      : !c->pg              ? "connecting"
                      : dbl_conn_is_open(c) ? "ok"
                                            : "bad");
    return 1;
}

static int conn_transaction_status(lua_State *L)
{
    static const char *const names[] = {"idle", "active", "intrans", "inerror", "unknown"};
    lua_pushstring(L, names[PQtransactionStatus(dbl_conn(L, 1)->pg)]);
    return 1;
}

static int conn_parameter(lua_State *L)
{
    const char *value = PQparameterStatus(dbl_conn(L, 1)->pg, luaL_checkstring(L, 2));
    if (value)
        dbl_pushcopy(L, value, strlen(value));
    else
        lua_pushnil(L);
    return 1;
}

static int conn_server_version(lua_State *L)
{
    lua_pushinteger(L, PQserverVersion(dbl_conn(L, 1)->pg));
    return 1;
}

static int conn_backend_pid(lua_State *L)
{
    lua_pushinteger(L, PQbackendPID(dbl_conn(L, 1)->pg));
    return 1;
}

static int is_secret(const PQconninfoOption *o)
{
    return strchr(o->dispchar, '*') != NULL;
}

/* The conninfo as it was understood, defaults included and secrets left out. */
static int conn_info(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    lua_settop(L, 1);
    lua_newtable(L);
    /* The list must be freed though Lua may raise: size it, then copy in. */
    PQconninfoOption *options = PQconninfo(any_pg(c));
    if (!options)
        return dbl_fail(L, DBL_MEMORY, "out of memory");
    size_t size = 0;
    for (PQconninfoOption *o = options; o->keyword; o++)
        if (o->val && *o->val && !is_secret(o))
            size += strlen(o->keyword) + strlen(o->val) + 2;
    PQconninfoFree(options);
    char *text = lua_newuserdata(L, size + 1), *to = text, *end = text + size;
    options = PQconninfo(any_pg(c));
    for (PQconninfoOption *o = options; o && o->keyword; o++)
        if (o->val && *o->val && !is_secret(o)) {
            size_t k = strlen(o->keyword) + 1, v = strlen(o->val) + 1;
            if (k + v > (size_t)(end - to))
                break;
            memcpy(to, o->keyword, k);
            memcpy(to + k, o->val, v);
            to += k + v;
        }
    PQconninfoFree(options);
    for (char *s = text; s < to;) {
        char *value = s + strlen(s) + 1;
        lua_pushstring(L, value);
        lua_setfield(L, 2, s);
        s = value + strlen(value) + 1;
    }
    lua_pushvalue(L, 2);
    return 1;
}

static int conn_getfd(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    PGconn *pg = any_pg(c);
    int fd = pg ? PQsocket(pg) : -1;
    if (fd < 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, fd);
    return 1;
}

/* LuaSocket asks whether something is buffered, so that select must not wait. */
static int conn_dirty(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    lua_pushboolean(L, PQtransactionStatus(c->pg) == PQTRANS_ACTIVE && !PQisBusy(c->pg));
    return 1;
}

static int conn_error_message(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    const char *message = PQerrorMessage(any_pg(c));
    size_t size = strlen(message);
    if (size > 0 && message[size - 1] == '\n')
        size--;
    if (size == 0)
        lua_pushliteral(L, "OK");
    else
        dbl_pushcopy(L, message, size);
    return 1;
}

const luaL_Reg dbl_conn_methods[] = {
    {"close",              conn_close             },
    {"status",             conn_status            },
    {"transaction_status", conn_transaction_status},
    {"parameter",          conn_parameter         },
    {"server_version",     conn_server_version    },
    {"backend_pid",        conn_backend_pid       },
    {"info",               conn_info              },
    {"getfd",              conn_getfd             },
    {"pollfd",             conn_getfd             },
    {"dirty",              conn_dirty             },
    {"error_message",      conn_error_message     },
    {NULL,                 NULL                   },
};

void dbl_conn_sever(Conn *c)
{
    PGconn *pg = any_pg(c);
    if (c->pg)
        stop_query(c, c->pg);
    if (pg && PQsocket(pg) >= 0)
        shutdown(PQsocket(pg), SHUT_RDWR);
    if (c->pg) /* what the kernel still holds comes first */
        while (PQstatus(c->pg) == CONNECTION_OK && PQconsumeInput(c->pg))
            ;
    else if (c->attempt)
        dbl_attempt_give_up(c->attempt);
}

/* core.sever(conn) */
static int conn_sever(lua_State *L)
{
    dbl_conn_sever(dbl_conn(L, 1));
    return 0;
}

const luaL_Reg dbl_conn_functions[] = {
    {"sever", conn_sever},
    {"loops", loops     },
    {"use",   use       },
    {NULL,    NULL      },
};

static const luaL_Reg metamethods[] = {
    {"__gc",       conn_close   },
    {"__close",    conn_close   },
    {"__tostring", conn_tostring},
    {NULL,         NULL         },
};

void dbl_conn_open(lua_State *L)
{
    dbl_newclass(L, DBL_CONN, metamethods, dbl_conn_methods);
    dbl_keep_class(L, &class_key);
    lua_newtable(L); /* who waits, by connection; weakly */
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    dbl_keep_class(L, &holders_key);
    lua_pop(L, 2);
}
