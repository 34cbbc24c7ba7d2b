/*
 * cancel.c -- a request to cancel, as Lua drives it.
 *
 * A canceller is stepped like a connection that is being opened: step() says
 * what to wait for on getfd(), and nil when it is over; then error() says
 * whether it was sent.  await.lua has the loop.
 */
#include "cancel.h"

#include "conn.h"
#include "fail.h"
#include "request.h"

#define CLASS "dblink.canceller"

typedef struct Canceller {
    Request *request;
} Canceller;

static Canceller *canceller(lua_State *L)
{
    Canceller *k = luaL_checkudata(L, 1, CLASS);
    if (!k->request)
        luaL_error(L, "canceller is closed");
    return k;
}

/* core.canceller(conn): begins at once.  true: there is nothing to cancel. */
static int conn_canceller(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    if (!c->pg)
        return dbl_conn_fail(L, c);
    if (PQtransactionStatus(c->pg) != PQTRANS_ACTIVE && PQstatus(c->pg) == CONNECTION_OK) {
        lua_pushboolean(L, 1);
        return 1;
    }
    Canceller *k = dbl_newuserdata(L, sizeof *k);
    k->request = NULL;
    luaL_getmetatable(L, CLASS);
    lua_setmetatable(L, -2);
    k->request = dbl_request_new(c->memory, c->pg, &c->requests, c->hooks);
    if (!k->request)
        return dbl_fail(L, DBL_MEMORY, "out of memory");
    c->cancelled = 1;
    return 1;
}

static int canceller_step(lua_State *L)
{
    dbl_push_events(L, dbl_request_step(canceller(L)->request));
    return 1;
}

static int canceller_getfd(lua_State *L)
{
    lua_pushinteger(L, dbl_request_fd(canceller(L)->request));
    return 1;
}

static int canceller_error(lua_State *L)
{
    const char *why = dbl_request_error(canceller(L)->request);
    if (!why)
        return 0;
    dbl_push_error(L, DBL_CONNECTION, "%s", why);
    return 1;
}

static int canceller_close(lua_State *L)
{
    Canceller *k = luaL_checkudata(L, 1, CLASS);
    if (k->request)
        dbl_request_leave(k->request);
    k->request = NULL;
    return 0;
}

const luaL_Reg dbl_cancel_functions[] = {
    {"canceller", conn_canceller},
    {NULL,        NULL          },
};

static const luaL_Reg metamethods[] = {
    {"__gc",    canceller_close},
    {"__close", canceller_close},
    {NULL,      NULL           },
};

static const luaL_Reg methods[] = {
    {"step",  canceller_step },
    {"getfd", canceller_getfd},
    {"error", canceller_error},
    {"close", canceller_close},
    {NULL,    NULL           },
};

void dbl_cancel_open(lua_State *L)
{
    dbl_newclass(L, CLASS, metamethods, methods);
    lua_pop(L, 1);
}
