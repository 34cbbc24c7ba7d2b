/*
 * render.c -- a result straight to text: JSON and CSV.
 *
 * No table is made, and of values in text format no value of Lua either: numbers,
 * bools and JSON are numbers, bools and JSON, arrays are lists, all else is a string,
 * the server's text.  Codecs and `null` are not asked.
 */
#include "render.h"

#include "digits.h"
#include "fail.h"
#include "result.h"
#include "text.h"

typedef struct Plan {
    const Type *type;
    int array, skip;
    size_t from, to; /* its name and a colon, in the text of names */
} Plan;

/* The text of a value in binary; of most types by way of a value of Lua.  0: malformed. */
static int write_binary(lua_State *L, Text *t, const Type *type, const char *s, size_t size)
{
    size_t length;
    if (type->oid == 17) {
        dbl_text_literal(L, t, "\\x");
        dbl_text_hex(L, t, s, size);
        return 1;
    }
    char *to = dbl_text_room(L, t, DBL_DIGITS);
    if (type->oid == 20 && size == 8) { /* older Luas have no value for it */
        t->used += (size_t)dbl_write_integer(to, (long long)dbl_get64(s));
        return 1;
    }
    if (!type->binary || !type->binary(L, type, s, size))
        return 0;
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        dbl_text_char(L, t, lua_toboolean(L, -1) ? 't' : 'f');
        break;
    case LUA_TNUMBER:
        if (type->oid == 700)
            t->used += (size_t)dbl_write_single(to, (float)lua_tonumber(L, -1));
        else if (dbl_isinteger(L, -1))
            t->used += (size_t)dbl_write_integer(to, (long long)lua_tointeger(L, -1));
        else
            t->used += (size_t)dbl_write_number(to, lua_tonumber(L, -1));
        break;
    default:
        s = lua_tolstring(L, -1, &length);
        dbl_text_add(L, t, s, length);
    }
    lua_pop(L, 1);
    return 1;
}

/* As JSON; s is text. */
static void write_json(lua_State *L, Text *t, const Type *type, const char *s, size_t size)
{
    if (type->traits & DBL_JSON_NUMBER && size > 0) {
        size_t sign = *s == '-';
        if (size > sign && s[sign] >= '0' && s[sign] <= '9') { /* neither NaN nor infinity */
            dbl_text_add(L, t, s, size);
            return;
        }
    } else if (type->traits & DBL_JSON_BOOL) {
        if (size == 1 && *s == 't')
            dbl_text_literal(L, t, "true");
        else
            dbl_text_literal(L, t, "false");
        return;
    } else if (type->traits & DBL_JSON_ITSELF && size > 0) {
        dbl_text_add(L, t, s, size);
        return;
    }
    dbl_text_json(L, t, s, size);
}

/* Arrays as lists of JSON, or as the literals that CSV wants. */
typedef struct Lister {
    Sink sink;
    Text *text, *scratch;
    int binary, json, counts[DBL_ARRAY_DEPTH + 1];
} Lister;

static void put_comma(Lister *l, int depth)
{
    if (l->counts[depth]++ > 0)
        dbl_text_char(l->sink.L, l->text, ',');
}

static void open_list(Sink *sink, int depth, size_t count)
{
    Lister *l = (Lister *)sink;
    (void)count;
    if (depth > 1)
        put_comma(l, depth - 1);
    l->counts[depth] = 0;
    dbl_text_char(sink->L, l->text, l->json ? '[' : '{');
}

static void close_list(Sink *sink, int depth)
{
    Lister *l = (Lister *)sink;
    (void)depth;
    dbl_text_char(sink->L, l->text, l->json ? ']' : '}');
}

/* An element of an array literal, in quotes where the server would write them. */
static void write_element(lua_State *L, Text *t, const char *s, size_t size)
{
    int quotes = size == 0 || (size == 4 && (*s | 32) == 'n' && (s[1] | 32) == 'u' &&
                               (s[2] | 32) == 'l' && (s[3] | 32) == 'l');
    for (size_t i = 0; i < size && !quotes; i++)
        quotes = s[i] && strchr("{}\",\\ \t\n\r\v\f", s[i]);
    if (!quotes) {
        dbl_text_add(L, t, s, size);
        return;
    }
    dbl_text_char(L, t, '"');
    for (size_t i = 0; i < size; i++) {
        if (s[i] == '"' || s[i] == '\\')
            dbl_text_char(L, t, '\\');
        dbl_text_char(L, t, s[i]);
    }
    dbl_text_char(L, t, '"');
}

static int add_element(Sink *sink, int depth, const char *s, size_t size)
{
    Lister *l = (Lister *)sink;
    lua_State *L = sink->L;
    put_comma(l, depth);
    if (!s) {
        if (l->json)
            dbl_text_literal(L, l->text, "null");
        else
            dbl_text_literal(L, l->text, "NULL");
        return 1;
    }
    if (l->binary) {
        l->scratch->used = 0;
        if (!write_binary(L, l->scratch, sink->type, s, size))
            return 0;
        s = l->scratch->s;
        size = l->scratch->used;
    }
    if (l->json)
        write_json(L, l->text, sink->type, s, size);
    else
        write_element(L, l->text, s, size);
    return 1;
}

/* "[0:2]=", before an array literal, where a dimension does not begin at 1. */
static void write_bounds(lua_State *L, Text *t, Cell cell)
{
    int dimensions = cell.size < 12 ? 0 : (int)dbl_get32(cell.value), usual = 1;
    if (dimensions < 1 || dimensions > DBL_ARRAY_DEPTH || cell.size < 12 + 8 * dimensions)
        return;
    const char *s = cell.value + 12;
    for (int i = 0; i < dimensions; i++)
        usual &= dbl_get32(s + 8 * i + 4) == 1;
    for (int i = 0; i < dimensions && !usual; i++, s += 8) {
        long long lower = (int)dbl_get32(s + 4);
        dbl_text_char(L, t, '[');
        char *to = dbl_text_room(L, t, 2 * DBL_DIGITS);
        size_t size = (size_t)dbl_write_integer(to, lower);
        to[size++] = ':';
        t->used += size + (size_t)dbl_write_integer(to + size, lower + dbl_get32(s) - 1);
        dbl_text_char(L, t, ']');
    }
    if (!usual)
        dbl_text_char(L, t, '=');
}

static int write_array(lua_State *L, Text *t, Text *scratch, const Plan *p, const Column *c,
                       Cell cell, int json)
{
    Lister l = {
        {L,          p->type, open_list, add_element, close_list},
        t, scratch, c->binary, json, {0}
    };
    if (c->binary && !json)
        write_bounds(L, t, cell);
    return (c->binary ? dbl_walk_binary : dbl_walk_text)(&l.sink, cell.value, (size_t)cell.size);
}

/* The plans of the columns and the text of their names as JSON; both boxes stay on
 * the stack.  Of columns that share a name the last alone is written. */
static Plan *make_plans(lua_State *L, const Result *r, int named, Text **names)
{
    Plan *plans = lua_newuserdata(L, (size_t)r->columns * sizeof *plans + 1);
    *names = dbl_text_new(L);
    for (int j = 0; j < r->columns; j++) {
        const char *name = r->column[j].name;
        Plan *p = &plans[j];
        *p = (Plan){.from = (*names)->used};
        p->type = dbl_type(r->column[j].oid, &p->array);
        if (r->column[j].array && !p->array) { /* one that the user told us of */
            p->type = r->column[j].type;
            p->array = 1;
        }
        dbl_text_json(L, *names, name, strlen(name));
        dbl_text_char(L, *names, ':');
        p->to = (*names)->used;
        for (int k = j + 1; k < r->columns && named && !p->skip; k++)
            p->skip = strcmp(r->column[k].name, name) == 0;
    }
    return plans;
}

/* res:json(shape) */
static int result_json(lua_State *L)
{
    static const char *const shapes[] = {"row", "array", NULL};
    Result *r = dbl_result(L, 1);
    const char *habit = r->reading & DBL_READ_ARRAYS ? "array" : "row";
    int array = luaL_checkoption(L, 2, habit, shapes);
    dbl_begin_reading(r);
    Text *names, *t = dbl_text_new(L), *scratch = dbl_text_new(L);
    const Plan *plans = make_plans(L, r, !array, &names);
    luaL_checkstack(L, 10, "too many values");
    dbl_text_char(L, t, '[');
    for (int i = 0; i < r->rows; i++) {
        int first = 1;
        if (i > 0)
            dbl_text_char(L, t, ',');
        dbl_text_char(L, t, array ? '[' : '{');
        for (int j = 0; j < r->columns; j++) {
            const Plan *p = &plans[j];
            const Column *c = &r->column[j];
            if (p->skip)
                continue;
            if (!first)
                dbl_text_char(L, t, ',');
            first = 0;
            if (!array)
                dbl_text_add(L, t, names->s + p->from, p->to - p->from);
            Cell cell = dbl_cell(r, i, j);
            if (!cell.value) {
                dbl_text_literal(L, t, "null");
            } else if (p->array) {
                if (!write_array(L, t, scratch, p, c, cell, 1))
                    dbl_column_error(L, c);
            } else if (c->binary) {
                scratch->used = 0;
                if (!write_binary(L, scratch, p->type, cell.value, (size_t)cell.size))
                    dbl_column_error(L, c);
                write_json(L, t, p->type, scratch->s, scratch->used);
            } else {
                write_json(L, t, p->type, cell.value, (size_t)cell.size);
            }
        }
        dbl_text_char(L, t, array ? ']' : '}');
    }
    dbl_text_char(L, t, ']');
    dbl_end_reading(r);
    dbl_text_push(L, t);
    return 1;
}

/* How CSV is written. */
typedef struct Dialect {
    const char *delimiter, *null;
    size_t null_size;
    int header;
} Dialect;

/* A value of CSV: in quotes where it must be, or where it would look like a NULL. */
static void write_csv(lua_State *L, Text *t, const Dialect *d, const char *s, size_t size)
{
    int quotes = (size == d->null_size && memcmp(s, d->null, size) == 0) ||
                 (size == 2 && memcmp(s, "\\.", 2) == 0); /* COPY's end of data */
    for (size_t i = 0; i < size && !quotes; i++)
        quotes = s[i] == '"' || s[i] == '\n' || s[i] == '\r' || s[i] == *d->delimiter;
    if (!quotes) {
        dbl_text_add(L, t, s, size);
        return;
    }
    dbl_text_char(L, t, '"');
    for (const char *end = s + size; s < end; s++) {
        if (*s == '"')
            dbl_text_char(L, t, '"');
        dbl_text_char(L, t, *s);
    }
    dbl_text_char(L, t, '"');
}

static void read_dialect(lua_State *L, Dialect *d)
{
    size_t size;
    *d = (Dialect){",", "", 0, 1};
    if (lua_isnoneornil(L, 2))
        return;
    luaL_checktype(L, 2, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(key, "header") == 0) {
            d->header = lua_toboolean(L, -1);
        } else if (strcmp(key, "delimiter") == 0) {
            d->delimiter = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &size) : NULL;
            if (!d->delimiter || size != 1 || strchr("\"\r\n", *d->delimiter))
                dbl_misuse(L, "option delimiter must be one character");
        } else if (strcmp(key, "null") == 0) {
            d->null = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &d->null_size) : NULL;
            if (!d->null)
                dbl_misuse(L, "option null must be a string");
        } else {
            dbl_misuse(L, "unknown option '%s'", key);
        }
    }
}

/* res:csv{header = true, delimiter = ",", null = ""} */
static int result_csv(lua_State *L)
{
    Result *r = dbl_result(L, 1);
    Dialect d;
    read_dialect(L, &d);
    dbl_begin_reading(r);
    Text *names, *t = dbl_text_new(L), *cells = dbl_text_new(L), *scratch = dbl_text_new(L);
    const Plan *plans = make_plans(L, r, 0, &names);
    luaL_checkstack(L, 10, "too many values");
    for (int i = d.header && r->columns > 0 ? -1 : 0; i < r->rows; i++) {
        for (int j = 0; j < r->columns; j++) {
            const Column *c = &r->column[j];
            Cell cell = {c->name, 0};
            if (j > 0)
                dbl_text_char(L, t, *d.delimiter);
            if (i < 0)
                cell.size = (int)strlen(c->name);
            else
                cell = dbl_cell(r, i, j);
            if (!cell.value) {
                dbl_text_add(L, t, d.null, d.null_size);
                continue;
            }
            if (c->binary && i >= 0) {
                cells->used = 0;
                int good = plans[j].array ? write_array(L, cells, scratch, &plans[j], c, cell, 0)
                                          : write_binary(L, cells, plans[j].type, cell.value,
                                                         (size_t)cell.size);
                if (!good)
                    dbl_column_error(L, c);
                write_csv(L, t, &d, cells->s, cells->used);
            } else {
                write_csv(L, t, &d, cell.value, (size_t)cell.size);
            }
        }
        dbl_text_char(L, t, '\n');
    }
    dbl_end_reading(r);
    dbl_text_push(L, t);
    return 1;
}

static const luaL_Reg methods[] = {
    {"json", result_json},
    {"csv",  result_csv },
    {NULL,   NULL       },
};

void dbl_render_open(lua_State *L)
{
    dbl_result_metatables(L);
    lua_getfield(L, -1, "methods");
    dbl_setfuncs(L, methods, 0);
    lua_pop(L, 3);
}
