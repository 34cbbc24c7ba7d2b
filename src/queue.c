/*
 * queue.c -- the queries of a pipeline that are under way, in their order.
 *
 * Queries go out in libpq's own batches, and where the socket does not take one at once
 * what has arrived is read, so that neither side ever waits to be read by the other.
 * Results are made at once and put into their tickets, which stand in a ring until then:
 * a PGresult takes ten times the memory of a small result of ours.
 */
#include "queue.h"

#include "fail.h"
#include "query.h"
#include "receive.h"
#include "result.h"
#include "ticket.h"

enum {
    BATCH = 65536,           /* bytes sent between two looks at whether the socket takes them */
    MOST_UNSENT = 1 << 20,   /* bytes that the socket has not taken */
    MOST_ASKED = 8192,       /* queries without an answer; the server keeps back fewer */
    MOST_AHEAD = 512 * 1024, /* bytes of queries whose answers may lie with libpq */
    FIRST_RING = 256,
};

/* ---- the pipeline ---- */

static const char mark;

Pipeline *dbl_pipeline(lua_State *L, int i)
{
    Pipeline *p = dbl_marked(L, i, &mark, sizeof *p);
    if (!p)
        dbl_bad_self(L, i, "dblink.pipeline");
    return p;
}

void dbl_pipeline_mark(Pipeline *p)
{
    p->mark = &mark;
}

int dbl_pipeline_is_free(lua_State *L, const Pipeline *p, int i)
{
    if (!dbl_conn_is_ours(p->conn)) {
        dbl_getuservalue(L, i);
        lua_rawgeti(L, -1, DBL_PIPELINE_CONN);
        dbl_conn(L, lua_gettop(L));
    }
    if (!dbl_conn_is_held(L, p->conn))
        return 1;
    dbl_fail(L, DBL_USAGE, DBL_HELD, p->conn->sql);
    return 0;
}

void dbl_pipeline_deadline(Pipeline *p, double deadline)
{
    p->conn->deadline = deadline < p->deadline ? deadline : p->deadline;
}

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

static Place *place(const Pipeline *p, unsigned i)
{
    return &p->queue[i & (p->size - 1)];
}

static void get(lua_State *L, const Pipeline *p, int own, unsigned i)
{
    lua_rawgeti(L, own + 1, slot(i, p->size));
}

/* Puts the value on the top into the ring. */
static void set(lua_State *L, const Pipeline *p, int own, unsigned i)
{
    lua_rawseti(L, own + 1, slot(i, p->size));
}

unsigned dbl_queue_next(Pipeline *p)
{
    while (p->oldest != p->last && place(p, p->oldest)->kind < DBL_BARE)
        p->oldest++;
    return p->oldest;
}

/* What is neither answered nor collected begins here. */
static unsigned begin(const Pipeline *p)
{
    return (int)(p->oldest - p->first) < 0 ? p->oldest : p->first;
}

static void grow(lua_State *L, Pipeline *p, int own)
{
    unsigned size = p->size ? p->size * 2 : FIRST_RING;
    Place *queue = lua_newuserdata(L, size * sizeof *queue);
    int memory = lua_gettop(L);
    lua_createtable(L, (int)size, 0);
    for (unsigned i = 1; i <= size; i++) {
        lua_pushboolean(L, 0);
        lua_rawseti(L, -2, (int)i);
    }
    for (unsigned i = begin(p); i != p->last; i++) {
        get(L, p, own, i);
        lua_rawseti(L, -2, slot(i, size));
        queue[i & (size - 1)] = *place(p, i);
    }
    lua_rawseti(L, own, DBL_PIPELINE_RING);
    lua_pushvalue(L, memory);
    lua_rawseti(L, own, DBL_PIPELINE_QUEUE);
    p->queue = queue;
    p->size = size;
}

void dbl_queue_reserve(lua_State *L, Pipeline *p, int i)
{
    if (p->size - (p->last - begin(p)) >= 2)
        return;
    int top = lua_gettop(L);
    dbl_queue_next(p);
    if (p->size - (p->last - begin(p)) < 2)
        grow(L, p, dbl_queue_push(L, i));
    lua_settop(L, top);
}

void dbl_queue_put(Pipeline *p, int kind, int reading, int statement, size_t weight)
{
    *place(p, p->last++) = (Place){
        .kind = (unsigned char)kind,
        .reading = (unsigned char)reading,
        .statement = (unsigned char)statement,
        .weight = (unsigned)weight, /* no message of libpq's is longer than an int */
    };
    p->ahead += place(p, p->last - 1)->weight;
    p->owed += kind == DBL_BARE;
    p->open++;
    p->conn->puts++;
}

void dbl_queue_put_ticket(lua_State *L, const Pipeline *p, int own)
{
    set(L, p, own, p->last);
}

static void drop_first(lua_State *L, Pipeline *p, int own)
{
    const Place *k = place(p, p->first);
    if (k->kind == DBL_TICKET) {
        lua_pushboolean(L, 0);
        set(L, p, own, p->first);
    }
    p->ahead -= k->weight;
    p->first++;
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

/* Whether these are the first rows that the statement of that number has given. */
static int teaches(const Pipeline *p, int statement, const PGresult *res)
{
    return statement > 0 && p->statement[statement - 1].state == DBL_STATEMENT_GOOD &&
           PQresultStatus(res) == PGRES_TUPLES_OK;
}

static int push_conn(lua_State *L, Pipeline *p, int own, int statement)
{
    lua_rawgeti(L, own, DBL_PIPELINE_CONN);
    int conn = lua_gettop(L);
    if (teaches(p, statement, p->conn->kept))
        learn(L, &p->statement[statement - 1], p->conn, conn);
    return conn;
}

/* c->kept is the answer to the query there. */
static void answer_query(lua_State *L, Pipeline *p, int own, unsigned i)
{
    int top = lua_gettop(L);
    const Place *k = place(p, i);
    if (k->kind == DBL_TICKET) {
        get(L, p, own, i);
        const Result *t = lua_touserdata(L, top + 1);
        if (t->status == DBL_TICKET_PENDING)
            dbl_ticket_answer(L, p->conn, push_conn(L, p, own, t->columns), top + 1, p->big,
                              &p->room);
    } else if (k->kind == DBL_BARE) {
        int conn = push_conn(L, p, own, k->statement);
        int values = dbl_push_answer(L, p->conn, conn, k->reading, p->big);
        place(p, i)->kind = values == 1 ? DBL_KEPT : DBL_FAILED;
        set(L, p, own, i);
    }
    lua_settop(L, top);
}

/* The answer to the Parse of a statement.  If it has failed the query behind it has the
 * error: else it would only hear that something was aborted. */
static void answer_parse(lua_State *L, Pipeline *p, int own, Statement *s)
{
    ExecStatusType status = PQresultStatus(p->conn->kept);
    s->state = status == PGRES_COMMAND_OK ? DBL_STATEMENT_GOOD : DBL_STATEMENT_BAD;
    if (status == PGRES_FATAL_ERROR && p->first + 1 != p->last &&
        place(p, p->first + 1)->statement == place(p, p->first)->statement)
        answer_query(L, p, own, p->first + 1);
}

/* c->kept is the answer to the first command. */
static void answer(lua_State *L, Pipeline *p, int own)
{
    const Place *k = place(p, p->first);
    if (k->kind == DBL_PARSE)
        answer_parse(L, p, own, &p->statement[k->statement - 1]);
    else
        answer_query(L, p, own, p->first);
}

/* Whether this answer to the first query can be read as it is; it is in p->lent then. */
static int leave(Pipeline *p, PGresult *res)
{
    const Place *k = place(p, p->first);
    ExecStatusType status = PQresultStatus(res);
    if ((status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) || PQntuples(res) > 1 ||
        k->reading & (DBL_READ_NULL | DBL_READ_CODECS) || teaches(p, k->statement, res))
        return 0;
    p->reading = k->reading;
    p->lent = res;
    return 1;
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

/* If the answer cannot be kept (Lua raises) its query stays without one. */
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

/* Whether the next thing to be taken is an answer that stays with libpq. */
static int is_left(const Pipeline *p, unsigned end)
{
    return p->first != p->last && !p->inside && (int)(p->first - end) >= 0 &&
           place(p, p->first)->kind == DBL_BARE;
}

int dbl_queue_take(lua_State *L, Pipeline *p, int own, unsigned end)
{
    PGresult *res;
    Conn *c = p->conn;
    while (!is_left(p, end) && !dbl_is_busy(c)) {
        switch (dbl_take(c, &res)) {
        case DBL_RESULT:
            take_result(L, p, own, res);
            break;
        case DBL_PIECE:
            take_piece(p);
            break;
        default: /* DBL_END */
            if (!p->inside || p->first == p->last) {
                if (p->first != p->last && PQtransactionStatus(c->pg) != PQTRANS_ACTIVE)
                    dbl_conn_sever(c); /* for libpq all is answered: the server is out of step */
                else
                    dbl_check_memory(c);
                return 0;
            }
            drop_first(L, p, own);
            p->inside = p->big = c->failed = 0;
            c->bytes = 0;
        }
    }
    return is_left(p, end) && !dbl_is_busy(c);
}

int dbl_queue_read(lua_State *L, Pipeline *p, int i)
{
    Conn *c = p->conn;
    if (dbl_queue_next(p) != p->first || p->inside || dbl_pipeline_is_over(p) ||
        !dbl_conn_is_ours(c) || c->held || c->most || c->astray || p->lent ||
        *PQerrorMessage(c->pg) || PQstatus(c->pg) == CONNECTION_BAD)
        return 0;
    int busy = PQisBusy(c->pg);
    c->astray = *PQerrorMessage(c->pg) != '\0'; /* it had nothing to say before */
    if (busy || c->astray || PQstatus(c->pg) == CONNECTION_BAD)
        return 0;
    PGresult *res = PQgetResult(c->pg);
    if (PQresultStatus(res) == PGRES_PIPELINE_SYNC || !leave(p, res)) {
        int top = lua_gettop(L);
        if (res)
            take_result(L, p, dbl_queue_push(L, i), res);
        lua_settop(L, top);
        return 0;
    }
    note_command(p, res);
    PQclear(PQgetResult(c->pg)); /* the end of it, which is NULL */
    p->ahead -= place(p, p->first++)->weight;
    return 1;
}

void dbl_queue_given(Pipeline *p)
{
    p->oldest++;
    p->owed--;
    p->given++;
}

int dbl_queue_give(lua_State *L, Pipeline *p, int own)
{
    int kind = place(p, p->oldest)->kind, failed = kind == DBL_FAILED;
    if (kind == DBL_BARE)
        return dbl_fail(L, DBL_MEMORY, "out of memory for the answer to this query");
    if (failed)
        lua_pushnil(L);
    get(L, p, own, p->oldest);
    lua_pushboolean(L, 0);
    set(L, p, own, p->oldest);
    return 1 + failed;
}

/* ---- going on ---- */

int dbl_queue_ask(Pipeline *p)
{
    if (!PQsendFlushRequest(p->conn->pg))
        return 0;
    p->asked = p->last;
    return 1;
}

static int flush(Pipeline *p)
{
    if (PQflush(p->conn->pg) > 0)
        return 0;
    p->unsent = 0;
    p->conn->goal = DBL_GOAL_TAKE;
    return 1;
}

/* What is driven at then: that all is sent, or that there is something to take.  Where the
 * socket takes all at once nothing needs to be read. */
void dbl_queue_work(lua_State *L, Pipeline *p, int own, int all)
{
    Conn *c = p->conn;
    int much = p->ahead > MOST_AHEAD;
    if (flush(p) && !all && !much)
        return;
    c->goal = DBL_GOAL_ROOM;
    dbl_step(c);
    dbl_queue_take(L, p, own, all || much ? p->last : p->first);
    flush(p);
}

int dbl_queue_settle(lua_State *L, const Pipeline *p, int own)
{
    lua_rawgeti(L, own, DBL_PIPELINE_CONN);
    int settled = dbl_settle_at(L, p->conn, lua_gettop(L));
    lua_pop(L, 1);
    return settled;
}

static int is_full(const Pipeline *p)
{
    return p->unsent > MOST_UNSENT || p->last - p->first >= MOST_ASKED;
}

int dbl_queue_has_room(const Pipeline *p)
{
    return p->unsent < BATCH && p->last - p->first < MOST_ASKED;
}

/* Whether there is room for one more, after some work. */
static int find_room(lua_State *L, Pipeline *p, int own)
{
    dbl_queue_work(L, p, own, is_full(p));
    if (PQstatus(p->conn->pg) == CONNECTION_BAD || !is_full(p))
        return 1;
    /* where there is no memory to ask the next query does it */
    return p->unsent <= MOST_UNSENT && p->asked != p->last && !dbl_queue_ask(p);
}

int dbl_queue_make_room(lua_State *L, Pipeline *p, int i)
{
    int top = lua_gettop(L), own = dbl_queue_push(L, i), found;
    while (!(found = find_room(L, p, own)) && dbl_queue_settle(L, p, own))
        ;
    lua_settop(L, top);
    return found;
}
