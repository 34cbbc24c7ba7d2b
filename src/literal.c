/*
 * literal.c -- tables of Lua as the text of arrays and of JSON: parameters.
 *
 * What dblink.array(t) and dblink.json(t) send.  A mark is a table {t} whose
 * metatable says `dblink_array` or `dblink_json`; values.lua makes them.  A list
 * has as many elements as its field n says, or #t; nil and dblink.null are NULL.
 */
#include "literal.h"

#include <math.h>

#include "digits.h"
#include "fail.h"
#include "null.h"
#include "param.h"
#include "text.h"

enum { DEEPEST = 100 };

typedef struct Writer {
    Text *text;
    int encode;   /* stack index of a function that makes strings of elements, or 0 */
    int bytes;    /* strings are bytes of a bytea */
    int elements; /* how many were written, at whatever depth */
} Writer;

/* Whether the table on the top has that mark; then its {t} is replaced by t. */
static int unwrap(lua_State *L, const char *mark)
{
    if (!luaL_getmetafield(L, -1, mark))
        return 0;
    lua_pop(L, 1);
    lua_rawgeti(L, -1, 1);
    lua_remove(L, -2);
    if (strcmp(mark, "dblink_array") == 0 && !lua_istable(L, -1))
        dbl_misuse(L, "array of no table");
    return 1;
}

static int is_marked(lua_State *L)
{
    static const char *const marks[] = {"dblink_array", "dblink_text", "dblink_bytes"};
    for (int i = 0; i < 3; i++)
        if (luaL_getmetafield(L, -1, marks[i])) {
            lua_pop(L, 1);
            return 1;
        }
    return 0;
}

/* Marks that are no JSON: what another type would be asked for. */
static void refuse_marks(lua_State *L)
{
    if (luaL_getmetafield(L, -1, "dblink_bytes"))
        dbl_misuse(L, "JSON has no bytes: a dblink.bytea in it");
    if (luaL_getmetafield(L, -1, "dblink_text"))
        dbl_misuse(L, "JSON of a codec's value: write what it is to be there");
}

/* n where the table at the top has one, else how many there are. */
static int count_list(lua_State *L)
{
    lua_getfield(L, -1, "n");
    lua_Number n = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
    lua_pop(L, 1);
    return n >= 0 && n < 0x40000000 && floor(n) == n ? (int)n : (int)dbl_rawlen(L, -1);
}

static void write_number(lua_State *L, Text *t)
{
    char *to = dbl_text_room(L, t, DBL_DIGITS);
    int n = dbl_isinteger(L, -1) ? dbl_write_integer(to, (long long)lua_tointeger(L, -1))
                                 : dbl_write_number(to, lua_tonumber(L, -1));
    t->used += (size_t)n;
}

static void write_quoted(lua_State *L, Text *t, const char *s, size_t size)
{
    if (memchr(s, '\0', size))
        dbl_misuse(L, "array with a string that has a NUL byte: for bytes, give its type, bytea");
    dbl_text_char(L, t, '"');
    for (const char *end = s + size, *from = s;; s++) {
        while (s < end && *s != '"' && *s != '\\')
            s++;
        dbl_text_add(L, t, from, (size_t)(s - from));
        if (s == end)
            break;
        dbl_text_char(L, t, '\\');
        from = s;
    }
    dbl_text_char(L, t, '"');
}

/* The element on the top, which may be changed. */
static void write_element(lua_State *L, Writer *w, int position)
{
    size_t size;
    int i = lua_gettop(L), bytes = w->bytes, type;
    if (w->encode && !lua_isnil(L, i) && !dbl_is_null(L, i)) {
        lua_pushvalue(L, w->encode);
        lua_insert(L, i);
        lua_call(L, 1, 1);
    }
    type = lua_type(L, i);
    bytes |= dbl_param_plain(L, i, "array element ", position, NULL);
    const char *s;
    switch (lua_type(L, i)) {
    case LUA_TNIL:
        dbl_text_literal(L, w->text, "NULL");
        break;
    case LUA_TBOOLEAN:
        dbl_text_char(L, w->text, lua_toboolean(L, i) ? 't' : 'f');
        break;
    case LUA_TNUMBER:
        write_number(L, w->text);
        break;
    default:
        s = lua_tolstring(L, i, &size);
        if (type > LUA_TTHREAD) { /* digits of an int64_t of LuaJIT */
            dbl_text_add(L, w->text, s, size);
        } else if (!bytes) {
            write_quoted(L, w->text, s, size);
        } else {
            dbl_text_literal(L, w->text, "\"\\\\x");
            dbl_text_hex(L, w->text, s, size);
            dbl_text_char(L, w->text, '"');
        }
    }
    w->elements++;
}

/* The list on the top of the stack. */
static void write_array(lua_State *L, Writer *w, int depth, char delimiter)
{
    if (depth > 6)
        dbl_misuse(L, "array of more than 6 dimensions");
    luaL_checkstack(L, 10, "array too deep");
    dbl_text_char(L, w->text, '{');
    int n = count_list(L);
    for (int i = 1; i <= n; i++) {
        if (i > 1)
            dbl_text_char(L, w->text, delimiter);
        lua_rawgeti(L, -1, i);
        if (lua_istable(L, -1) && (unwrap(L, "dblink_array") || (!w->encode && !is_marked(L))))
            write_array(L, w, depth + 1, delimiter);
        else
            write_element(L, w, i);
        lua_pop(L, 1);
    }
    dbl_text_char(L, w->text, '}');
}

/* core.array_text(list, bytes, encode, delimiter) */
static int array_text(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *delimiter = luaL_optstring(L, 4, ",");
    lua_settop(L, 3);
    Writer w = {.bytes = lua_toboolean(L, 2), .encode = lua_isnil(L, 3) ? 0 : 3};
    w.text = dbl_text_new(L);
    lua_pushvalue(L, 1);
    write_array(L, &w, 1, *delimiter);
    if (w.elements == 0)
        lua_pushliteral(L, "{}"); /* also {{},{}}, which is no array */
    else
        dbl_text_push(L, w.text);
    return 1;
}

/* Whether the table on the top is a list: it has nothing but 1 to n, and n perhaps.
 * An empty one is an object unless it has n.  Raises where it is neither. */
static int check_list(lua_State *L)
{
    int n = count_list(L), t = lua_gettop(L), elements = 0, names = 0, others = 0;
    lua_getfield(L, t, "n");
    int counted = lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) == n;
    lua_pop(L, 1);
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        lua_Number key = lua_type(L, -2) == LUA_TNUMBER ? lua_tonumber(L, -2) : 0;
        if (lua_type(L, -2) == LUA_TSTRING)
            names++;
        else if (key >= 1 && key <= n && floor(key) == key)
            elements++;
        else
            others++;
    }
    if (others == 0 && names == counted && (elements > 0 || (counted && n == 0)))
        return 1;
    if (others > 0 || elements > 0)
        dbl_misuse(L, "JSON of a table that is neither a list (1 to n) nor all names");
    return 0;
}

static void write_json(lua_State *L, Text *t, int depth);

static void write_object(lua_State *L, Text *t, int depth)
{
    int first = 1, object = lua_gettop(L);
    size_t size;
    dbl_text_char(L, t, '{');
    for (lua_pushnil(L); lua_next(L, object); lua_pop(L, 1)) {
        if (!first)
            dbl_text_char(L, t, ',');
        first = 0;
        const char *key = lua_tolstring(L, -2, &size);
        dbl_text_json(L, t, key, size);
        dbl_text_char(L, t, ':');
        write_json(L, t, depth);
    }
    dbl_text_char(L, t, '}');
}

static void write_list(lua_State *L, Text *t, int depth)
{
    int n = count_list(L);
    dbl_text_char(L, t, '[');
    for (int i = 1; i <= n; i++) {
        if (i > 1)
            dbl_text_char(L, t, ',');
        lua_rawgeti(L, -1, i);
        write_json(L, t, depth);
        lua_pop(L, 1);
    }
    dbl_text_char(L, t, ']');
}

/* The value on the top of the stack, which may be replaced by another. */
static void write_json(lua_State *L, Text *t, int depth)
{
    size_t size;
    const char *s;
    if (depth > DEEPEST)
        dbl_misuse(L, "JSON of tables that nest deeper than %d: does one contain itself?", DEEPEST);
    luaL_checkstack(L, 10, "JSON too deep");
    int type = lua_type(L, -1);
    switch (type) {
    case LUA_TBOOLEAN:
        if (lua_toboolean(L, -1))
            dbl_text_literal(L, t, "true");
        else
            dbl_text_literal(L, t, "false");
        return;
    case LUA_TNUMBER:
        if (!dbl_isinteger(L, -1) && !isfinite(lua_tonumber(L, -1)))
            dbl_misuse(L, "JSON has no number for NaN or infinity");
        write_number(L, t);
        return;
    case LUA_TSTRING:
        s = lua_tolstring(L, -1, &size);
        dbl_text_json(L, t, s, size);
        return;
    case LUA_TTABLE:
        if (unwrap(L, "dblink_json")) {
            write_json(L, t, depth + 1);
            return;
        }
        int list = unwrap(L, "dblink_array");
        refuse_marks(L);
        if (list || check_list(L))
            write_list(L, t, depth + 1);
        else
            write_object(L, t, depth + 1);
        return;
    default:
        dbl_param_plain(L, lua_gettop(L), "JSON at depth ", depth, NULL);
        s = lua_tolstring(L, -1, &size);
        if (!s)
            dbl_text_literal(L, t, "null");
        else if (type > LUA_TTHREAD) /* digits likewise */
            dbl_text_add(L, t, s, size);
        else
            dbl_text_json(L, t, s, size);
    }
}

/* core.json_text(value) */
static int json_text(lua_State *L)
{
    lua_settop(L, 1);
    Text *t = dbl_text_new(L);
    lua_pushvalue(L, 1);
    write_json(L, t, 0);
    dbl_text_push(L, t);
    return 1;
}

const luaL_Reg dbl_literal_functions[] = {
    {"array_text", array_text},
    {"json_text",  json_text },
    {NULL,         NULL      },
};
