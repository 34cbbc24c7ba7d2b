/*
 * core.c -- the table of contents: what require "dblink.core" gives.
 *
 * Nothing in here or below ever waits, but poll(2) in block.c for plain
 * scripts.  The Lua layers stand on top and make the verbs that people use.
 */
#include "core.h"

#include "block.h"
#include "cancel.h"
#include "conn.h"
#include "connect.h"
#include "copy.h"
#include "crowd.h"
#include "direct.h"
#include "escape.h"
#include "fail.h"
#include "hooks.h"
#include "literal.h"
#include "lookup.h"
#include "notify.h"
#include "null.h"
#include "pair.h"
#include "pipeline.h"
#include "query.h"
#include "receive.h"
#include "relay.h"
#include "render.h"
#include "result.h"
#include "row.h"
#include "send.h"
#include "serve.h"
#include "sheet.h"
#include "text.h"
#include "stream.h"

#define VERSION "0.1.0"

/* core.now(): seconds on a monotonic clock. */
static int now(lua_State *L)
{
    lua_pushnumber(L, dbl_now());
    return 1;
}

/* core.poll(fd, events [, seconds]): the wait of plain scripts. */
static int wait_poll(lua_State *L)
{
    int need = dbl_events(luaL_checkstring(L, 2));
    double deadline = dbl_opt_deadline(L, 3);
    if (dbl_block((int)luaL_checkinteger(L, 1), need, deadline) == 0) {
        lua_pushnil(L);
        lua_pushliteral(L, "timeout");
        return 2;
    }
    lua_pushboolean(L, 1); /* also on a signal: whoever waits looks again */
    return 1;
}

/* core.failure(kind, message): an error object. */
static int failure(lua_State *L)
{
    dbl_push_error(L, luaL_checkstring(L, 1), "%s", luaL_checkstring(L, 2));
    return 1;
}

/* core.misuse(message): raises it with the line of the user's call. */
static int misuse(lua_State *L)
{
    return dbl_misuse(L, "%s", luaL_checkstring(L, 1));
}

/* core.on_interrupt(f): f(conn) stops a query that Ctrl-C interrupted. */
static int on_interrupt(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    dbl_setprivate(L, "dblink.interrupted");
    return 0;
}

/* core.bad_self(self, class): raises that it is no such thing. */
static int bad_self(lua_State *L)
{
    return dbl_bad_self(L, 1, luaL_checkstring(L, 2));
}

/* The user value of a connection, a table of Lua's: core.state(conn). */
static int state(lua_State *L)
{
    dbl_conn_any(L, 1);
    dbl_getuservalue(L, 1);
    if (lua_isnil(L, -1)) {
        lua_newtable(L);
        lua_pushvalue(L, -1);
        dbl_setuservalue(L, 1);
    }
    return 1;
}

static int flag(lua_State *L, int i, const char *name, int bit)
{
    lua_getfield(L, i, name);
    int set = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return set ? bit : 0;
}

/* core.configure(conn, {tells=, raw=, null=, codecs=, array=, number=, caching=,
 * max_bytes=}): what it tells, how its results are read, and how big they may be. */
static int configure(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    c->tells = (unsigned char)flag(L, 2, "tells", 1);
    c->habits =
        (unsigned char)(flag(L, 2, "raw", DBL_READ_RAW) | flag(L, 2, "null", DBL_READ_NULL) |
                        flag(L, 2, "codecs", DBL_READ_CODECS) |
                        flag(L, 2, "array", DBL_READ_ARRAYS) |
                        flag(L, 2, "number", DBL_READ_NUMBER));
    c->caching = (unsigned char)flag(L, 2, "caching", 1);
    lua_getfield(L, 2, "max_bytes");
    c->budget = dbl_budget(lua_tonumber(L, -1));
    return 0;
}

/* core.let_run(conn): what runs on the server goes on when it is closed. */
static int let_run(lua_State *L)
{
    dbl_conn_any(L, 1)->runs_on = 1;
    return 0;
}

/* core.use_codecs(conn): its state has `codecs` from now on, or other ones. */
static int use_codecs(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    c->habits |= DBL_READ_CODECS;
    c->codecs++;
    return 0;
}

/* core.is_held(conn), core.hold(conn, bool): whether some coroutine waits on it. */
static int is_held(lua_State *L)
{
    lua_pushboolean(L, dbl_conn_is_held(L, dbl_conn_any(L, 1)));
    return 1;
}

static int hold(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    c->held = 0;
    if (lua_toboolean(L, 2))
        dbl_conn_hold(L, c);
    return 0;
}

/* core.set_deadline(conn, deadline or nil), on the clock of core.now. */
static int set_deadline(lua_State *L)
{
    dbl_conn_any(L, 1)->deadline = luaL_optnumber(L, 2, DBL_NEVER);
    return 0;
}

/* core.set_limit(conn, deadline or nil): until it is lifted no verb's deadline is later. What it
 * was before. */
static int set_limit(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    double before = c->limit;
    c->limit = luaL_optnumber(L, 2, DBL_NEVER);
    if (before == DBL_NEVER)
        return 0;
    lua_pushnumber(L, before);
    return 1;
}

/* core.again(conn): the query that comes next has the time that the last one leaves it. */
static int again(lua_State *L)
{
    dbl_conn_any(L, 1)->again = 1;
    return 0;
}

/* core.decode(oid, "text" or "binary", bytes): a value without a server; or nil and
 * an error.  This is where hostile bytes are tried. */
static int decode(lua_State *L)
{
    static const char *const formats[] = {"text", "binary", NULL};
    size_t size;
    int array;
    const Type *t = dbl_type((Oid)luaL_checknumber(L, 1), &array);
    int binary = luaL_checkoption(L, 2, NULL, formats);
    const char *s = luaL_checklstring(L, 3, &size);
    Decoder *f = binary ? t->binary : t->text;
    if (!f)
        return dbl_fail(L, DBL_UNSUPPORTED, "%s cannot be read in binary", t->name);
    if (array)
        f = binary ? dbl_array_binary : dbl_array_text;
    return f(L, t, s, size) ? 1 : dbl_fail(L, DBL_CONNECTION, "malformed %s", t->name);
}

/* core.type(oid or name): {oid=, array=, name=, is_array=, binary=}, or nil. */
static int type(lua_State *L)
{
    int array = 0;
    const Type *t = lua_type(L, 1) == LUA_TNUMBER ? dbl_type((Oid)lua_tonumber(L, 1), &array)
                                                  : dbl_type_named(luaL_checkstring(L, 1), &array);
    if (!t || !t->oid)
        return 0;
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, (lua_Integer)t->oid);
    lua_setfield(L, -2, "oid");
    lua_pushinteger(L, (lua_Integer)t->array);
    lua_setfield(L, -2, "array");
    lua_pushstring(L, t->name);
    lua_setfield(L, -2, "name");
    lua_pushboolean(L, array);
    lua_setfield(L, -2, "is_array");
    lua_pushboolean(L, t->binary != NULL);
    lua_setfield(L, -2, "binary");
    return 1;
}

static const luaL_Reg functions[] = {
    {"now",          now          },
    {"poll",         wait_poll    },
    {"failure",      failure      },
    {"home",         dbl_fail_home},
    {"misuse",       misuse       },
    {"bad_self",     bad_self     },
    {"epoch",        dbl_epoch    },
    {"on_interrupt", on_interrupt },
    {"state",        state        },
    {"configure",    configure    },
    {"use_codecs",   use_codecs   },
    {"let_run",      let_run      },
    {"is_held",      is_held      },
    {"hold",         hold         },
    {"set_deadline", set_deadline },
    {"set_limit",    set_limit    },
    {"again",        again        },
    {"decode",       decode       },
    {"type",         type         },
    {NULL,           NULL         },
};

static void set_feature(lua_State *L, const char *name, int has)
{
    lua_pushboolean(L, has);
    lua_setfield(L, -2, name);
}

static void push_features(lua_State *L)
{
    lua_newtable(L);
    set_feature(L, "pipeline", 1);
    set_feature(L, "chunked_rows", DBL_HAS_CHUNKED_ROWS);
    set_feature(L, "async_cancel", DBL_HAS_ASYNC_CANCEL);
    set_feature(L, "close_prepared", DBL_HAS_CLOSE_PREPARED);
    set_feature(L, "send_pipeline_sync", DBL_HAS_SEND_PIPELINE_SYNC);
    set_feature(L, "full_protocol_version", DBL_HAS_FULL_PROTOCOL_VERSION);
}

/* The methods of connections, all rooms together; Lua adds its own to them. */
static void push_methods(lua_State *L)
{
    static const luaL_Reg *const rooms[] = {
        dbl_receive_methods,
        dbl_escape_methods,
        dbl_notify_methods,
    };
    luaL_getmetatable(L, DBL_CONN);
    lua_getfield(L, -1, "__index");
    lua_remove(L, -2);
    for (unsigned i = 0; i < sizeof rooms / sizeof rooms[0]; i++)
        dbl_setfuncs(L, rooms[i], 0);
}

int luaopen_dblink_core(lua_State *L)
{
    static const luaL_Reg *const rooms[] = {
        functions,           dbl_conn_functions,    dbl_connect_functions, dbl_result_functions,
        dbl_send_functions,  dbl_receive_functions, dbl_cancel_functions,  dbl_escape_functions,
        dbl_copy_functions,  dbl_notify_functions,  dbl_hooks_functions,   dbl_crowd_functions,
        dbl_pair_functions,  dbl_literal_functions, dbl_stream_functions,  dbl_pipeline_functions,
        dbl_relay_functions, dbl_direct_functions,  dbl_lookup_functions,  dbl_sheet_functions,
        dbl_serve_functions,
    };
    dbl_fail_open(L);
    dbl_null_open(L);
    dbl_text_open(L);
    dbl_conn_open(L);
    dbl_connect_open(L);
    dbl_result_open(L);
    dbl_row_open(L);
    dbl_render_open(L);
    dbl_cancel_open(L);
    dbl_escape_open(L);
    dbl_crowd_open(L);
    dbl_pair_open(L);
    dbl_lookup_open(L);
    dbl_relay_open(L);
    dbl_direct_open(L);

    lua_newtable(L);
    for (unsigned i = 0; i < sizeof rooms / sizeof rooms[0]; i++)
        dbl_setfuncs(L, rooms[i], 0);
    dbl_copy_open(L);
    dbl_push_null(L);
    lua_setfield(L, -2, "null");
    push_features(L);
    lua_setfield(L, -2, "features");
    push_methods(L);
    lua_setfield(L, -2, "methods");
    dbl_result_metatables(L);
    lua_getfield(L, -1, "methods");
    lua_setfield(L, -4, "result_methods");
    lua_pop(L, 2);
    lua_pushinteger(L, PQlibVersion());
    lua_setfield(L, -2, "libpq_version");
    lua_pushliteral(L, VERSION);
    lua_setfield(L, -2, "version");
    return 1;
}
