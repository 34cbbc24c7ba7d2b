/*
 * notify.c -- notifications and notices, for whoever asks.
 *
 * They come between the results of queries, and are queued wherever input is read
 * (receive.c); here they are waited for and handed over.
 */
#include "notify.h"

#include "fail.h"
#include "news.h"
#include "receive.h"

static int push_notification(lua_State *L, Conn *c)
{
    if (!dbl_push_notification(L, &c->notifications))
        lua_pushnil(L);
    return 1;
}

/* The next one that has arrived; never waits.  What a coroutine waits for is its to
 * read: the socket would stay silent. */
static int conn_get_notify(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    if (c->pg && !c->notifications.first)
        dbl_notifications_take(&c->notifications, c->pg);
    if (c->pg && !dbl_conn_is_held(L, c) && !c->notifications.first && PQconsumeInput(c->pg))
        dbl_notifications_take(&c->notifications, c->pg);
    return push_notification(L, c);
}

/* core.take_notification(conn): it, nil where the deadline came first, nil and an error. */
static int conn_take_notification(lua_State *L)
{
    Conn *c = dbl_conn(L, 1);
    c->goal = DBL_GOAL_NEXT;
    c->deadline = DBL_NEVER;
    if (!c->notifications.first && PQstatus(c->pg) == CONNECTION_BAD) {
        lua_pushnil(L);
        return dbl_push_farewell(L, &c->notices) ? 2 : dbl_fail_conn(L, c->pg);
    }
    return push_notification(L, c);
}

/* core.notification(conn, deadline): the next one; `false` where Lua must wait and
 * then call core.take_notification, or the deadline has come. */
static int conn_notification(lua_State *L)
{
    Conn *c = dbl_conn_ready(L, 1);
    if (!c)
        return 2;
    if (c->notifications.first)
        return push_notification(L, c);
    c->deadline = luaL_optnumber(L, 2, DBL_NEVER);
    c->goal = DBL_GOAL_NOTIFICATION;
    if (dbl_settle(L, c))
        return conn_take_notification(L);
    lua_pushboolean(L, 0);
    return 1;
}

/* core.take_notices(conn): those that came, as error objects, oldest first; how many
 * were dropped; and the last error of on_notice. */
static int conn_take_notices(lua_State *L)
{
    Conn *c = dbl_conn_any(L, 1);
    lua_settop(L, 1);
    lua_newtable(L);
    for (int n = 1; dbl_push_notice(L, &c->notices); n++)
        lua_rawseti(L, 2, n);
    lua_pushinteger(L, c->notices.dropped);
    c->notices.dropped = 0;
    dbl_getuservalue(L, 1);
    lua_getfield(L, -1, "notice_error");
    lua_pushnil(L);
    lua_setfield(L, -3, "notice_error");
    lua_remove(L, -2);
    return 3;
}

const luaL_Reg dbl_notify_methods[] = {
    {"get_notify", conn_get_notify},
    {NULL,         NULL           },
};

const luaL_Reg dbl_notify_functions[] = {
    {"notification",      conn_notification     },
    {"take_notification", conn_take_notification},
    {"take_notices",      conn_take_notices     },
    {NULL,                NULL                  },
};
