/*
 * sheet.c -- values of a result as plain memory, some rows at a time.
 *
 * What C makes of a row through Lua's API, LuaJIT cannot compile.  What Lua reads
 * from memory by ffi it can, with the loop around it.  See rows.lua, which knows
 * these structures by the same layout.
 */
#include "sheet.h"

#include <math.h>
#include <stddef.h>

#include "result.h"
#include "row.h"

enum {
    ROOM = 64,         /* rows */
    MOST_COLUMNS = 32, /* of more a loop is no faster than by C, or too long for a trace */
};

enum { NOTHING, NUMBER, TEXT, BOOLEAN, OTHER }; /* OTHER: ask the result */

typedef struct Value {
    double number;
    const char *text;
    int size, kind;
} Value;

typedef struct Sheet {
    int (*fill)(struct Sheet *);
    const unsigned char *cleared;
    unsigned short *readers;
    const Result *result;
    int row;
    Value *values;
    Reader reader[]; /* of each column; NULL: its bytes are the value */
} Sheet;

static int is_boolean(const Column *c)
{
    return c->type->traits & DBL_JSON_BOOL;
}

static void read_value(const Column *c, Reader read, Cell cell, Value *v)
{
    v->number = 0;
    v->text = cell.value;
    v->size = cell.size;
    if (!cell.value)
        v->kind = NOTHING;
    else if (!read)
        v->kind = TEXT;
    else if (!read(cell.value, (size_t)cell.size, &v->number))
        v->kind = OTHER;
    else
        v->kind = is_boolean(c) ? BOOLEAN : NUMBER;
    if (isnan(v->number))
        v->number = NAN; /* of which there are many: to LuaJIT most are something else */
}

/* The next rows: how many, -1 where the result was cleared.  Called by ffi, without a lua_State. */
static int fill(Sheet *s)
{
    const Result *r = s->result;
    Value *v = s->values;
    int n = 0;
    if (r->cleared)
        return -1;
    for (; n < ROOM && s->row < r->rows; n++, s->row++)
        for (int j = 0; j < r->columns; j++)
            read_value(&r->column[j], s->reader[j], dbl_cell(r, s->row, j), v++);
    return n;
}

static const char *kind_of(const Column *c)
{
    return !dbl_reader(c->decode) ? "text" : is_boolean(c) ? "boolean" : "number";
}

/* "row", and of each column a NUL, its kind, a space and its name, which is empty where a
 * later column hides it. */
static void push_key(lua_State *L, const Result *r, const char *shape)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addstring(&b, shape);
    for (int j = 0; j < r->columns; j++) {
        luaL_addlstring(&b, "\0", 1);
        luaL_addstring(&b, kind_of(&r->column[j]));
        luaL_addlstring(&b, " ", 1);
        if (!dbl_is_hidden(r, j))
            luaL_addstring(&b, r->column[j].name);
    }
    luaL_pushresult(&b);
}

/* core.sheet(res, shape): a sheet, a key of what its rows are like, and what stands for
 * NULL; or nil where that is not worth it or cannot be. */
static int sheet(lua_State *L)
{
    static const char *const shapes[] = {"row", "array", "values"};
    Result *r = dbl_result(L, 1);
    int shape = dbl_check_shape(L, 2, r);
    if (!r->pg || r->columns == 0 || r->columns > MOST_COLUMNS)
        return 0;
    for (int j = 0; j < r->columns; j++)
        if (!dbl_is_plain(&r->column[j]))
            return 0;
    size_t columns = (size_t)r->columns;
    Sheet *s = dbl_newuserdata(L, sizeof *s + columns * (sizeof(Reader) + ROOM * sizeof(Value)));
    *s = (Sheet){fill, &r->cleared, &r->readers, r, 0, (Value *)(void *)&s->reader[columns]};
    for (size_t j = 0; j < columns; j++)
        s->reader[j] = dbl_reader(r->column[j].decode);
    dbl_begin_reading(r);
    push_key(L, r, shapes[shape]);
    dbl_end_reading(r);
    dbl_push_sentinel(L, r, 1);
    return 3;
}

/* core.use_sheets(): statements that choose between text and binary heed what a sheet can hold. */
static int use_sheets(lua_State *L)
{
    lua_pushboolean(L, 1);
    dbl_setprivate(L, DBL_SHEETS);
    return 0;
}

const luaL_Reg dbl_sheet_functions[] = {
    {"sheet",      sheet     },
    {"use_sheets", use_sheets},
    {NULL,         NULL      },
};
