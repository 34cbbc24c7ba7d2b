/*
 * queue.h -- the queries of a pipeline that are under way, in their order.
 */
#ifndef DBL_QUEUE_H
#define DBL_QUEUE_H

#include "conn.h"

enum { DBL_PIPELINE_STATEMENTS = 16 };

/* The entries of a pipeline's user value. */
enum { DBL_PIPELINE_CONN = 1, DBL_PIPELINE_RING, DBL_PIPELINE_TICKET, DBL_PIPELINE_SEEN };

/* A statement of the pipeline's own.  GOOD: its Parse has succeeded; LEARNED: it has
 * given rows, so that their format can be chosen. */
typedef struct Statement {
    char name[48];
    int habit;      /* see dbl_binary_habit */
    unsigned group; /* in which it was prepared */
    enum { DBL_STATEMENT_SENT, DBL_STATEMENT_GOOD, DBL_STATEMENT_LEARNED, DBL_STATEMENT_BAD } state;
} Statement;

typedef struct Pipeline {
    const void *mark; /* by which pipeline.c knows its own */
    Conn *conn;
    unsigned turn;        /* of the connection, which is at another when this is over */
    unsigned first, last; /* to be answered next, to be given out next */
    unsigned size;        /* of the ring; a power of 2 */
    unsigned asked;       /* the answers before this one the server does not keep back */
    unsigned group;       /* counts the syncs */
    unsigned open;        /* commands since the last sync */
    int inside;           /* the first one's result was here, its end was not */
    int big;              /* DBL_OVER_...: why that result was thrown away */
    int ending;
    double deadline; /* of the whole */
    size_t unsent;   /* at most so many bytes */
    size_t room;     /* what a ticket has */
    int seen, statements;
    Statement statement[DBL_PIPELINE_STATEMENTS]; /* by number, from 1 */
} Pipeline;

/* Pushes the user value of the pipeline at that index, and the ring; below, `own` is the
 * stack index of the former, with the latter behind it. */
int dbl_queue_push(lua_State *L, int pipeline);

/* Makes room for two, so that nothing can raise between a query and its ticket. */
void dbl_queue_reserve(lua_State *L, Pipeline *p, int own);

/* Puts the value on the top behind the others: a ticket, or the number of a statement
 * whose Parse this is; 0 for a command that nobody asks about. */
void dbl_queue_put(lua_State *L, Pipeline *p, int own);

/* Asks the server not to keep back the answers to what was sent. */
int dbl_queue_ask(Pipeline *p);

/* Takes the answers that have arrived to their tickets. */
void dbl_queue_take(lua_State *L, Pipeline *p, int own);

/* Sends what the socket takes, reads what is there. */
void dbl_queue_work(lua_State *L, Pipeline *p, int own);

/* Waits in place until one more may be sent: 0 where Lua has to. */
int dbl_queue_make_room(lua_State *L, Pipeline *p, int own);

/* Waits in place for whatever is driven at: 0 where Lua has to. */
int dbl_queue_settle(lua_State *L, const Pipeline *p, int own);

#endif
