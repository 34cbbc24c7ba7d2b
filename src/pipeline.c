/*
 * pipeline.c -- many queries under way at once, a ticket for each.
 *
 * SQL that comes for the second time is prepared, for this pipeline alone: then no
 * table has changed since last week.  The statement is relied upon when its Parse
 * has succeeded, or in the same group, up to the next sync: there both succeed or
 * neither.
 */
#include "pipeline.h"

#include <stdio.h>
#include <string.h>

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

static const char mark;

enum {
    MOST_SEEN = 100, /* of different SQL */
};

/* The pipeline at index 1: known by what nobody else's userdata of that size begins
 * with, which costs a fourth of comparing metatables. */
static Pipeline *check_pipeline(lua_State *L)
{
    Pipeline *p = lua_touserdata(L, 1);
    if (!p || dbl_rawlen(L, 1) != sizeof *p || p->mark != &mark)
        luaL_argerror(L, 1, "pipeline expected");
    return p;
}

static int is_over(const Pipeline *p)
{
    return p->conn->turn != p->turn;
}

/* Whether nobody waits on it: else nil and an error are pushed. */
static int is_free(lua_State *L, const Pipeline *p)
{
    if (p->conn->held)
        dbl_fail(L, DBL_USAGE, DBL_HELD, p->conn->sql);
    return !p->conn->held;
}

/* Raises where its connection, the pipeline's index is i, is closed or a parent's. */
static void check_conn(lua_State *L, const Pipeline *p, int i)
{
    if (dbl_conn_is_ours(p->conn))
        return;
    dbl_getuservalue(L, i);
    lua_rawgeti(L, -1, DBL_PIPELINE_CONN);
    dbl_conn(L, lua_gettop(L));
}

static int is_open(lua_State *L, const Pipeline *p)
{
    check_conn(L, p, 1);
    if (is_over(p) || p->ending)
        dbl_misuse(L, "pipeline is closed");
    return is_free(L, p);
}

/* What is waited for from now on is waited for until then, or the deadline of the whole. */
static void set_deadline(Pipeline *p, double deadline)
{
    p->conn->deadline = deadline < p->deadline ? deadline : p->deadline;
}

static int push_true(lua_State *L)
{
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- queries ---- */

/* Sends the Parse of a new statement for the SQL at index 2: its number, 0 if that
 * did not go out. */
static int prepare(lua_State *L, Pipeline *p, int own)
{
    Statement *s = &p->statement[p->statements];
    if (!PQsendPrepare(p->conn->pg, s->name, lua_tostring(L, 2), 0, NULL))
        return 0;
    s->group = p->group;
    s->habit = -1;
    s->state = DBL_STATEMENT_SENT;
    lua_pushinteger(L, ++p->statements);
    dbl_queue_put(L, p, own);
    return p->statements;
}

/* The number of the statement for the SQL at index 2; 0: none.  What the pipeline has
 * seen: by SQL, the number of its statement, 0 where it came once. */
static int find_statement(lua_State *L, Pipeline *p, const Query *q, int own)
{
    if (!dbl_query_is_cacheable(L, p->conn, q))
        return 0;
    lua_rawgeti(L, own, DBL_PIPELINE_SEEN);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    int known = !lua_isnil(L, -1), n = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (n == 0 && (known ? p->statements < DBL_PIPELINE_STATEMENTS : p->seen < MOST_SEEN)) {
        p->seen += !known;
        n = known ? prepare(L, p, own) : 0;
        lua_pushvalue(L, 2);
        lua_pushinteger(L, n);
        lua_rawset(L, -3);
    }
    lua_pop(L, 1);
    if (n == 0)
        return 0;
    const Statement *s = &p->statement[n - 1];
    if (s->state == DBL_STATEMENT_SENT)
        return s->group == p->group ? n : 0;
    return s->state == DBL_STATEMENT_BAD ? 0 : n;
}

static int send(lua_State *L, Pipeline *p, Query *q, int n)
{
    Params params;
    PGconn *pg = p->conn->pg;
    if (n == 0) {
        q->extended = 1;
        return dbl_query_send(L, p->conn, q);
    }
    const Statement *s = &p->statement[n - 1];
    dbl_params(L, 3, q->params, 0, &params);
    if (PQsendQueryPrepared(pg, s->name, params.count, params.values, params.lengths,
                            params.formats, dbl_choose_format(p->conn, q, s->habit)))
        return 1;
    dbl_fail_conn(L, pg);
    return 0;
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

static void read_query(lua_State *L, const Conn *c, Query *q)
{
    dbl_query_read(L, c, 1, q);
    if (q->deadline < DBL_NEVER || q->null || q->budget != c->budget || q->shape == DBL_ROW_VALUES)
        dbl_misuse(L, "in a pipeline a query has no timeout, no max_bytes and no null of its own, "
                      "and no rows = \"values\"");
    if (!q->statement)
        dbl_check_sql(L, 2, &(size_t){0});
}

/* p:query(...): a ticket; with `false` behind it where Lua must wait for room. */
static int pipeline_query(lua_State *L)
{
    Query q;
    Pipeline *p = check_pipeline(L);
    if (!is_open(L, p))
        return 2;
    Conn *c = p->conn;
    read_query(L, c, &q);
    luaL_checkstack(L, 20, "too many parameters");
    int own = dbl_queue_push(L, 1), ticket = own + 2;
    dbl_queue_reserve(L, p, own);
    int n = find_statement(L, p, &q, own);
    dbl_ticket_push(L, p->room, q.reading, p->last, n);
    lua_rawgeti(L, own, DBL_PIPELINE_TICKET);
    lua_setmetatable(L, ticket);
    if (!send(L, p, &q, n))
        return 2;
    lua_pushvalue(L, ticket);
    dbl_queue_put(L, p, own);
    if (c->most)
        PQsetSingleRowMode(c->pg); /* of the first; dbl_take does it for the next ones */
    p->unsent += weigh(L, &q);
    lua_settop(L, ticket);
    if (dbl_queue_make_room(L, p, own))
        return 1;
    lua_pushboolean(L, 0);
    return 2;
}

static int pipeline_sync(lua_State *L)
{
    Pipeline *p = check_pipeline(L);
    if (!is_open(L, p))
        return 2;
    if (!PQpipelineSync(p->conn->pg))
        return dbl_fail_conn(L, p->conn->pg);
    p->asked = p->last;
    p->open = 0;
    p->group++;
    dbl_queue_work(L, p, dbl_queue_push(L, 1));
    return push_true(L);
}

static int pipeline_flush(lua_State *L)
{
    Pipeline *p = check_pipeline(L);
    if (!is_open(L, p))
        return 2;
    if (!dbl_queue_ask(p))
        return dbl_fail_conn(L, p->conn->pg);
    dbl_queue_work(L, p, dbl_queue_push(L, 1));
    return push_true(L);
}

/* p:room(): true, or false where Lua must wait. */
static int pipeline_room(lua_State *L)
{
    Pipeline *p = check_pipeline(L);
    lua_pushboolean(L, is_over(p) || dbl_queue_make_room(L, p, dbl_queue_push(L, 1)));
    return 1;
}

/* ---- tickets ---- */

/* Waits for the answer to the ticket at index 1; the pipeline's index is 2: 0 when it
 * is there, else how many values were pushed instead. */
static int wait_for(lua_State *L, const Result *t, double deadline, int late)
{
    Pipeline *p = lua_touserdata(L, 2);
    Conn *c = p->conn;
    unsigned number = (unsigned)t->rows;
    if (!is_over(p)) {
        check_conn(L, p, 2);
        if (!is_free(L, p))
            return 2;
        if (deadline < DBL_NEVER)
            set_deadline(p, deadline);
        if ((int)(number - p->asked) >= 0)
            dbl_queue_ask(p);
        c->goal = DBL_GOAL_TAKE;
    }
    int own = dbl_queue_push(L, 2);
    for (;;) {
        if (is_over(p))
            return dbl_fail(L, DBL_CONNECTION,
                            "the pipeline was ended before this query was answered");
        dbl_queue_take(L, p, own);
        if (t->status != DBL_TICKET_PENDING)
            break;
        if ((int)(number - p->first) < 0)
            return dbl_fail(L, DBL_MEMORY, "out of memory for the answer to this query");
        if (PQstatus(c->pg) == CONNECTION_BAD)
            return dbl_fail_conn(L, c->pg);
        if (!late && dbl_queue_settle(L, p, own))
            continue;
        if (!late && !c->plain) {
            lua_pushboolean(L, 0);
            return 1;
        }
        c->deadline = p->deadline;
        return dbl_fail(L, DBL_TIMEOUT, "the query was not answered in time");
    }
    c->deadline = is_over(p) ? DBL_NEVER : p->deadline;
    return 0;
}

/* ticket:result([seconds]); `false` where Lua must wait.  A third argument says that
 * the deadline has come meanwhile.  Upvalues: the ticket's metatable, the pipeline,
 * the metatable of small results. */
static int ticket_result(lua_State *L)
{
    Result *t = lua_touserdata(L, 1);
    lua_settop(L, 3);
    if (!t || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1))) {
        if (!t || !lua_rawequal(L, -1, lua_upvalueindex(3)))
            luaL_argerror(L, 1, "ticket expected");
        lua_settop(L, 1); /* it has become one */
        return 1;
    }
    if (t->status == DBL_TICKET_PENDING) {
        double deadline = dbl_opt_deadline(L, 2);
        int late = lua_toboolean(L, 3);
        lua_settop(L, 1);
        lua_pushvalue(L, lua_upvalueindex(2));
        int pushed = wait_for(L, t, deadline, late);
        if (pushed)
            return pushed;
    }
    return dbl_ticket_give(L, 1, lua_upvalueindex(3));
}

/* ---- beginning and end ---- */

static Pipeline *new_pipeline(lua_State *L, Conn *c, double deadline)
{
    Pipeline *p = dbl_newuserdata(L, sizeof *p);
    memset(p, 0, sizeof *p);
    p->mark = &mark;
    p->conn = c;
    p->turn = c->turn - 1;
    p->room = sizeof(Result);
    p->deadline = deadline;
    luaL_getmetatable(L, c->plain && deadline == DBL_NEVER ? PLAIN : PIPELINE);
    lua_setmetatable(L, -2);
    lua_createtable(L, 4, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, DBL_PIPELINE_CONN);
    lua_newtable(L);
    lua_rawseti(L, -2, DBL_PIPELINE_SEEN);
    dbl_setuservalue(L, -2);
    return p;
}

/* The metatable of the tickets of the pipeline on the top.  wrap, a function of Lua's
 * at that index: makes of ticket:result one that waits. */
static void new_ticket_class(lua_State *L, int wrap)
{
    int p = lua_gettop(L);
    dbl_getuservalue(L, p);
    lua_newtable(L);
    int class = lua_gettop(L);
    lua_pushliteral(L, "dblink.ticket");
    lua_pushvalue(L, -1);
    lua_setfield(L, class, "__name");
    lua_setfield(L, class, "__metatable");
    lua_newtable(L);
    lua_pushvalue(L, class);
    lua_pushvalue(L, p);
    dbl_push_small(L);
    lua_pushcclosure(L, ticket_result, 3);
    if (lua_isfunction(L, wrap)) {
        lua_pushvalue(L, wrap);
        lua_insert(L, -2);
        lua_call(L, 1, 1);
    }
    lua_setfield(L, -2, "result");
    lua_setfield(L, class, "__index");
    lua_rawseti(L, p + 1, DBL_PIPELINE_TICKET);
    lua_settop(L, p);
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
    new_ticket_class(L, 3);
    dbl_queue_reserve(L, p, dbl_queue_push(L, 4));
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
static int close_statements(lua_State *L, Pipeline *p, int own)
{
    PGconn *pg = p->conn->pg;
    int closed = 0, n = p->statements;
    p->statements = 0;
    if (!DBL_HAS_CLOSE_PREPARED && PQtransactionStatus(pg) == PQTRANS_INERROR)
        return 0;
    for (int i = 0; i < n; i++) {
        const Statement *s = &p->statement[i];
        if (s->state == DBL_STATEMENT_BAD || s->state == DBL_STATEMENT_SENT)
            continue;
        lua_pushfstring(L, DBL_HAS_CLOSE_PREPARED ? "%s" : "DEALLOCATE %s", s->name);
        dbl_queue_reserve(L, p, own);
        if (dbl_send_close(pg, lua_tostring(L, -1))) {
            lua_pushinteger(L, 0);
            dbl_queue_put(L, p, own);
            closed = 1;
        }
        lua_pop(L, 1);
    }
    return closed;
}

/* Goes on ending it: 1 when all is answered, 0 to wait. */
static int end(lua_State *L, Pipeline *p, int own)
{
    PGconn *pg = p->conn->pg;
    p->ending = 1;
    for (;;) {
        if (p->open) {
            PQpipelineSync(pg);
            p->open = 0;
            p->group++;
        }
        dbl_queue_work(L, p, own);
        if (PQtransactionStatus(pg) == PQTRANS_ACTIVE)
            return 0;
        if (PQstatus(pg) == CONNECTION_BAD || !close_statements(L, p, own))
            return 1;
    }
}

/* p:finish([seconds]): true when it is over, nil and an error when the connection is;
 * false where Lua must wait, or the deadline has come. */
static int pipeline_finish(lua_State *L)
{
    Pipeline *p = check_pipeline(L);
    Conn *c = p->conn;
    if (is_over(p) || !dbl_conn_is_ours(c))
        return push_true(L);
    if (!is_free(L, p))
        return 2;
    if (!lua_isnoneornil(L, 2))
        set_deadline(p, dbl_opt_deadline(L, 2));
    int own = dbl_queue_push(L, 1);
    while (!end(L, p, own) || dbl_conn_barred(c)) {
        if (PQtransactionStatus(c->pg) != PQTRANS_ACTIVE)
            c->goal = DBL_GOAL_NEXT; /* that a cancel request is over */
        if (!dbl_queue_settle(L, p, own)) {
            lua_pushboolean(L, 0);
            return 1;
        }
    }
    if (is_over(p))
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
    check_pipeline(L);
    dbl_getuservalue(L, 1);
    lua_rawgeti(L, -1, DBL_PIPELINE_CONN);
    return 1;
}

/* core.pipeline_class(plain): the metatable, to which Lua adds what waits. */
static int pipeline_class(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"query",  pipeline_query },
        {"sync",   pipeline_sync  },
        {"flush",  pipeline_flush },
        {"room",   pipeline_room  },
        {"finish", pipeline_finish},
        {"conn",   pipeline_conn  },
        {NULL,     NULL           },
    };
    luaL_newmetatable(L, lua_toboolean(L, 1) ? PLAIN : PIPELINE);
    lua_pushliteral(L, PIPELINE);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__name");
    lua_setfield(L, -2, "__metatable");
    lua_newtable(L);
    dbl_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    return 1;
}

const luaL_Reg dbl_pipeline_functions[] = {
    {"pipeline",       conn_pipeline },
    {"pipeline_class", pipeline_class},
    {NULL,             NULL          },
};
