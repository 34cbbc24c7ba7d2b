/*
 * copy.c -- COPY: bytes and rows to the server, lines and rows from it.
 *
 * A writer collects what it is given and hands it to libpq 64 KiB at a time, the
 * next ones when the socket has taken the last: so gigabytes pass in little
 * memory, and a row costs no message of its own.  A reader takes one line after
 * the other from what has arrived.  Rows are encoded and decoded in COPY's text
 * format: tabs, \N, and backslashes before what would be taken for them.
 *
 * Whoever forgets a writer or a reader leaves the connection to the collector,
 * which makes the COPY fail, or reads it to its end.
 */
#include "copy.h"

#include <string.h>

#include "digits.h"
#include "fail.h"
#include "param.h"
#include "receive.h"
#include "result.h"

#define WRITER "dblink.writer"
#define READER "dblink.reader"

enum {
    PIECE = 65536,          /* of the stream: a whole number of the blocks that libpq sends */
    HEADER = 5,             /* of a message with data */
    MOST_KEPT = 16 * PIECE, /* after a row that was larger */
};

typedef struct Copy {
    Conn *conn;      /* which the user value keeps alive */
    unsigned number; /* which of its COPYs this is */
    int columns;
    unsigned char over;
    unsigned char binary;
    char *line; /* of a reader: being read, or Lua raised meanwhile: no finalizer touches it */
    int line_size;
    char *data; /* of a writer: data[from] to data[whole] is not yet given to libpq, */
    size_t from, whole, used, size; /* and a row is begun up to data[used] */
    struct Reading {
        const Type *type;
        Decoder *decode;
    } types[]; /* of a reader's columns: how to decode, NULLs for text */
} Copy;

static Copy *any_copy(lua_State *L)
{
    Copy *w = dbl_testudata(L, 1, WRITER);
    return w ? w : dbl_check_self(L, 1, READER);
}

static int is_serving(const Copy *w)
{
    const Conn *c = w->conn;
    return !w->over && c->copy == DBL_COPY_SERVED && c->copies == w->number;
}

/* The writer or reader at index 1, its COPY under way; NULL with nil and an error pushed. */
static Copy *serving(lua_State *L, const char *class)
{
    Copy *w = dbl_check_self(L, 1, class);
    Conn *c = w->conn;
    if (w->over)
        dbl_misuse(L, "the COPY is over");
    if (!dbl_conn_is_ours(c))
        dbl_misuse(L, "connection is closed");
    if (!dbl_conn_is_still(L, c))
        return NULL;
    w->used = w->whole; /* a row that was not finished is dropped */
    if (is_serving(w))
        return w;
    w->over = 1;
    if (PQstatus(c->pg) == CONNECTION_BAD)
        dbl_fail_conn(L, c->pg);
    else
        dbl_fail(L, DBL_USAGE, "the COPY was ended by another verb");
    return NULL;
}

static void push_conn(lua_State *L)
{
    dbl_getuservalue(L, 1);
    lua_rawgeti(L, -1, 1);
    lua_remove(L, -2);
}

/* dbl_settle, which wants the connection at index 1. */
static int settle(lua_State *L, const Copy *w)
{
    lua_pushvalue(L, 1);
    push_conn(L);
    lua_replace(L, 1);
    int done = dbl_settle(L, w->conn);
    lua_replace(L, 1);
    return done;
}

static int push_kept(lua_State *L, const Copy *w)
{
    push_conn(L);
    return dbl_push_kept(L, w->conn, lua_gettop(L));
}

/* Its end is near: the connection needs it no more. */
static void leave(Copy *w)
{
    w->over = 1;
    w->conn->copy = DBL_COPY_NONE;
    w->conn->occupied = 0;
}

static void give_up(Copy *w)
{
    if (is_serving(w))
        dbl_drain(w->conn);
    w->over = 1;
}

static void free_line(Copy *r)
{
    PQfreemem(r->line);
    r->line = NULL;
}

static int copy_gc(lua_State *L)
{
    Copy *w = lua_touserdata(L, 1);
    Conn *c = w->conn;
    free_line(w);
    int left = is_serving(w);
    give_up(w);
    dbl_free(w->data);
    w->data = NULL;
    if (left && dbl_conn_is_ours(c)) {
        dbl_step(c); /* tells the server */
        c->occupied = PQtransactionStatus(c->pg) == PQTRANS_ACTIVE;
    }
    return 0;
}

static int copy_tostring(lua_State *L)
{
    const Copy *w = any_copy(L);
    lua_pushfstring(L, "dblink COPY (%s)", is_serving(w) ? w->conn->sql : "over");
    return 1;
}

/* A COPY begins: core.copy_begin(conn, seconds), after its SQL was sent, then
 * core.copy_take(conn, out).  Like the verbs of receive.c they give `false` where
 * Lua must wait. */

static int copy_begin(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    c->deadline = dbl_opt_deadline(L, 2);
    c->goal = DBL_GOAL_COPY;
    lua_pushboolean(L, dbl_settle(L, c));
    return 1;
}

static int copy_take(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    int out = lua_toboolean(L, 2);
    if (!c->copy || c->copy_out != out) {
        if (PQresultStatus(c->kept) == PGRES_FATAL_ERROR) /* also where there is none */
            return dbl_push_kept(L, c, 1);
        return dbl_fail(L, DBL_USAGE, "the statement was no COPY ... %s",
                        out ? "TO STDOUT" : "FROM STDIN");
    }
    int columns = PQnfields(c->kept);
    size_t types = out ? (size_t)columns * sizeof(struct Reading) : 0;
    Copy *w = dbl_newuserdata(L, sizeof *w + types);
    memset(w, 0, sizeof *w + types);
    w->conn = c;
    w->over = 1;
    luaL_getmetatable(L, out ? READER : WRITER);
    lua_setmetatable(L, -2);
    lua_createtable(L, 2, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    if (c->habits & DBL_READ_NULL) {
        dbl_getuservalue(L, 1);
        lua_getfield(L, -1, "null");
        lua_rawseti(L, -3, 2);
        lua_pop(L, 1);
    }
    dbl_setuservalue(L, -2);
    w->columns = columns;
    w->binary = (unsigned char)PQbinaryTuples(c->kept);
    w->number = ++c->copies;
    w->over = 0;
    PQclear(c->kept);
    c->kept = NULL;
    c->failed = 0;
    c->line_size = 0;
    c->copy = DBL_COPY_SERVED;
    c->occupied = 1;
    c->goal = out ? DBL_GOAL_LINE : DBL_GOAL_NEXT;
    return 1;
}

/* core.copy_conn(copy): its connection. */
static int copy_conn(lua_State *L)
{
    any_copy(L);
    push_conn(L);
    return 1;
}

/* core.copy_leave(copy): gives it up; whether its connection has to be brought to order. */
static int copy_leave(lua_State *L)
{
    Copy *w = any_copy(L);
    lua_pushboolean(L, is_serving(w));
    give_up(w);
    return 1;
}

/* ---- writing ---- */

static int no_memory(lua_State *L)
{
    return dbl_fail(L, DBL_MEMORY, "out of memory");
}

static int grow(Copy *w, size_t more)
{
    if (w->from > 0)
        memmove(w->data, w->data + w->from, w->used - w->from);
    w->used -= w->from;
    w->whole -= w->from;
    w->from = 0;
    size_t size = w->used + more < PIECE ? PIECE : w->used + more;
    if (size <= w->size && w->size <= MOST_KEPT)
        return 1;
    char *data = dbl_realloc(w->conn->memory, w->data, size);
    if (!data)
        return 0;
    w->data = data;
    w->size = size;
    return 1;
}

/* Room for that much more; 0 where there is none. */
static int reserve(Copy *w, size_t more)
{
    return (w->from == 0 && more <= w->size - w->used) || grow(w, more);
}

/* One message.  0 with nil and an error pushed, and the COPY given up. */
static int put(lua_State *L, Copy *w, const char *s, size_t size)
{
    PGconn *pg = w->conn->pg;
    if (PQputCopyData(pg, s, (int)size) == 1 && PQstatus(pg) == CONNECTION_OK)
        return 1;
    give_up(w);
    dbl_fail_conn(L, pg);
    return 0;
}

/* Takes what is held and the string, but for less than a piece, which it keeps.
 * The values to return: true; or how much of the string is left until the socket
 * has room; or nil and an error. */
static int take(lua_State *L, Copy *w, const char *s, size_t left)
{
    for (;;) {
        size_t held = w->used - w->from;
        size_t spare = held < PIECE - 2 * HEADER ? PIECE - HEADER - held : 0;
        spare -= held > 0 && spare > 0 ? HEADER : 0;
        if (spare > left) {
            if (!reserve(w, left))
                return no_memory(L);
            memcpy(w->data + w->used, s, left);
            w->whole = w->used += left;
            lua_pushboolean(L, 1);
            return 1;
        }
        if (PQflush(w->conn->pg) > 0 && !settle(L, w)) {
            lua_pushinteger(L, (lua_Integer)left);
            return 1;
        }
        size_t size = held < PIECE - HEADER ? held : PIECE - HEADER;
        if ((size > 0 && !put(L, w, w->data + w->from, size)) ||
            (spare > 0 && !put(L, w, s, spare)))
            return 2;
        w->from += size;
        s += spare;
        left -= spare;
    }
}

/* core.copy_write(writer, s [, left]): the last `left` bytes of the string. */
static int copy_write(lua_State *L)
{
    size_t size;
    Copy *w = serving(L, WRITER);
    if (!w)
        return 2;
    const char *s = dbl_check_string(L, 2, "s", &size);
    lua_Number left = luaL_optnumber(L, 3, (lua_Number)size);
    if (!(left >= 0 && left <= (lua_Number)size))
        luaL_argerror(L, 3, "out of range");
    return take(L, w, s + size - (size_t)left, (size_t)left);
}

/* What COPY would take for something else, and the letter that it takes for it; it
 * takes none for a NUL. */
static const char escapes[256] = {
    ['\0'] = '0', ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n',
    ['\v'] = 'v', ['\f'] = 'f', ['\r'] = 'r', ['\\'] = '\\',
};

/* Writes the string with its escapes; NULL where a NUL is in it. */
static char *escape(char *to, const char *s, size_t size)
{
    const char *end = s + size;
    for (;;) {
        const char *from = s;
        while (s < end && !escapes[(unsigned char)*s])
            s++;
        memcpy(to, from, (size_t)(s - from));
        to += s - from;
        if (s == end)
            return to;
        if (!*s)
            return NULL;
        *to++ = '\\';
        *to++ = escapes[(unsigned char)*s++];
    }
}

/* A bytea, its backslash escaped. */
static char *write_hex(char *to, const char *s, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    memcpy(to, "\\\\x", 3);
    to += 3;
    for (const char *end = s + size; s < end; s++) {
        *to++ = digits[(unsigned char)*s >> 4];
        *to++ = digits[*s & 15];
    }
    return to;
}

/* Appends the value on the top as the field of that column; 0 without memory. */
static int encode(lua_State *L, Copy *w, int column)
{
    size_t size = DBL_DIGITS;
    int top = lua_gettop(L), bytes = dbl_param_plain(L, top, "column ", column, NULL);
    int type = lua_type(L, top);
    const char *s = type == LUA_TSTRING ? lua_tolstring(L, top, &size) : NULL;
    if (!reserve(w, 2 * size + 5))
        return 0;
    char *to = w->data + w->used;
    if (column > 1)
        *to++ = '\t';
    switch (type) {
    case LUA_TSTRING:
        to = bytes ? write_hex(to, s, size) : escape(to, s, size);
        if (!to)
            return dbl_misuse(
                L, "column %d: a string with a NUL byte; write dblink.bytea(s) for bytes", column);
        break;
    case LUA_TNUMBER:
        to += dbl_isinteger(L, top) ? dbl_write_integer(to, lua_tointeger(L, top))
                                    : dbl_write_number(to, lua_tonumber(L, top));
        break;
    case LUA_TBOOLEAN:
        *to++ = lua_toboolean(L, top) ? 't' : 'f';
        break;
    default:
        *to++ = '\\';
        *to++ = 'N';
    }
    w->used = (size_t)(to - w->data);
    return 1;
}

/* Whether the row ends where the COPY's columns do; one that has an n says so, for
 * NULLs at the end. */
static void check_length(lua_State *L, const Copy *w)
{
    int n = w->columns;
    lua_rawgeti(L, 2, n + 1);
    if (lua_isnil(L, -1) && !lua_isnil(L, -2))
        return;
    lua_getfield(L, 2, "n");
    if (!lua_isnil(L, -2) || (!lua_isnil(L, -1) && lua_tonumber(L, -1) != n))
        dbl_misuse(L, "bad argument 'row' (the COPY has %d columns)", n);
}

/* core.copy_row(writer, row), which ends as copy_write does. */
static int copy_row(lua_State *L)
{
    Copy *w = serving(L, WRITER);
    if (!w)
        return 2;
    if (lua_type(L, 2) != LUA_TTABLE)
        dbl_misuse(L, "bad argument 'row' (table expected, got %s)", luaL_typename(L, 2));
    if (w->binary)
        dbl_misuse(L, "a COPY in binary format takes no rows: write(s) takes its bytes");
    luaL_checkstack(L, w->columns + 8, "too many columns");
    if (!reserve(w, 1)) /* a row of no columns is a newline; encode leaves room for one */
        return no_memory(L);
    for (int i = 1; i <= w->columns; i++) {
        lua_rawgeti(L, 2, i);
        if (!encode(L, w, i))
            return no_memory(L);
    }
    check_length(L, w);
    w->data[w->used++] = '\n';
    w->whole = w->used;
    return take(L, w, "", 0);
}

/* Ends the COPY, as failed where there is a reason.  Leaves its result to be taken
 * by core.take_last, or gives it. */
static int end(lua_State *L, Copy *w, const char *why)
{
    Conn *c = w->conn;
    size_t held = w->used - w->from;
    if (!why && held > 0 && !put(L, w, w->data + w->from, held))
        return 2;
    if (PQputCopyEnd(c->pg, why) != 1) {
        give_up(w);
        return dbl_fail_conn(L, c->pg);
    }
    leave(w);
    c->goal = DBL_GOAL_LAST;
    if (settle(L, w))
        return push_kept(L, w);
    lua_pushboolean(L, 0);
    return 1;
}

/* core.copy_finish(writer) */
static int copy_finish(lua_State *L)
{
    Copy *w = serving(L, WRITER);
    return w ? end(L, w, NULL) : 2;
}

/* core.copy_fail(writer, why) */
static int copy_fail(lua_State *L)
{
    size_t size;
    Copy *w = serving(L, WRITER);
    return w ? end(L, w, dbl_check_string(L, 2, "why", &size)) : 2;
}

/* ---- reading ---- */

/* Takes the line that has arrived from the connection. */
static int take_line(Copy *r)
{
    Conn *c = r->conn;
    r->line = c->line;
    r->line_size = c->line_size;
    c->line = NULL;
    return r->line != NULL;
}

/* The reader at index 1 with its next line; or NULL, and how many
 * values to return are pushed: false where Lua must wait, nil at the end, nil and
 * an error.  text: what it is asked for, if a COPY in binary format has none. */
static Copy *reading(lua_State *L, const char *text, int *pushed)
{
    Copy *r = dbl_check_self(L, 1, READER);
    *pushed = 1;
    if (r->over) {
        lua_pushnil(L);
        return NULL;
    }
    if (r->line)
        give_up(r);
    r = serving(L, READER);
    *pushed = 2;
    if (!r)
        return NULL;
    if (text && r->binary)
        dbl_misuse(L, "a COPY in binary format has no %s: read() gives its bytes", text);
    int settled = dbl_copy_line(r->conn) || settle(L, r);
    if (settled && take_line(r))
        return r;
    *pushed = 1;
    if (!settled) {
        lua_pushboolean(L, 0);
    } else {
        leave(r);
        *pushed = push_kept(L, r);
        if (*pushed == 1) /* the result, which says no more than COPY and a number */
            lua_pushnil(L);
    }
    return NULL;
}

/* core.copy_line(reader): the next line, without its newline. */
static int copy_line(lua_State *L)
{
    int pushed;
    Copy *r = reading(L, "lines", &pushed);
    if (!r)
        return pushed;
    int newline = r->line[r->line_size - 1] == '\n'; /* no line is empty */
    lua_pushlstring(L, r->line, (size_t)(r->line_size - newline));
    free_line(r);
    return 1;
}

/* core.copy_read(reader): what has arrived, a piece at most or one long line. */
static int copy_read(lua_State *L)
{
    int pushed;
    Copy *r = reading(L, NULL, &pushed);
    if (!r)
        return pushed;
    luaL_Buffer b;
    size_t size = 0;
    luaL_buffinit(L, &b);
    do {
        luaL_addlstring(&b, r->line, (size_t)r->line_size);
        size += (size_t)r->line_size;
        free_line(r);
    } while (size < PIECE && is_serving(r) && dbl_copy_line(r->conn) && take_line(r));
    luaL_pushresult(&b);
    return 1;
}

static char letter_of(char escaped)
{
    for (unsigned i = '\b'; i <= '\r'; i++)
        if (escapes[i] == escaped)
            return (char)i;
    return escaped;
}

/* The field at *at without its escapes, in place and ended by a NUL; NULL for \N.
 * *at: where the next one begins, NULL after the last. */
static char *next_field(char **at, char *end, size_t *size)
{
    char *s = *at, *field = s;
    while (s < end && *s != '\t' && *s != '\\')
        s++;
    char *to = s;
    while (s < end && *s != '\t') {
        if (*s == '\\' && s + 1 < end)
            s++, *to++ = letter_of(*s++);
        else
            *to++ = *s++;
    }
    int null = s - field == 2 && to - field == 1 && *field == 'N';
    *at = s < end ? s + 1 : NULL;
    *to = '\0';
    *size = (size_t)(to - field);
    return null ? NULL : field;
}

static int push_field(lua_State *L, const Copy *r, int column, const char *s, size_t size)
{
    const struct Reading *how = &r->types[column];
    if (how->type)
        return how->decode(L, how->type, s, size);
    lua_pushlstring(L, s, size);
    return 1;
}

/* Makes a row of the line: its table is pushed, or nil and an error; how many values. */
static int push_row(lua_State *L, const Copy *r, int null)
{
    char *at = r->line, *end = at + r->line_size;
    size_t size;
    int column = 0;
    end -= end[-1] == '\n';
    *end = '\0';
    lua_createtable(L, r->columns, 1);
    for (; at && column < r->columns; column++) {
        const char *s = next_field(&at, end, &size);
        if (!s)
            lua_pushvalue(L, null);
        else if (!push_field(L, r, column, s, size))
            return dbl_fail(L, DBL_USAGE, "column %d: no %s: %s", column + 1,
                            r->types[column].type->name, s);
        lua_rawseti(L, -2, column + 1);
    }
    if (r->columns > 0 && (at || column < r->columns))
        return dbl_fail(L, DBL_USAGE, "a line that is not %d fields in COPY's text format",
                        r->columns);
    lua_pushinteger(L, r->columns);
    lua_setfield(L, -2, "n");
    return 1;
}

/* core.copy_values(reader): the next line as a row, {v1, v2, n = 2}. */
static int copy_values(lua_State *L)
{
    int pushed;
    Copy *r = reading(L, "rows", &pushed);
    if (!r)
        return pushed;
    lua_settop(L, 1);
    dbl_getuservalue(L, 1);
    lua_rawgeti(L, 2, 2);
    pushed = push_row(L, r, 3);
    free_line(r);
    return pushed;
}

/* core.copy_types(reader, types): names ("int4", "int4[]") or OIDs by column; nothing
 * for text. */
static int copy_types(lua_State *L)
{
    Copy *r = dbl_check_self(L, 1, READER);
    for (int i = 0; i < r->columns; i++) {
        int array = 0;
        const Type *type = NULL;
        lua_rawgeti(L, 2, i + 1);
        if (lua_type(L, -1) == LUA_TNUMBER)
            type = dbl_type((Oid)lua_tonumber(L, -1), &array);
        else if (lua_type(L, -1) == LUA_TSTRING)
            type = dbl_type_named(lua_tostring(L, -1), &array);
        else if (!lua_toboolean(L, -1))
            type = &dbl_raw_type;
        if (!type)
            dbl_misuse(L, "bad argument 'types' (no type is named '%s')",
                       lua_isstring(L, -1) ? lua_tostring(L, -1) : "?");
        r->types[i] = (struct Reading){type, array ? dbl_array_text : type->text};
        lua_pop(L, 1);
    }
    return 0;
}

const luaL_Reg dbl_copy_functions[] = {
    {"copy_begin",  copy_begin },
    {"copy_take",   copy_take  },
    {"copy_leave",  copy_leave },
    {"copy_conn",   copy_conn  },
    {"copy_write",  copy_write },
    {"copy_row",    copy_row   },
    {"copy_finish", copy_finish},
    {"copy_fail",   copy_fail  },
    {"copy_line",   copy_line  },
    {"copy_read",   copy_read  },
    {"copy_values", copy_values},
    {"copy_types",  copy_types },
    {NULL,          NULL       },
};

void dbl_copy_open(lua_State *L)
{
    static const luaL_Reg metamethods[] = {
        {"__gc",       copy_gc      },
        {"__tostring", copy_tostring},
        {NULL,         NULL         },
    };
    static const luaL_Reg methods[] = {
        {NULL, NULL},
    };
    dbl_newclass(L, WRITER, metamethods, methods);
    lua_setfield(L, -2, "Writer");
    dbl_newclass(L, READER, metamethods, methods);
    lua_setfield(L, -2, "Reader");
}
