/*
 * queue.c -- the queries of a pipeline that are under way, in their order.
 *
 * Queries go out in libpq's own batches, and with each batch what has arrived is
 * read, so that neither side ever waits to be read by the other.  Results are made
 * at once and put into their tickets, which stand in a ring until then: a PGresult
 * takes ten times the memory of a small result of ours.
 */
#include "queue.h"

#include "query.h"
#include "receive.h"
#include "result.h"
#include "ticket.h"

enum {
    BATCH = 32768,         /* bytes sent between two looks at what has arrived */
    MOST_UNSENT = 1 << 20, /* bytes that the socket has not taken */
    MOST_ASKED = 8192,     /* queries without an answer; the server keeps back fewer */
    FIRST_RING = 256,
};

/* ---- the ring ---- */

int dbl_queue_push(lua_State *L, int pipeline)
{
    dbl_getuservalue(L, pipeline);
    lua_rawgeti(L, -1, DBL_PIPELINE_RING);
    return lua_gettop(L) - 1;
}

static int slot(unsigned i, unsigned size)
{
    return (int)(i & (size - 1)) + 1;
}

static void get(lua_State *L, const Pipeline *p, int own, unsigned i)
{
    lua_rawgeti(L, own + 1, slot(i, p->size));
}

void dbl_queue_reserve(lua_State *L, Pipeline *p, int own)
{
    unsigned size = p->size ? p->size * 2 : FIRST_RING;
    if (p->size - (p->last - p->first) >= 2)
        return;
    lua_createtable(L, (int)size, 0);
    for (unsigned i = 1; i <= size; i++) {
        lua_pushboolean(L, 0);
        lua_rawseti(L, -2, (int)i);
    }
    for (unsigned i = p->first; i != p->last; i++) {
        get(L, p, own, i);
        lua_rawseti(L, -2, slot(i, size));
    }
    lua_pushvalue(L, -1);
    lua_rawseti(L, own, DBL_PIPELINE_RING);
    lua_replace(L, own + 1);
    p->size = size;
}

void dbl_queue_put(lua_State *L, Pipeline *p, int own)
{
    lua_rawseti(L, own + 1, slot(p->last++, p->size));
    p->open++;
}

static void drop_first(lua_State *L, Pipeline *p, int own)
{
    lua_pushboolean(L, 0);
    lua_rawseti(L, own + 1, slot(p->first++, p->size));
}

/* ---- answers ---- */

/* How the results of the statement come from now on, after its first one. */
static void learn(lua_State *L, Statement *s, const Conn *c, int conn)
{
    dbl_getuservalue(L, conn);
    int reading = c->habits & ~DBL_READ_RAW;
    s->habit = dbl_binary_habit(c, dbl_binary_traits(L, c->kept, reading, lua_gettop(L)));
    s->state = DBL_STATEMENT_LEARNED;
    lua_pop(L, 1);
}

static void answer_ticket(lua_State *L, Pipeline *p, int own, int ticket)
{
    const Result *t = lua_touserdata(L, ticket);
    if (t->status != DBL_TICKET_PENDING)
        return;
    lua_rawgeti(L, own, DBL_PIPELINE_CONN);
    int conn = lua_gettop(L);
    Statement *s = t->columns > 0 ? &p->statement[t->columns - 1] : NULL;
    if (s && s->state == DBL_STATEMENT_GOOD && PQresultStatus(p->conn->kept) == PGRES_TUPLES_OK)
        learn(L, s, p->conn, conn);
    dbl_ticket_answer(L, p->conn, conn, ticket, p->big, &p->room);
}

/* The answer to the Parse of a statement.  If it has failed its ticket, which stands
 * behind it, has the error: else it would only hear that something was aborted. */
static void answer_parse(lua_State *L, Pipeline *p, int own, Statement *s)
{
    ExecStatusType status = PQresultStatus(p->conn->kept);
    s->state = status == PGRES_COMMAND_OK ? DBL_STATEMENT_GOOD : DBL_STATEMENT_BAD;
    if (status != PGRES_FATAL_ERROR)
        return;
    get(L, p, own, p->first + 1);
    if (lua_type(L, -1) == LUA_TUSERDATA)
        answer_ticket(L, p, own, lua_gettop(L));
}

/* c->kept is the answer to the first command. */
static void answer(lua_State *L, Pipeline *p, int own)
{
    int top = lua_gettop(L);
    get(L, p, own, p->first);
    if (lua_type(L, -1) == LUA_TUSERDATA)
        answer_ticket(L, p, own, top + 1);
    else if (lua_tointeger(L, -1) > 0)
        answer_parse(L, p, own, &p->statement[lua_tointeger(L, -1) - 1]);
    lua_settop(L, top);
}

/* After DISCARD ALL the statements are none any more. */
static void note_command(Pipeline *p, PGresult *res)
{
    Conn *c = p->conn;
    unsigned char before = c->discarded;
    c->discarded = 0;
    dbl_note_command(c, res);
    for (int i = 0; c->discarded && i < p->statements; i++)
        p->statement[i].state = DBL_STATEMENT_BAD;
    c->discarded |= before;
}

/* If the answer cannot be kept (Lua raises) its ticket stays without one. */
static void take_result(lua_State *L, Pipeline *p, int own, PGresult *res)
{
    Conn *c = p->conn;
    int first = !p->inside && p->first != p->last;
    int copy = dbl_is_copy(res);
    PQclear(c->kept);
    c->kept = res;
    if (PQresultStatus(res) != PGRES_PIPELINE_SYNC) {
        p->inside = 1;
        note_command(p, res);
        if (first)
            answer(L, p, own);
    }
    PQclear(c->kept);
    c->kept = NULL;
    if (copy) /* it has taken the syncs that were sent: there is no way back */
        dbl_conn_sever(c);
}

/* A row of a result under a budget. */
static void take_piece(Pipeline *p)
{
    Conn *c = p->conn;
    if (!c->over)
        return;
    p->big = c->over;
    c->over = 0;
    c->failed = 1; /* the rest goes by */
    PQclear(c->whole);
    c->whole = NULL;
}

void dbl_queue_take(lua_State *L, Pipeline *p, int own)
{
    PGresult *res;
    Conn *c = p->conn;
    while (!dbl_is_busy(c)) {
        switch (dbl_take(c, &res)) {
        case DBL_RESULT:
            take_result(L, p, own, res);
            break;
        case DBL_PIECE:
            take_piece(p);
            break;
        case DBL_END:
            if (!p->inside || p->first == p->last) {
                if (p->first != p->last && PQtransactionStatus(c->pg) != PQTRANS_ACTIVE)
                    dbl_conn_sever(c); /* for libpq all is answered: the server is out of step */
                else
                    dbl_check_memory(c);
                return;
            }
            drop_first(L, p, own);
            p->inside = p->big = c->failed = 0;
            c->bytes = 0;
        }
    }
}

/* ---- going on ---- */

int dbl_queue_ask(Pipeline *p)
{
    p->asked = p->last;
    return PQsendFlushRequest(p->conn->pg);
}

/* What is driven at then: that all is sent, or that there is something to take. */
void dbl_queue_work(lua_State *L, Pipeline *p, int own)
{
    Conn *c = p->conn;
    c->goal = DBL_GOAL_ROOM;
    dbl_step(c);
    dbl_queue_take(L, p, own);
    if (PQflush(c->pg) > 0)
        return;
    p->unsent = 0;
    c->goal = DBL_GOAL_TAKE;
}

int dbl_queue_settle(lua_State *L, const Pipeline *p, int own)
{
    lua_rawgeti(L, own, DBL_PIPELINE_CONN);
    int settled = dbl_settle_at(L, p->conn, lua_gettop(L));
    lua_pop(L, 1);
    return settled;
}

/* Whether there is room for one more, after some work. */
static int has_room(lua_State *L, Pipeline *p, int own)
{
    if (p->unsent < BATCH && p->last - p->first < MOST_ASKED)
        return 1;
    dbl_queue_work(L, p, own);
    if (PQstatus(p->conn->pg) == CONNECTION_BAD)
        return 1;
    if (p->unsent > MOST_UNSENT)
        return 0;
    if (p->last - p->first < MOST_ASKED)
        return 1;
    if (p->asked != p->last)
        dbl_queue_ask(p);
    return 0;
}

int dbl_queue_make_room(lua_State *L, Pipeline *p, int own)
{
    while (!has_room(L, p, own))
        if (!dbl_queue_settle(L, p, own))
            return 0;
    return 1;
}
