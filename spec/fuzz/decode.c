/*
 * decode.c -- libFuzzer hands in a value; it is read in every way there is.
 *
 * The first byte names the type, the second the format and how results are read; the rest is the value, of two
 * columns and of two rows, of which one is cut off in the middle.
 */
#include "fuzz.h"

#include <stdint.h>
#include <string.h>

#include "result.h"
#include "type.h"

static const char script[] =
    "local dblink = ...\n"
    "local codecs = require and package.loaded['dblink.codecs'] or {}\n"
    "local function each(f, ...) while f do local a = f(...) if a == nil then return end end end\n"
    "return function(res, text)\n"
    "  pcall(function() for i = 1, 2 do for j = 1, 2 do res(i, j) end end end)\n"
    "  pcall(function() return res[1], res[2] end)\n"
    "  pcall(function() each(res:rows 'array') end)\n"
    "  pcall(function() each(res:rows 'values') end)\n"
    "  pcall(res.column, res, 1)\n"
    "  pcall(res.columns, res)\n"
    "  pcall(res.json, res)\n"
    "  pcall(res.json, res, 'array')\n"
    "  pcall(res.csv, res)\n"
    "  pcall(dblink.unescape_bytea, text)\n"
    "  for _, codec in pairs(codecs) do\n"
    "    if type(codec) == 'table' and codec.decode then pcall(codec.decode, text) end\n"
    "  end\n"
    "end\n";

static Oid oids[256];
static int count;

static void add_types(const Type *types)
{
    for (; types->oid; types++) {
        oids[count++] = types->oid;
        if (types->array)
            oids[count++] = types->array;
    }
}

static int push_result(lua_State *L)
{
    double number;
    size_t size;
    PGresult **box = lua_touserdata(L, 1);
    const char *s = lua_tolstring(L, 3, &size);
    const Result *r = dbl_result_push(L, box, (int)lua_tointeger(L, 2), 0);
    Reader read = dbl_reader(r->column[0].decode);
    if (read)
        read(s, size, &number);
    lua_pop(L, dbl_epoch_type.binary(L, &dbl_epoch_type, s, size));
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lua_State *L;
    if (!L) {
        L = fuzz_open(script);
        add_types(dbl_number_types);
        add_types(dbl_text_types);
        add_types(dbl_time_types);
        add_types(dbl_net_types);
        oids[count++] = 600; /* nobody's: point */
    }
    if (size < 2)
        return -1;
    char a[] = "a", b[] = "b";
    Oid oid = oids[data[0] % count];
    PGresAttDesc columns[] = {
        {a, 0, 0, data[1] & 1, oid, -1, -1},
        {b, 0, 0, data[1] & 1, oid, -1, -1}
    };
    char *value = malloc(size - 2 + 1); /* of its own: what reads beyond it is seen */
    int length = (int)(size - 2);
    memcpy(value, data + 2, size - 2);
    value[length] = '\0';
    PGresult *res = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PQsetResultAttrs(res, 2, columns);
    PQsetvalue(res, 0, 0, value, length);
    PQsetvalue(res, 0, 1, value, length);
    PQsetvalue(res, 1, 0, value, length / 2);
    PQsetvalue(res, 1, 1, NULL, -1);
    int reading = data[1] >> 1 & 0x3f & ~(DBL_READ_NULL | DBL_READ_CODECS);
    lua_pushcfunction(L, push_result);
    lua_pushlightuserdata(L, &res);
    lua_pushinteger(L, reading);
    lua_pushlstring(L, value, (size_t)length);
    if (lua_pcall(L, 3, 1, 0) != 0)
        abort();
    lua_pushlstring(L, value, (size_t)length);
    fuzz_run(L, 2);
    PQclear(res);
    free(value);
    return 0;
}
