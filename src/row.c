/*
 * row.c -- rows and values out of a result: the one place that knows their shape.
 *
 *   res[i]            a row by name (or as an array: rows = "array")
 *   res(i, j)         one value, j a position or a name
 *   res:rows(shape)   an iterator: "row", "array", or "values", which gives the
 *                     row's number first, so that a NULL does not end the loop
 *   res:all(shape)    all rows in a list
 *   res:column(j)     all values of a column as an array
 *
 * Values are made when they are asked for, so a row or an iterator outlives
 * its result safely: it holds values, or the result itself.
 */
#include "row.h"

#include <stdlib.h>
#include <string.h>

#include "collector.h"
#include "fail.h"
#include "null.h"

/* The table with what is special about a result, replaced by one of its fields. */
static void push_special(lua_State *L, int result, const char *field, int i)
{
    dbl_getuservalue(L, result);
    if (field)
        lua_getfield(L, -1, field);
    else
        lua_rawgeti(L, -1, i);
    lua_remove(L, -2);
}

/* Puts the value on the top through the function at f, which cannot take r away meanwhile; of
 * an array, each of its values. */
static void convert(lua_State *L, Result *r, int f, int array)
{
    if (!array || !lua_istable(L, -1)) {
        unsigned char was = r->lent;
        lua_pushvalue(L, f);
        lua_insert(L, -2);
        r->lent = 1;
        int status = lua_pcall(L, 1, 1, 0);
        r->lent = was;
        if (status != 0) {
            dbl_end_reading(r);
            lua_error(L);
        }
        return;
    }
    luaL_checkstack(L, 8, "too many values");
    lua_getfield(L, -1, "n");
    int n = (int)lua_tointeger(L, -1), t = lua_gettop(L) - 1;
    lua_pop(L, 1);
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, t, i);
        if (!dbl_is_null(L, -1)) {
            convert(L, r, f, array);
            lua_rawseti(L, t, i);
        } else {
            lua_pop(L, 1);
        }
    }
}

void dbl_push_sentinel(lua_State *L, const Result *r, int result)
{
    if (r->reading & DBL_READ_NULL)
        push_special(L, result, "null", 0);
    else
        lua_pushnil(L);
}

static inline void push_cell(lua_State *L, Result *r, int result, Cell cell, int column)
{
    const Column *c = &r->column[column];
    if (!cell.value) {
        dbl_push_sentinel(L, r, result);
        return;
    }
    if (!c->decode(L, c->type, cell.value, (size_t)cell.size)) {
        dbl_end_reading(r);
        dbl_column_error(L, c);
    }
    if (c->codec) {
        push_special(L, result, NULL, column + 1);
        lua_insert(L, -2); /* function, value */
        convert(L, r, lua_gettop(L) - 1, c->array);
        lua_remove(L, -2);
    }
}

void dbl_push_values(lua_State *L, Result *r, int result, int row)
{
    if (r->columns > 10) /* of the 20 that a function may push */
        luaL_checkstack(L, r->columns + 8, "too many columns");
    for (int j = 0; j < r->columns; j++)
        push_cell(L, r, result, dbl_cell(r, row, j), j);
}

int dbl_is_called(const Result *r)
{
    int called = 0;
    for (int j = 0; j < r->columns; j++)
        called |= r->column[j].codec;
    return called;
}

void dbl_push_names(lua_State *L, Result *r)
{
    lua_createtable(L, r->columns, r->columns);
    int names = lua_gettop(L);
    r->distinct = 1;
    for (int j = r->columns; j-- > 0;) {
        lua_pushstring(L, r->column[j].name);
        lua_pushvalue(L, -1);
        lua_rawget(L, names); /* name, its position if a later column has it */
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            lua_pushvalue(L, -1);
            lua_pushinteger(L, j + 1);
            lua_rawset(L, names);
        } else {
            lua_pop(L, 2);
            lua_pushboolean(L, 0);
            r->distinct = 0;
        }
        lua_rawseti(L, names, j + 1);
    }
}

/* The position of a column by its name, the last of that name; -1: none. */
static int find_column(const Result *r, const char *name)
{
    int j = r->columns - 1;
    while (j >= 0 && strcmp(r->column[j].name, name) != 0)
        j--;
    return j;
}

int dbl_is_hidden(const Result *r, int column)
{
    return find_column(r, r->column[column].name) != column;
}

static void push_array(lua_State *L, Result *r, int result, int row)
{
    lua_createtable(L, r->columns, 1);
    for (int j = 0; j < r->columns; j++) {
        Cell cell = dbl_cell(r, row, j);
        if (!cell.value && !(r->reading & DBL_READ_NULL))
            continue;
        push_cell(L, r, result, cell, j);
        lua_rawseti(L, -2, j + 1);
    }
    lua_pushinteger(L, r->columns);
    lua_setfield(L, -2, "n");
}

static void push_named(lua_State *L, Result *r, int result, int row, int names)
{
    lua_createtable(L, 0, r->columns);
    for (int j = 0; j < r->columns; j++) {
        Cell cell = dbl_cell(r, row, j);
        if (!cell.value && !(r->reading & DBL_READ_NULL))
            continue;
        if (names) {
            lua_rawgeti(L, names, j + 1);
            if (!r->distinct && !lua_toboolean(L, -1)) {
                lua_pop(L, 1);
                continue;
            }
        } else {
            if (dbl_is_hidden(r, j))
                continue;
            lua_pushstring(L, r->column[j].name);
        }
        push_cell(L, r, result, cell, j);
        lua_rawset(L, -3);
    }
}

void dbl_push_row(lua_State *L, Result *r, int result, int row, int shape, int names)
{
    if (shape == DBL_ROW_ARRAY)
        push_array(L, r, result, row);
    else
        push_named(L, r, result, row, names);
}

int dbl_check_shape(lua_State *L, int i, const Result *r)
{
    static const char *const shapes[] = {"row", "array", "values", NULL};
    if (lua_isnoneornil(L, i))
        return r->reading & DBL_READ_ARRAYS ? DBL_ROW_ARRAY : DBL_ROW_NAMED;
    return luaL_checkoption(L, i, NULL, shapes);
}

/* A column by position or by name, from 0; -1: there is none. */
static int column_at(lua_State *L, int i, const Result *r)
{
    if (lua_type(L, i) == LUA_TSTRING)
        return find_column(r, lua_tostring(L, i));
    lua_Number j = luaL_checknumber(L, i);
    return j >= 1 && j <= r->columns ? (int)j - 1 : -1;
}

/* Pushes the names of a large result, made once and kept in its user value, and
 * returns their index; a small one is named as it goes: nothing, 0. */
static int cached_names(lua_State *L, Result *r, int result)
{
    if (!r->pg)
        return 0;
    dbl_getuservalue(L, result);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        dbl_setuservalue(L, result);
    }
    lua_getfield(L, -1, "names");
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        dbl_push_names(L, r);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, "names");
    }
    return lua_gettop(L);
}

static int result_call(lua_State *L)
{
    Result *r = dbl_result(L, 1);
    lua_Number row = luaL_checknumber(L, 2);
    int column = lua_isnoneornil(L, 3) ? 0 : column_at(L, 3, r);
    dbl_begin_reading(r);
    if (row >= 1 && row <= r->rows && column >= 0 && column < r->columns)
        push_cell(L, r, 1, dbl_cell(r, (int)row - 1, column), column);
    else
        lua_pushnil(L);
    dbl_end_reading(r);
    return 1;
}

static int push_affected(lua_State *L, const Result *r)
{
    /* the last word of "INSERT 0 1", "UPDATE 3", "SELECT 10" */
    const char *space = strrchr(r->command, ' '), *word = space ? space + 1 : "no number";
    if (word[strspn(word, "0123456789")])
        lua_pushnil(L);
    else
        dbl_pushint8(L, strtoll(word, NULL, 10));
    return 1;
}

/* Why a result has no rows, where it is one of core.no_rows. */
static void push_error(lua_State *L, const Result *r)
{
    if (r->status == PGRES_FATAL_ERROR) {
        dbl_getuservalue(L, 1);
        lua_getfield(L, -1, "error");
    } else {
        lua_pushnil(L);
    }
}

/* res[i] is a row; else a method, or one of the fields. */
static int result_index(lua_State *L)
{
    if (lua_type(L, 2) == LUA_TNUMBER) {
        Result *r = dbl_result(L, 1);
        lua_Number row = lua_tonumber(L, 2);
        if (!(row >= 1 && row <= r->rows))
            return 0;
        dbl_begin_reading(r);
        int names = r->reading & DBL_READ_ARRAYS ? 0 : cached_names(L, r, 1);
        dbl_push_row(L, r, 1, (int)row - 1,
                     r->reading & DBL_READ_ARRAYS ? DBL_ROW_ARRAY : DBL_ROW_NAMED, names);
        dbl_end_reading(r);
        return 1;
    }
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    if (!lua_isnil(L, -1) || lua_type(L, 2) != LUA_TSTRING)
        return 1;
    const Result *r = dbl_result(L, 1);
    const char *key = lua_tostring(L, 2);
    if (strcmp(key, "status") == 0)
        lua_pushstring(L, dbl_status_name(r->status));
    else if (strcmp(key, "command") == 0)
        lua_pushstring(L, r->command);
    else if (strcmp(key, "affected") == 0)
        push_affected(L, r);
    else if (strcmp(key, "error") == 0)
        push_error(L, r);
    else
        lua_pushnil(L);
    return 1;
}

/* Where an iteration is. */
typedef struct Walk {
    Result *r;
    int shape, row;
} Walk;

static int next_row(lua_State *L, Walk *w, int result, int names)
{
    Result *r = w->r;
    if (r->cleared)
        dbl_result(L, result);
    if (w->row >= r->rows)
        return 0;
    int row = w->row++, values = 1;
    dbl_begin_reading(r);
    if (w->shape != DBL_ROW_VALUES) {
        dbl_push_row(L, r, result, row, w->shape, names);
    } else {
        lua_pushinteger(L, row + 1);
        dbl_push_values(L, r, result, row);
        values += r->columns;
    }
    dbl_end_reading(r);
    return values;
}

/* An iterator is a function with upvalues: names or nothing, result, walk.  But LuaJIT would
 * compile a loop anew for each, so there it is a userdata that can be called. */
#if LUA_VERSION_NUM > 501
static int iterate(lua_State *L)
{
    return next_row(L, lua_touserdata(L, lua_upvalueindex(3)), lua_upvalueindex(2),
                    lua_upvalueindex(1));
}

static void push_iterator(lua_State *L)
{
    lua_pushcclosure(L, iterate, 3);
}
#else
#define WALK "dblink.rows"

static int iterate(lua_State *L)
{
    Walk *w = lua_touserdata(L, 1);
    if (!w || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1)))
        w = luaL_checkudata(L, 1, WALK);
    lua_settop(L, 1);
    lua_getfenv(L, 1); /* the names, and the result as [0] */
    lua_rawgeti(L, 2, 0);
    return next_row(L, w, 3, 2);
}

static void push_iterator(lua_State *L)
{
    if (luaL_newmetatable(L, WALK)) {
        lua_pushvalue(L, -1);
        lua_pushcclosure(L, iterate, 1);
        lua_setfield(L, -2, "__call");
        lua_pushliteral(L, WALK);
        lua_setfield(L, -2, "__metatable");
    }
    lua_setmetatable(L, -2);
    lua_insert(L, -3); /* walk, names, result */
    lua_rawseti(L, -2, 0);
    lua_setfenv(L, -2);
}
#endif

static int result_rows(lua_State *L)
{
    Result *r = dbl_result(L, 1);
    int shape = dbl_check_shape(L, 2, r);
    dbl_begin_reading(r);
    if (shape == DBL_ROW_NAMED)
        dbl_push_names(L, r);
    else
        lua_newtable(L);
    dbl_end_reading(r);
    lua_pushvalue(L, 1);
    Walk *w = dbl_newuserdata(L, sizeof *w);
    *w = (Walk){r, shape, 0};
    push_iterator(L);
    return 1;
}

/* Calls make(result, number) for a list of so many bytes a row; functions of codecs
 * leave garbage. */
static int push_list(lua_State *L, Result *r, lua_CFunction make, int number, size_t bytes)
{
    dbl_begin_reading(r);
    lua_pushcfunction(L, make);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, number);
    if (dbl_is_called(r))
        lua_call(L, 2, 1);
    else
        dbl_call_at_rest(L, 2, 1, (size_t)r->rows * bytes);
    dbl_end_reading(r);
    return 1;
}

static int make_all(lua_State *L)
{
    enum { RESULT = 1, LIST = 3, NAMES };
    Result *r = lua_touserdata(L, RESULT);
    int shape = (int)lua_tointeger(L, 2);
    lua_createtable(L, r->rows, 0);
    if (shape == DBL_ROW_NAMED)
        dbl_push_names(L, r);
    for (int i = 0; i < r->rows; i++) {
        dbl_push_row(L, r, RESULT, i, shape, NAMES);
        lua_rawseti(L, LIST, i + 1);
    }
    lua_settop(L, LIST);
    return 1;
}

static int result_all(lua_State *L)
{
    Result *r = dbl_result(L, 1);
    int shape = dbl_check_shape(L, 2, r);
    if (shape == DBL_ROW_VALUES)
        return luaL_argerror(L, 2, "\"row\" or \"array\" expected");
    return push_list(L, r, make_all, shape, 64 + 40 * (size_t)r->columns);
}

static int make_column(lua_State *L)
{
    Result *r = lua_touserdata(L, 1);
    int column = (int)lua_tointeger(L, 2);
    lua_createtable(L, r->rows, 1);
    for (int i = 0; i < r->rows; i++) {
        push_cell(L, r, 1, dbl_cell(r, i, column), column);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushinteger(L, r->rows);
    lua_setfield(L, -2, "n");
    return 1;
}

static int result_column(lua_State *L)
{
    Result *r = dbl_result(L, 1);
    int column = column_at(L, 2, r);
    if (column < 0)
        return 0;
    return push_list(L, r, make_column, column, 40);
}

static const luaL_Reg methods[] = {
    {"rows",   result_rows  },
    {"all",    result_all   },
    {"column", result_column},
    {NULL,     NULL         },
};

void dbl_row_open(lua_State *L)
{
    static const luaL_Reg metamethods[] = {
        {"__call",  result_call },
        {"__index", result_index},
        {NULL,      NULL        },
    };
    dbl_result_metatables(L);
    lua_getfield(L, -1, "methods"); /* metatable, metatable, methods */
    dbl_setfuncs(L, methods, 0);
    for (int i = -3; i < -1; i++) {
        lua_pushvalue(L, i); /* to this one; its upvalue: methods */
        lua_pushvalue(L, -2);
        dbl_setfuncs(L, metamethods, 1);
        lua_pop(L, 1);
    }
    lua_pop(L, 3);
}
