/*
 * fail.c -- the one way to say no: nil and an error object.
 *
 * Error objects are made here and nowhere else, so that all of them have a
 * kind, none of their messages ends in a newline, and no conninfo gets in.
 */
#include "fail.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "condition.h"

#define CLASS "dblink.error"

const Field dbl_fields[] = {
    {PG_DIAG_MESSAGE_PRIMARY,       "message"          },
    {PG_DIAG_SQLSTATE,              "sqlstate"         },
    {PG_DIAG_SEVERITY_NONLOCALIZED, "severity"         },
    {PG_DIAG_MESSAGE_DETAIL,        "detail"           },
    {PG_DIAG_MESSAGE_HINT,          "hint"             },
    {PG_DIAG_STATEMENT_POSITION,    "position"         },
    {PG_DIAG_CONTEXT,               "context"          },
    {PG_DIAG_SCHEMA_NAME,           "schema"           },
    {PG_DIAG_TABLE_NAME,            "table"            },
    {PG_DIAG_COLUMN_NAME,           "column"           },
    {PG_DIAG_DATATYPE_NAME,         "datatype"         },
    {PG_DIAG_CONSTRAINT_NAME,       "constraint"       },
    {PG_DIAG_INTERNAL_POSITION,     "internal_position"},
    {PG_DIAG_INTERNAL_QUERY,        "internal_query"   },
    {PG_DIAG_SOURCE_FILE,           "file"             },
    {PG_DIAG_SOURCE_LINE,           "line"             },
    {PG_DIAG_SOURCE_FUNCTION,       "routine"          },
    {0,                             NULL               },
};

static void set_string(lua_State *L, const char *key, const char *value, size_t size)
{
    while (size > 0 && value[size - 1] == '\n')
        size--;
    lua_pushlstring(L, value, size);
    lua_setfield(L, -2, key);
}

void dbl_set_field(lua_State *L, const Field *f, const char *value)
{
    switch (f->code) {
    case PG_DIAG_STATEMENT_POSITION:
    case PG_DIAG_INTERNAL_POSITION:
    case PG_DIAG_SOURCE_LINE:
        lua_pushinteger(L, atoi(value));
        lua_setfield(L, -2, f->name);
        break;
    default:
        set_string(L, f->name, value, strlen(value));
    }
}

static void set_lost(lua_State *L, int lost)
{
    lua_pushboolean(L, lost);
    lua_setfield(L, -2, "connection_lost");
}

static void new_error(lua_State *L, const char *kind)
{
    lua_createtable(L, 0, 8);
    lua_pushstring(L, kind);
    lua_setfield(L, -2, "kind");
    set_lost(L, 0);
    luaL_getmetatable(L, CLASS);
    lua_setmetatable(L, -2);
}

static void push_error(lua_State *L, const char *kind, const char *format, va_list args)
{
    size_t size;
    new_error(L, kind);
    const char *message = lua_pushvfstring(L, format, args); /* error, message */
    (void)message;
    message = lua_tolstring(L, -1, &size);
    lua_insert(L, -2); /* message, error */
    set_string(L, "message", message, size);
    lua_remove(L, -2);
}

void dbl_push_error(lua_State *L, const char *kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    push_error(L, kind, format, args);
    va_end(args);
}

int dbl_fail(lua_State *L, const char *kind, const char *format, ...)
{
    va_list args;
    lua_pushnil(L);
    va_start(args, format);
    push_error(L, kind, format, args);
    va_end(args);
    return 2;
}

/* libpq tells its own lack of memory by its text alone. */
static int is_memory(const char *message)
{
    return strncmp(message, "out of memory", 13) == 0;
}

/* Pushes what libpq says.  It adds a line at each refusal: the last one is said once. */
static const char *push_once(lua_State *L, const char *message)
{
    size_t size = strlen(message), line = 0;
    while (size > 0 && message[size - 1] == '\n')
        size--;
    while (line < size && message[size - line - 1] != '\n')
        line++;
    const char *last = message + size - line;
    while (size > 2 * line && memcmp(last - line - 1, last, line) == 0 &&
           (size == 2 * line + 1 || last[-(ptrdiff_t)line - 2] == '\n')) {
        last -= line + 1;
        size -= line + 1;
    }
    dbl_pushcopy(L, message, size);
    return lua_tostring(L, -1);
}

void dbl_push_result_error(lua_State *L, const PGresult *res, int lost)
{
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    if (!sqlstate) {
        const char *message = push_once(L, PQresultErrorMessage(res));
        const char *kind = lost ? DBL_CONNECTION : is_memory(message) ? DBL_MEMORY : DBL_SERVER;
        dbl_push_error(L, kind, "%s", *message ? message : "the server gave no message");
        lua_remove(L, -2);
        set_lost(L, lost);
        return;
    }
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    new_error(L, DBL_SERVER);
    for (const Field *f = dbl_fields; f->name; f++) {
        const char *value = PQresultErrorField(res, f->code);
        if (value)
            dbl_set_field(L, f, value);
    }
    if (severity && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0))
        lost = 1;
    set_lost(L, lost);
}

void dbl_push_conn_error(lua_State *L, const PGconn *pg)
{
    int lost = PQstatus(pg) == CONNECTION_BAD; /* finalizers may close it from here on */
    const char *message = push_once(L, PQerrorMessage(pg));
    const char *kind = is_memory(message) ? DBL_MEMORY : lost ? DBL_CONNECTION : DBL_USAGE;
    dbl_push_error(L, kind, "%s", *message ? message : "libpq gave no message");
    lua_remove(L, -2);
    set_lost(L, lost);
}

int dbl_fail_conn(lua_State *L, const PGconn *pg)
{
    lua_pushnil(L);
    dbl_push_conn_error(L, pg);
    return 2;
}

#define HOME "dblink.home" /* in the registry: the folder of our Lua rooms, "@.../dblink/" */

int dbl_fail_home(lua_State *L)
{
    lua_Debug ar;
    if (lua_getstack(L, 1, &ar)) {
        lua_getinfo(L, "S", &ar);
        const char *end = strrchr(ar.source, '/');
        lua_pushlstring(L, ar.source, end ? (size_t)(end - ar.source) + 1 : 0);
        dbl_setprivate(L, HOME);
    }
    return 0;
}

/* Whether a chunk is one of ours: in that folder, the front door beside it, or in a host. */
static int is_ours(const char *source, const char *home, size_t size)
{
    if (strncmp(source, "=dblink/", 8) == 0 || strcmp(source, "=dblink.lua") == 0)
        return 1;
    return size > 0 &&
           (strncmp(source, home, size) == 0 ||
            (strncmp(source, home, size - 1) == 0 && strcmp(source + size - 1, ".lua") == 0));
}

static void push_where(lua_State *L)
{
    lua_Debug ar;
    size_t size;
    dbl_getprivate(L, HOME);
    const char *home = lua_tolstring(L, -1, &size);
    for (int level = 1; lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (ar.currentline > 0 && !is_ours(ar.source, home, home ? size : 0)) {
            lua_pop(L, 1);
            lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
            return;
        }
    }
    lua_pop(L, 1);
    lua_pushliteral(L, "");
}

int dbl_misuse(lua_State *L, const char *format, ...)
{
    va_list args;
    push_where(L);
    va_start(args, format);
    lua_pushvfstring(L, format, args);
    va_end(args);
    lua_concat(L, 2);
    return lua_error(L);
}

int dbl_bad_self(lua_State *L, int i, const char *class)
{
    return dbl_misuse(L, "bad self (%s expected, got %s): a verb is called with a colon", class,
                      luaL_typename(L, i));
}

void *dbl_check_self(lua_State *L, int i, const char *class)
{
    void *self = dbl_testudata(L, i, class);
    if (!self)
        dbl_bad_self(L, i, class);
    return self;
}

const char *dbl_check_string(lua_State *L, int i, const char *name, size_t *size)
{
    const char *s = lua_tolstring(L, i, size);
    if (!s)
        dbl_misuse(L, "bad argument '%s' (string expected, got %s)", name, luaL_typename(L, i));
    return s;
}

/* A string field of the error object at i, or NULL; it stays on the stack. */
static const char *field(lua_State *L, int i, const char *name)
{
    lua_getfield(L, i, name);
    return lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
}

/* As psql prints it: "ERROR 23505: message", and lines for detail and hint. */
static int error_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    const char *message = field(L, 1, "message");
    const char *sqlstate = field(L, 1, "sqlstate");
    const char *severity = field(L, 1, "severity");
    const char *detail = field(L, 1, "detail");
    const char *hint = field(L, 1, "hint");
    if (!message)
        message = "unknown error";
    if (sqlstate && severity)
        lua_pushfstring(L, "%s %s: %s", severity, sqlstate, message);
    else
        lua_pushstring(L, message);
    if (detail)
        lua_pushfstring(L, "\nDETAIL: %s", detail);
    if (hint)
        lua_pushfstring(L, "\nHINT: %s", hint);
    lua_concat(L, lua_gettop(L) - 6);
    return 1;
}

static int error_concat(lua_State *L)
{
    size_t size;
    lua_settop(L, 2);
    dbl_tolstring(L, 1, &size);
    dbl_tolstring(L, 2, &size);
    lua_concat(L, 2);
    return 1;
}

/* err:is("unique_violation"), of a class, or the SQLSTATE itself. */
static int error_is(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *name = luaL_checkstring(L, 2);
    lua_getfield(L, 1, "sqlstate");
    const char *sqlstate = lua_tostring(L, -1);
    int matches = dbl_condition_matches(name, sqlstate ? sqlstate : "");
    if (matches < 0 && strlen(name) == 5 &&
        strspn(name, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5)
        matches = sqlstate && strcmp(sqlstate, name) == 0;
    if (matches < 0)
        return luaL_argerror(L, 2, lua_pushfstring(L, "no condition is named '%s'", name));
    lua_pushboolean(L, matches);
    return 1;
}

static const luaL_Reg error_metamethods[] = {
    {"__tostring", error_tostring},
    {"__concat",   error_concat  },
    {NULL,         NULL          },
};

static const luaL_Reg error_methods[] = {
    {"is", error_is},
    {NULL, NULL    },
};

void dbl_fail_open(lua_State *L)
{
    dbl_newclass(L, CLASS, error_metamethods, error_methods);
    lua_pop(L, 1);
}
