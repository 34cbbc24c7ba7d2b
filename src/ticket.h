/*
 * ticket.h -- a query of a pipeline, and then what it gave.
 *
 * A ticket is memory in which a result like the last one has room.  Mostly its own
 * fits and is made in there; asked for its result, the ticket becomes it.  To make
 * two things instead would cost half of what libpq needs for the whole query.
 */
#ifndef DBL_TICKET_H
#define DBL_TICKET_H

#include "conn.h"
#include "result.h"

/* Result.status of a ticket that is no result yet: its answer is to come, or the user
 * value is an error, or has a result.  Until then Result.rows is the ticket's number in
 * its pipeline, and Result.columns that of its statement. */
enum { DBL_TICKET_PENDING = 255, DBL_TICKET_FAILED = 254, DBL_TICKET_APART = 253 };

/* A new one of that size, on the top, yet without its metatable. */
void dbl_ticket_push(lua_State *L, size_t size, int reading, unsigned number, int statement);

/* c->kept, or why it was thrown away (over: DBL_OVER_...), is the answer to the ticket
 * at that stack index; conn: its connection's.  room: what the next ticket should have. */
void dbl_ticket_answer(lua_State *L, Conn *c, int conn, int ticket, int over, size_t *room);

/* Pushes c->kept as dbl_push_kept does, whatever the connection itself is about, or why it
 * was thrown away: how many values. */
int dbl_push_answer(lua_State *L, Conn *c, int conn, int reading, int over);

/* Pushes what the answered ticket gives: how many values.  small: the stack index of the
 * metatable that it then has if it is the result itself. */
int dbl_ticket_give(lua_State *L, int ticket, int small);

#endif
