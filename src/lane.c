/*
 * lane.c -- the items of a gather, and those that wait for the same connection.
 *
 * A connection that was given is a lane, known by the number of the first item that names it.
 * Its items are asked one after the other; this room knows which comes when.  While a lane is
 * under way its connection waits as the run does.
 */
#include "lane.h"

#include <string.h>

/* The item with the number at stack index i. */
static Item *check_item(lua_State *L, Lanes *l, int i)
{
    lua_Integer n = lua_tointeger(L, i);
    if (n < 1 || n > l->count)
        luaL_argerror(L, i, "no item");
    return &l->item[n];
}

Item *dbl_lane(lua_State *L, Lanes *l, int i)
{
    Item *lane = check_item(L, l, i);
    if (!lane->conn)
        luaL_argerror(L, i, "no lane");
    return lane;
}

static int push_number(lua_State *L, int n)
{
    if (n == 0)
        return 0;
    lua_pushinteger(L, n);
    return 1;
}

/* Whether a table has so many entries and no metatable. */
static int is_bare(lua_State *L, int t, int entries)
{
    if (lua_getmetatable(L, t))
        return 0;
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1))
        if (entries-- == 0)
            return 0;
    return entries == 0;
}

/* Whether the connection, at stack index i, has a lane; if not, from now on it has that of
 * this item. */
static void give_lane(lua_State *L, Lanes *l, Conn *c, int i, int item)
{
    int lane = c->lane;
    if (lane < 1 || lane > l->count || l->item[lane].conn != c) {
        lua_pushvalue(L, i);
        lua_rawseti(L, DBL_CONNS, item);
        c->lane = lane = item;
        l->item[item].conn = c;
    }
    l->item[item].lane = lane;
}

/* Notes that the item on which its SQL, on the top, lies asks that alone: it is not looked at again. */
static void note_text(lua_State *L, Lanes *l, Item *item)
{
    size_t size;
    const char *sql = lua_tolstring(L, -1, &size);
    if (sql != item[-1].sql) { /* often it is */
        if (memchr(sql, '\0', size))
            return;
        lua_pushvalue(L, -1);
        lua_rawseti(L, DBL_TEXTS, ++l->texts);
    }
    item->sql = sql;
}

/* Looks at item i: 0 where Lua has to. */
static int look_at(lua_State *L, Lanes *l, int i)
{
    lua_settop(L, 0);
    lua_rawgeti(L, DBL_LIST, i);
    if (!lua_istable(L, 1))
        return 0;
    lua_rawgeti(L, 1, 1);
    lua_rawgeti(L, 1, 2);
    Conn *c = dbl_conn_known(L, 2);
    if (!c || c->closed || lua_type(L, 3) != LUA_TSTRING)
        return 0;
    give_lane(L, l, c, 2, i);
    if (is_bare(L, 1, 2))
        note_text(L, l, &l->item[i]);
    return 1;
}

/* lanes.check(i): the first item from i on that Lua has to look at: which has no SQL, or an open
 * connection that is not named as such. */
static int lanes_check(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    for (int i = (int)luaL_checkinteger(L, 1); i >= 1 && i <= l->count; i++)
        if (!look_at(L, l, i))
            return push_number(L, i);
    return 0;
}

/* lanes.add(i, conn): item i is of this connection. */
static int lanes_add(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    Item *item = check_item(L, l, 1);
    give_lane(L, l, dbl_conn_any(L, 2), 2, (int)(item - l->item));
    return 0;
}

/* lanes.first(): the connection of the first lane, if there is one. */
static int lanes_first(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    for (int i = 1; i <= l->count; i++)
        if (l->item[i].conn) {
            lua_rawgeti(L, DBL_CONNS, i);
            return 1;
        }
    return 0;
}

void dbl_lane_conn(lua_State *L, const Lanes *l, const Item *lane)
{
    lua_settop(L, 0);
    lua_rawgeti(L, DBL_CONNS, dbl_lane_number(l, lane));
}

/* The lane's connection, left at 1, from now on waits as the run does. */
static void adopt(lua_State *L, const Lanes *l, Item *lane)
{
    dbl_lane_conn(L, l, lane);
    lane->held = dbl_conn_is_held(L, lane->conn) != 0;
    dbl_conn_push_wait(L, 1);
    lua_rawseti(L, DBL_WAITS, dbl_lane_number(l, lane));
    lua_rawgeti(L, DBL_WAITS, 0);
    lane->adopted = 1;
    dbl_conn_use(L, lane->conn, 1);
}

void dbl_lane_give_back(lua_State *L, Lanes *l, Item *lane)
{
    if (!lane->adopted)
        return;
    l->alone -= lane->alone;
    lane->adopted = lane->alone = 0;
    if (!lane->held) /* else it was no hand of ours that waited */
        lane->conn->held = 0;
    dbl_lane_conn(L, l, lane);
    lua_rawgeti(L, DBL_WAITS, dbl_lane_number(l, lane));
    dbl_conn_use(L, lane->conn, 1);
}

int dbl_lanes_next(Lanes *l)
{
    for (; l->next <= l->count; l->next++) {
        int i = l->next;
        Item *lane = &l->item[l->item[i].lane];
        if (!l->item[i].lane || !lane->asked)
            return i;
        l->item[lane->last].after = i;
        lane->last = i;
    }
    return 0;
}

Item *dbl_lanes_begin(lua_State *L, Lanes *l)
{
    int i = l->next++;
    if (!l->item[i].lane)
        return NULL;
    Item *lane = &l->item[l->item[i].lane];
    lane->asked = lane->last = i;
    adopt(L, l, lane);
    return lane;
}

/* lanes.next(): the number of the next item, which is begun; if it is of a lane, its number and
 * its connection. */
static int lanes_next(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    int i = dbl_lanes_next(l);
    if (i == 0)
        return 0;
    const Item *lane = dbl_lanes_begin(L, l);
    lua_pushinteger(L, i);
    if (!lane)
        return 1;
    lua_pushinteger(L, dbl_lane_number(l, lane));
    lua_pushvalue(L, 1);
    return 3;
}

/* lanes.over(): a lane that serve has seen to its end. */
static int lanes_over(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    int lane = l->over;
    if (lane)
        l->over = l->item[lane].last;
    return push_number(L, lane);
}

/* lanes.running(_, lane): the first lane after that one (0: of all) that is under way. */
static int lanes_running(lua_State *L)
{
    const Lanes *l = dbl_lanes(L);
    for (int i = (int)luaL_checkinteger(L, 2) + 1; i >= 1 && i <= l->count; i++)
        if (l->item[i].adopted)
            return push_number(L, i);
    return 0;
}

/* lanes.alone(): how many are under way and Lua has nothing for them.  lanes.take(lane): from now
 * on it has: the number of the item that is under way, and the connection. */
static int lanes_alone(lua_State *L)
{
    lua_pushinteger(L, dbl_lanes(L)->alone);
    return 1;
}

static int lanes_take(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    Item *lane = dbl_lane(L, l, 1);
    l->alone -= lane->alone;
    lane->alone = 0;
    lua_pushinteger(L, lane->asked);
    lua_rawgeti(L, DBL_CONNS, dbl_lane_number(l, lane));
    return 2;
}

/* lanes.give_back(lane): its connection is the caller's again. */
static int lanes_give_back(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    dbl_lane_give_back(L, l, dbl_lane(L, l, 1));
    return 0;
}

/* lanes.item(lane): the number of the item that is under way.  lanes.advance(lane): the item
 * after it is under way now; nil: there is none. */
static int lanes_item(lua_State *L)
{
    return push_number(L, dbl_lane(L, dbl_lanes(L), 1)->asked);
}

static int lanes_advance(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    return push_number(L, dbl_lane_advance(l, dbl_lane(L, l, 1)));
}

/* lanes.finish(item), likewise.  lanes.ended(i): the i-th that ended; nil: not so many have. */
static int lanes_finish(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    Item *item = check_item(L, l, 1);
    if (l->ended == l->count)
        luaL_argerror(L, 1, "all are over");
    return push_number(L, dbl_lanes_finish(l, (int)(item - l->item)));
}

static int lanes_ended(lua_State *L)
{
    Lanes *l = dbl_lanes(L);
    int i = (int)luaL_checkinteger(L, 1);
    return i >= 1 && i <= l->ended ? push_number(L, l->item[i].ended) : 0;
}

static int lanes_free(lua_State *L)
{
    Lanes *l = lua_touserdata(L, 1);
    dbl_free(l->item);
    memset(l, 0, sizeof *l);
    return 0;
}

/* Pushes the lanes of so many items. */
static void push_lanes(lua_State *L, int count, int each)
{
    static const luaL_Reg meta[] = {
        {"__gc", lanes_free},
        {NULL,   NULL      },
    };
    size_t size = ((size_t)count + 1) * sizeof(Item);
    Lanes *l = dbl_newbare(L, sizeof *l);
    memset(l, 0, sizeof *l);
    dbl_newclass(L, "dblink.lanes", meta, NULL);
    lua_setmetatable(L, -2);
    l->item = dbl_alloc(dbl_memory(L), size);
    if (!l->item)
        luaL_error(L, "not enough memory");
    memset(l->item, 0, size);
    l->count = count;
    l->next = 1;
    l->each = each;
}

void dbl_lanes_push(lua_State *L, int each, const luaL_Reg *more)
{
    static const luaL_Reg functions[] = {
        {"check",     lanes_check    },
        {"add",       lanes_add      },
        {"first",     lanes_first    },
        {"next",      lanes_next     },
        {"running",   lanes_running  },
        {"alone",     lanes_alone    },
        {"take",      lanes_take     },
        {"item",      lanes_item     },
        {"advance",   lanes_advance  },
        {"over",      lanes_over     },
        {"give_back", lanes_give_back},
        {"finish",    lanes_finish   },
        {"ended",     lanes_ended    },
        {NULL,        NULL           },
    };
    enum { RESULTS = 2, FUNCTIONS, SHARED };
    int count = (int)dbl_rawlen(L, 1);
    lua_settop(L, 1);
    lua_createtable(L, count, 1);
    lua_pushinteger(L, count);
    lua_setfield(L, RESULTS, "n");
    lua_newtable(L);
    push_lanes(L, count, each);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, RESULTS);
    for (int tables = 0; tables < 3; tables++)
        lua_newtable(L);
    lua_pushvalue(L, FUNCTIONS);
    for (int i = 0; i < DBL_SHARED; i++)
        lua_pushvalue(L, SHARED + i);
    dbl_setfuncs(L, more, DBL_SHARED);
    lua_pop(L, 1);
    dbl_setfuncs(L, functions, DBL_SHARED);
    lua_pushvalue(L, RESULTS);
}
