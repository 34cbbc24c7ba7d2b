/*
 * result.c -- what a query gave, owned by Lua: keeping it, status, columns.
 *
 * Reading rows and values out of it is row.c's business.
 */
#include "result.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"

#define CLASS "dblink.result"
#define SMALL "dblink.result.small" /* the same class, without a finalizer */

enum {
    SMALL_CELLS = 64,
    SMALL_BYTES = 4096,
};

static const char *const classes[] = {CLASS, SMALL};

/* bare: there will be nothing for row.c to look up beside it. */
static Result *new_result(lua_State *L, size_t extra, int small, int bare)
{
    size_t size = sizeof(Result) + extra;
    Result *r = bare ? dbl_newbare(L, size) : dbl_newuserdata(L, size);
    memset(r, 0, sizeof *r);
    r->mark = classes;
    dbl_push_class(L, &classes[small]);
    lua_setmetatable(L, -2);
    return r;
}

int dbl_unreadable(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)L;
    (void)type;
    (void)s;
    (void)size;
    return 0;
}

int dbl_column_error(lua_State *L, const Column *c)
{
    if (c->decode == dbl_unreadable || (c->binary && c->codec))
        dbl_push_error(L, DBL_UNSUPPORTED,
                       "column \"%s\" has a type (OID %d) that cannot be read in binary: "
                       "cast it, give it a codec, or ask for text",
                       c->name, (int)c->oid);
    else
        dbl_push_error(L, DBL_CONNECTION, "the server sent a malformed %s in column \"%s\"",
                       c->type->name, c->name);
    return lua_error(L);
}

static int has(lua_State *L, int table, const char *key)
{
    lua_getfield(L, table, key);
    int is = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return is;
}

/* Pushes what the table of codecs has for an OID; 0 and nothing where it has none. */
static int push_codec(lua_State *L, int codecs, Oid oid)
{
    dbl_pushint8(L, oid);
    lua_rawget(L, codecs);
    if (lua_istable(L, -1))
        return 1;
    lua_pop(L, 1);
    return 0;
}

/* The codec on the top, a table that codecs.lua made, changes how the column is
 * read.  Replaced by the function that makes the value: 1, or by nothing: 0. */
static int apply_codec(lua_State *L, Column *c)
{
    static const Type textual = {0, 0, "text", dbl_decode_raw, dbl_decode_raw, DBL_TEXTUAL};
    int codec = lua_gettop(L);
    if (has(L, codec, "textual"))
        c->type = &textual;
    lua_getfield(L, codec, "convert"); /* takes the value, decoded already */
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        if (c->binary && has(L, codec, "decode_binary")) {
            lua_getfield(L, codec, "decode_binary");
            c->type = &dbl_raw_type;
        } else {
            lua_getfield(L, codec, "decode");
            if (lua_tocfunction(L, -1) == dbl_epoch && c->type->traits & DBL_MOMENT) {
                c->type = &dbl_epoch_type; /* in place */
                lua_pop(L, 1);
                lua_pushnil(L);
            } else if (!lua_isnil(L, -1)) { /* takes the text */
                if (c->binary && !(c->type->traits & DBL_TEXTUAL))
                    c->decode = dbl_unreadable;
                else if (!c->binary && c->type->text != dbl_decode_raw)
                    c->type = &dbl_raw_type;
            }
        }
    }
    int called = !lua_isnil(L, -1);
    lua_replace(L, codec);
    lua_settop(L, codec - !called);
    return called;
}

/* Decides how a column of that OID and format is read; codecs: the stack index of
 * the user's, or 0.  1: a function was pushed, through which the values go. */
static int resolve(lua_State *L, Column *c, int reading, int codecs)
{
    int array, called = 0;
    c->type = dbl_type(c->oid, &array);
    c->array = (unsigned char)array;
    c->decode = NULL;
    if (reading & DBL_READ_RAW) {
        c->type = &dbl_raw_type;
        c->array = 0;
    } else {
        if (reading & DBL_READ_NUMBER && c->type->oid == dbl_inexact_type.oid)
            c->type = &dbl_inexact_type;
        if (codecs && push_codec(L, codecs, c->oid)) {
            c->array = (unsigned char)has(L, -1, "array");
            called = apply_codec(L, c);
        } else if (codecs && array && push_codec(L, codecs, c->type->oid)) {
            called = apply_codec(L, c);
        }
    }
    if (c->binary && !c->type->binary)
        c->decode = dbl_unreadable;
    if (!c->decode && c->array)
        c->decode = c->binary ? dbl_array_binary : dbl_array_text;
    if (!c->decode)
        c->decode = c->binary ? c->type->binary : c->type->text;
    return called;
}

static void describe(Result *r, const PGresult *pg)
{
    for (int i = 0; i < r->columns; i++) {
        Column *c = &r->column[i];
        c->name = PQfname(pg, i);
        c->oid = PQftype(pg, i);
        c->table = PQftable(pg, i);
        c->number = PQftablecol(pg, i);
        c->modifier = PQfmod(pg, i);
        c->size = PQfsize(pg, i);
        c->binary = PQfformat(pg, i) != 0;
    }
}

/* own: the stack index of the result's user value, where there are codecs. */
static void resolve_all(lua_State *L, Result *r, int codecs, int own)
{
    for (int i = 0; i < r->columns; i++) {
        Column *c = &r->column[i];
        c->codec = (unsigned char)resolve(L, c, r->reading, codecs);
        if (c->codec)
            lua_rawseti(L, own, i + 1);
    }
}

int dbl_is_plain(const Column *c)
{
    return !c->codec && (c->decode == dbl_decode_raw || dbl_reader(c->decode));
}

/* How a column of that OID will be read. */
static Column foresee(lua_State *L, Oid oid, int binary, int reading, int codecs)
{
    Column c = {.oid = oid, .binary = (unsigned char)binary};
    c.codec = (unsigned char)resolve(L, &c, reading, codecs);
    if (c.codec)
        lua_pop(L, 1);
    return c;
}

int dbl_binary_traits(lua_State *L, const PGresult *description, int reading, int uservalue)
{
    int top = lua_gettop(L), columns = PQnfields(description), traits = 0, ok = columns > 0;
    int codecs = 0, plain = 1, plain_text = 1;
    dbl_getprivate(L, DBL_SHEETS);
    int sheets = lua_toboolean(L, -1);
    lua_settop(L, top);
    if (reading & DBL_READ_CODECS && uservalue) {
        lua_getfield(L, uservalue, "codecs");
        codecs = top + 1;
    }
    for (int i = 0; i < columns && ok; i++) {
        Column c = foresee(L, PQftype(description, i), 1, reading, codecs);
        ok = c.decode != dbl_unreadable;
        traits |= c.type->traits;
        if (!sheets)
            continue;
        Column text = foresee(L, c.oid, 0, reading, codecs);
        plain &= dbl_is_plain(&c);
        plain_text &= dbl_is_plain(&text);
    }
    ok &= plain || !plain_text;
    lua_settop(L, top);
    return ok ? traits : -1;
}

void dbl_result_values(lua_State *L, const PGresult *pg, int reading)
{
    int columns = PQnfields(pg);
    for (int i = 0; i < columns; i++) {
        int size = PQgetlength(pg, 0, i);
        if (size == 0 && PQgetisnull(pg, 0, i)) {
            lua_pushnil(L);
            continue;
        }
        Column c = {.oid = PQftype(pg, i), .binary = PQfformat(pg, i) != 0};
        resolve(L, &c, reading, 0);
        if (!c.decode(L, c.type, PQgetvalue(pg, 0, i), (size_t)size)) {
            c.name = PQfname(pg, i);
            dbl_column_error(L, &c);
        }
    }
}

/* The bytes that a copy of names, values and command takes; SMALL_BYTES or more
 * where it is not worth the copy. */
static size_t measure(PGresult *pg, int rows, int columns)
{
    if (columns > SMALL_CELLS || rows > SMALL_CELLS || rows * columns > SMALL_CELLS)
        return SMALL_BYTES;
    size_t bytes = strlen(PQcmdStatus(pg)) + 1;
    for (int j = 0; j < columns; j++) {
        bytes += strlen(PQfname(pg, j)) + 1;
        for (int i = 0; i < rows; i++)
            bytes += (size_t)PQgetlength(pg, i, j) + 1;
    }
    return bytes;
}

static char *copy(char **to, const char *from, size_t size)
{
    char *at = *to;
    memcpy(at, from, size + 1); /* libpq ends every value with a NUL */
    *to += size + 1;
    return at;
}

static void copy_all(Result *r, const PGresult *pg)
{
    Cell *cells = (Cell *)(void *)&r->column[r->columns];
    char *to = (char *)(cells + (size_t)r->rows * (size_t)r->columns);
    r->cells = cells;
    r->command = copy(&to, r->command, strlen(r->command));
    for (int j = 0; j < r->columns; j++)
        r->column[j].name = copy(&to, r->column[j].name, strlen(r->column[j].name));
    for (int i = 0; i < r->rows; i++)
        for (int j = 0; j < r->columns; j++, cells++) {
            cells->value = NULL;
            cells->size = 0;
            if (!PQgetisnull(pg, i, j)) {
                cells->size = PQgetlength(pg, i, j);
                cells->value = copy(&to, PQgetvalue(pg, i, j), (size_t)cells->size);
            }
        }
}

static void begin(Result *r, PGresult *pg, int reading)
{
    r->rows = PQntuples(pg);
    r->columns = PQnfields(pg);
    r->status = (unsigned char)PQresultStatus(pg);
    r->reading = (unsigned char)reading;
    r->command = PQcmdStatus(pg);
}

size_t dbl_result_size(PGresult *pg)
{
    size_t rows = (size_t)PQntuples(pg), columns = (size_t)PQnfields(pg);
    size_t bytes = measure(pg, (int)rows, (int)columns);
    if (bytes >= SMALL_BYTES)
        return 0;
    return sizeof(Result) + columns * sizeof(Column) + rows * columns * sizeof(Cell) + bytes;
}

void dbl_result_make(lua_State *L, Result *r, PGresult *pg, int reading)
{
    memset(r, 0, sizeof *r);
    r->mark = classes;
    begin(r, pg, reading & ~(DBL_READ_NULL | DBL_READ_CODECS));
    describe(r, pg);
    resolve_all(L, r, 0, 0);
    copy_all(r, pg);
}

void dbl_result_check(lua_State *L, const PGresult *was, const PGresult *is)
{
    if (is != was)
        dbl_misuse(L, "a finalizer has used the connection while its result was taken");
}

/* A new one for *pg, which finalizers may take from us meanwhile. */
static Result *new_result_of(lua_State *L, PGresult *const *pg, size_t extra, int small, int bare)
{
    const PGresult *was = *pg;
    Result *r = new_result(L, extra, small, bare);
    dbl_result_check(L, was, *pg);
    return r;
}

PGresult **dbl_result_hold(lua_State *L, PGresult **pg)
{
    Result *r = new_result_of(L, pg, 0, 0, 1);
    r->pg = *pg;
    *pg = NULL;
    return &r->pg;
}

Result *dbl_result_push(lua_State *L, PGresult **pg, int reading, int uservalue)
{
    int columns = PQnfields(*pg);
    size_t size = reading & DBL_READ_PIECES ? 0 : dbl_result_size(*pg);
    int small = size != 0;
    if (!small)
        size = sizeof(Result) + (size_t)columns * sizeof(Column);
    if (uservalue)
        uservalue = dbl_absindex(L, uservalue);
    else
        reading &= ~(DBL_READ_NULL | DBL_READ_CODECS);

    int special = reading & (DBL_READ_NULL | DBL_READ_CODECS);
    Result *r = new_result_of(L, pg, size - sizeof(Result), small, small && !special);
    begin(r, *pg, reading);
    describe(r, *pg);
    if (small) {
        copy_all(r, *pg);
        PQclear(*pg);
    } else {
        r->pg = *pg;
    }
    *pg = NULL; /* from here on Lua may call finalizers: it is in nobody's hands but ours */
    if (special) {
        lua_createtable(L, columns, 3); /* its own: row.c keeps the names in it */
        lua_getfield(L, uservalue, "null");
        lua_setfield(L, -2, "null");
        lua_getfield(L, uservalue, "codecs");
        int codecs = reading & DBL_READ_CODECS ? lua_gettop(L) : 0;
        resolve_all(L, r, codecs, lua_gettop(L) - 1);
        lua_pop(L, 1);
        dbl_setuservalue(L, -2);
    } else {
        resolve_all(L, r, 0, 0);
    }
    if (!small && !(reading & DBL_READ_PIECES))
        dbl_outside(L, &r->outside, PQresultMemorySize(r->pg));
    return r;
}

Result *dbl_result_pieces(lua_State *L, PGresult **pg, int reading, int uservalue)
{
    Result *r = dbl_result_push(L, pg, reading | DBL_READ_PIECES, uservalue);
    r->description = r->pg;
    r->pg = NULL;
    return r;
}

static Result *any_result(lua_State *L, int i)
{
    Result *r = dbl_marked(L, i, classes, sizeof *r);
    return r ? r : dbl_check_self(L, i, CLASS);
}

Result *dbl_result(lua_State *L, int i)
{
    Result *r = any_result(L, i);
    if (r->cleared)
        dbl_misuse(L, "result was cleared");
    return r;
}

const char *dbl_status_name(int status)
{
    return status == PGRES_EMPTY_QUERY  ? "empty_query"
           : status == PGRES_COMMAND_OK ? "command_ok"
                                        : "tuples_ok";
}

/* core.tag_row(res): what a command gave as a row: its one column is `status`, and
 * the value the command's tag. */
static int result_tag_row(lua_State *L)
{
    const Result *from = dbl_result(L, 1);
    size_t size = strlen(from->command);
    Result *r = new_result(L, sizeof(Column) + sizeof(Cell) + size + 1, 1, 1);
    Cell *cell = (Cell *)(void *)&r->column[1];
    char *to = (char *)(cell + 1);
    r->rows = r->columns = 1;
    r->status = PGRES_TUPLES_OK;
    r->reading = from->reading & DBL_READ_ARRAYS;
    r->command = copy(&to, from->command, size);
    r->cells = cell;
    cell->value = r->command;
    cell->size = (int)size;
    r->column[0] = (Column){
        .name = "status",
        .type = &dbl_raw_type,
        .decode = dbl_decode_raw,
        .oid = 25,
        .modifier = -1,
        .size = -1,
    };
    return 1;
}

/* core.no_rows(err): a result without rows, whose `error` is err. */
static int result_no_rows(lua_State *L)
{
    luaL_checkany(L, 1);
    Result *r = new_result(L, 0, 1, 0);
    r->status = PGRES_FATAL_ERROR;
    r->command = "";
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "error");
    dbl_setuservalue(L, -2);
    return 1;
}

static int result_gc(lua_State *L)
{
    Result *r = lua_touserdata(L, 1);
    if (r->outside)
        r->outside->bytes -= PQresultMemorySize(r->pg);
    r->outside = NULL;
    PQclear(r->pg);
    PQclear(r->description);
    r->pg = r->description = NULL;
    r->cleared = 1;
    return 0;
}

static int result_clear(lua_State *L)
{
    Result *r = any_result(L, 1);
    if (r->lent)
        dbl_misuse(L, "a codec cannot clear the result that it reads");
    r->cleared = 1;
    return r->readers ? 0 : result_gc(L);
}

static int result_columns(lua_State *L)
{
    Result *r = dbl_result(L, 1);
    dbl_begin_reading(r);
    lua_createtable(L, r->columns, 0);
    for (int i = 0; i < r->columns; i++) {
        const Column *c = &r->column[i];
        lua_createtable(L, 0, 7);
        lua_pushstring(L, c->name);
        lua_setfield(L, -2, "name");
        dbl_pushint8(L, c->oid);
        lua_setfield(L, -2, "oid");
        lua_pushinteger(L, c->modifier);
        lua_setfield(L, -2, "modifier");
        lua_pushinteger(L, c->size);
        lua_setfield(L, -2, "size");
        if (c->table) {
            dbl_pushint8(L, c->table);
            lua_setfield(L, -2, "table");
            lua_pushinteger(L, c->number);
            lua_setfield(L, -2, "column");
        }
        lua_pushstring(L, c->binary ? "binary" : "text");
        lua_setfield(L, -2, "format");
        lua_rawseti(L, -2, i + 1);
    }
    dbl_end_reading(r);
    return 1;
}

static int result_tostring(lua_State *L)
{
    const Result *r = any_result(L, 1);
    if (r->cleared)
        lua_pushliteral(L, "dblink.result (cleared)");
    else if (r->columns > 0)
        lua_pushfstring(L, "dblink.result (%d rows, %d columns)", r->rows, r->columns);
    else
        lua_pushfstring(L, "dblink.result (%s)",
                        *r->command ? r->command : dbl_status_name(r->status));
    return 1;
}

static int result_len(lua_State *L)
{
    lua_pushinteger(L, dbl_result(L, 1)->rows);
    return 1;
}

static const luaL_Reg metamethods[] = {
    {"__close",    result_clear   },
    {"__tostring", result_tostring},
    {"__len",      result_len     },
    {NULL,         NULL           },
};

/* What a ticket of a pipeline becomes is asked for its result once more. */
static int result_result(lua_State *L)
{
    any_result(L, 1);
    lua_settop(L, 1);
    return 1;
}

static const luaL_Reg methods[] = {
    {"clear",   result_clear  },
    {"columns", result_columns},
    {"result",  result_result },
    {NULL,      NULL          },
};

const luaL_Reg dbl_result_functions[] = {
    {"tag_row", result_tag_row},
    {"no_rows", result_no_rows},
    {NULL,      NULL          },
};

void dbl_result_open(lua_State *L)
{
    lua_newtable(L);
    dbl_setfuncs(L, methods, 0); /* methods */
    for (int i = 0; i < 2; i++) {
        dbl_newclass(L, classes[i], metamethods, NULL);
        dbl_keep_class(L, &classes[i]);
        lua_pushvalue(L, -2);
        lua_setfield(L, -2, "methods");
        lua_pushliteral(L, CLASS);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, "__name");
        lua_setfield(L, -2, "__metatable");
        if (i == 0) {
            lua_pushcfunction(L, result_gc);
            lua_setfield(L, -2, "__gc");
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

void dbl_push_small(lua_State *L)
{
    luaL_getmetatable(L, SMALL);
}

void dbl_result_metatables(lua_State *L)
{
    luaL_getmetatable(L, CLASS);
    luaL_getmetatable(L, SMALL);
}
