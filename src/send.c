/*
 * send.c -- verbs that send: send_query and query.
 *
 * Without parameters the simple protocol is spoken, which takes several
 * statements; with parameters the extended one.  Whatever is wrong with the
 * arguments is said before anything is sent.
 */
#include "send.h"

#include <string.h>

#include "fail.h"
#include "param.h"
#include "receive.h"
#include "result.h"

/* The SQL at stack index i: no NUL, which libpq would take for its end. */
static const char *check_sql(lua_State *L, int i, size_t *size)
{
    const char *sql = dbl_check_string(L, i, "sql", size);
    if (memchr(sql, '\0', *size))
        dbl_misuse(L, "bad argument 'sql' (a NUL byte at %d)",
                   (int)((const char *)memchr(sql, '\0', *size) - sql) + 1);
    return sql;
}

/* How one query is to be run: the connection's habits, changed by its options. */
typedef struct Query {
    double deadline;
    int goal, binary, reading;
    int null; /* stack index of its own `null`, or 0 */
    int params;
} Query;

/* A `null` of this query's own: noted beside the connection's user value. */
static void note_null(lua_State *L, Query *q)
{
    dbl_getuservalue(L, 1);
    lua_createtable(L, 0, 2);
    lua_pushvalue(L, q->null);
    lua_setfield(L, -2, "null");
    lua_getfield(L, -2, "codecs");
    lua_setfield(L, -2, "codecs");
    lua_setfield(L, -2, "call");
    lua_pop(L, 1);
}

/* Sends the SQL at index 2 with the values behind it.  1, or 0 with nil and an
 * error pushed; what is in progress is not disturbed then. */
static int send(lua_State *L, Conn *c, Query *q)
{
    size_t size;
    Params p = {0};
    const char *sql = check_sql(L, 2, &size);
    if (q->params > 0)
        dbl_params(L, 3, q->params, &p);
    if (q->null)
        note_null(L, q);
    /* Other settings would show: the values are the same in either format. */
    if (q->binary && !(q->reading & DBL_READ_RAW))
        q->binary = dbl_type_settled(c->pg, -1);
    int sent = q->params > 0 || q->binary
                   ? PQsendQueryParams(c->pg, sql, p.count, p.types, p.values, p.lengths, p.formats,
                                       q->binary)
                   : PQsendQuery(c->pg, sql);
    if (!sent) {
        dbl_fail_conn(L, c->pg);
        return 0;
    }
    dbl_conn_begin(c, sql, size, q->goal);
    c->reading = (unsigned char)q->reading;
    c->own_null = q->null != 0;
    c->deadline = q->deadline;
    return 1;
}

/* Reads the options of the table at index t; its positional entries are counted. */
static int read_options(lua_State *L, int t, Query *q)
{
    int entries = 0;
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        int key = lua_gettop(L) - 1, value = key + 1;
        if (lua_type(L, key) == LUA_TNUMBER) {
            int i = (int)lua_tointeger(L, key);
            entries = i > entries ? i : entries;
            continue;
        }
        const char *name = lua_type(L, key) == LUA_TSTRING ? lua_tostring(L, key) : "?";
        if (strcmp(name, "timeout") == 0) {
            if (lua_type(L, value) != LUA_TNUMBER || lua_tonumber(L, value) < 0)
                dbl_misuse(L, "option timeout must be a number of seconds");
            q->deadline = dbl_opt_deadline(L, value);
        } else if (strcmp(name, "n") == 0) {
            if (lua_type(L, value) != LUA_TNUMBER)
                dbl_misuse(L, "option n must be a number");
            int n = (int)lua_tointeger(L, value);
            entries = n > entries ? n : entries;
        } else if (strcmp(name, "binary") == 0) {
            q->binary = lua_toboolean(L, value);
        } else if (strcmp(name, "rows") == 0) {
            const char *shape = lua_tostring(L, value);
            int array = shape && strcmp(shape, "array") == 0;
            if (!array && !(shape && strcmp(shape, "row") == 0))
                dbl_misuse(L, "option rows must be \"row\" or \"array\"");
            q->reading &= ~DBL_READ_ARRAYS;
            q->reading |= array ? DBL_READ_ARRAYS : 0;
        } else if (strcmp(name, "decode") == 0) {
            q->reading &= ~DBL_READ_RAW;
            q->reading |= lua_toboolean(L, value) ? 0 : DBL_READ_RAW;
        } else if (strcmp(name, "null") == 0) {
            q->reading |= DBL_READ_NULL;
        } else {
            dbl_misuse(L, "unknown option '%s'", name);
        }
    }
    return entries;
}

/* conn:query{sql, v1, v2, ..., timeout = ...}: puts the entries on the stack as
 * if they had been given one by one.  n, as table.pack sets it, counts nils at
 * the end. */
static void spread(lua_State *L, Query *q)
{
    lua_settop(L, 2);
    int entries = read_options(L, 2, q);
    if (entries < 1)
        dbl_misuse(L, "no SQL at [1]");
    if (entries > DBL_MOST_PARAMS + 1)
        dbl_misuse(L, "more parameters than PostgreSQL takes");
    luaL_checkstack(L, entries + 8, "too many parameters");
    for (int i = 1; i <= entries; i++)
        lua_rawgeti(L, 2, i);
    if (q->reading & DBL_READ_NULL) {
        lua_getfield(L, 2, "null");
        if (!lua_isnil(L, -1))
            q->null = lua_gettop(L);
        else
            lua_pop(L, 1);
    }
    lua_remove(L, 2);
    q->null -= q->null != 0;
    q->params = entries - 1;
}

static Conn *prepare_query(lua_State *L, Query *q, int goal)
{
    Conn *c = dbl_conn_ready(L, 1);
    if (!c)
        return NULL;
    *q = (Query){.deadline = DBL_NEVER, .goal = goal, .reading = c->habits};
    if (lua_type(L, 2) == LUA_TTABLE)
        spread(L, q);
    else
        q->params = lua_gettop(L) - 2;
    return c;
}

static int conn_send_query(lua_State *L)
{
    Query q;
    Conn *c = prepare_query(L, &q, DBL_GOAL_NEXT);
    if (!c || !send(L, c, &q))
        return 2;
    c->deadline = DBL_NEVER;
    dbl_step(c); /* as much of it as the socket takes */
    lua_pushboolean(L, 1);
    return 1;
}

/* The result of the last statement; `false` where Lua must wait and then call
 * core.take_last(conn). */
static int conn_query(lua_State *L)
{
    Query q;
    Conn *c = prepare_query(L, &q, DBL_GOAL_LAST);
    if (!c || !send(L, c, &q))
        return 2;
    if (!dbl_settle(L, c)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    return dbl_push_kept(L, c, 1);
}

const luaL_Reg dbl_send_methods[] = {
    {"send_query", conn_send_query},
    {NULL,         NULL           },
};

const luaL_Reg dbl_send_functions[] = {
    {"query", conn_query},
    {NULL,    NULL      },
};
