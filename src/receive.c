/*
 * receive.c -- driving a connection forward, and taking what has arrived.
 *
 * dbl_step is the heart: everything that waits, in C or in Lua, is a loop
 * around it.  It never calls Lua.  Input is read once a step; what libpq has
 * not yet read makes the socket ready again.  While output is left, reading
 * goes on too: a server that waits to be read would never read us.
 */
#include "receive.h"

#include <string.h>

#include "fail.h"
#include "news.h"
#include "result.h"
#include "tls.h"

/* How often to look whether a cancel request is over, for those who do not drive it. */
#define PAUSE 0.005

int dbl_is_copy(const PGresult *res)
{
    switch (PQresultStatus(res)) {
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
        return 1;
    default:
        return 0;
    }
}

static int is_error(const PGresult *res)
{
    switch (PQresultStatus(res)) {
    case PGRES_FATAL_ERROR:
    case PGRES_NONFATAL_ERROR:
    case PGRES_BAD_RESPONSE:
    case PGRES_PIPELINE_ABORTED:
        return 1;
    default:
        return dbl_is_copy(res);
    }
}

/* A COPY that nobody serves, or not any more. */
static void leave_copy(Conn *c)
{
    c->copy = c->copy_out ? DBL_COPY_SWALLOW : DBL_COPY_REFUSE;
}

static void meet_copy(Conn *c, const PGresult *res)
{
    c->copy_out = PQresultStatus(res) == PGRES_COPY_OUT;
    leave_copy(c);
}

/* Takes a line of a COPY if one has arrived: its size, 0 not yet, -1 the end.
 * Where there is no memory for a line there is no way past it either. */
static int take_line(Conn *c, char **line)
{
    int size = PQgetCopyData(c->pg, line, 1);
    if (size == -2)
        dbl_conn_sever(c);
    return size < 0 ? -1 : size;
}

/* A COPY nobody serves is brought to its end: 1 when that is done. */
static int end_copy(Conn *c)
{
    char *line;
    int size;
    if (c->copy == DBL_COPY_REFUSE) {
        PQputCopyEnd(c->pg, "nobody serves this COPY");
        return 1;
    }
    while ((size = take_line(c, &line)) > 0)
        PQfreemem(line);
    return size < 0;
}

int dbl_copy_line(Conn *c)
{
    if (!c->line && c->line_size >= 0)
        c->line_size = take_line(c, &c->line);
    return c->line != NULL;
}

/* Drives a COPY until it wants nothing more of us: 1, or 0 to be called again. */
static int step_copy(Conn *c)
{
    if (PQstatus(c->pg) == CONNECTION_BAD) {
        c->copy = DBL_COPY_NONE;
    } else if (c->copy != DBL_COPY_SERVED) {
        if (!end_copy(c))
            return 0;
        c->copy = DBL_COPY_NONE;
    } else if (c->goal == DBL_GOAL_LINE) {
        return dbl_copy_line(c) || c->line_size < 0;
    }
    return 1;
}

static void forget(Conn *c)
{
    PQclear(c->kept);
    c->kept = NULL;
    c->failed = c->done = 0;
}

void dbl_note_command(Conn *c, PGresult *res)
{
    const char *tag = PQcmdStatus(res);
    if (tag[0] == 'L' && strcmp(tag, "LISTEN") == 0)
        c->listening = 1;
    else if (tag[0] == 'D' &&
             (strcmp(tag, "DISCARD ALL") == 0 || strcmp(tag, "DEALLOCATE ALL") == 0))
        c->discarded = 1;
}

void dbl_keep(Conn *c, PGresult *res)
{
    if (dbl_is_copy(res))
        meet_copy(c, res);
    dbl_note_command(c, res);
    int failed = is_error(res);
    c->done += !failed;
    if (c->failed) {
        PQclear(res);
        return;
    }
    c->failed = (unsigned char)failed;
    PQclear(c->kept);
    c->kept = res;
}

static int is_active(const PGconn *pg)
{
    return PQtransactionStatus(pg) == PQTRANS_ACTIVE;
}

size_t dbl_weigh(const PGresult *res, int row)
{
    size_t bytes = 0;
    for (int j = PQnfields(res); j-- > 0;)
        bytes += (size_t)PQgetlength(res, row, j) + sizeof(Cell);
    return bytes;
}

static int add_row(Conn *c, const PGresult *row)
{
    c->bytes += dbl_weigh(row, 0);
    if (c->bytes > c->most)
        return DBL_OVER_BUDGET;
    if (!c->whole)
        c->whole = PQcopyResult(row, PG_COPYRES_ATTRS);
    if (!c->whole)
        return DBL_OVER_MEMORY;
    for (int i = PQntuples(c->whole), j = 0; j < PQnfields(row); j++) {
        int size = PQgetisnull(row, 0, j) ? -1 : PQgetlength(row, 0, j);
        if (!PQsetvalue(c->whole, i, j, PQgetvalue(row, 0, j), size))
            return DBL_OVER_MEMORY;
    }
    return 0;
}

/* Under a budget rows come one by one, and are put together in c->whole: NULL until
 * the result is complete.  What is too big has to be stopped. */
static PGresult *join(Conn *c, PGresult *res)
{
    PGresult *whole = c->whole;
    if (PQresultStatus(res) == PGRES_SINGLE_TUPLE) {
        if (!c->over && !c->failed)
            c->over = (unsigned char)add_row(c, res);
        PQclear(res);
        return NULL;
    }
    c->whole = NULL;
    if (!whole)
        return res;
    if (c->over || PQresultStatus(res) != PGRES_TUPLES_OK) {
        PQclear(whole);
        return res;
    }
    strcpy(PQcmdStatus(whole), PQcmdStatus(res));
    PQclear(res);
    return whole;
}

static int step_attempt(Conn *c)
{
    Attempt *a = c->attempt;
    dbl_notices_watch(&c->notices, a->pg); /* a server may have some before it is ready */
    int need = dbl_attempt_step(a);
    if (need)
        return need;
    if (PQstatus(a->pg) == CONNECTION_OK) {
        dbl_conn_adopt(c, a->pg);
        a->pg = NULL;
        dbl_attempt_free(a);
        dbl_free(a);
        c->attempt = NULL;
    }
    return 0;
}

/* A query is not over before a cancel request of it is: its results are given out,
 * its end is not.  What is sent next would be hit. */
static int end_query(Conn *c)
{
    c->barred = (unsigned char)dbl_conn_barred(c);
    return c->barred ? DBL_READ : 0;
}

/* libpq's next result.  What it still holds unread of a lost connection it takes for
 * the description of a statement: that is no result of ours. */
static PGresult *next_result(PGconn *pg)
{
    PGresult *res;
    while ((res = PQgetResult(pg)) && PQresultStatus(res) == PGRES_COMMAND_OK &&
           !*PQcmdStatus(res) && PQstatus(pg) == CONNECTION_BAD)
        PQclear(res);
    return res;
}

/* Whether the error is the server's alone: nothing of libpq's own stands before it.  said: how
 * the connection's message began before it was taken. */
static int is_servers(const PGresult *res, const char *said)
{
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY);
    size_t size = severity ? strlen(severity) : 0;
    return size > 0 && strncmp(PQresultErrorMessage(res), severity, size) == 0 &&
           strncmp(said, severity, size) == 0;
}

int dbl_take(Conn *c, PGresult **res)
{
    char said[64] = "";
    if (c->astray)
        strncpy(said, PQerrorMessage(c->pg), sizeof said - 1);
    *res = next_result(c->pg);
    if (!*res) {
        if (c->most)
            PQsetSingleRowMode(c->pg); /* for the next query of a pipeline */
        return DBL_END;
    }
    if (c->astray && !is_servers(*res, said))
        dbl_conn_sever(c);
    c->astray = 0;
    if (c->most)
        *res = join(c, *res);
    return *res ? DBL_RESULT : DBL_PIECE;
}

/* Takes what has arrived of a query, or of a pipeline: 0 when that was all.  What
 * a pipeline brought before a sync that is not its last went before the query. */
static int receive(Conn *c)
{
    PGresult *res;
    int what = dbl_take(c, &res);
    if (what == DBL_END) {
        if (is_active(c->pg))
            return 1;
        if (PQpipelineStatus(c->pg) != PQ_PIPELINE_OFF && PQstatus(c->pg) == CONNECTION_OK)
            PQexitPipelineMode(c->pg);
        return 0;
    }
    if (what == DBL_RESULT && PQresultStatus(res) == PGRES_PIPELINE_SYNC) {
        PQclear(res);
        if (is_active(c->pg))
            forget(c);
    } else if (what == DBL_RESULT) {
        dbl_keep(c, res);
    }
    return 1;
}

void dbl_check_memory(Conn *c)
{
    PGresult *probe = PQmakeEmptyPGresult(NULL, PGRES_COMMAND_OK);
    if (!probe)
        dbl_conn_sever(c);
    PQclear(probe);
}

/* How long libpq's error message is, in a pipeline, where it says something by growing. */
static size_t complaints(const PGconn *pg)
{
    return PQpipelineStatus(pg) == PQ_PIPELINE_OFF ? 0 : strlen(PQerrorMessage(pg));
}

/* PQisBusy.  said: the complaints before it looked at what has arrived. */
static int look(Conn *c, size_t said)
{
    int busy = PQisBusy(c->pg);
    if (complaints(c->pg) > said)
        c->astray = 1;
    return busy;
}

/* The same where nothing would come for which libpq has no memory. */
static int is_busy(Conn *c, size_t said)
{
    if (!look(c, said))
        return 0;
    if (c->astray)
        dbl_conn_sever(c);
    else
        dbl_check_memory(c);
    return PQisBusy(c->pg);
}

int dbl_is_busy(Conn *c)
{
    return is_busy(c, complaints(c->pg));
}

static int step_query(Conn *c)
{
    PGconn *pg = c->pg;
    int write = PQflush(pg) > 0 ? DBL_WRITE : 0;
    size_t said = complaints(pg);
    if (c->fresh && look(c, said) && !c->astray) {
        c->fresh = 0;
        return DBL_READ | write;
    }
    c->fresh = c->barred = 0;
    PQconsumeInput(pg); /* a failure shows in what PQgetResult gives */
    dbl_notifications_take(&c->notifications, pg);
    while (c->goal == DBL_GOAL_NOTIFICATION && !c->notifications.first && dbl_tls_pending(pg) &&
           PQconsumeInput(pg))
        dbl_notifications_take(&c->notifications, pg);
    if (c->goal == DBL_GOAL_NOTIFICATION)
        return c->notifications.first || PQstatus(pg) == CONNECTION_BAD ? 0 : DBL_READ | write;
    for (;;) {
        if (c->copy == DBL_COPY_REFUSE && PQstatus(pg) != CONNECTION_BAD)
            write = DBL_WRITE; /* the socket may not take what refuses it at once */
        if ((c->copy && !step_copy(c)) || is_busy(c, said)) {
            if (dbl_tls_pending(pg) && PQconsumeInput(pg))
                continue;
            if (c->goal == DBL_GOAL_ROOM && !write)
                return 0;
            return DBL_READ | write;
        }
        switch (c->goal) {
        case DBL_GOAL_NEXT:
            if (!c->most || c->kept)
                return write ? DBL_READ | write : end_query(c);
            break;
        case DBL_GOAL_TAKE:
        case DBL_GOAL_ROOM:
            return 0;
        default:
            if (c->line)
                return 0;
        }
        if (!receive(c)) {
            if (!end_query(c))
                c->goal = DBL_GOAL_NEXT;
            return c->barred ? DBL_READ : 0;
        }
        if (c->copy && c->goal == DBL_GOAL_COPY)
            return 0;
        said = complaints(pg);
    }
}

int dbl_step(Conn *c)
{
    int need = c->attempt ? step_attempt(c) : step_query(c);
    if (c->over)
        need |= DBL_READ; /* until it is drained */
    c->need = (unsigned char)need;
    return need;
}

void dbl_drain(Conn *c)
{
    if (c->occupied && PQpipelineStatus(c->pg) != PQ_PIPELINE_OFF)
        PQpipelineSync(c->pg);
    c->turn++;
    c->goal = DBL_GOAL_LAST;
    c->occupied = c->over = 0;
    c->failed = 1; /* of any kind: dbl_keep then keeps nothing more */
    if (c->copy == DBL_COPY_SERVED && c->line_size >= 0)
        leave_copy(c);
    PQclear(c->kept);
    PQclear(c->whole);
    PQfreemem(c->line);
    c->kept = c->whole = NULL;
    c->line = NULL;
}

static double end_of(const Conn *c)
{
    return c->limit < c->deadline ? c->limit : c->deadline;
}

double dbl_wake(const Conn *c)
{
    double wake = c->attempt ? c->attempt->deadline : c->barred ? dbl_now() + PAUSE : DBL_NEVER;
    return wake < end_of(c) ? wake : end_of(c);
}

int dbl_overdue(const Conn *c)
{
    return end_of(c) < DBL_NEVER && dbl_now() >= end_of(c);
}

static int nothing(lua_State *L)
{
    (void)L;
    return 0;
}

/* A signal interrupted poll(2).  lua.c's handler for Ctrl-C has set a hook that
 * raises at the next call: make one.  If it raises, await.lua's function stops
 * the query before the error goes on. */
static void listen_to_signal(lua_State *L, int conn)
{
    lua_pushcfunction(L, nothing);
    if (lua_pcall(L, 0, 0, 0) == 0)
        return;
    int why = lua_gettop(L);
    dbl_getprivate(L, "dblink.interrupted");
    lua_pushvalue(L, conn);
    lua_pcall(L, 1, 0, 0);
    lua_settop(L, why);
    lua_error(L);
}

int dbl_settle_at(lua_State *L, Conn *c, int conn)
{
    int need;
    if (c->fresh && !c->plain)
        return 0;
    while ((need = dbl_step(c)) != 0) {
        if (!c->plain || c->over)
            return 0;
        if (dbl_block(PQsocket(c->attempt ? c->attempt->pg : c->pg), need, dbl_wake(c)) < 0)
            listen_to_signal(L, conn);
        if (dbl_overdue(c)) /* also while data floods in */
            return 0;
    }
    return 1;
}

static void set_string(lua_State *L, const char *key, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
}

static void push_error(lua_State *L, const Conn *c, const PGresult *res)
{
    if (dbl_is_copy(res)) {
        dbl_push_error(L, DBL_USAGE,
                       "COPY cannot be run by a query: use conn:copy_in or conn:copy_out");
        set_string(L, "sqlstate", "0A000");
        return;
    }
    if (PQresultStatus(res) == PGRES_PIPELINE_ABORTED) {
        dbl_push_error(L, DBL_ABORTED, "not run, since a query before it in the pipeline failed");
        return;
    }
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    dbl_push_result_error(L, res, PQstatus(c->pg) == CONNECTION_BAD);
    if (c->cancelled && sqlstate && strcmp(sqlstate, "57014") == 0)
        set_string(L, "kind", DBL_CANCELLED);
}

int dbl_fail_stopped(lua_State *L, const Conn *c)
{
    if (c->over == DBL_OVER_BUDGET)
        return dbl_fail(L, DBL_TOO_BIG, "the rows are bigger than max_bytes");
    if (c->over == DBL_OVER_MEMORY)
        return dbl_fail(L, DBL_MEMORY, "out of memory");
    return dbl_fail(L, DBL_TIMEOUT, "the query took longer than its timeout");
}

int dbl_push_habits(lua_State *L, const Conn *c, int conn)
{
    if (!(c->reading & (DBL_READ_NULL | DBL_READ_CODECS)))
        return 0;
    dbl_getuservalue(L, conn);
    if (c->own_null)
        lua_getfield(L, -1, "call");
    return lua_gettop(L);
}

/* Calls options.on_notice of the connection at 1 with the oldest notice. */
static int tell(lua_State *L)
{
    Conn *c = lua_touserdata(L, 1);
    dbl_getuservalue(L, 1);
    lua_getfield(L, -1, "on_notice");
    if (dbl_push_notice(L, &c->notices))
        lua_call(L, 1, 0);
    return 0;
}

/* A verb has taken its result: time to tell the notices.  What the function raises
 * harms nobody, conn:notices() tells of it; the connection is not its to use. */
void dbl_tell(lua_State *L, Conn *c, int conn)
{
    if (!c->tells || !c->notices.first)
        return;
    const Note *last = NULL;
    conn = dbl_absindex(L, conn);
    while (c->notices.first && c->notices.first != last) {
        last = c->notices.first;
        lua_pushcfunction(L, tell);
        lua_pushvalue(L, conn);
        unsigned char held = c->held;
        c->held = DBL_HELD_BY_HANDLER; /* no longer: what raises around it would hold for ever */
        int failed = lua_pcall(L, 1, 0, 0);
        c->held = held;
        if (!failed)
            continue;
        dbl_getuservalue(L, conn);
        lua_insert(L, -2);
        lua_setfield(L, -2, "notice_error");
        lua_pop(L, 1);
    }
}

static int push_result(lua_State *L, Conn *c, int conn)
{
    const PGresult *kept = c->kept;
    int habits = dbl_push_habits(L, c, conn);
    c->deadline = DBL_NEVER;
    dbl_result_check(L, kept, c->kept);
    if (!c->kept)
        return dbl_fail_conn(L, c->pg);
    if (!is_error(c->kept)) {
        dbl_result_push(L, &c->kept, c->reading, habits);
        return 1;
    }
    PGresult **res = dbl_result_hold(L, &c->kept);
    lua_pushnil(L);
    push_error(L, c, *res);
    PQclear(*res);
    *res = NULL;
    return 2;
}

int dbl_push_kept(lua_State *L, Conn *c, int conn)
{
    int pushed = push_result(L, c, conn);
    dbl_tell(L, c, conn);
    return pushed;
}

/* Takes the next result of a connection that has it ready. */
static int push_next(lua_State *L, Conn *c)
{
    c->deadline = DBL_NEVER;
    if (!c->kept)
        c->kept = next_result(c->pg);
    if (!c->kept) {
        lua_pushnil(L);
        return 1;
    }
    if (dbl_is_copy(c->kept))
        meet_copy(c, c->kept);
    dbl_note_command(c, c->kept);
    return dbl_push_kept(L, c, 1);
}

/* core.get_result and core.query give `false` where Lua must go on: the
 * connection's wait is another than poll(2), or the deadline has come. */

static int unsettled(lua_State *L)
{
    lua_pushboolean(L, 0);
    return 1;
}

/* Whether the next result, or the end, lies here: then the socket is not looked at. */
static int has_arrived(Conn *c)
{
    return !c->copy && !c->most && !PQisBusy(c->pg) && !dbl_conn_barred(c);
}

static int conn_get_result(lua_State *L)
{
    Conn *c = dbl_conn_free(L, 1);
    if (!c)
        return 2;
    c->deadline = dbl_opt_deadline(L, 2);
    return has_arrived(c) || dbl_settle(L, c) ? push_next(L, c) : unsettled(L);
}

static int conn_try_result(lua_State *L)
{
    Conn *c = dbl_conn_free(L, 1);
    if (!c)
        return 2;
    if (dbl_step(c) == 0)
        return push_next(L, c);
    if (c->over) {
        dbl_fail_stopped(L, c);
        c->over = 0;
        c->failed = 1; /* the rest goes by, and then is the end */
        return 2;
    }
    return unsettled(L);
}

/* core.take_next(conn) and core.take_last(conn): what get_result and query end with
 * when Lua did the waiting. */
static int conn_take_next(lua_State *L)
{
    return push_next(L, dbl_conn(L, 1));
}

static int conn_take_last(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    return dbl_push_kept(L, c, 1);
}

/* Not busy means: get_result will not wait.  PQconsumeInput reads a buffer full;
 * a big result would take a call for each, so read while there is something.  But
 * not what a coroutine waits for: its socket would stay silent. */
static int conn_is_busy(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    int need = 1, most = 1000;
    while (!dbl_conn_is_held(L, c) && (need = dbl_step(c)) != 0 && !c->attempt && most-- > 0)
        if (dbl_block(PQsocket(c->pg), DBL_READ, 0) != 1)
            break;
    lua_pushboolean(L, need != 0 && !c->over);
    return 1;
}

static void push_seconds_until(lua_State *L, double moment)
{
    double left = moment - dbl_now();
    lua_pushnumber(L, left > 0 ? left : 0);
}

int dbl_push_wait(lua_State *L, Conn *c, int need)
{
    if (c->over) {
        lua_pushboolean(L, 0);
        return 1;
    }
    double wake = dbl_wake(c);
    dbl_conn_hold(L, c);
    dbl_push_events(L, need);
    lua_pushinteger(L, PQsocket(c->attempt ? c->attempt->pg : c->pg));
    if (wake >= DBL_NEVER)
        lua_pushnil(L);
    else
        push_seconds_until(L, wake);
    lua_pushboolean(L, c->attempt != NULL);
    return 4;
}

static int push_turn(lua_State *L, Conn *c)
{
    int need = dbl_step(c);
    return need ? dbl_push_wait(L, c, need) : 0;
}

int dbl_has_waited(Conn *c)
{
    c->held = 0;
    return !c->closed && !dbl_overdue(c);
}

/* core.turn(conn, waited): a step as Lua's loop needs it, all that it must know at
 * one stroke.  What to wait for, the descriptor, for how long at most, whether it
 * is being opened; nil when nothing is left to do, false when it was waited and
 * the deadline has come, or somebody has closed the connection.  In between, it
 * is held. */
static int conn_turn(lua_State *L)
{
    int waited = lua_toboolean(L, 2);
    Conn *c = waited ? dbl_conn_any(L, 1) : dbl_conn(L, 1);
    if (!waited)
        c->held = 0;
    else if (!dbl_has_waited(c))
        return unsettled(L);
    return push_turn(L, c);
}

int dbl_push_arrived(lua_State *L, Conn *c)
{
    lua_settop(L, 1);
    lua_pushboolean(L, 0);
    int pushed = push_turn(L, c);
    return pushed > 0 ? 1 + pushed : dbl_push_kept(L, c, 1);
}

/* core.arrived(conn): the same after a wait for the result of core.query: false and what
 * core.turn gives, or the result.  false alone: it was waited in vain. */
static int conn_arrived(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    return dbl_has_waited(c) ? dbl_push_arrived(L, c) : unsettled(L);
}

static int conn_step(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    if (dbl_conn_is_held(L, c))
        dbl_misuse(L, DBL_HELD, c->sql);
    dbl_push_events(L, dbl_step(c));
    return 1;
}

static int conn_settle(lua_State *L)
{
    lua_pushboolean(L, dbl_settle(L, dbl_conn(L, 1)));
    return 1;
}

/* What to wait for now; an idle connection can still be read. */
static int conn_events(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    dbl_push_events(L, c->need ? c->need : c->attempt ? DBL_WRITE : DBL_READ);
    return 1;
}

/* Seconds until the connection wants conn:step() though its socket is silent. */
static int conn_timeout(lua_State *L)
{
    double wake = dbl_wake(dbl_conn(L, 1));
    if (wake >= DBL_NEVER)
        return 0;
    push_seconds_until(L, wake);
    return 1;
}

const luaL_Reg dbl_receive_methods[] = {
    {"step",    conn_step   },
    {"events",  conn_events },
    {"timeout", conn_timeout},
    {"is_busy", conn_is_busy},
    {NULL,      NULL        },
};

/* core.is_active(conn): whether something runs, results are left, or a cancel request
 * is under way. */
static int conn_is_active(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    lua_pushboolean(L, is_active(c->pg) || dbl_conn_barred(c));
    return 1;
}

/* core.in_pipeline(conn), core.is_listening(conn), core.set_listening(conn, bool) */
static int conn_in_pipeline(lua_State *L)
{
    lua_pushboolean(L, PQpipelineStatus(dbl_conn(L, 1)->pg) != PQ_PIPELINE_OFF);
    return 1;
}

/* core.is_at_rest(conn, silent): nothing goes on upon it and nothing is left to be
 * taken; silent: and nothing has arrived meanwhile. */
static int conn_is_at_rest(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    PGconn *pg = dbl_conn_is_ours(c) ? c->pg : NULL;
    lua_pushboolean(L, PQtransactionStatus(pg) == PQTRANS_IDLE && !c->held && !c->listening &&
                           !c->kept && !c->notices.first && !c->notifications.first &&
                           PQpipelineStatus(pg) == PQ_PIPELINE_OFF && !dbl_conn_barred(c) &&
                           !(lua_toboolean(L, 2) && dbl_block(PQsocket(pg), DBL_READ, 0)));
    return 1;
}

static int conn_is_listening(lua_State *L)
{
    lua_pushboolean(L, dbl_conn(L, 1)->listening);
    return 1;
}

static int conn_set_listening(lua_State *L)
{
    dbl_conn(L, 1)->listening = (unsigned char)lua_toboolean(L, 2);
    return 0;
}

/* core.drain(conn) */
static int conn_drain(lua_State *L)
{
    dbl_drain(dbl_conn(L, 1));
    return 0;
}

/* core.stopped(conn): nil and why a query had to be stopped. */
static int conn_stopped(lua_State *L)
{
    return dbl_fail_stopped(L, dbl_conn_any(L, 1));
}

/* core.is_occupied(conn): whether a stream or a pipeline has to be ended first, in which nobody
 * waits. */
static int conn_is_occupied(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    lua_pushboolean(L, c->occupied && !dbl_conn_is_held(L, c));
    return 1;
}

/* core.was_discarded(conn): whether its prepared statements were, since the last time
 * it was asked. */
static int conn_was_discarded(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    lua_pushboolean(L, c->discarded);
    c->discarded = 0;
    return 1;
}

/* core.done(conn): how many statements of our own pipeline went well. */
static int conn_done(lua_State *L)
{
    lua_pushinteger(L, dbl_conn_any(L, 1)->done);
    return 1;
}

/* core.overdue(conn): whether its deadline has come. */
static int conn_overdue(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    lua_pushboolean(L, dbl_overdue(c));
    return 1;
}

const luaL_Reg dbl_receive_functions[] = {
    {"is_active",     conn_is_active    },
    {"in_pipeline",   conn_in_pipeline  },
    {"is_at_rest",    conn_is_at_rest   },
    {"is_listening",  conn_is_listening },
    {"set_listening", conn_set_listening},
    {"is_occupied",   conn_is_occupied  },
    {"was_discarded", conn_was_discarded},
    {"done",          conn_done         },
    {"drain",         conn_drain        },
    {"stopped",       conn_stopped      },
    {"overdue",       conn_overdue      },
    {"turn",          conn_turn         },
    {"arrived",       conn_arrived      },
    {"settle",        conn_settle       },
    {"get_result",    conn_get_result   },
    {"try_result",    conn_try_result   },
    {"take_next",     conn_take_next    },
    {"take_last",     conn_take_last    },
    {NULL,            NULL              },
};
