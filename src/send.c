/*
 * send.c -- verbs that send: send_query and query; prepare and close.
 *
 * Without parameters the simple protocol is spoken, which takes several
 * statements; with parameters the extended one.
 *
 * Those that core has give `false` where Lua must wait, and then end them with
 * core.take_last(conn) or its like.
 */
#include "send.h"

#include <string.h>

#include "fail.h"
#include "query.h"
#include "receive.h"
#include "result.h"
#include "row.h"

static void note_use(lua_State *L, Conn *c)
{
    lua_pushinteger(L, ++c->clock);
    lua_rawseti(L, 2, DBL_STATEMENT_USED);
}

/* The SQL at index 2 is replaced by the statement that is cached for it: 0 where
 * there is none, and Lua makes one. */
static int use_cache(lua_State *L, Conn *c, Query *q)
{
    if (q->params == 0 || !dbl_query_is_cacheable(L, c, q))
        return 1;
    if (c->discarded)
        return 0;
    dbl_getuservalue(L, 1);
    lua_getfield(L, -1, "statements");
    lua_pushvalue(L, 2);
    lua_rawget(L, -2); /* uservalue, statements, statement */
    if (lua_isnil(L, -1))
        return 0;
    lua_rawgeti(L, -1, DBL_STATEMENT_BINARY);
    if (lua_isnil(L, -1))
        return 0;
    lua_pop(L, 1);
    lua_replace(L, 2);
    lua_pop(L, 2);
    q->statement = 2;
    note_use(L, c);
    return 1;
}

static int read_query(lua_State *L, Conn *c, int first, Query *q)
{
    if (!dbl_conn_is_ready(L, c, 1))
        return 0;
    dbl_query_read(L, c, first, q);
    if (q->shape == DBL_ROW_VALUES)
        dbl_misuse(L, "option rows = \"values\" is for conn:rows");
    return 1;
}

static int conn_send_query(lua_State *L)
{
    Query q;
    Conn *c = dbl_conn_any(L, 1);
    if (!read_query(L, c, 1, &q) || !dbl_query_send(L, c, &q))
        return 2;
    dbl_query_begin(L, c, &q, DBL_GOAL_NEXT);
    c->deadline = DBL_NEVER;
    dbl_step(c); /* as much of it as the socket takes */
    lua_pushboolean(L, 1);
    return 1;
}

/* What a query ends with, here or in Lua. */
static int push_last(lua_State *L, Conn *c)
{
    return dbl_push_kept(L, c, 1);
}

static int settle(lua_State *L, Conn *c, int (*take)(lua_State *, Conn *))
{
    if (dbl_settle(L, c))
        return take(L, c);
    lua_pushboolean(L, 0);
    return 1;
}

static int run(lua_State *L, Conn *c, Query *q, int (*take)(lua_State *, Conn *))
{
    if (!dbl_query_send(L, c, q))
        return 2;
    dbl_query_begin(L, c, q, DBL_GOAL_LAST);
    return settle(L, c, take);
}

int dbl_ask_text(lua_State *L, Conn *c, const char *sql, size_t size)
{
    if (!dbl_conn_is_ready(L, c, 1))
        return 0;
    c->again = 0;
    return dbl_query_text(L, c, sql, size, DBL_GOAL_LAST);
}

/* The SQL at index 2, where it is all that is there. */
static const char *sql_alone(lua_State *L, size_t *size)
{
    if (lua_gettop(L) != 2 || lua_type(L, 2) != LUA_TSTRING)
        return NULL;
    const char *sql = lua_tolstring(L, 2, size);
    return memchr(sql, '\0', *size) ? NULL : sql;
}

int dbl_ask(lua_State *L, Conn *c, int first)
{
    Query q;
    size_t size;
    const char *sql = sql_alone(L, &size);
    if (sql)
        return dbl_ask_text(L, c, sql, size);
    if (!read_query(L, c, first, &q))
        return 0;
    c->again = 0;
    if (!use_cache(L, c, &q)) {
        lua_pushnil(L);
        lua_pushnil(L);
        return 0;
    }
    if (!dbl_query_send(L, c, &q))
        return 0;
    dbl_query_begin(L, c, &q, DBL_GOAL_LAST);
    return 1;
}

/* The result of the last statement; nil alone where a statement is to be cached first; where
 * Lua must wait, false and what core.turn gives. */
static int conn_query(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    if (!dbl_ask(L, c, 1))
        return 2;
    return c->plain ? settle(L, c, push_last) : dbl_push_arrived(L, c);
}

static int conn_query_uncached(lua_State *L)
{
    Query q;
    Conn *c = dbl_conn_any(L, 1);
    return read_query(L, c, 1, &q) ? run(L, c, &q, push_last) : 2;
}

/* Pushes what a statement whose results are described in c->kept has as its
 * DBL_STATEMENT_BINARY. */
static void push_binary(lua_State *L, Conn *c)
{
    int traits = -1, top = lua_gettop(L), reading = c->habits & ~DBL_READ_RAW;
    if (PQnfields(c->kept) > 0) {
        dbl_getuservalue(L, 1);
        traits = dbl_binary_traits(L, c->kept, reading, top + 1);
    }
    lua_settop(L, top);
    if (traits < 0)
        lua_pushboolean(L, 0);
    else
        lua_pushinteger(L, dbl_binary_habit(c, traits));
}

/* core.query_along(conn, statement, ...): a query whose statement is prepared along
 * with it.  core.take_along(conn): the result and that. */
static int push_along(lua_State *L, Conn *c)
{
    push_binary(L, c);
    if (dbl_push_kept(L, c, 1) == 1)
        lua_insert(L, -2);
    return 2;
}

static int conn_query_along(lua_State *L)
{
    Query q;
    Conn *c = dbl_conn_any(L, 1);
    c->done = 0; /* also where nothing will be sent */
    if (!read_query(L, c, 1, &q))
        return 2;
    note_use(L, c);
    return run(L, c, &q, push_along);
}

/* core.prepare(conn, statement, seconds): prepares it, and asks what it takes and
 * gives.  core.take_description(conn) ends it: a result without rows, that, and the
 * OIDs of the parameters. */
static int push_description(lua_State *L, Conn *c)
{
    int count = PQnparams(c->kept);
    push_binary(L, c);
    lua_createtable(L, count, 0);
    for (int i = 0; i < count; i++) {
        dbl_pushint8(L, PQparamtype(c->kept, i));
        lua_rawseti(L, -2, i + 1);
    }
    if (dbl_push_kept(L, c, 1) == 2)
        return 2;
    lua_insert(L, -3);
    return 3;
}

static int conn_prepare(lua_State *L)
{
    Conn *c = dbl_conn_ready(L, 1);
    if (!c)
        return 2;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_rawgeti(L, 2, DBL_STATEMENT_SQL);
    dbl_check_sql(L, lua_gettop(L), &(size_t){0});
    Query q = {.deadline = dbl_opt_deadline(L, 3), .reading = c->habits, .statement = 2};
    if (!dbl_query_prepare(L, c, &q))
        return 2;
    dbl_query_begin(L, c, &q, DBL_GOAL_LAST);
    return settle(L, c, push_description);
}

/* core.close_statement(conn, what): as dbl_send_close wants it. */
static int conn_close_statement(lua_State *L)
{
    size_t size;
    Conn *c = dbl_conn_ready(L, 1);
    if (!c)
        return 2;
    const char *what = dbl_check_string(L, 2, "statement", &size);
    if (!dbl_send_close(c->pg, what))
        return dbl_fail_conn(L, c->pg);
    dbl_conn_begin(c, what, size, DBL_GOAL_LAST);
    return settle(L, c, push_last);
}

static int conn_take_along(lua_State *L)
{
    return push_along(L, dbl_conn(L, 1));
}

static int conn_take_description(lua_State *L)
{
    return push_description(L, dbl_conn(L, 1));
}

const luaL_Reg dbl_send_functions[] = {
    {"send_query",       conn_send_query      },
    {"query",            conn_query           },
    {"query_uncached",   conn_query_uncached  },
    {"query_along",      conn_query_along     },
    {"take_along",       conn_take_along      },
    {"prepare",          conn_prepare         },
    {"take_description", conn_take_description},
    {"close_statement",  conn_close_statement },
    {NULL,               NULL                 },
};
