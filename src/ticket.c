/*
 * ticket.c -- a query of a pipeline, and then what it gave.
 */
#include "ticket.h"

#include "fail.h"
#include "receive.h"

enum { MOST_ROOM = 512 };

void dbl_ticket_push(lua_State *L, size_t size, int reading, unsigned number, int statement)
{
    Result *t = dbl_newuserdata(L, size);
    t->mark = NULL;
    t->status = DBL_TICKET_PENDING;
    t->reading = (unsigned char)reading;
    t->rows = (int)number;
    t->columns = statement;
}

/* Makes the result in c->kept in the ticket's own memory: 0 where it has no room. */
static int make_inside(lua_State *L, const Conn *c, int ticket, size_t *room)
{
    Result *t = lua_touserdata(L, ticket);
    ExecStatusType status = PQresultStatus(c->kept);
    if ((status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) ||
        t->reading & (DBL_READ_NULL | DBL_READ_CODECS))
        return 0;
    size_t size = dbl_result_size(c->kept);
    if (size > *room && size <= MOST_ROOM)
        *room = size;
    if (size == 0 || size > dbl_rawlen(L, ticket))
        return 0;
    dbl_result_make(L, t, c->kept, t->reading);
    return 1;
}

int dbl_push_answer(lua_State *L, Conn *c, int conn, int reading, int over)
{
    if (over && PQresultStatus(c->kept) == PGRES_TUPLES_OK) {
        c->over = (unsigned char)over;
        dbl_fail_stopped(L, c);
        c->over = 0;
        return 2;
    }
    double deadline = c->deadline; /* of who waits for another one */
    c->reading = (unsigned char)reading;
    c->own_null = 0;
    int values = dbl_push_kept(L, c, conn);
    c->deadline = deadline;
    return values;
}

void dbl_ticket_answer(lua_State *L, Conn *c, int conn, int ticket, int over, size_t *room)
{
    Result *t = lua_touserdata(L, ticket);
    if (!over && make_inside(L, c, ticket, room)) {
        dbl_tell(L, c, conn);
        return;
    }
    int values = dbl_push_answer(L, c, conn, t->reading, over);
    if (values == 1) {
        lua_createtable(L, 1, 0);
        lua_insert(L, -2);
        lua_rawseti(L, -2, 1);
    }
    dbl_setuservalue(L, ticket);
    t->status = values == 1 ? DBL_TICKET_APART : DBL_TICKET_FAILED;
}

int dbl_ticket_give(lua_State *L, int ticket, int small)
{
    const Result *t = lua_touserdata(L, ticket);
    switch (t->status) {
    case DBL_TICKET_FAILED:
        lua_pushnil(L);
        dbl_getuservalue(L, ticket);
        return 2;
    case DBL_TICKET_APART:
        dbl_getuservalue(L, ticket);
        lua_rawgeti(L, -1, 1);
        return 1;
    default:
        lua_pushvalue(L, small);
        lua_setmetatable(L, ticket);
        lua_pushvalue(L, ticket);
        return 1;
    }
}
