/*
 * answer.c -- the answers of a pipeline: by ticket, or one after the other.
 *
 * A query without a ticket leaves nothing of ours behind but its place in the queue.
 * Its answer stays with libpq as the bytes that came, and where its values are asked for
 * they are read from there; to make and collect two things for each query costs as
 * much as libpq does.  Only an answer that must be got out of the way is made into a
 * result before: a ticket behind it is asked for, there is no room, or the pipeline ends.
 */
#include "answer.h"

#include "fail.h"
#include "queue.h"
#include "receive.h"
#include "result.h"
#include "row.h"
#include "ticket.h"

/* Waits for the answer to the command of that number; the pipeline's index is i.  0 when
 * it is there (leave: perhaps with libpq); else how many values were pushed instead: nil
 * and an error, or `false` where Lua must wait.  late: the deadline has come meanwhile. */
static int wait_for(lua_State *L, Pipeline *p, int i, unsigned number, int leave, double deadline,
                    int late)
{
    Conn *c = p->conn;
    int own = dbl_queue_push(L, i);
    if (!dbl_pipeline_is_over(p)) {
        if (!dbl_pipeline_is_free(L, p, i))
            return 2;
        if (deadline < DBL_NEVER)
            dbl_pipeline_deadline(p, deadline);
        if ((int)(number - p->asked) >= 0 && !dbl_queue_ask(p))
            return dbl_fail_conn(L, c->pg);
        c->goal = DBL_GOAL_TAKE;
    }
    while (!dbl_queue_has(p, number)) {
        if (dbl_pipeline_is_over(p))
            return dbl_fail(L, DBL_CONNECTION,
                            "the pipeline was ended before this query was answered");
        if (dbl_queue_take(L, p, own, number + !leave) || dbl_queue_has(p, number))
            break;
        if (PQstatus(c->pg) == CONNECTION_BAD)
            return dbl_fail_conn(L, c->pg);
        c->fresh = 1; /* what is there was taken: wait first, then read */
        if (!late && dbl_queue_settle(L, p, own))
            continue;
        if (!late && !c->plain) {
            lua_pushboolean(L, 0);
            return 1;
        }
        c->deadline = p->deadline;
        return dbl_fail(L, DBL_TIMEOUT, "the query was not answered in time");
    }
    if (!dbl_pipeline_is_over(p))
        c->deadline = p->deadline;
    return 0;
}

/* ---- tickets ---- */

/* ticket:result([seconds]); `false` where Lua must wait.  A third argument says that
 * the deadline has come meanwhile.  Upvalues: the ticket's metatable, the pipeline,
 * the metatable of small results. */
static int ticket_result(lua_State *L)
{
    Result *t = lua_touserdata(L, 1);
    lua_settop(L, 3);
    if (!lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1))) {
        if (!lua_rawequal(L, -1, lua_upvalueindex(3)))
            dbl_bad_self(L, 1, "dblink.ticket");
        lua_settop(L, 1); /* it has become one */
        return 1;
    }
    if (t->status == DBL_TICKET_PENDING) {
        double deadline = dbl_opt_deadline(L, 2);
        int late = lua_toboolean(L, 3);
        lua_settop(L, 1);
        lua_pushvalue(L, lua_upvalueindex(2));
        int pushed = wait_for(L, lua_touserdata(L, 2), 2, (unsigned)t->rows, 0, deadline, late);
        if (pushed)
            return pushed;
        if (t->status == DBL_TICKET_PENDING)
            return dbl_fail(L, DBL_MEMORY, "out of memory for the answer to this query");
    }
    return dbl_ticket_give(L, 1, lua_upvalueindex(3));
}

void dbl_answer_class(lua_State *L, int wrap)
{
    int p = lua_gettop(L);
    dbl_getuservalue(L, p);
    lua_newtable(L);
    int class = lua_gettop(L);
    lua_pushliteral(L, "dblink.ticket");
    lua_pushvalue(L, -1);
    lua_setfield(L, class, "__name");
    lua_setfield(L, class, "__metatable");
    lua_newtable(L);
    lua_pushvalue(L, class);
    lua_pushvalue(L, p);
    dbl_push_small(L);
    lua_pushcclosure(L, ticket_result, 3);
    if (lua_isfunction(L, wrap)) {
        lua_pushvalue(L, wrap);
        lua_insert(L, -2);
        lua_call(L, 1, 1);
    }
    lua_setfield(L, -2, "result");
    lua_setfield(L, class, "__index");
    lua_rawseti(L, p + 1, DBL_PIPELINE_TICKET);
    lua_settop(L, p);
}

/* ---- without tickets ---- */

/* Collects the next answer: -1 where it is in p->lent (row: it may), else pushes it: a result;
 * nil and an error; `false` where Lua must wait; nil where there is none to come. */
static int collect(lua_State *L, Pipeline *p, int row, double deadline, int late)
{
    if (p->owed == 0) {
        lua_pushnil(L);
        return 1;
    }
    unsigned next = dbl_queue_next(p);
    int pushed = row ? wait_for(L, p, 1, next, 1, deadline, late) : 0;
    if (pushed == 0 && row && dbl_queue_read(L, p, 1))
        pushed = -1;
    if (pushed == 0)
        pushed = wait_for(L, p, 1, next, 0, deadline, late);
    if (pushed == 0)
        pushed = dbl_queue_give(L, p, dbl_queue_push(L, 1));
    else if (pushed > 0 && !dbl_pipeline_is_over(p) && PQstatus(p->conn->pg) != CONNECTION_BAD)
        return pushed; /* it can be asked for again */
    dbl_queue_given(p);
    return pushed;
}

/* p:get_result([seconds]); a third argument as of ticket:result. */
static int pipeline_get_result(lua_State *L)
{
    Pipeline *p = dbl_pipeline(L, 1);
    p->row = -1;
    return collect(L, p, 0, dbl_opt_deadline(L, 2), lua_toboolean(L, 3));
}

/* Pushes the next row of the result that is walked. */
static int push_row(lua_State *L, Pipeline *p)
{
    dbl_getuservalue(L, 1);
    lua_rawgeti(L, -1, DBL_PIPELINE_WALK);
    int result = lua_gettop(L), row = p->row;
    Result *r = lua_touserdata(L, result);
    p->row = row + 1 < r->rows ? row + 1 : -1;
    lua_pushinteger(L, p->given);
    dbl_begin_reading(r);
    dbl_push_values(L, r, result, row);
    dbl_end_reading(r);
    return r->columns + 1;
}

/* The result on the top is walked from now on. */
static void walk(lua_State *L, Pipeline *p)
{
    const Result *r = lua_touserdata(L, -1);
    if (r->rows == 0)
        return;
    dbl_getuservalue(L, 1);
    lua_insert(L, -2);
    lua_rawseti(L, -2, DBL_PIPELINE_WALK);
    p->row = 0;
}

/* Pushes the row of p->lent: 0 where it has none. */
static int push_lent_row(lua_State *L, Pipeline *p)
{
    PGresult *res = p->lent;
    int reading = p->reading;
    lua_Integer given = p->given;
    if (p->conn->tells) {
        dbl_getuservalue(L, 1);
        lua_rawgeti(L, -1, DBL_PIPELINE_CONN);
        dbl_tell(L, p->conn, lua_gettop(L));
        lua_pop(L, 2);
    }
    /* none where who heard of a notice has closed the connection */
    int values = PQntuples(res) && !dbl_pipeline_is_over(p) ? 1 + PQnfields(res) : 0;
    if (values) {
        if (values > 10)
            luaL_checkstack(L, values + 8, "too many columns");
        lua_pushinteger(L, given);
        dbl_result_values(L, res, reading);
    }
    PQclear(res);
    p->lent = NULL;
    return values;
}

/* Pushes, of the next row of all that is to be collected, the number of its query, and
 * its values; nil at the end; nil, an error, and the number of what failed. */
static int push_values(lua_State *L, Pipeline *p, double deadline, int late)
{
    int pushed;
    while (p->row < 0) {
        lua_Integer given = p->given;
        if (p->owed && dbl_queue_read(L, p, 1)) { /* the quick way of most */
            dbl_queue_given(p);
            pushed = -1;
        } else {
            lua_settop(L, 1);
            pushed = collect(L, p, 1, deadline, late);
        }
        if (pushed < 0) {
            pushed = push_lent_row(L, p);
            if (pushed > 0)
                return pushed;
        } else if (pushed == 2) {
            lua_pushinteger(L, p->given);
            return p->given != given ? 3 : (lua_pop(L, 1), 2);
        } else if (lua_isuserdata(L, -1)) {
            walk(L, p);
        } else {
            return 1;
        }
    }
    return push_row(L, p);
}

/* p:next_values([seconds]); a third argument as of ticket:result. */
static int pipeline_next_values(lua_State *L)
{
    Pipeline *p = dbl_pipeline(L, 1);
    return push_values(L, p, dbl_opt_deadline(L, 2), lua_toboolean(L, 3));
}

/* The same as a for loop calls it: an error is raised. */
static int pipeline_give_values(lua_State *L)
{
    int n = push_values(L, dbl_pipeline(L, 1), DBL_NEVER, 0);
    if (n > 1 && lua_isnil(L, -n)) {
        lua_pushvalue(L, 1 - n);
        lua_error(L);
    }
    return n;
}

const luaL_Reg dbl_answer_methods[] = {
    {"get_result",  pipeline_get_result },
    {"next_values", pipeline_next_values},
    {"give_values", pipeline_give_values},
    {NULL,          NULL                },
};
