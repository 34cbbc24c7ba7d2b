/*
 * lane.h -- the items of a gather, and those that wait for the same connection.
 */
#ifndef DBL_LANE_H
#define DBL_LANE_H

#include "conn.h"

/* Of a lane: of the item that its connection is first named by. */
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

/* What the functions of a run share, as upvalues: their stack is free. */
enum {
    DBL_LANES = lua_upvalueindex(1),   /* the Lanes */
    DBL_LIST = lua_upvalueindex(2),    /* of {where, sql, ...} */
    DBL_RESULTS = lua_upvalueindex(3), /* by the item's number */
    DBL_CONNS = lua_upvalueindex(4),   /* of lanes by number */
    DBL_TEXTS = lua_upvalueindex(5),   /* keeps what the items' sql are */
    DBL_WAITS = lua_upvalueindex(6),   /* of lanes that were adopted, their own; [0]: the run's */
    DBL_SHARED = 6,
};

static inline Lanes *dbl_lanes(lua_State *L)
{
    return lua_touserdata(L, DBL_LANES);
}

/* The lane whose number is at stack index i; raises where it is none. */
Item *dbl_lane(lua_State *L, Lanes *l, int i);

static inline int dbl_lane_number(const Lanes *l, const Item *lane)
{
    return (int)(lane - l->item);
}

/* The lane's connection becomes all that is on the stack. */
void dbl_lane_conn(lua_State *L, const Lanes *l, const Item *lane);

/* The next item to begin, 0 where there is none.  Those before it wait, since something is
 * under way on their lanes. */
int dbl_lanes_next(Lanes *l);

/* Begins it: its lane, NULL where it has none.  The lane's connection is all that is on the
 * stack, and from now on waits as the run does, until it is given back. */
Item *dbl_lanes_begin(lua_State *L, Lanes *l);
void dbl_lane_give_back(lua_State *L, Lanes *l, Item *lane);

/* The item after the one that is under way is now: 0 where there is none. */
static inline int dbl_lane_advance(const Lanes *l, Item *lane)
{
    return lane->asked = l->item[lane->asked].after;
}

/* Notes that an item is over: how many are. */
static inline int dbl_lanes_finish(Lanes *l, int item)
{
    l->item[++l->ended].ended = item;
    return l->ended;
}

/* For the list at stack index 1; each: Lua has to see each result.  Pushes a table of functions,
 * those here and these, and the results, yet to come. */
void dbl_lanes_push(lua_State *L, int each, const luaL_Reg *more);

#endif
