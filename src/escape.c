/*
 * escape.c -- literals, identifiers and bytea as text for SQL.
 *
 * Parameters are better wherever SQL takes them; these are for where it does
 * not.  libpq's functions know the connection's encoding.
 */
#include "escape.h"

#include <string.h>

#include "conn.h"
#include "fail.h"

#define BOX "dblink.memory"

/* A place for what libpq allocates, freed whatever happens. */
static void **new_box(lua_State *L)
{
    void **box = lua_newuserdata(L, sizeof *box);
    *box = NULL;
    luaL_getmetatable(L, BOX);
    lua_setmetatable(L, -2);
    return box;
}

static int box_gc(lua_State *L)
{
    void **box = lua_touserdata(L, 1);
    PQfreemem(*box);
    *box = NULL;
    return 0;
}

static int push_box(lua_State *L, void **box, size_t size)
{
    lua_pushlstring(L, *box, size);
    PQfreemem(*box);
    *box = NULL;
    return 1;
}

typedef char *Escape(PGconn *pg, const char *s, size_t size);

static int escape(lua_State *L, Escape *how)
{
    size_t size;
    Conn *c = dbl_conn(L, 1);
    const char *s = dbl_check_string(L, 2, "s", &size);
    if (memchr(s, '\0', size))
        dbl_misuse(L, "bad argument 's' (a NUL byte, which no text of PostgreSQL can hold)");
    if (!c->pg)
        return dbl_conn_fail(L, c);
    void **box = new_box(L);
    *box = how(c->pg, s, size);
    if (!*box)
        return dbl_fail_conn(L, c->pg);
    return push_box(L, box, strlen(*box));
}

static int conn_escape_literal(lua_State *L)
{
    return escape(L, PQescapeLiteral);
}

static int conn_escape_identifier(lua_State *L)
{
    return escape(L, PQescapeIdentifier);
}

/* For use between quotes: '...' */
static int conn_escape_bytea(lua_State *L)
{
    size_t size;
    Conn *c = dbl_conn(L, 1);
    const char *s = dbl_check_string(L, 2, "s", &size);
    if (!c->pg)
        return dbl_conn_fail(L, c);
    void **box = new_box(L);
    *box = PQescapeByteaConn(c->pg, (const unsigned char *)s, size, &size);
    if (!*box)
        return dbl_fail_conn(L, c->pg);
    return push_box(L, box, size - 1);
}

static int unescape_bytea(lua_State *L)
{
    size_t size;
    const char *s = luaL_checkstring(L, 1);
    void **box = new_box(L);
    *box = PQunescapeBytea((const unsigned char *)s, &size);
    if (!*box)
        return dbl_fail(L, DBL_MEMORY, "out of memory");
    return push_box(L, box, size);
}

const luaL_Reg dbl_escape_functions[] = {
    {"unescape_bytea", unescape_bytea},
    {NULL,             NULL          },
};

const luaL_Reg dbl_escape_methods[] = {
    {"escape_literal",    conn_escape_literal   },
    {"escape_identifier", conn_escape_identifier},
    {"escape_bytea",      conn_escape_bytea     },
    {NULL,                NULL                  },
};

void dbl_escape_open(lua_State *L)
{
    static const luaL_Reg metamethods[] = {
        {"__gc", box_gc},
        {NULL,   NULL  }
    };
    dbl_newclass(L, BOX, metamethods, NULL);
    lua_pop(L, 1);
}
