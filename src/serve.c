/*
 * serve.c -- lanes at work: what is asked of a connection, and what comes of it.
 *
 * While all goes well that needs no Lua: in one call as many lanes are begun as may run; and
 * for all connections of a crowd that are ready, in one call, the result that has come is put
 * away and the next item is asked.  What Lua has to see leaves these calls: an error, a wait
 * that has an end, a result that is waited for.
 */
#include "serve.h"

#include <string.h>

#include "collector.h"
#include "crowd.h"
#include "lane.h"
#include "receive.h"
#include "send.h"

/* What else launch and serve share. */
enum {
    CROWD = lua_upvalueindex(DBL_SHARED + 1),
    HANDS = lua_upvalueindex(DBL_SHARED +
                             2), /* by descriptor, who waits: a lane's number, or another */
    WATCHED =
        lua_upvalueindex(DBL_SHARED + 3), /* by descriptor, the events that the crowd looks for */
    SERVING = DBL_SHARED + 3,
    SERVE = lua_upvalueindex(2), /* of serve_at_rest, which has the Lanes besides */
};

/* It was waited in vain. */
static int push_vain(lua_State *L)
{
    lua_pushboolean(L, 0);
    return 1;
}

/* Asks the lane's item, for the connection at 1: 1, or 0 as dbl_ask. */
static int ask(lua_State *L, const Lanes *l, const Item *lane)
{
    const char *sql = l->item[lane->asked].sql;
    if (sql)
        return dbl_ask_text(L, lane->conn, sql, strlen(sql));
    lua_rawgeti(L, DBL_LIST, lane->asked);
    if (!dbl_ask(L, lane->conn, 2))
        return 0;
    lua_settop(L, 1);
    return 1;
}

/* Has the crowd look for what a connection needs; whether it can. */
static int watch(lua_State *L, Crowd *w, const Conn *c, int need)
{
    int fd = PQsocket(c->pg);
    if (!dbl_crowd_watch(w, fd, need))
        return 0;
    dbl_push_events(L, need);
    lua_rawseti(L, WATCHED, fd);
    return 1;
}

/* Asks the lane's item, for the connection at 1, and goes on with it if it was asked: 0 when
 * all that is left to do is to wait for what the crowd w looks for (watched: it does already),
 * else how many values Lua has to see. */
static int proceed(lua_State *L, Lanes *l, Item *lane, int asked, Crowd *w, int watched)
{
    Conn *c = lane->conn;
    for (;;) {
        if (c->closed)
            return push_vain(L);
        if (!asked && !ask(L, l, lane))
            return 2;
        int need = dbl_step(c);
        if (need && w && !c->over && dbl_wake(c) >= DBL_NEVER &&
            (need == watched || watch(L, w, c, need))) {
            c->held = DBL_HELD_BY_RUN;
            l->waiting++;
            return 0;
        }
        if (need) {
            l->waiting += !c->over;
            lua_pushboolean(L, 0);
            int pushed = 1 + dbl_push_wait(L, c, need);
            c->held = c->held ? DBL_HELD_BY_RUN : 0;
            return pushed;
        }
        int pushed = dbl_push_kept(L, c, 1);
        if (pushed != 1 || l->each)
            return pushed;
        lua_rawseti(L, DBL_RESULTS, lane->asked);
        lua_settop(L, 1);
        dbl_lanes_finish(l, lane->asked);
        if (!dbl_lane_advance(l, lane)) {
            lua_pushboolean(L, 1);
            return 1;
        }
        asked = 0;
    }
}

static int arrive(lua_State *L, Lanes *l, Item *lane, Crowd *w)
{
    dbl_lane_conn(L, l, lane);
    l->waiting--;
    if (dbl_has_waited(lane->conn))
        return proceed(L, l, lane, 1, w, lane->conn->need);
    return push_vain(L);
}

/* lanes.ask(lane), lanes.arrived(lane): asks its item; takes what has come of it.  Both go on
 * with those after it, and give what Lua has to see: a result; true where all went well to the
 * lane's end; nil and an error; nil alone where a statement is to be cached first; false, what
 * to wait for, the descriptor and how long; or false alone where it was waited in vain. */
static int lanes_ask(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    Item *lane = dbl_lane(L, l, 1);
    dbl_lane_conn(L, l, lane);
    return proceed(L, l, lane, 0, NULL, 0);
}

static int lanes_arrived(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    return arrive(L, l, dbl_lane(L, l, 1), NULL);
}

/* Whether nothing but this lane's end has come, and nothing can begin for it: Lua hears of it
 * later, by lanes.over, or never where it has nothing for it. */
static int note_over(lua_State *L, Lanes *l, Item *lane, int fd, int pushed)
{
    if (pushed != 1 || lane->asked || l->next <= l->count)
        return 0;
    if (!lane->alone) {
        lane->last = l->over;
        l->over = dbl_lane_number(l, lane);
    }
    dbl_lane_give_back(L, l, lane);
    lua_pushnil(L);
    lua_rawseti(L, HANDS, fd);
    return 1;
}

/* launch(most): begins lanes, so many at most with those that are alone, in the order of their
 * items, up to an item that is of no open connection.  If Lua has to see something of one: its
 * number and what has come of it, as by lanes.ask. */
static int launch(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    Crowd *w = dbl_crowd(L, CROWD);
    double most = luaL_checknumber(L, 1);
    for (int i; l->alone < most && (i = dbl_lanes_next(l)) != 0;) {
        Item *lane = &l->item[l->item[i].lane];
        if (!l->item[i].lane || !dbl_conn_is_open(lane->conn))
            break;
        dbl_lanes_begin(L, l);
        l->alone++;
        lane->alone = 1;
        lua_pushinteger(L, dbl_lane_number(l, lane));
        lua_rawseti(L, HANDS, PQsocket(lane->conn->pg));
        int pushed = proceed(L, l, lane, 0, w, 0);
        if (pushed > 0) {
            lua_pushinteger(L, dbl_lane_number(l, lane));
            lua_insert(L, -1 - pushed);
            return 1 + pushed;
        }
    }
    return 0;
}

/* serve(fd [, deadline]): serves the lane that waits for fd, which is ready (nil: none is), and
 * those of all others that the crowd has found ready, until there is something that Lua has to
 * see: the descriptor and what has come of its lane, as by lanes.arrived; or the descriptor
 * alone, which is not a lane's.  nil: all were served.  With a deadline it waits for more until
 * then; or for some turns, since only Lua hears a signal. */
static int serve(lua_State *L)
{
    enum { TURNS = 100 };
    Lanes *l = dbl_lanes(L);
    Crowd *w = dbl_crowd(L, CROWD);
    int fd = (int)luaL_optinteger(L, 1, -1), turns = lua_isnoneornil(L, 2) ? 0 : TURNS;
    double deadline = lua_tonumber(L, 2);
    do {
        for (; fd >= 0; fd = dbl_crowd_more(w)) {
            int pushed = 0;
            lua_rawgeti(L, HANDS, fd);
            if (lua_type(L, -1) == LUA_TNUMBER) {
                Item *lane = dbl_lane(L, l, -1);
                pushed = arrive(L, l, lane, w);
                if (lane->conn->tells)
                    turns = 0; /* on_notice may have roused somebody */
                if (pushed == 0 || note_over(L, l, lane, fd, pushed))
                    continue;
            }
            lua_pushinteger(L, fd);
            lua_insert(L, -1 - pushed);
            return 1 + pushed;
        }
        l->resting = l->resting && dbl_rest_on(L, l->bearable);
        if (turns-- > 0 && l->waiting > 0 && (deadline >= DBL_NEVER || dbl_now() < deadline))
            fd = dbl_crowd_next(w, deadline);
    } while (fd >= 0);
    return 0;
}

/* The same with the collector at rest, as long as it may: the results stay. */
static int serve_at_rest(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    lua_settop(L, 2);
    lua_pushvalue(L, SERVE);
    lua_insert(L, 1);
    l->resting = !l->each && l->next > l->count && dbl_rest(L, l->bearable);
    int status = lua_pcall(L, 2, LUA_MULTRET, 0);
    if (l->resting)
        dbl_rest_on(L, 0);
    l->resting = 0;
    return status == 0 ? lua_gettop(L) : lua_error(L);
}

static void push_shared(lua_State *L)
{
    for (int i = 1; i <= DBL_SHARED; i++)
        lua_pushvalue(L, lua_upvalueindex(i));
}

/* lanes.server(crowd, hands, watched, wait): the function that launches and the one that serves,
 * for a run that waits so.  Lua may get twice what it has while the collector rests. */
static int lanes_server(lua_State *L)
{
    dbl_crowd(L, 1);
    for (int i = 2; i <= 4; i++)
        luaL_checktype(L, i, LUA_TTABLE);
    lua_settop(L, 4);
    lua_rawseti(L, DBL_WAITS, 0);
    dbl_lanes(L)->bearable = 2 * ((size_t)lua_gc(L, LUA_GCCOUNT, 0) << 10);
    for (int functions = 0; functions < 2; functions++) {
        push_shared(L);
        for (int i = 1; i <= 3; i++)
            lua_pushvalue(L, i);
        lua_pushcclosure(L, functions == 0 ? launch : serve, SERVING);
    }
    lua_pushvalue(L, DBL_LANES);
    lua_insert(L, -2);
    lua_pushcclosure(L, serve_at_rest, 2);
    return 2;
}

/* core.lanes(list, each): the functions of a run, and its results, yet to come; each: Lua has
 * to see each result. */
static int lanes_new(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"ask",     lanes_ask    },
        {"arrived", lanes_arrived},
        {"server",  lanes_server },
        {NULL,      NULL         },
    };
    luaL_checktype(L, 1, LUA_TTABLE);
    dbl_lanes_push(L, lua_toboolean(L, 2), functions);
    return 2;
}

const luaL_Reg dbl_serve_functions[] = {
    {"lanes", lanes_new},
    {NULL,    NULL     },
};
