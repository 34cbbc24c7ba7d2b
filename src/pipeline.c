/*
 * pipeline.c -- many queries under way at once: sending them, beginning and end.
 *
 * SQL that comes for the second time is prepared, for this pipeline alone: then no
 * table has changed since last week.  The statement is relied upon when its Parse
 * has succeeded, or in the same group, up to the next sync: there both succeed or
 * neither.
 */
#include "pipeline.h"

#include <stdio.h>
#include <string.h>

#include "answer.h"
#include "fail.h"
#include "param.h"
#include "query.h"
#include "queue.h"
#include "receive.h"
#include "result.h"
#include "row.h"
#include "ticket.h"

#define PLAIN    "dblink.pipeline.plain" /* its connection's wait is poll(2) */
#define PIPELINE "dblink.pipeline"       /* Lua waits */

enum {
    MOST_SEEN = 100, /* of different SQL */
};

static int is_open(lua_State *L, const Pipeline *p)
{
    int is_free = dbl_pipeline_is_free(L, p, 1);
    if (dbl_pipeline_is_over(p) || p->ending)
        dbl_misuse(L, "pipeline is closed");
    return is_free;
}

static int push_true(lua_State *L)
{
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- queries ---- */

/* Sends the Parse of a new statement for the SQL at index 2: its number, 0 if that
 * did not go out. */
static int prepare(lua_State *L, Pipeline *p)
{
    Statement *s = &p->statement[p->statements];
    if (!PQsendPrepare(p->conn->pg, s->name, lua_tostring(L, 2), 0, NULL))
        return 0;
    s->group = p->group;
    s->habit = -1;
    s->state = DBL_STATEMENT_SENT;
    dbl_queue_put(p, DBL_PARSE, 0, ++p->statements, 0);
    return p->statements;
}

/* Pushes the number of the statement for the SQL at index 2; 0: none.  What the pipeline
 * has seen: by SQL, the number of its statement, 0 where it came once. */
static int look_up(lua_State *L, Pipeline *p)
{
    dbl_getuservalue(L, 1);
    lua_rawgeti(L, -1, DBL_PIPELINE_SEEN);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    int known = !lua_isnil(L, -1), n = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (n == 0 && (known ? p->statements < DBL_PIPELINE_STATEMENTS : p->seen < MOST_SEEN)) {
        p->seen += !known;
        n = known ? prepare(L, p) : 0;
        lua_pushvalue(L, 2);
        lua_pushinteger(L, n);
        lua_rawset(L, -3);
    }
    lua_pop(L, 2);
    return n;
}

/* The number of the statement to be used. */
static int find_statement(lua_State *L, Pipeline *p, const Query *q)
{
    int cacheable = dbl_query_is_cacheable(L, p->conn, q);
    /* the SQL of the statement that was run last is known by its address: it stays alive */
    if (!cacheable || lua_tostring(L, 2) != p->sql) {
        if (!q->statement)
            dbl_check_sql(L, 2, &(size_t){0});
        int found = cacheable ? look_up(L, p) : 0;
        if (found == 0)
            return 0;
        dbl_getuservalue(L, 1);
        lua_pushvalue(L, 2); /* equal to what was seen, but a long string may be another */
        lua_rawseti(L, -2, DBL_PIPELINE_SQL);
        lua_pop(L, 1);
        p->sql = lua_tostring(L, 2);
        p->known = found;
    }
    int n = p->known;
    const Statement *s = &p->statement[n - 1];
    if (s->state == DBL_STATEMENT_SENT)
        return s->group == p->group ? n : 0;
    return s->state == DBL_STATEMENT_BAD ? 0 : n;
}

/* The bytes that the query takes on its way, more or less. */
static size_t weigh(lua_State *L, const Query *q)
{
    size_t bytes = 64;
    int end = q->list ? 3 : 3 + q->params;
    for (int i = 2; i < end; i++)
        bytes += lua_type(L, i) == LUA_TSTRING ? dbl_rawlen(L, i) : 16;
    return bytes;
}

/* Sends it, by the statement of that number if there is one: its weight; 0 with nil and
 * an error where it did not go out. */
static size_t send(lua_State *L, Pipeline *p, Query *q, int n)
{
    Params params;
    PGconn *pg = p->conn->pg;
    if (n == 0) {
        q->extended = 1;
        return dbl_query_send(L, p->conn, q) ? weigh(L, q) : 0;
    }
    const Statement *s = &p->statement[n - 1];
    dbl_params(L, 3, q->params, 0, &params);
    if (!PQsendQueryPrepared(pg, s->name, params.count, params.values, params.lengths,
                             params.formats, dbl_choose_format(p->conn, q, s->habit))) {
        dbl_fail_conn(L, pg);
        return 0;
    }
    size_t bytes = 64;
    for (int i = 0; i < params.count; i++)
        bytes += (size_t)params.lengths[i];
    return bytes;
}

static void read_query(lua_State *L, const Conn *c, Query *q)
{
    dbl_query_read(L, c, 1, q);
    if (q->deadline < DBL_NEVER || q->null || q->budget != c->budget || q->shape == DBL_ROW_VALUES)
        dbl_misuse(L, "in a pipeline a query has no timeout, no max_bytes and no null of its own, "
                      "and no rows = \"values\"");
}

/* Sends the query at index 2 and pushes its ticket, or true where it has none; with
 * `false` behind it where Lua must wait for room. */
static int dispatch(lua_State *L, int kind)
{
    Query q;
    Pipeline *p = dbl_pipeline(L, 1);
    if (!is_open(L, p))
        return 2;
    Conn *c = p->conn;
    read_query(L, c, &q);
    if (q.params > 5) /* of the 20 that a function may push */
        luaL_checkstack(L, 20, "too many parameters");
    dbl_queue_reserve(L, p, 1);
    int n = find_statement(L, p, &q), own = 0, ticket = 0;
    if (kind == DBL_TICKET) {
        own = dbl_queue_push(L, 1);
        dbl_ticket_push(L, p->room, q.reading, p->last, n);
        lua_rawgeti(L, own, DBL_PIPELINE_TICKET);
        lua_setmetatable(L, -2);
        ticket = lua_gettop(L);
    }
    size_t weight = send(L, p, &q, n);
    if (weight == 0)
        return 2;
    if (ticket) {
        lua_pushvalue(L, ticket);
        dbl_queue_put_ticket(L, p, own);
    }
    dbl_queue_put(p, kind, q.reading, n, weight);
    if (c->most)
        PQsetSingleRowMode(c->pg); /* of the first; dbl_take does it for the next ones */
    p->unsent += weight;
    if (ticket)
        lua_settop(L, ticket);
    else
        lua_pushboolean(L, 1);
    if (dbl_queue_has_room(p) || dbl_queue_make_room(L, p, 1))
        return 1;
    lua_pushboolean(L, 0);
    return 2;
}

/* p:query(...) */
static int pipeline_query(lua_State *L)
{
    return dispatch(L, DBL_TICKET);
}

/* p:send_query(...) */
static int pipeline_send_query(lua_State *L)
{
    return dispatch(L, DBL_BARE);
}

static int pipeline_sync(lua_State *L)
{
    Pipeline *p = dbl_pipeline(L, 1);
    if (!is_open(L, p))
        return 2;
    if (!PQpipelineSync(p->conn->pg))
        return dbl_fail_conn(L, p->conn->pg);
    p->asked = p->last;
    p->open = 0;
    p->group++;
    dbl_queue_work(L, p, dbl_queue_push(L, 1), 0);
    return push_true(L);
}

static int pipeline_flush(lua_State *L)
{
    Pipeline *p = dbl_pipeline(L, 1);
    if (!is_open(L, p))
        return 2;
    if (!dbl_queue_ask(p))
        return dbl_fail_conn(L, p->conn->pg);
    dbl_queue_work(L, p, dbl_queue_push(L, 1), 0);
    return push_true(L);
}

/* p:room(): true, or false where Lua must wait. */
static int pipeline_room(lua_State *L)
{
    Pipeline *p = dbl_pipeline(L, 1);
    lua_pushboolean(L, dbl_pipeline_is_over(p) || dbl_queue_make_room(L, p, 1));
    return 1;
}

/* ---- beginning and end ---- */

static Pipeline *new_pipeline(lua_State *L, Conn *c, double deadline)
{
    Pipeline *p = dbl_newuserdata(L, sizeof *p);
    memset(p, 0, sizeof *p);
    dbl_pipeline_mark(p);
    p->conn = c;
    p->turn = c->turn - 1;
    p->room = sizeof(Result);
    p->row = -1;
    p->sql = "";
    p->deadline = deadline;
    luaL_getmetatable(L, c->plain && deadline == DBL_NEVER ? PLAIN : PIPELINE);
    lua_setmetatable(L, -2);
    lua_createtable(L, DBL_PIPELINE_SQL, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, DBL_PIPELINE_CONN);
    lua_newtable(L);
    lua_rawseti(L, -2, DBL_PIPELINE_SEEN);
    dbl_setuservalue(L, -2);
    return p;
}

/* core.pipeline(conn, name, wrap, seconds): name: how those of its statements begin. */
static int conn_pipeline(lua_State *L)
{
    Conn *c = dbl_conn_ready(L, 1);
    if (!c)
        return 2;
    const char *name = luaL_checkstring(L, 2);
    double deadline = dbl_opt_deadline(L, 4);
    lua_settop(L, 3);
    Pipeline *p = new_pipeline(L, c, deadline);
    dbl_answer_class(L, 3);
    dbl_queue_reserve(L, p, 4);
    lua_settop(L, 4);
    for (int i = 0; i < DBL_PIPELINE_STATEMENTS; i++)
        snprintf(p->statement[i].name, sizeof p->statement[i].name, "%s_%d", name, i + 1);
    if (!PQenterPipelineMode(c->pg))
        return dbl_fail_conn(L, c->pg);
    dbl_conn_begin(c, "a pipeline", 10, DBL_GOAL_TAKE);
    c->fresh = 0;
    c->deadline = p->deadline;
    c->most = c->budget;
    c->occupied = 1;
    p->turn = c->turn;
    return 1;
}

/* Sends what closes the pipeline's statements: whether there was something to close.
 * Where SQL has to do it a failed transaction keeps them, as long as the session. */
static int close_statements(lua_State *L, Pipeline *p)
{
    PGconn *pg = p->conn->pg;
    int closed = 0, n = p->statements;
    p->statements = 0;
    if (!DBL_HAS_CLOSE_PREPARED && PQtransactionStatus(pg) == PQTRANS_INERROR)
        return 0;
    for (int i = 0; i < n; i++) {
        const Statement *s = &p->statement[i];
        if (s->state == DBL_STATEMENT_BAD) /* each has had its answer */
            continue;
        lua_pushfstring(L, DBL_HAS_CLOSE_PREPARED ? "%s" : "DEALLOCATE %s", s->name);
        dbl_queue_reserve(L, p, 1);
        if (dbl_send_close(pg, lua_tostring(L, -1))) {
            dbl_queue_put(p, DBL_ODD, 0, 0, 0);
            closed = 1;
        }
        lua_pop(L, 1);
    }
    return closed;
}

/* Goes on ending it: 1 when all is answered, 0 to wait. */
static int end(lua_State *L, Pipeline *p, int own)
{
    Conn *c = p->conn;
    p->ending = 1;
    for (;;) {
        if (p->open) {
            PQpipelineSync(c->pg);
            p->open = 0;
            p->group++;
        }
        dbl_queue_work(L, p, own, 1); /* who hears of a notice may close the connection */
        if (PQtransactionStatus(c->pg) == PQTRANS_ACTIVE)
            return 0;
        if (PQstatus(c->pg) == CONNECTION_BAD || !close_statements(L, p))
            return 1;
    }
}

/* p:finish([seconds]): true when it is over, nil and an error when the connection is;
 * false where Lua must wait, or the deadline has come. */
static int pipeline_finish(lua_State *L)
{
    Pipeline *p = dbl_pipeline(L, 1);
    Conn *c = p->conn;
    if (dbl_pipeline_is_over(p) || !dbl_conn_is_ours(c))
        return push_true(L);
    if (!dbl_pipeline_is_free(L, p, 1))
        return 2;
    if (!lua_isnoneornil(L, 2))
        dbl_pipeline_deadline(p, dbl_opt_deadline(L, 2));
    int own = dbl_queue_push(L, 1);
    while (!end(L, p, own) || dbl_conn_barred(c)) {
        if (PQtransactionStatus(c->pg) != PQTRANS_ACTIVE)
            c->goal = DBL_GOAL_NEXT; /* that a cancel request is over */
        if (!dbl_queue_settle(L, p, own)) {
            lua_pushboolean(L, 0);
            return 1;
        }
    }
    if (dbl_pipeline_is_over(p))
        return push_true(L);
    c->occupied = 0;
    c->turn++;
    c->goal = DBL_GOAL_NEXT;
    c->deadline = DBL_NEVER;
    if (PQstatus(c->pg) == CONNECTION_BAD)
        return dbl_fail_conn(L, c->pg);
    PQexitPipelineMode(c->pg);
    return push_true(L);
}

static int pipeline_conn(lua_State *L)
{
    dbl_pipeline(L, 1);
    dbl_getuservalue(L, 1);
    lua_rawgeti(L, -1, DBL_PIPELINE_CONN);
    return 1;
}

static int pipeline_gc(lua_State *L)
{
    Pipeline *p = lua_touserdata(L, 1);
    PQclear(p->lent);
    p->lent = NULL;
    return 0;
}

/* core.pipeline_class(plain): the metatable, to which Lua adds what waits. */
static int pipeline_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"query",      pipeline_query     },
        {"send_query", pipeline_send_query},
        {"sync",       pipeline_sync      },
        {"flush",      pipeline_flush     },
        {"room",       pipeline_room      },
        {"finish",     pipeline_finish    },
        {"conn",       pipeline_conn      },
        {NULL,         NULL               },
    };
    luaL_newmetatable(L, lua_toboolean(L, 1) ? PLAIN : PIPELINE);
    lua_pushliteral(L, PIPELINE);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__name");
    lua_setfield(L, -2, "__metatable");
    lua_pushcfunction(L, pipeline_gc);
    lua_setfield(L, -2, "__gc");
    lua_newtable(L);
    dbl_setfuncs(L, methods, 0);
    dbl_setfuncs(L, dbl_answer_methods, 0);
    lua_setfield(L, -2, "__index");
    return 1;
}

const luaL_Reg dbl_pipeline_functions[] = {
    {"pipeline",       conn_pipeline },
    {"pipeline_class", pipeline_class},
    {NULL,             NULL          },
};
