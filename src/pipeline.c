/*
 * pipeline.c -- many queries under way at once, a ticket for each.
 *
 * Queries go out in libpq's own batches, and with each batch what has arrived is
 * read, so that neither side ever waits to be read by the other.  Results are made
 * at once and put into their tickets, which stand in a ring until then: a PGresult
 * takes ten times the memory of a small result of ours.
 *
 * A ticket is memory in which a result like the last one has room.  Mostly its own
 * fits and is made in there; asked for its result, the ticket becomes it.  To make
 * two things instead would cost half of what libpq needs for the whole query.
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
#include "receive.h"
#include "result.h"
#include "row.h"

#define PLAIN    "dblink.pipeline.plain" /* its connection's wait is poll(2) */
#define PIPELINE "dblink.pipeline"       /* Lua waits */

enum {
    BATCH = 32768,         /* bytes sent between two looks at what has arrived */
    MOST_UNSENT = 1 << 20, /* bytes that the socket has not taken */
    MOST_ASKED = 8192,     /* queries without an answer; the server keeps back fewer */
    FIRST_RING = 256,
    MOST_ROOM = 512,
    STATEMENTS = 16,
    MOST_SEEN = 100,     /* of different SQL */
    LONGEST_SEEN = 8192, /* bytes of SQL */
};

/* The entries of the user value. */
enum { CONN = 1, RING, TICKET, SEEN };

/* Result.status of a ticket that is no result yet: its answer is to come, or the user
 * value is an error, or has a result.  Then Result.rows is the ticket's number, and
 * Result.columns that of its statement. */
enum { PENDING = 255, FAILED = 254, APART = 253 };

/* A statement of the pipeline's own. */
typedef struct Statement {
    char name[48];
    int habit;      /* see dbl_binary_habit */
    unsigned group; /* in which it was prepared */
    enum { SENT, GOOD, LEARNED, BAD } state;
} Statement;

typedef struct Pipeline {
    Conn *conn;
    unsigned turn;        /* of the connection, which is at another when this is over */
    unsigned first, last; /* to be answered next, to be given out next */
    unsigned size;        /* of the ring; a power of 2 */
    unsigned asked;       /* the answers before this one the server does not keep back */
    unsigned group;       /* counts the syncs */
    unsigned open;        /* commands since the last sync */
    int inside;           /* the first one's result was here, its end was not */
    int big;              /* DBL_OVER_...: why that result was thrown away */
    int ending;
    size_t unsent; /* at most so many bytes */
    size_t room;   /* what a ticket has */
    int seen, statements;
    Statement statement[STATEMENTS]; /* by number, from 1 */
} Pipeline;

/* The pipeline at index 1 of a method, whose upvalue is the metatable. */
static Pipeline *check_pipeline(lua_State *L)
{
    Pipeline *p = lua_touserdata(L, 1);
    if (!p || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1)))
        luaL_argerror(L, 1, "pipeline expected");
    lua_pop(L, 1);
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

static int is_open(lua_State *L, const Pipeline *p)
{
    if (!dbl_conn_is_ours(p->conn))
        dbl_misuse(L, "connection is closed");
    if (is_over(p) || p->ending)
        dbl_misuse(L, "pipeline is closed");
    return is_free(L, p);
}

static int push_true(lua_State *L)
{
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- the ring ----
 * own: the stack index of the pipeline's user value, with the ring behind it */

static int push_own(lua_State *L, int pipeline)
{
    dbl_getuservalue(L, pipeline);
    lua_rawgeti(L, -1, RING);
    return lua_gettop(L) - 1;
}

static void get(lua_State *L, const Pipeline *p, int own, unsigned i)
{
    lua_rawgeti(L, own + 1, (int)(i & (p->size - 1)) + 1);
}

/* Makes room for two, so that nothing can raise between a query and its ticket. */
static void reserve(lua_State *L, Pipeline *p, int own)
{
    unsigned size = p->size ? p->size * 2 : FIRST_RING;
    if (p->size - (p->last - p->first) >= 2)
        return;
    lua_createtable(L, (int)size, 0);
    for (unsigned i = 0; i < size; i++) {
        if (p->first + i - p->last < size && p->size)
            break;
        lua_pushboolean(L, 0);
        lua_rawseti(L, -2, (int)i + 1);
    }
    for (unsigned i = p->first; i != p->last; i++) {
        get(L, p, own, i);
        lua_rawseti(L, -2, (int)(i & (size - 1)) + 1);
    }
    lua_pushvalue(L, -1);
    lua_rawseti(L, own, RING);
    lua_replace(L, own + 1);
    p->size = size;
}

/* Puts the value on the top into the ring: a ticket, or the number of a statement
 * whose Parse this is; 0 for a command that nobody asks about. */
static void put(lua_State *L, Pipeline *p, int own)
{
    lua_rawseti(L, own + 1, (int)(p->last++ & (p->size - 1)) + 1);
    p->open++;
}

/* ---- answers ---- */

/* The error on the top is the ticket's. */
static void put_error(lua_State *L, int ticket)
{
    Result *t = lua_touserdata(L, ticket);
    dbl_setuservalue(L, ticket);
    t->status = FAILED;
}

/* How the results of the ticket's statement come from now on, after its first one. */
static void learn(lua_State *L, Statement *s, Conn *c, int conn)
{
    dbl_getuservalue(L, conn);
    int reading = c->habits & ~DBL_READ_RAW;
    s->habit = dbl_binary_habit(c, dbl_binary_traits(L, c->kept, reading, lua_gettop(L)));
    s->state = LEARNED;
    lua_pop(L, 1);
}

/* Makes the result in c->kept in the ticket's own memory: 0 where it has no room. */
static int make_inside(lua_State *L, Pipeline *p, Conn *c, int ticket)
{
    Result *t = lua_touserdata(L, ticket);
    size_t size = dbl_result_size(c->kept);
    if (size > p->room && size <= MOST_ROOM)
        p->room = size;
    if (size == 0 || size > dbl_rawlen(L, ticket))
        return 0;
    dbl_result_make(L, t, c->kept, t->reading);
    return 1;
}

/* The result or error on the top, of dbl_push_kept, goes into the ticket. */
static void put_answer(lua_State *L, int ticket, int values)
{
    Result *t = lua_touserdata(L, ticket);
    if (values == 2) {
        put_error(L, ticket);
        return;
    }
    lua_createtable(L, 1, 0);
    lua_insert(L, -2);
    lua_rawseti(L, -2, 1);
    dbl_setuservalue(L, ticket);
    t->status = APART;
}

static void answer_ticket(lua_State *L, Pipeline *p, int own, int ticket)
{
    Conn *c = p->conn;
    const Result *t = lua_touserdata(L, ticket);
    double deadline = c->deadline; /* of who waits for another ticket */
    ExecStatusType status = PQresultStatus(c->kept);
    Statement *s = t->columns > 0 ? &p->statement[t->columns - 1] : NULL;
    lua_rawgeti(L, own, CONN);
    int conn = lua_gettop(L), values = 2;
    if (t->status != PENDING)
        return;
    if (p->big && status == PGRES_TUPLES_OK) {
        c->over = (unsigned char)p->big;
        dbl_fail_stopped(L, c);
        c->over = 0;
    } else {
        if (s && s->state == GOOD && status == PGRES_TUPLES_OK)
            learn(L, s, c, conn);
        if ((status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) &&
            !(t->reading & (DBL_READ_NULL | DBL_READ_CODECS)) && make_inside(L, p, c, ticket))
            return;
        c->reading = t->reading;
        c->own_null = 0;
        values = dbl_push_kept(L, c, conn);
        c->deadline = deadline;
    }
    put_answer(L, ticket, values);
}

/* The answer to the Parse of a statement.  If it has failed its ticket, which stands
 * behind it, has the error: else it would only hear that something was aborted. */
static void answer_parse(lua_State *L, Pipeline *p, int own, Statement *s)
{
    Conn *c = p->conn;
    int good = PQresultStatus(c->kept) == PGRES_COMMAND_OK;
    s->state = good ? GOOD : BAD;
    if (good || PQresultStatus(c->kept) != PGRES_FATAL_ERROR)
        return;
    get(L, p, own, p->first + 1);
    if (lua_type(L, -1) == LUA_TUSERDATA)
        answer_ticket(L, p, own, lua_gettop(L));
}

/* c->kept is the answer to the first command in the ring. */
static void answer(lua_State *L, Pipeline *p, int own)
{
    Conn *c = p->conn;
    int top = lua_gettop(L);
    get(L, p, own, p->first);
    if (lua_type(L, -1) == LUA_TUSERDATA)
        answer_ticket(L, p, own, top + 1);
    else if (lua_tointeger(L, -1) > 0)
        answer_parse(L, p, own, &p->statement[lua_tointeger(L, -1) - 1]);
    lua_settop(L, top);
}

static int is_copy(const PGresult *res)
{
    ExecStatusType status = PQresultStatus(res);
    return status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

static void take_result(lua_State *L, Pipeline *p, int own, PGresult *res)
{
    Conn *c = p->conn;
    int copy = is_copy(res);
    c->kept = res;
    if (PQresultStatus(res) != PGRES_PIPELINE_SYNC) {
        if (!p->inside && p->first != p->last)
            answer(L, p, own);
        p->inside = 1;
    }
    PQclear(c->kept);
    c->kept = NULL;
    if (copy) /* it has taken the syncs that were sent: there is no way back */
        dbl_conn_sever(c);
}

/* Takes all that has arrived. */
static void take(lua_State *L, Pipeline *p, int own)
{
    PGresult *res;
    Conn *c = p->conn;
    while (!PQisBusy(c->pg)) {
        switch (dbl_take(c, &res)) {
        case DBL_RESULT:
            take_result(L, p, own, res);
            break;
        case DBL_PIECE:
            if (c->over) {
                p->big = c->over;
                c->over = 0;
                c->failed = 1; /* the rest goes by */
                PQclear(c->whole);
                c->whole = NULL;
            }
            break;
        case DBL_END:
            if (!p->inside || p->first == p->last)
                return;
            lua_pushboolean(L, 0);
            lua_rawseti(L, own + 1, (int)(p->first++ & (p->size - 1)) + 1);
            p->inside = p->big = c->failed = 0;
            c->bytes = 0;
        }
    }
}

/* ---- going on ---- */

/* Sends what the socket takes, reads what is there.  What it drives at then: that all
 * is sent, or that there is something to take. */
static void work(lua_State *L, Pipeline *p, int own)
{
    Conn *c = p->conn;
    c->goal = DBL_GOAL_ROOM;
    dbl_step(c);
    take(L, p, own);
    if (PQflush(c->pg) <= 0)
        p->unsent = 0;
    else
        return;
    c->goal = DBL_GOAL_TAKE;
}

/* Whether there is room for one more, after some work. */
static int has_room(lua_State *L, Pipeline *p, int own)
{
    Conn *c = p->conn;
    if (p->unsent < BATCH && p->last - p->first < MOST_ASKED)
        return 1;
    work(L, p, own);
    if (p->unsent > MOST_UNSENT)
        return PQstatus(c->pg) == CONNECTION_BAD;
    if (p->last - p->first < MOST_ASKED || PQstatus(c->pg) == CONNECTION_BAD)
        return 1;
    if (p->asked != p->last)
        PQsendFlushRequest(c->pg);
    p->asked = p->last;
    return 0;
}

/* Waits in place until has_room: 0 where Lua has to. */
static int make_room(lua_State *L, Pipeline *p, int own)
{
    while (!has_room(L, p, own)) {
        lua_rawgeti(L, own, CONN);
        int settled = dbl_settle_at(L, p->conn, lua_gettop(L));
        lua_pop(L, 1);
        if (!settled)
            return 0;
    }
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
    s->state = SENT;
    lua_pushinteger(L, ++p->statements);
    put(L, p, own);
    return p->statements;
}

/* The number of the statement for the SQL at index 2; 0: none.  What the pipeline has
 * seen: by SQL, the number of its statement, 0 where it came once. */
static int find_statement(lua_State *L, Pipeline *p, const Query *q, int own)
{
    if (!p->conn->caching || q->binary >= 0 || dbl_rawlen(L, 2) > LONGEST_SEEN)
        return 0;
    for (int i = 3; i < 3 + q->params; i++)
        if (lua_type(L, i) == LUA_TTABLE) /* it may bring a type of its own */
            return 0;
    lua_rawgeti(L, own, SEEN);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    int known = !lua_isnil(L, -1), n = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (n == 0 && (known ? p->statements < STATEMENTS : p->seen < MOST_SEEN)) {
        p->seen += !known;
        lua_pushvalue(L, 2);
        lua_pushinteger(L, known ? p->statements + 1 : 0);
        lua_rawset(L, -3);
        n = known ? prepare(L, p, own) : 0;
    }
    lua_pop(L, 1);
    if (n == 0)
        return 0;
    const Statement *s = &p->statement[n - 1];
    return s->state == BAD || (s->state == SENT && s->group != p->group) ? 0 : n;
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
    dbl_params(L, 3, q->params, &params);
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
    for (int i = 2; i < 3 + q->params; i++)
        bytes += lua_type(L, i) == LUA_TSTRING ? dbl_rawlen(L, i) : 16;
    return bytes;
}

static void read_query(lua_State *L, const Conn *c, Query *q)
{
    dbl_query_read(L, c, q);
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
    int own = push_own(L, 1), ticket = own + 2;
    Result *t = dbl_newuserdata(L, p->room);
    lua_rawgeti(L, own, TICKET);
    lua_setmetatable(L, ticket);
    reserve(L, p, own);
    int n = q.statement ? 0 : find_statement(L, p, &q, own);
    t->status = PENDING;
    t->reading = (unsigned char)q.reading;
    t->rows = (int)p->last;
    t->columns = n;
    if (!send(L, p, &q, n))
        return 2;
    lua_pushvalue(L, ticket);
    put(L, p, own);
    if (c->most)
        PQsetSingleRowMode(c->pg); /* of the first; dbl_take does it for the next ones */
    p->unsent += weigh(L, &q);
    lua_settop(L, ticket);
    if (make_room(L, p, own))
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
    work(L, p, push_own(L, 1));
    return push_true(L);
}

static int pipeline_flush(lua_State *L)
{
    Pipeline *p = check_pipeline(L);
    if (!is_open(L, p))
        return 2;
    if (!PQsendFlushRequest(p->conn->pg))
        return dbl_fail_conn(L, p->conn->pg);
    p->asked = p->last;
    work(L, p, push_own(L, 1));
    return push_true(L);
}

/* p:room(): true, or false where Lua must wait. */
static int pipeline_room(lua_State *L)
{
    Pipeline *p = check_pipeline(L);
    lua_pushboolean(L, is_over(p) || make_room(L, p, push_own(L, 1)));
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
    if (is_over(p) || (int)(number - p->first) < 0)
        return dbl_fail(L, DBL_CONNECTION, "the pipeline was ended before this query was answered");
    if (!is_free(L, p))
        return 2;
    if (deadline < DBL_NEVER)
        c->deadline = deadline;
    if ((int)(number - p->asked) >= 0) {
        PQsendFlushRequest(c->pg);
        p->asked = p->last;
    }
    int own = push_own(L, 2);
    for (c->goal = DBL_GOAL_TAKE; take(L, p, own), t->status == PENDING;) {
        if (PQstatus(c->pg) == CONNECTION_BAD)
            return dbl_fail_conn(L, c->pg);
        lua_rawgeti(L, own, CONN);
        if (!late && dbl_settle_at(L, c, lua_gettop(L))) {
            lua_pop(L, 1);
            continue;
        }
        if (!late && !c->plain) {
            lua_pushboolean(L, 0);
            return 1;
        }
        c->deadline = DBL_NEVER;
        return dbl_fail(L, DBL_TIMEOUT, "the query was not answered in time");
    }
    c->deadline = DBL_NEVER;
    return 0;
}

/* ticket:result([seconds]); `false` where Lua must wait.  A third argument says that
 * the deadline has come meanwhile.  Upvalues: the ticket's metatable, the pipeline,
 * the metatable of small results. */
static int ticket_result(lua_State *L)
{
    Result *t = lua_touserdata(L, 1);
    if (!t || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1))) {
        if (t && lua_rawequal(L, -1, lua_upvalueindex(3)))
            lua_settop(L, 1); /* it has become one */
        else
            luaL_argerror(L, 1, "ticket expected");
        return 1;
    }
    if (t->status == PENDING) {
        double deadline = dbl_opt_deadline(L, 2);
        int late = lua_toboolean(L, 3);
        lua_settop(L, 1);
        lua_pushvalue(L, lua_upvalueindex(2));
        int pushed = wait_for(L, t, deadline, late);
        if (pushed)
            return pushed;
    }
    lua_settop(L, 1);
    switch (t->status) {
    case FAILED:
        lua_pushnil(L);
        dbl_getuservalue(L, 1);
        return 2;
    case APART:
        dbl_getuservalue(L, 1);
        lua_rawgeti(L, -1, 1);
        return 1;
    default:
        lua_pushvalue(L, lua_upvalueindex(3));
        lua_setmetatable(L, 1);
        return 1;
    }
}

/* ---- beginning and end ---- */

static Pipeline *new_pipeline(lua_State *L, Conn *c)
{
    Pipeline *p = dbl_newuserdata(L, sizeof *p);
    memset(p, 0, sizeof *p);
    p->conn = c;
    p->turn = c->turn - 1;
    p->room = sizeof(Result);
    luaL_getmetatable(L, c->plain ? PLAIN : PIPELINE);
    lua_setmetatable(L, -2);
    lua_createtable(L, 4, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, CONN);
    lua_newtable(L);
    lua_rawseti(L, -2, SEEN);
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
    lua_rawseti(L, p + 1, TICKET);
    lua_settop(L, p);
}

/* core.pipeline(conn, name, wrap): name: how those of its statements begin. */
static int conn_pipeline(lua_State *L)
{
    Conn *c = dbl_conn_ready(L, 1);
    if (!c)
        return 2;
    const char *name = luaL_checkstring(L, 2);
    lua_settop(L, 3);
    Pipeline *p = new_pipeline(L, c);
    new_ticket_class(L, 3);
    reserve(L, p, push_own(L, 4));
    lua_settop(L, 4);
    for (int i = 0; i < STATEMENTS; i++)
        snprintf(p->statement[i].name, sizeof p->statement[i].name, "%s_%d", name, i + 1);
    if (!PQenterPipelineMode(c->pg))
        return dbl_fail_conn(L, c->pg);
    dbl_conn_begin(c, "a pipeline", 10, DBL_GOAL_TAKE);
    c->fresh = 0;
    c->deadline = DBL_NEVER;
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
        if (s->state == BAD || s->state == SENT)
            continue;
        lua_pushfstring(L, DBL_HAS_CLOSE_PREPARED ? "%s" : "DEALLOCATE %s", s->name);
        reserve(L, p, own);
        if (dbl_send_close(pg, lua_tostring(L, -1))) {
            lua_pushinteger(L, 0);
            put(L, p, own);
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
        work(L, p, own);
        if (PQtransactionStatus(pg) == PQTRANS_ACTIVE)
            return 0;
        if (PQstatus(pg) == CONNECTION_BAD || !close_statements(L, p, own))
            return 1;
    }
}

/* p:finish(): true when it is over, nil and an error when the connection is; false
 * where Lua must wait. */
static int pipeline_finish(lua_State *L)
{
    Pipeline *p = check_pipeline(L);
    Conn *c = p->conn;
    if (is_over(p) || !dbl_conn_is_ours(c))
        return push_true(L);
    if (!is_free(L, p))
        return 2;
    int own = push_own(L, 1);
    lua_rawgeti(L, own, CONN);
    int conn = lua_gettop(L);
    while (!end(L, p, own) || dbl_conn_barred(c)) {
        if (PQtransactionStatus(c->pg) != PQTRANS_ACTIVE)
            c->goal = DBL_GOAL_NEXT; /* that a cancel request is over */
        if (!dbl_settle_at(L, c, conn)) {
            lua_pushboolean(L, 0);
            return 1;
        }
    }
    c->occupied = 0;
    c->turn++;
    c->goal = DBL_GOAL_NEXT;
    if (PQstatus(c->pg) == CONNECTION_BAD)
        return dbl_fail_conn(L, c->pg);
    PQexitPipelineMode(c->pg);
    return push_true(L);
}

static int pipeline_conn(lua_State *L)
{
    check_pipeline(L);
    dbl_getuservalue(L, 1);
    lua_rawgeti(L, -1, CONN);
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
    lua_pushvalue(L, -2);
    dbl_setfuncs(L, methods, 1);
    lua_setfield(L, -2, "__index");
    return 1;
}

const luaL_Reg dbl_pipeline_functions[] = {
    {"pipeline",       conn_pipeline },
    {"pipeline_class", pipeline_class},
    {NULL,             NULL          },
};
