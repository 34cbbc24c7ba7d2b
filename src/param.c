/*
 * param.c -- Lua arguments into the arrays that libpq wants.
 *
 * string, number, boolean, nil; and what Lua code marked: dblink.null,
 * dblink.bytea(s), dblink.json(t), dblink.array(t).  A marked value is a table
 * whose metatable has `dblink_text` or `dblink_bytes`: a function that gives the
 * string to send (of text: or nil, and the OID of its type, if that is known).  A
 * bare table is an error, not a guess.
 */
#include "param.h"

#include <string.h>

#include "digits.h"
#include "fail.h"
#include "null.h"

enum { BYTEA = 17 };

typedef struct Scratch {
    const char **values;
    int *lengths, *formats;
    Oid *types;
    char (*digits)[DBL_DIGITS];
} Scratch;

static int bad_param(lua_State *L, int position, const char *why)
{
    return dbl_misuse(L, "parameter $%d: %s", position, why);
}

static const char *check_text(lua_State *L, int i, int position, int *length)
{
    size_t size;
    const char *s = lua_tolstring(L, i, &size);
    if (size > 0x3fffffff)
        bad_param(L, position, "a string of 1 GB or more, which PostgreSQL cannot take");
    *length = (int)size;
    return s;
}

static int is_plain(int type)
{
    return type == LUA_TNIL || type == LUA_TBOOLEAN || type == LUA_TNUMBER || type == LUA_TSTRING;
}

/* A marked value: what its metatable says replaces it. */
static int convert(lua_State *L, int i, const char *what, int position, Oid *type)
{
    static const char *const fields[] = {"dblink_text", "dblink_bytes"};
    for (int k = 0; k < 2; k++) {
        if (!luaL_getmetafield(L, i, fields[k]))
            continue;
        lua_pushvalue(L, i);
        lua_call(L, 1, 2);
        if (type && lua_type(L, -1) == LUA_TNUMBER)
            *type = (Oid)lua_tonumber(L, -1);
        lua_pop(L, 1);
        int got = lua_type(L, -1);
        if (k == 1 ? got != LUA_TSTRING : !is_plain(got))
            dbl_misuse(L, "%s%d: its conversion gave no string", what, position);
        lua_replace(L, i);
        return k;
    }
    return dbl_misuse(L, "%s%d: a %s; write dblink.array(t), dblink.json(t) or a string instead",
                      what, position, luaL_typename(L, i));
}

/* An int64_t or uint64_t of LuaJIT, which prints itself as digits and "LL" or "ULL". */
static int is_int64(lua_State *L, int i)
{
    size_t size, digits;
    if (lua_type(L, i) <= LUA_TTHREAD)
        return 0;
    const char *s = dbl_tolstring(L, i, &size);
    digits = strspn(s, "-0123456789");
    int is = digits > 0 && (strcmp(s + digits, "LL") == 0 || strcmp(s + digits, "ULL") == 0);
    if (is) {
        lua_pushlstring(L, s, digits);
        lua_replace(L, i);
    }
    lua_pop(L, 1);
    return is;
}

int dbl_param_plain(lua_State *L, int i, const char *what, int position, Oid *type)
{
    int kind = lua_type(L, i);
    if (is_plain(kind))
        return 0;
    switch (kind) {
    case LUA_TTABLE:
        return convert(L, i, what, position, type);
    case LUA_TUSERDATA:
        if (!dbl_is_null(L, i))
            return convert(L, i, what, position, type);
        break;
    case LUA_TLIGHTUSERDATA: /* ngx.null, cjson.null */
        if (!lua_touserdata(L, i))
            break;
        /* fall through */
    default:
        if (is_int64(L, i))
            return 0;
        dbl_misuse(L, "%s%d: a %s cannot be sent", what, position, luaL_typename(L, i));
    }
    lua_pushnil(L);
    lua_replace(L, i);
    return 0;
}

/* The plain value at i, of that type, into the arrays, as number k from 0; bytes: those of
 * a bytea. */
static void read_param(lua_State *L, int i, int type, int k, int bytes, const Scratch *s)
{
    s->formats[k] = s->lengths[k] = 0;
    s->values[k] = NULL;
    switch (type) {
    case LUA_TBOOLEAN:
        s->values[k] = lua_toboolean(L, i) ? "t" : "f";
        s->lengths[k] = 1;
        break;
    case LUA_TNUMBER:
#if DBL_HAS_INTEGER
        if (lua_isinteger(L, i))
            s->lengths[k] = dbl_write_integer(s->digits[k], lua_tointeger(L, i));
        else
#endif
            s->lengths[k] = dbl_write_number(s->digits[k], lua_tonumber(L, i));
        s->values[k] = s->digits[k];
        break;
    case LUA_TSTRING:
        s->values[k] = check_text(L, i, k + 1, &s->lengths[k]);
        if (bytes) {
            s->formats[k] = 1;
            s->types[k] = BYTEA;
        } else if (memchr(s->values[k], '\0', (size_t)s->lengths[k])) {
            bad_param(L, k + 1, "a string with a NUL byte; write dblink.bytea(s) for bytes");
        }
    }
}

void dbl_params(lua_State *L, int first, int count, int list, Params *p)
{
    if (count > DBL_MOST_PARAMS)
        dbl_misuse(L, "%d parameters; PostgreSQL takes at most %d", count, DBL_MOST_PARAMS);
    size_t n = (size_t)count;
    Scratch s;
    char *block = count <= DBL_FEW_PARAMS ? p->room.bytes : lua_newuserdata(L, n * DBL_PARAM_ROOM);
    s.values = (const char **)(void *)block;
    s.lengths = (int *)(void *)(s.values + n);
    s.formats = s.lengths + n;
    s.types = (Oid *)(s.formats + n);
    s.digits = (char(*)[DBL_DIGITS])(s.types + n);
    p->count = count;
    p->values = s.values;
    p->lengths = s.lengths;
    p->formats = s.formats;
    p->types = NULL;
    for (int k = 0; k < count; k++) {
        int i = first + k;
        if (list) {
            lua_rawgeti(L, first, k + 1);
            i = lua_gettop(L);
        }
        int type = lua_type(L, i), bytes = 0;
        s.types[k] = 0;
        if (!is_plain(type)) {
            bytes = dbl_param_plain(L, i, "parameter $", k + 1, &s.types[k]);
            type = lua_type(L, i);
        }
        read_param(L, i, type, k, bytes, &s);
        if (s.types[k])
            p->types = s.types;
        if (list) /* a marked value has become another */
            lua_rawseti(L, first, k + 1);
    }
}
