/*
 * query.c -- how one query is asked for: what is run, its parameters and options.
 *
 * Whatever is wrong with the arguments is said before anything is sent.
 */
#include "query.h"

#include <string.h>

#include "fail.h"
#include "param.h"
#include "result.h"
#include "row.h"

enum {
    LONGEST_CACHED = 8192, /* bytes of SQL */
    MOST_ON_STACK = 1000,  /* Lua 5.1 has room for 8,000 values there */
};

const char *dbl_check_sql(lua_State *L, int i, size_t *size)
{
    const char *sql = dbl_check_string(L, i, "sql", size);
    if (memchr(sql, '\0', *size))
        dbl_misuse(L, "bad argument 'sql' (a NUL byte at %d)",
                   (int)((const char *)memchr(sql, '\0', *size) - sql) + 1);
    return sql;
}

/* One of our own tables at i: a statement, or a marked parameter. */
static int is_marked(lua_State *L, int i, const char *mark)
{
    if (lua_type(L, i) != LUA_TTABLE || !lua_getmetatable(L, i))
        return 0;
    if (mark)
        lua_getfield(L, -1, mark);
    int is = lua_toboolean(L, -1);
    lua_pop(L, mark ? 2 : 1);
    return is;
}

static double read_seconds(lua_State *L, int i)
{
    if (lua_type(L, i) != LUA_TNUMBER || !(lua_tonumber(L, i) >= 0))
        dbl_misuse(L, "option timeout must be a number of seconds");
    return dbl_opt_deadline(L, i);
}

size_t dbl_budget(lua_Number bytes)
{
    return bytes < 1e15 ? (size_t)bytes : 0;
}

static size_t read_budget(lua_State *L, int i)
{
    if (!lua_toboolean(L, i))
        return 0;
    if (lua_type(L, i) != LUA_TNUMBER || !(lua_tonumber(L, i) >= 1))
        dbl_misuse(L, "option max_bytes must be a number of bytes, or false");
    return dbl_budget(lua_tonumber(L, i));
}

static void read_shape(lua_State *L, int i, Query *q)
{
    static const char *const shapes[] = {"row", "array", "values"};
    const char *shape = lua_tostring(L, i);
    for (q->shape = 0; strcmp(shape ? shape : "", shapes[q->shape]) != 0; q->shape++)
        if (q->shape == DBL_ROW_VALUES)
            dbl_misuse(L, "option rows must be \"row\" or \"array\" (or \"values\" of conn:rows)");
    q->reading &= ~DBL_READ_ARRAYS;
    q->reading |= q->shape == DBL_ROW_ARRAY ? DBL_READ_ARRAYS : 0;
}

static void read_option(lua_State *L, const char *name, int value, Query *q)
{
    if (strcmp(name, "timeout") == 0) {
        q->deadline = read_seconds(L, value);
    } else if (strcmp(name, "max_bytes") == 0) {
        q->budget = read_budget(L, value);
    } else if (strcmp(name, "rows") == 0) {
        read_shape(L, value, q);
    } else if (strcmp(name, "binary") == 0) {
        q->binary = lua_toboolean(L, value);
    } else if (strcmp(name, "decode") == 0) {
        q->reading &= ~DBL_READ_RAW;
        q->reading |= lua_toboolean(L, value) ? 0 : DBL_READ_RAW;
    } else if (strcmp(name, "null") == 0) {
        q->reading |= DBL_READ_NULL;
        q->null = 1;
    } else {
        dbl_misuse(L, "unknown option '%s'", name);
    }
}

/* The option on the top, below it its name: how many entries it says that there are. */
static int read_named(lua_State *L, Query *q)
{
    int value = lua_gettop(L);
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    if (strcmp(name, "n") != 0) {
        read_option(L, name, value, q);
        return 0;
    }
    if (lua_type(L, value) != LUA_TNUMBER)
        dbl_misuse(L, "option n must be a number");
    return (int)lua_tointeger(L, value);
}

/* Reads the options of the table at index t; its positional entries are counted. */
static int read_options(lua_State *L, int t, Query *q)
{
    int entries = 0;
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        int numbered = lua_type(L, -2) == LUA_TNUMBER;
        int i = numbered ? (int)lua_tointeger(L, -2) : read_named(L, q);
        entries = i > entries ? i : entries;
    }
    return entries;
}

/* Pushes entries of the table at t, from the first on, as one table. */
static void push_list(lua_State *L, int t, int first, int entries)
{
    lua_createtable(L, entries - first + 1, 0);
    for (int i = first; i <= entries; i++) {
        lua_rawgeti(L, t, i);
        lua_rawseti(L, -2, i - first + 1);
    }
}

/* The table at index t, on the top: puts its entries from the first on the stack as if
 * they had been given one by one; but what is too much for it becomes a list.  n, as
 * table.pack sets it, counts nils at the end. */
static void spread(lua_State *L, int t, int first, Query *q)
{
    int entries = read_options(L, t, q);
    if (t + entries - first - 2 > DBL_MOST_PARAMS)
        dbl_misuse(L, "more parameters than PostgreSQL takes");
    q->list = entries > MOST_ON_STACK;
    int last = q->list ? first + 2 - t : entries;
    luaL_checkstack(L, last + 10, "too many parameters");
    for (int i = first; i <= last; i++)
        lua_rawgeti(L, t, i);
    if (q->list)
        push_list(L, t, last + 1, entries);
    if (q->null) {
        lua_getfield(L, t, "null");
        q->null = lua_gettop(L) - 1;
    }
    lua_remove(L, t);
    q->params = t + entries - first - 2;
}

int dbl_query_is_cacheable(lua_State *L, const Conn *c, const Query *q)
{
    if (!c->caching || q->statement || q->list || q->binary >= 0 || lua_type(L, 2) != LUA_TSTRING ||
        dbl_rawlen(L, 2) > LONGEST_CACHED)
        return 0;
    for (int i = 3; i < 3 + q->params; i++)
        if (lua_type(L, i) == LUA_TTABLE)
            return 0;
    return 1;
}

static int is_statement(lua_State *L)
{
    return is_marked(L, 2, "dblink_statement") ? 2 : 0;
}

/* As the connection's habits are. */
static Query plain_query(const Conn *c)
{
    return (Query){
        .deadline = DBL_NEVER,
        .budget = c->budget,
        .reading = c->habits,
        .shape = c->habits & DBL_READ_ARRAYS ? DBL_ROW_ARRAY : DBL_ROW_NAMED,
        .binary = -1,
    };
}

void dbl_query_read(lua_State *L, const Conn *c, int first, Query *q)
{
    *q = plain_query(c);
    q->params = lua_gettop(L) - 2;
    int type = lua_type(L, 2);
    if (type == LUA_TTABLE)
        q->statement = is_statement(L);
    if (type == LUA_TTABLE && !q->statement) {
        lua_settop(L, 2);
        spread(L, 2, first, q);
        if (q->params < 0)
            dbl_misuse(L, "no SQL at [1]");
        q->statement = is_statement(L);
    } else if (q->statement && q->params == 1 && lua_type(L, 3) == LUA_TTABLE &&
               !is_marked(L, 3, NULL)) {
        spread(L, 3, 1, q);
    }
}

/* The string at [i] of the statement, which keeps it alive. */
static const char *field(lua_State *L, const Query *q, int i)
{
    lua_rawgeti(L, q->statement, i);
    const char *s = lua_tostring(L, -1);
    lua_pop(L, 1);
    return s;
}

/* Opens a pipeline of our own for a statement that is yet to be prepared: what
 * closes another, if there is something, then Parse. */
static int prepare(lua_State *L, PGconn *pg, const Query *q)
{
    const char *old = field(L, q, DBL_STATEMENT_OLD);
    if (!PQenterPipelineMode(pg))
        return 0;
    if (old && !(dbl_send_close(pg, old) && PQpipelineSync(pg)))
        return 0;
    return PQsendPrepare(pg, field(L, q, DBL_STATEMENT_NAME), field(L, q, DBL_STATEMENT_SQL), 0,
                         NULL);
}

/* How a statement's values can be had in binary: what it keeps.  A codec that comes
 * later may read text alone. */
int dbl_binary_habit(const Conn *c, int traits)
{
    return traits < 0 ? -1 : (int)(c->codecs << 8) | traits;
}

int dbl_choose_format(const Conn *c, const Query *q, int habit)
{
    int traits = habit & 255;
    if (q->binary > 0)
        return q->reading & DBL_READ_RAW || dbl_type_settled(c->pg, -1);
    if (q->binary == 0 || q->reading & DBL_READ_RAW || habit != dbl_binary_habit(c, traits))
        return 0;
    return dbl_type_settled(c->pg, traits);
}

/* What the statement has at DBL_STATEMENT_BINARY; ready: whether it has something. */
static int get_habit(lua_State *L, const Query *q, int *ready)
{
    lua_rawgeti(L, q->statement, DBL_STATEMENT_BINARY);
    int habit = lua_type(L, -1) == LUA_TNUMBER ? (int)lua_tointeger(L, -1) : -1;
    *ready = !lua_isnil(L, -1);
    lua_pop(L, 1);
    return habit;
}

static int send_statement(lua_State *L, const Conn *c, const Query *q, const Params *p)
{
    int ready, habit = get_habit(L, q, &ready);
    PGconn *pg = c->pg;
    ready |= c->occupied || PQtransactionStatus(pg) == PQTRANS_ACTIVE;
    return (ready || prepare(L, pg, q)) &&
           PQsendQueryPrepared(pg, field(L, q, DBL_STATEMENT_NAME), p->count, p->values, p->lengths,
                               p->formats, dbl_choose_format(c, q, habit)) &&
           (ready || PQpipelineSync(pg));
}

int dbl_send_close(PGconn *pg, const char *statement)
{
#if DBL_HAS_CLOSE_PREPARED
    return PQsendClosePrepared(pg, statement);
#else
    return PQsendQueryParams(pg, statement, 0, NULL, NULL, NULL, NULL, 0);
#endif
}

/* nil and why.  A pipeline of our own of which a part was sent has no end: nothing
 * would come out of it any more. */
static int fail(lua_State *L, Conn *c)
{
    dbl_fail_conn(L, c->pg);
    if (PQpipelineStatus(c->pg) != PQ_PIPELINE_OFF && !c->occupied && !PQexitPipelineMode(c->pg)) {
        dbl_conn_sever(c);
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "connection_lost");
    }
    return 0;
}

int dbl_query_prepare(lua_State *L, Conn *c, const Query *q)
{
    PGconn *pg = c->pg;
    int sent = prepare(L, pg, q) && PQsendDescribePrepared(pg, field(L, q, DBL_STATEMENT_NAME)) &&
               PQpipelineSync(pg);
    return sent ? 1 : fail(L, c);
}

/* The parameters.  What encodes them is Lua's, and could do anything with the connection. */
static void read_params(lua_State *L, Conn *c, const Query *q, Params *p)
{
    int occupied = c->occupied;
    unsigned turn = c->turn, puts = c->puts;
    dbl_params(L, 3, q->params, q->list, p);
    if (c->closed || c->occupied != occupied || (occupied && (c->turn != turn || c->puts != puts)))
        dbl_misuse(L, "what encodes a parameter must leave the connection alone");
}

int dbl_query_send(lua_State *L, Conn *c, const Query *q)
{
    size_t size;
    Params p;
    int sent;
    const char *sql = q->statement ? NULL : dbl_check_sql(L, 2, &size);
    read_params(L, c, q, &p);
    PGconn *pg = c->pg;
    if (q->statement)
        sent = send_statement(L, c, q, &p);
    else if (q->params > 0 || q->binary > 0 || q->extended)
        sent = PQsendQueryParams(pg, sql, p.count, p.types, p.values, p.lengths, p.formats,
                                 dbl_choose_format(c, q, -1));
    else
        sent = PQsendQuery(pg, sql);
    return sent ? 1 : fail(L, c);
}

/* A `null` of this query's own: noted beside the connection's user value. */
static void note_null(lua_State *L, int conn, int null)
{
    dbl_getuservalue(L, conn);
    lua_createtable(L, 0, 2);
    lua_pushvalue(L, null);
    lua_setfield(L, -2, "null");
    lua_getfield(L, -2, "codecs");
    lua_setfield(L, -2, "codecs");
    lua_setfield(L, -2, "call");
    lua_pop(L, 1);
}

static void begin(Conn *c, const Query *q, const char *sql, size_t size, int goal)
{
    dbl_conn_begin(c, sql, size, goal);
    c->reading = (unsigned char)q->reading;
    c->own_null = q->null != 0;
    c->deadline = c->last = c->again && c->last < q->deadline ? c->last : q->deadline;
    c->again = 0;
    c->most = q->budget;
    if (c->most)
        PQsetSingleRowMode(c->pg);
}

void dbl_query_begin(lua_State *L, Conn *c, const Query *q, int goal)
{
    size_t size;
    if (q->statement)
        lua_rawgeti(L, q->statement, DBL_STATEMENT_SQL);
    const char *sql = lua_tolstring(L, q->statement ? -1 : 2, &size);
    begin(c, q, sql, size, goal);
    if (q->null)
        note_null(L, 1, q->null);
}

int dbl_query_text(lua_State *L, Conn *c, const char *sql, size_t size, int goal)
{
    Query q = plain_query(c);
    if (!PQsendQuery(c->pg, sql))
        return fail(L, c);
    begin(c, &q, sql, size, goal);
    return 1;
}
