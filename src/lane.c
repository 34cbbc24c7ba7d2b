/*
 * lane.c -- the items of a gather, and those that wait for the same connection.
 *
 * A connection that was given is a lane, known by the number of the first item that names it.
 * Its items are asked one after the other.  While all goes well that needs no Lua: in one call
 * as many lanes are begun as may run; and for all connections of a crowd that are ready, in
 * one call, the result that has come is put away and the next item is asked.  What Lua has to
 * see leaves these calls: an error, a wait that has an end, a result that is waited for.
 *
 * While it is under way the connection waits as the run does.
 *
 * The functions of a run share what it is about as upvalues.  So the stack is free for a
 * query: the connection at 1, its item at 2.
 */
#include "lane.h"

#include <string.h>

#include "collector.h"
#include "conn.h"
#include "crowd.h"
#include "receive.h"
#include "send.h"

typedef struct Item {
    Conn *conn;      /* of a lane */
    const char *sql; /* what it asks, where it has nothing else */
    int lane;        /* the first item with its connection; 0: none was given */
    int after;       /* the one that waits for it to be over; 0: none does */
    int asked;       /* of a lane: the one under way, or 0 */
    int last; /* of a lane: the last one that waits; once it is over, the lane that was over before */
    int ended;             /* which item was the first to end, the second, ... */
    unsigned char adopted; /* of a lane: its connection waits as the run does */
    unsigned char held;    /* of one that is: somebody had waited for its connection before */
    unsigned char alone;   /* of one that is: Lua has nothing for it */
} Item;

typedef struct Lanes {
    int count;       /* of the items */
    int next;        /* the first that was not begun */
    int texts;       /* how many different sql there are */
    int ended;       /* how many are over */
    int each;        /* Lua has to see each result */
    int alone;       /* how many lanes are */
    int waiting;     /* how many wait for their descriptors */
    int over;        /* the last one, not alone, that serve has seen to its end, or 0 */
    int resting;     /* the collector is, */
    size_t bearable; /* as long as Lua has fewer bytes */
    Item *item;      /* from 1 on; not Lua's memory: for so much its collector would run at once */
} Lanes;

/* What the functions share. */
enum {
    LANES = lua_upvalueindex(1),   /* the Lanes */
    LIST = lua_upvalueindex(2),    /* of {where, sql, ...} */
    RESULTS = lua_upvalueindex(3), /* by the item's number */
    CONNS = lua_upvalueindex(4),   /* of lanes by number */
    TEXTS = lua_upvalueindex(5),   /* keeps what the items' sql are */
    WAITS = lua_upvalueindex(6),   /* of lanes that were adopted, their own; [0]: the run's */
    SHARED = 6,
    CROWD = lua_upvalueindex(7), /* of launch and serve alone */
    HANDS = lua_upvalueindex(8), /* by descriptor, who waits for it: a lane's number, or another */
    WATCHED = lua_upvalueindex(9), /* by descriptor, the events that the crowd looks for */
    SERVING = 9,
    SERVE = lua_upvalueindex(2), /* of serve_at_rest, which has LANES besides */
};

static Lanes *get_lanes(lua_State *L)
{
    return lua_touserdata(L, LANES);
}

/* The item with the number at stack index i. */
static Item *check_item(lua_State *L, Lanes *l, int i)
{
    lua_Integer n = lua_tointeger(L, i);
    if (n < 1 || n > l->count)
        luaL_argerror(L, i, "no item");
    return &l->item[n];
}

static Item *check_lane(lua_State *L, Lanes *l, int i)
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
        lua_rawseti(L, CONNS, item);
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
        lua_rawseti(L, TEXTS, ++l->texts);
    }
    item->sql = sql;
}

/* Looks at item i: 0 where Lua has to. */
static int look_at(lua_State *L, Lanes *l, int i)
{
    lua_settop(L, 0);
    lua_rawgeti(L, LIST, i);
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
    Lanes *l = get_lanes(L);
    for (int i = (int)luaL_checkinteger(L, 1); i >= 1 && i <= l->count; i++)
        if (!look_at(L, l, i))
            return push_number(L, i);
    return 0;
}

/* lanes.add(i, conn): item i is of this connection. */
static int lanes_add(lua_State *L)
{
    Lanes *l = get_lanes(L);
    Item *item = check_item(L, l, 1);
    give_lane(L, l, dbl_conn_any(L, 2), 2, (int)(item - l->item));
    return 0;
}

/* lanes.first(): the connection of the first lane, if there is one. */
static int lanes_first(lua_State *L)
{
    Lanes *l = get_lanes(L);
    for (int i = 1; i <= l->count; i++)
        if (l->item[i].conn) {
            lua_rawgeti(L, CONNS, i);
            return 1;
        }
    return 0;
}

static int number_of(const Lanes *l, const Item *lane)
{
    return (int)(lane - l->item);
}

static void replace_by_conn(lua_State *L, const Lanes *l, const Item *lane)
{
    lua_settop(L, 0);
    lua_rawgeti(L, CONNS, number_of(l, lane));
}

/* The lane's connection, left at 1, from now on waits as the run does. */
static void adopt(lua_State *L, const Lanes *l, Item *lane)
{
    replace_by_conn(L, l, lane);
    lane->held = dbl_conn_is_held(L, lane->conn) != 0;
    dbl_conn_push_wait(L, 1);
    lua_rawseti(L, WAITS, number_of(l, lane));
    lua_rawgeti(L, WAITS, 0);
    lane->adopted = 1;
    dbl_conn_use(L, lane->conn, 1);
}

/* It waits as before; whoever waited for it within the run does so no more. */
static void give_back(lua_State *L, Lanes *l, Item *lane)
{
    if (!lane->adopted)
        return;
    l->alone -= lane->alone;
    lane->adopted = lane->alone = 0;
    if (!lane->held)
        lane->conn->held = 0;
    replace_by_conn(L, l, lane);
    lua_rawgeti(L, WAITS, number_of(l, lane));
    dbl_conn_use(L, lane->conn, 1);
}

/* The next item to begin, 0 where there is none.  Those before it wait, since something is
 * under way on their lanes. */
static int find_next(Lanes *l)
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

/* Begins it: its lane, NULL where it has none. */
static Item *begin(lua_State *L, Lanes *l)
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
    Lanes *l = get_lanes(L);
    int i = find_next(l);
    if (i == 0)
        return 0;
    const Item *lane = begin(L, l);
    lua_pushinteger(L, i);
    if (!lane)
        return 1;
    lua_pushinteger(L, number_of(l, lane));
    lua_pushvalue(L, 1);
    return 3;
}

static int advance(Lanes *l, Item *lane)
{
    lane->asked = l->item[lane->asked].after;
    return lane->asked;
}

/* lanes.over(): a lane that serve has seen to its end. */
static int lanes_over(lua_State *L)
{
    Lanes *l = get_lanes(L);
    int lane = l->over;
    if (lane)
        l->over = l->item[lane].last;
    return push_number(L, lane);
}

/* lanes.running(lane): the first lane after that one (0: of all) that is under way. */
static int lanes_running(lua_State *L)
{
    const Lanes *l = get_lanes(L);
    for (int i = (int)luaL_checkinteger(L, 1) + 1; i >= 1 && i <= l->count; i++)
        if (l->item[i].adopted)
            return push_number(L, i);
    return 0;
}

/* lanes.alone(): how many are under way and Lua has nothing for them.  lanes.take(lane): from now
 * on it has: the number of the item that is under way, and the connection. */
static int lanes_alone(lua_State *L)
{
    lua_pushinteger(L, get_lanes(L)->alone);
    return 1;
}

static int lanes_take(lua_State *L)
{
    Lanes *l = get_lanes(L);
    Item *lane = check_lane(L, l, 1);
    l->alone -= lane->alone;
    lane->alone = 0;
    lua_pushinteger(L, lane->asked);
    lua_rawgeti(L, CONNS, number_of(l, lane));
    return 2;
}

/* lanes.give_back(lane): its connection is the caller's again. */
static int lanes_give_back(lua_State *L)
{
    Lanes *l = get_lanes(L);
    give_back(L, l, check_lane(L, l, 1));
    return 0;
}

/* lanes.item(lane): the number of the item that is under way.  lanes.advance(lane): the item
 * after it is under way now; nil: there is none. */
static int lanes_item(lua_State *L)
{
    return push_number(L, check_lane(L, get_lanes(L), 1)->asked);
}

static int lanes_advance(lua_State *L)
{
    Lanes *l = get_lanes(L);
    return push_number(L, advance(l, check_lane(L, l, 1)));
}

/* Notes that an item is over: how many are. */
static int finish(Lanes *l, int item)
{
    l->item[++l->ended].ended = item;
    return l->ended;
}

/* lanes.finish(item), likewise.  lanes.ended(i): the i-th that ended; nil: not so many have. */
static int lanes_finish(lua_State *L)
{
    Lanes *l = get_lanes(L);
    Item *item = check_item(L, l, 1);
    if (l->ended == l->count)
        luaL_argerror(L, 1, "all are over");
    return push_number(L, finish(l, (int)(item - l->item)));
}

static int lanes_ended(lua_State *L)
{
    Lanes *l = get_lanes(L);
    int i = (int)luaL_checkinteger(L, 1);
    return i >= 1 && i <= l->ended ? push_number(L, l->item[i].ended) : 0;
}

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
    lua_rawgeti(L, LIST, lane->asked);
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
        if (!asked) {
            if (!ask(L, l, lane))
                return 2;
        }
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
        lua_rawseti(L, RESULTS, lane->asked);
        lua_settop(L, 1);
        finish(l, lane->asked);
        if (!advance(l, lane)) {
            lua_pushboolean(L, 1);
            return 1;
        }
        asked = 0;
    }
}

static int arrive(lua_State *L, Lanes *l, Item *lane, Crowd *w)
{
    replace_by_conn(L, l, lane);
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
    Lanes *l = get_lanes(L);
    Item *lane = check_lane(L, l, 1);
    replace_by_conn(L, l, lane);
    return proceed(L, l, lane, 0, NULL, 0);
}

static int lanes_arrived(lua_State *L)
{
    Lanes *l = get_lanes(L);
    return arrive(L, l, check_lane(L, l, 1), NULL);
}

/* Whether nothing but this lane's end has come, and nothing can begin for it: Lua hears of it
 * later, by lanes.over, or never where it has nothing for it. */
static int note_over(lua_State *L, Lanes *l, Item *lane, int fd, int pushed)
{
    if (pushed != 1 || lane->asked || l->next <= l->count)
        return 0;
    if (!lane->alone) {
        lane->last = l->over;
        l->over = number_of(l, lane);
    }
    give_back(L, l, lane);
    lua_pushnil(L);
    lua_rawseti(L, HANDS, fd);
    return 1;
}

/* launch(most): begins lanes, so many at most with those that are alone, in the order of their
 * items, up to an item that is of no open connection.  If Lua has to see something of one: its
 * number and what has come of it, as by lanes.ask. */
static int launch(lua_State *L)
{
    Lanes *l = get_lanes(L);
    Crowd *w = dbl_crowd(L, CROWD);
    double most = luaL_checknumber(L, 1);
    for (int i; l->alone < most && (i = find_next(l)) != 0;) {
        Item *lane = &l->item[l->item[i].lane];
        if (!l->item[i].lane || !dbl_conn_is_open(lane->conn))
            break;
        begin(L, l);
        l->alone++;
        lane->alone = 1;
        lua_pushinteger(L, number_of(l, lane));
        lua_rawseti(L, HANDS, PQsocket(lane->conn->pg));
        int pushed = proceed(L, l, lane, 0, w, 0);
        if (pushed > 0) {
            lua_pushinteger(L, number_of(l, lane));
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
    Lanes *l = get_lanes(L);
    Crowd *w = dbl_crowd(L, CROWD);
    int fd = (int)luaL_optinteger(L, 1, -1), turns = lua_isnoneornil(L, 2) ? 0 : TURNS;
    double deadline = lua_tonumber(L, 2);
    do {
        for (; fd >= 0; fd = dbl_crowd_more(w)) {
            int pushed = 0;
            lua_rawgeti(L, HANDS, fd);
            if (lua_type(L, -1) == LUA_TNUMBER) {
                Item *lane = check_lane(L, l, -1);
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
    Lanes *l = get_lanes(L);
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
    for (int i = 1; i <= SHARED; i++)
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
    lua_rawseti(L, WAITS, 0);
    get_lanes(L)->bearable = 2 * ((size_t)lua_gc(L, LUA_GCCOUNT, 0) << 10);
    for (int functions = 0; functions < 2; functions++) {
        push_shared(L);
        for (int i = 1; i <= 3; i++)
            lua_pushvalue(L, i);
        lua_pushcclosure(L, functions == 0 ? launch : serve, SERVING);
    }
    lua_pushvalue(L, LANES);
    lua_insert(L, -2);
    lua_pushcclosure(L, serve_at_rest, 2);
    return 2;
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

/* core.lanes(list, each): the functions of a run, and its results, yet to come; each: Lua has
 * to see each result. */
static int lanes_new(lua_State *L)
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
        {"ask",       lanes_ask      },
        {"arrived",   lanes_arrived  },
        {"server",    lanes_server   },
        {NULL,        NULL           },
    };
    luaL_checktype(L, 1, LUA_TTABLE);
    int count = (int)dbl_rawlen(L, 1), each = lua_toboolean(L, 2);
    lua_settop(L, 1);
    lua_createtable(L, count, 1);
    lua_pushinteger(L, count);
    lua_setfield(L, 2, "n");
    lua_newtable(L);
    push_lanes(L, count, each);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    for (int tables = 0; tables < 3; tables++)
        lua_newtable(L);
    dbl_setfuncs(L, functions, SHARED);
    lua_pushvalue(L, 2);
    return 2;
}

const luaL_Reg dbl_lane_functions[] = {
    {"lanes", lanes_new},
    {NULL,    NULL     },
};
