/*
 * type_array.c -- arrays of all types, in text and in binary.
 *
 * One walk for each format calls a sink: the tables of Lua below, or the text
 * that render.c makes.  The first element is the first, whatever its subscript in
 * the server: [5:6]={a,b} and {a,b} are the same.
 */
#include "type.h"

#include <string.h>

#include "null.h"

/* The end of an unquoted element: a delimiter or a brace. */
static const char *unquoted_end(const char *s, const char *end, char delimiter)
{
    while (s < end && *s != delimiter && *s != '}' && *s != '{' && *s != '"' && *s != '\\')
        s++;
    return s;
}

/* The element between s, behind its opening quote, and the closing one, which is
 * returned; NULL where there is none.  With a backslash in it, it is copied. */
static const char *quoted(Sink *sink, int depth, const char *s, const char *end)
{
    const char *from = s;
    size_t escapes = 0;
    for (; s < end && *s != '"'; s++)
        if (*s == '\\') {
            escapes++;
            s++;
        }
    if (s >= end)
        return NULL;
    size_t size = (size_t)(s - from) - escapes;
    if (escapes == 0)
        return sink->element(sink, depth, from, size) ? s : NULL;
    char small[256], *to = small, *copy = small;
    if (size >= sizeof small)
        to = copy = lua_newuserdata(sink->L, size + 1);
    for (; from < s; from++) {
        from += *from == '\\';
        *to++ = *from;
    }
    *to = '\0';
    int good = sink->element(sink, depth, copy, size);
    lua_pop(sink->L, copy != small);
    return good ? s : NULL;
}

/* Behind "[1:2][-3:4]=", if it is there. */
static const char *skip_bounds(const char *s, const char *end)
{
    const char *from = s;
    if (s < end && *s == '[') {
        while (s < end && strchr("[]0123456789:+-", *s) && *s)
            s++;
        return s < end && *s == '=' ? s + 1 : from;
    }
    return s;
}

int dbl_walk_text(Sink *sink, const char *s, size_t size)
{
    const char *end = s + size;
    char delimiter = sink->type->oid == 603 ? ';' : ','; /* box alone is otherwise */
    int depth = 0;
    s = skip_bounds(s, end);
    for (;;) { /* here a value begins */
        if (s == end)
            return 0;
        if (*s == '{') {
            if (depth == DBL_ARRAY_DEPTH)
                return 0;
            sink->open(sink, ++depth, 0);
            s++;
            if (s == end || *s != '}')
                continue;
        } else if (depth == 0) {
            return 0;
        } else if (*s == '"') {
            s = quoted(sink, depth, s + 1, end);
            if (!s)
                return 0;
            s++;
        } else {
            const char *from = s;
            s = unquoted_end(s, end, delimiter);
            size_t length = (size_t)(s - from);
            int null = length == 4 && memcmp(from, "NULL", 4) == 0;
            if (length == 0 || !sink->element(sink, depth, null ? NULL : from, length))
                return 0;
        }
        for (; s < end && *s == '}'; s++) {
            sink->close(sink, depth);
            if (--depth == 0)
                return s + 1 == end;
        }
        if (s == end || *s++ != delimiter)
            return 0;
    }
}

/* What is left of an array in binary: its bytes and its dimensions. */
typedef struct Rest {
    const char *s, *end;
    int dimensions;
    size_t counts[DBL_ARRAY_DEPTH];
} Rest;

static int walk_dimension(Sink *sink, Rest *rest, int depth)
{
    size_t count = rest->counts[depth - 1];
    sink->open(sink, depth, count);
    for (; count > 0; count--) {
        if (depth < rest->dimensions) {
            if (!walk_dimension(sink, rest, depth + 1))
                return 0;
            continue;
        }
        if (rest->end - rest->s < 4)
            return 0;
        unsigned size = dbl_get32(rest->s);
        const char *from = rest->s + 4;
        rest->s = from;
        if (size == 0xffffffff) {
            from = NULL;
            size = 0;
        } else if (size > (size_t)(rest->end - from)) {
            return 0;
        }
        rest->s += size;
        if (!sink->element(sink, depth, from, size))
            return 0;
    }
    sink->close(sink, depth);
    return 1;
}

/* dimensions, a flag, the OID of the elements; of each dimension its length and
 * first subscript; then the elements, each behind its size.  An element takes four
 * bytes at least, so lengths that lie are found out before any table is made. */
int dbl_walk_binary(Sink *sink, const char *s, size_t size)
{
    Rest rest = {s + 12, s + size, 0, {0}};
    if (size < 12 || dbl_get32(s) > DBL_ARRAY_DEPTH)
        return 0;
    rest.dimensions = (int)dbl_get32(s);
    size_t most = size / 4, product = 1;
    if (size < 12 + 8 * (size_t)rest.dimensions)
        return 0;
    for (int i = 0; i < rest.dimensions; i++, rest.s += 8) {
        size_t count = dbl_get32(rest.s);
        if (count == 0 || count > most || product * count > most)
            return 0;
        product *= count;
        rest.counts[i] = count;
    }
    return walk_dimension(sink, &rest, 1) && rest.s == rest.end;
}

/* The sink that makes tables.  The table of depth d lies at stack index base + d. */
typedef struct Tables {
    Sink sink;
    Decoder *decode;
    int base, counts[DBL_ARRAY_DEPTH + 1];
} Tables;

static void open_table(Sink *sink, int depth, size_t count)
{
    Tables *t = (Tables *)sink;
    lua_createtable(sink->L, (int)count, 1);
    t->counts[depth] = 0;
}

static int add_element(Sink *sink, int depth, const char *s, size_t size)
{
    Tables *t = (Tables *)sink;
    if (!s)
        dbl_push_null(sink->L);
    else if (!t->decode(sink->L, sink->type, s, size))
        return 0;
    lua_rawseti(sink->L, t->base + depth, ++t->counts[depth]);
    return 1;
}

static void close_table(Sink *sink, int depth)
{
    Tables *t = (Tables *)sink;
    lua_pushinteger(sink->L, t->counts[depth]);
    lua_setfield(sink->L, -2, "n");
    if (depth > 1)
        lua_rawseti(sink->L, t->base + depth - 1, ++t->counts[depth - 1]);
}

static int decode(lua_State *L, const Type *type, const char *s, size_t size, Decoder *element,
                  int (*walk)(Sink *, const char *, size_t))
{
    Tables t = {
        .sink = {L, type, open_table, add_element, close_table},
        .decode = element,
        .base = lua_gettop(L),
    };
    luaL_checkstack(L, DBL_ARRAY_DEPTH + 10, "too many values");
    if (walk(&t.sink, s, size))
        return 1;
    lua_settop(L, t.base);
    return 0;
}

int dbl_array_text(lua_State *L, const Type *type, const char *s, size_t size)
{
    return decode(L, type, s, size, type->text, dbl_walk_text);
}

int dbl_array_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    return decode(L, type, s, size, type->binary, dbl_walk_binary);
}
