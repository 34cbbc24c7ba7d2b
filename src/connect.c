/*
 * connect.c -- from a conninfo to a connection that is being opened.
 *
 * A conninfo is a string of key=value, a URI, or a table of libpq's keywords.
 * A string is taken apart by libpq first, so that "nonsense" is an error and
 * not the name of a database.  No error message repeats what may be part of a
 * password.
 */
#include "connect.h"

#include <stdlib.h>
#include <string.h>

#include "conn.h"
#include "digits.h"
#include "fail.h"
#include "pq.h"

#define BOX "dblink.conninfo"

enum { MOST = 128 }; /* keywords; libpq 18 has some 50 */

typedef struct Conninfo {
    const char *keywords[MOST], *values[MOST];
    int count;
} Conninfo;

static PQconninfoOption **new_box(lua_State *L)
{
    PQconninfoOption **box = lua_newuserdata(L, sizeof *box);
    *box = NULL;
    luaL_getmetatable(L, BOX);
    lua_setmetatable(L, -2);
    return box;
}

static int box_gc(lua_State *L)
{
    PQconninfoOption **box = lua_touserdata(L, 1);
    PQconninfoFree(*box);
    *box = NULL;
    return 0;
}

static void add(lua_State *L, Conninfo *info, const char *keyword, const char *value)
{
    if (info->count >= MOST - 3)
        luaL_error(L, "conninfo with too many keywords");
    info->keywords[info->count] = keyword;
    info->values[info->count++] = value;
}

static int mentions(const Conninfo *info, const char *keyword)
{
    for (int i = 0; i < info->count; i++)
        if (strcmp(info->keywords[i], keyword) == 0)
            return 1;
    return 0;
}

/* libpq's complaints quote what they could not read, at their end.  Where a
 * password may be near, only the names of keywords are repeated. */
static void push_complaint(lua_State *L, const char *conninfo, const char *complaint)
{
    int secret = strstr(conninfo, "pass") || strstr(conninfo, "PASS") || strchr(conninfo, '@');
    const char *to = strrchr(complaint, '"'), *from = to;
    if (strncmp(complaint, "invalid connection option", 25) == 0 || !secret || !to) {
        lua_pushstring(L, complaint);
        return;
    }
    if (strchr(conninfo, '"'))
        from = strchr(complaint, '"'); /* where the quotation begins is anyone's guess */
    else
        while (from > complaint && *--from != '"')
            ;
    lua_pushlstring(L, complaint, (size_t)(from - complaint));
    lua_pushfstring(L, "%s\"...\"%s", lua_tostring(L, -1), to + 1);
    lua_remove(L, -2);
}

/* Reads a string.  Pushes a box that must stay.  0 with nil and an error pushed. */
static int read_string(lua_State *L, int i, Conninfo *info)
{
    size_t size;
    const char *conninfo = dbl_check_string(L, i, "conninfo", &size);
    if (strlen(conninfo) != size)
        dbl_misuse(L, "bad argument 'conninfo' (a NUL byte in it)");
    PQconninfoOption **box = new_box(L);
    char *complaint = NULL;
    *box = PQconninfoParse(conninfo, &complaint);
    if (!*box) {
        /* keep it in the box's place while Lua may raise: copy it first */
        char text[512];
        strncpy(text, complaint ? complaint : "out of memory", sizeof text - 1);
        text[sizeof text - 1] = '\0';
        PQfreemem(complaint);
        push_complaint(L, conninfo, text);
        dbl_fail(L, DBL_USAGE, "%s", lua_tostring(L, -1));
        return 0;
    }
    for (PQconninfoOption *o = *box; o->keyword; o++)
        if (o->val)
            add(L, info, o->keyword, o->val);
    return 1;
}

/* Whether libpq's keyword is one that is on or off. */
static int is_switch(const char *keyword)
{
    static const char *const all[] = {"keepalives", "sslcompression", "sslsni",
                                      "requiressl", "gssdelegation",  "replication"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(keyword, all[i]) == 0)
            return 1;
    return 0;
}

/* Reads a table.  Pushes a table of the strings, which must stay. */
static void read_table(lua_State *L, int i, Conninfo *info)
{
    lua_newtable(L);
    int keep = lua_gettop(L), n = 0;
    char digits[DBL_DIGITS];
    for (lua_pushnil(L); lua_next(L, i); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            dbl_misuse(L, "conninfo has a key that is no string");
        const char *key = lua_tostring(L, -2);
        switch (lua_type(L, -1)) {
        case LUA_TBOOLEAN:
            if (!is_switch(key))
                dbl_misuse(L, "conninfo.%s is a boolean, not a string", key);
            lua_pushinteger(L, lua_toboolean(L, -1));
            break;
        case LUA_TNUMBER: /* whole ones have no point */
            lua_pushlstring(L, digits, (size_t)dbl_write_number(digits, lua_tonumber(L, -1)));
            break;
        case LUA_TSTRING:
            lua_pushvalue(L, -1);
            break;
        default:
            dbl_misuse(L, "conninfo.%s is a %s, not a string", key, luaL_typename(L, -1));
        }
        size_t size;
        const char *value = lua_tolstring(L, -1, &size);
        if (strlen(value) != size)
            dbl_misuse(L, "conninfo.%s has a NUL byte", key);
        lua_rawseti(L, keep, ++n);
        add(L, info, key, value);
    }
}

/* Of a string libpq says it where it is read.  0 with nil and an error pushed. */
static int check_keywords(lua_State *L, const Conninfo *info)
{
    PQconninfoOption **box = new_box(L);
    *box = PQconninfoParse("", NULL); /* all that there are */
    for (int i = 0; *box && i < info->count; i++) {
        const PQconninfoOption *o = *box;
        while (o->keyword && strcmp(o->keyword, info->keywords[i]) != 0)
            o++;
        if (!o->keyword) {
            dbl_fail(L, DBL_USAGE, "invalid connection option \"%s\"", info->keywords[i]);
            return 0;
        }
    }
    lua_pop(L, 1);
    return 1;
}

/* Of the encodings that no server has, a character's second byte may be that of a quote
 * or a backslash: what reads and writes arrays, COPY and JSON would take it for one. */
static const char *find_unsafe(const Conninfo *info)
{
    for (int i = 0; i < info->count; i++) {
        if (strcmp(info->keywords[i], "client_encoding") != 0 || !info->values[i])
            continue;
        int encoding = pg_char_to_encoding(info->values[i]);
        if (encoding >= 0 && !pg_valid_server_encoding_id(encoding))
            return info->values[i];
    }
    return NULL;
}

/* Begins; the connection is on the top of the stack already. */
static int begin(lua_State *L, Conn *c, Conninfo *info)
{
    const char *unsafe = find_unsafe(info);
    if (unsafe)
        return dbl_fail(L, DBL_UNSUPPORTED, "client_encoding %s is not supported: use UTF8",
                        unsafe);
    if (!mentions(info, "client_encoding"))
        add(L, info, "client_encoding", "UTF8");
    if (!mentions(info, "fallback_application_name"))
        add(L, info, "fallback_application_name", "dblink");
    info->keywords[info->count] = info->values[info->count] = NULL;
    c->attempt = dbl_alloc(c->memory, sizeof *c->attempt);
    if (c->attempt)
        *c->attempt = (Attempt){.memory = c->memory};
    if (!c->attempt || !dbl_attempt_start(c->attempt, info->keywords, info->values)) {
        if (c->attempt)
            dbl_attempt_free(c->attempt);
        dbl_free(c->attempt);
        c->attempt = NULL;
        return dbl_fail(L, DBL_MEMORY, "out of memory");
    }
    c->closed = 0;
    c->goal = DBL_GOAL_NEXT;
    dbl_conn_begin(c, "connect", 7, DBL_GOAL_NEXT);
    return 0;
}

static int read_conninfo(lua_State *L, int i, Conninfo *info)
{
    if (lua_type(L, i) != LUA_TTABLE)
        return read_string(L, i, info);
    read_table(L, i, info);
    return check_keywords(L, info);
}

static const char *value_of(const Conninfo *info, const char *keyword, const char *variable)
{
    for (int i = info->count; i-- > 0;)
        if (strcmp(info->keywords[i], keyword) == 0)
            return info->values[i];
    return getenv(variable);
}

/* core.hosts(conninfo): the lists of hosts and of ports, for core.lookup; nothing where
 * addresses are known, or it is no conninfo. */
static int conninfo_hosts(lua_State *L)
{
    Conninfo info = {.count = 0};
    if (!read_conninfo(L, 1, &info))
        return 0;
    const char *host = value_of(&info, "host", "PGHOST");
    const char *address = value_of(&info, "hostaddr", "PGHOSTADDR");
    const char *port = value_of(&info, "port", "PGPORT");
    if (!host || !*host || (address && *address))
        return 0;
    lua_pushstring(L, host);
    lua_pushstring(L, dbl_said(port));
    return 2;
}

/* Other lists of hosts, from stack index i on, than those of the conninfo. */
static void put_hosts(lua_State *L, int i, Conninfo *info)
{
    static const char *const keywords[] = {"host", "hostaddr", "port"};
    for (int k = 0; k < 3; k++) {
        int at = 0;
        while (at < info->count && strcmp(info->keywords[at], keywords[k]) != 0)
            at++;
        if (at == info->count)
            add(L, info, keywords[k], NULL);
        info->values[at] = luaL_checkstring(L, i + k);
    }
}

/* core.connect_start(conninfo [, host, hostaddr, port]): a connecting connection, or nil
 * and an error. */
static int connect_start(lua_State *L)
{
    Conninfo info = {.count = 0};
    lua_settop(L, 4);
    if (!read_conninfo(L, 1, &info))
        return 2;
    if (!lua_isnil(L, 2))
        put_hosts(L, 2, &info);
    Conn *c = dbl_conn_new(L);
    c->plain = 1;
    return begin(L, c, &info) ? 2 : dbl_conn_failed(c) ? dbl_conn_fail(L, c) : 1;
}

/* core.reset_start(conn): the same connection anew, as it was opened. */
static int conn_reset_start(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    if (dbl_conn_is_held(L, c))
        return dbl_fail(L, DBL_USAGE, DBL_HELD, c->sql);
    Conninfo info = {.count = 0};
    PQconninfoOption **box = new_box(L);
    *box = PQconninfo(c->pg ? c->pg : c->attempt->pg);
    if (!*box)
        return dbl_fail(L, DBL_MEMORY, "out of memory");
    for (PQconninfoOption *o = *box; o->keyword; o++)
        if (o->val)
            add(L, &info, o->keyword, o->val);
    dbl_conn_close(L, 1);
    c->deadline = dbl_opt_deadline(L, 2);
    if (begin(L, c, &info))
        return 2;
    lua_pushboolean(L, 1);
    return 1;
}

/* core.opened(conn): true, or nil and why it is not. */
static int conn_opened(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    if (!c->pg)
        return dbl_conn_fail(L, c);
    lua_pushboolean(L, 1);
    return 1;
}

const luaL_Reg dbl_connect_functions[] = {
    {"hosts",         conninfo_hosts  },
    {"connect_start", connect_start   },
    {"reset_start",   conn_reset_start},
    {"opened",        conn_opened     },
    {NULL,            NULL            },
};

void dbl_connect_open(lua_State *L)
{
    static const luaL_Reg metamethods[] = {
        {"__gc", box_gc},
        {NULL,   NULL  }
    };
    dbl_newclass(L, BOX, metamethods, NULL);
    lua_pop(L, 1);
}
