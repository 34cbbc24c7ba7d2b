/*
 * stream.c -- rows as they arrive, in bounded memory.
 *
 * libpq gives a result in pieces: row by row, or from 17 on in chunks.  A stream
 * puts one piece after the other into one and the same result, and reads its
 * rows out of it.
 *
 * A stream occupies its connection until its last row was given.  Who leaves it
 * early closes it, or the next verb does: then its query is cancelled.  So a
 * forgotten stream needs no finalizer.
 */
#include "stream.h"

#include "fail.h"
#include "query.h"
#include "receive.h"
#include "result.h"
#include "row.h"

#define PLAIN  "dblink.stream.plain" /* its connection's wait is poll(2) */
#define STREAM "dblink.stream"       /* Lua waits */

enum { CHUNK = 32 }; /* rows; more of them gain little, and each may be big */

/* The entries of the user value. */
enum { CONN = 1, RESULT, NAMES, ERROR };

typedef struct Stream {
    const void *mark; /* by which we know our own */
    Conn *conn;       /* NULL: over */
    Result *result;   /* NULL before the first piece */
    unsigned turn;    /* of the connection, which is at another when the stream was ended */
    int shape;        /* DBL_ROW_... */
    int row;          /* to be given next */
    int special;      /* values need the result's user value */
    lua_Integer number;
    size_t budget, bytes;
} Stream;

static const char mark;

static Stream *check_stream(lua_State *L)
{
    Stream *s = dbl_marked(L, 1, &mark, sizeof *s);
    if (!s)
        dbl_bad_self(L, 1, "dblink.stream");
    else if (s->result && s->result->lent)
        dbl_misuse(L, "a codec cannot use the stream whose row it reads");
    return s;
}

/* The same, to give rows: not to a finalizer that runs while one is made. */
static Stream *check_giving(lua_State *L)
{
    Stream *s = check_stream(L);
    if (s->result && s->result->readers)
        dbl_misuse(L, "a row of this stream is being made, or Lua raised meanwhile: close it");
    return s;
}

/* Pushes the stream's own value; the stream is at index 1. */
static void push_own(lua_State *L, int key)
{
    dbl_getuservalue(L, 1);
    lua_rawgeti(L, -1, key);
    lua_remove(L, -2);
}

/* Puts the value on the top away. */
static void set_own(lua_State *L, int key)
{
    dbl_getuservalue(L, 1);
    lua_insert(L, -2);
    lua_rawseti(L, -2, key);
    lua_pop(L, 1);
}

static void finish(Stream *s)
{
    if (s->result && !s->result->readers)
        dbl_result_next(s->result, NULL);
    s->conn = NULL;
}

static size_t weigh(const PGresult *res)
{
    size_t bytes = 0;
    for (int i = PQntuples(res); i-- > 0;)
        bytes += dbl_weigh(res, i);
    return bytes;
}

/* The piece in c->kept is read next. */
static int begin_piece(lua_State *L, Stream *s, Conn *c)
{
    if (!s->result) {
        const PGresult *kept = c->kept;
        PQclear(c->whole);
        c->whole = PQcopyResult(kept, PG_COPYRES_ATTRS);
        if (!c->whole)
            return 0;
        push_own(L, CONN);
        int conn = lua_gettop(L), habits = dbl_push_habits(L, c, conn);
        dbl_result_check(L, kept, c->kept);
        Result *r = dbl_result_pieces(L, &c->whole, c->reading, habits);
        s->special = r->reading & DBL_READ_NULL || dbl_is_called(r);
        dbl_push_names(L, r);
        set_own(L, NAMES);
        set_own(L, RESULT);
        lua_settop(L, conn - 1);
        dbl_result_check(L, kept, c->kept);
        s->result = r;
    }
    dbl_result_next(s->result, c->kept);
    c->kept = NULL;
    s->row = 0;
    return 1;
}

static int push_row(lua_State *L, Stream *s)
{
    Result *r = s->result;
    int own = 0, result = 0, values = 1;
    dbl_begin_reading(r);
    if (s->special || s->shape == DBL_ROW_NAMED) {
        dbl_getuservalue(L, 1);
        own = lua_gettop(L);
    }
    if (s->special) {
        lua_rawgeti(L, own, RESULT);
        result = own + 1;
    }
    if (s->shape == DBL_ROW_VALUES) {
        lua_pushinteger(L, ++s->number);
        dbl_push_values(L, r, result, s->row++);
        values += r->columns;
    } else {
        if (s->shape == DBL_ROW_NAMED)
            lua_rawgeti(L, own, NAMES);
        dbl_push_row(L, r, result, s->row++, s->shape, lua_gettop(L));
    }
    dbl_end_reading(r);
    return values;
}

/* The end: nil alone, or nil and the error that was kept. */
static int push_end(lua_State *L, Stream *s, Conn *c)
{
    finish(s);
    c->occupied = 0;
    c->deadline = DBL_NEVER;
    if (c->failed) {
        push_own(L, CONN);
        return dbl_push_kept(L, c, lua_gettop(L));
    }
    PQclear(c->kept);
    c->kept = NULL;
    lua_pushnil(L);
    return 1;
}

/* Waits in place for the next piece: 0 where Lua has to, or where the query has to
 * be stopped.  (Its deadline may come though there is always something to read.) */
static int settle(lua_State *L, Conn *c)
{
    if (dbl_overdue(c))
        c->over = DBL_OVER_TIME;
    if (c->over)
        return 0;
    push_own(L, CONN);
    int settled = dbl_settle_at(L, c, lua_gettop(L));
    lua_pop(L, 1);
    return settled;
}

/* Where it is over: nil, and the error if it has one still to be told. */
static int push_over(lua_State *L, Stream *s)
{
    Conn *c = s->conn;
    finish(s);
    if (c && !dbl_conn_is_ours(c))
        dbl_misuse(L, "connection is closed");
    if (c)
        return dbl_fail(L, DBL_USAGE, "the stream was ended by another verb of its connection");
    lua_pushnil(L);
    push_own(L, ERROR);
    lua_pushnil(L);
    set_own(L, ERROR);
    return lua_isnil(L, -1) ? (lua_pop(L, 1), 1) : 2;
}

/* Sees to it that there is a row to give: 0, or how many values were pushed instead.
 * These are nil, or nil and an error; or `false` where Lua must go on, that is
 * await.finish, and again. */
static int want_row(lua_State *L, Stream *s)
{
    PGresult *res;
    Conn *c = s->conn;
    if (!c || c->turn != s->turn)
        return push_over(L, s);
    if (dbl_conn_is_held(L, c))
        return dbl_fail(L, DBL_USAGE, "stream is in use: another coroutine waits for it");
    while (!s->result || s->row >= s->result->rows) {
        if (s->result) /* before the next piece is made, which then gets its memory */
            dbl_result_next(s->result, NULL);
        if (c->over || c->copy || PQisBusy(c->pg)) {
            if (settle(L, c))
                continue;
            lua_pushboolean(L, 0);
            return 1;
        }
        if (dbl_take(c, &res) == DBL_END) {
            if (!dbl_conn_barred(c))
                return push_end(L, s, c);
            if (settle(L, c))
                continue;
            lua_pushboolean(L, 0);
            return 1;
        }
        if (PQntuples(res) == 0 && (s->result || PQresultStatus(res) != PGRES_TUPLES_OK)) {
            dbl_keep(c, res);
            continue;
        }
        PQclear(c->kept);
        c->kept = res;
        s->bytes += s->budget ? weigh(res) : 0;
        if (s->bytes > s->budget)
            c->over = DBL_OVER_BUDGET;
        else if (!begin_piece(L, s, c))
            c->over = DBL_OVER_MEMORY;
    }
    return 0;
}

static int push_next(lua_State *L, Stream *s)
{
    int n = want_row(L, s);
    return n ? n : push_row(L, s);
}

/* core.stream_next(stream) */
static int stream_next(lua_State *L)
{
    Stream *s = check_giving(L);
    lua_settop(L, 1);
    return push_next(L, s);
}

/* core.stream_columns(stream): its columns as a result without rows; nil where it
 * has none, or with an error. */
static int stream_columns(lua_State *L)
{
    Stream *s = check_giving(L);
    lua_settop(L, 1);
    if (!s->result) {
        int n = want_row(L, s);
        if (n > 0 && !s->result)
            return n;
    }
    push_own(L, RESULT);
    return 1;
}

/* stream() of a plain script, as a for loop calls it: an error is raised, the rest
 * done in Lua.  Its upvalue: what Lua calls in its place. */
static int stream_call(lua_State *L)
{
    Stream *s = check_giving(L);
    int n = want_row(L, s);
    if (n == 0)
        return push_row(L, s);
    if (lua_isboolean(L, -n)) {
        lua_settop(L, 1);
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_insert(L, 1);
        lua_call(L, 1, LUA_MULTRET);
        return lua_gettop(L);
    }
    if (n == 2) /* nil and an error */
        lua_error(L);
    return n;
}

static Stream *new_stream(lua_State *L, int plain)
{
    Stream *s = dbl_newuserdata(L, sizeof *s);
    *s = (Stream){.mark = &mark};
    luaL_getmetatable(L, plain ? PLAIN : STREAM);
    lua_setmetatable(L, -2);
    lua_createtable(L, 4, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, CONN);
    dbl_setuservalue(L, -2);
    return s;
}

/* core.rows(conn, sql, ...): begins; nil and an error where it cannot. */
static int conn_rows(lua_State *L)
{
    Query q;
    Conn *c = dbl_conn_ready(L, 1);
    if (!c)
        return 2;
    dbl_query_read(L, c, 1, &q);
    q.extended = 1;
    Stream *s = new_stream(L, c->plain);
    int stream = lua_gettop(L);
    if (!dbl_query_send(L, c, &q))
        return 2;
    s->budget = q.budget;
    s->shape = q.shape;
    q.budget = 0;
    dbl_query_begin(L, c, &q, DBL_GOAL_NEXT);
    c->occupied = 1;
    s->conn = c;
    s->turn = c->turn;
#if DBL_HAS_CHUNKED_ROWS
    if (!s->budget)
        PQsetChunkedRowsMode(c->pg, CHUNK);
    else
#endif
        PQsetSingleRowMode(c->pg);
    lua_pushvalue(L, stream);
    return 1;
}

/* core.stream_of_error(conn, err): one that gives the error, and is over. */
static int stream_of_error(lua_State *L)
{
    new_stream(L, dbl_conn_any(L, 1)->plain);
    dbl_getuservalue(L, -1);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, ERROR);
    lua_pop(L, 1);
    return 1;
}

/* core.stream_conn(stream): its connection. */
static int stream_conn(lua_State *L)
{
    check_stream(L);
    push_own(L, CONN);
    return 1;
}

/* core.stream_end(stream, by_verb): the connection, which is to be drained; nil where
 * the stream was over.  If another verb does it the stream will say so. */
static int stream_end(lua_State *L)
{
    Stream *s = check_stream(L);
    Conn *c = s->conn;
    int running = c && c->turn == s->turn;
    if (running) {
        dbl_drain(c);
        c->deadline = DBL_NEVER;
    }
    if (!lua_toboolean(L, 2))
        finish(s);
    push_own(L, CONN);
    return running;
}

/* core.define_stream(methods, call): what Lua has for the class. */
static int define_stream(lua_State *L)
{
    static const char *const names[] = {PLAIN, STREAM};
    for (int i = 0; i < 2; i++) {
        lua_settop(L, 2);
        luaL_newmetatable(L, names[i]);
        lua_pushvalue(L, 1);
        lua_setfield(L, 3, "__index");
        lua_getfield(L, 1, "close");
        lua_setfield(L, 3, "__close");
        lua_pushliteral(L, STREAM);
        lua_setfield(L, 3, "__name");
        lua_pushliteral(L, STREAM);
        lua_setfield(L, 3, "__metatable");
        lua_pushvalue(L, 2);
        if (i == 0)
            lua_pushcclosure(L, stream_call, 1);
        lua_setfield(L, 3, "__call");
    }
    return 0;
}

const luaL_Reg dbl_stream_functions[] = {
    {"rows",            conn_rows      },
    {"stream_next",     stream_next    },
    {"stream_of_error", stream_of_error},
    {"stream_conn",     stream_conn    },
    {"stream_columns",  stream_columns },
    {"stream_end",      stream_end     },
    {"define_stream",   define_stream  },
    {NULL,              NULL           },
};
