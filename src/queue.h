/*
 * queue.h -- the queries of a pipeline that are under way, in their order.
 */
#ifndef DBL_QUEUE_H
#define DBL_QUEUE_H

#include "conn.h"

enum { DBL_PIPELINE_STATEMENTS = 16 };

/* The entries of a pipeline's user value.  RING: by place, tickets, and the answers that
 * wait to be collected; QUEUE: the memory of Pipeline.queue; WALK: the result whose rows
 * are given one by one. */
enum {
    DBL_PIPELINE_CONN = 1,
    DBL_PIPELINE_RING,
    DBL_PIPELINE_QUEUE,
    DBL_PIPELINE_TICKET,
    DBL_PIPELINE_SEEN,
    DBL_PIPELINE_WALK,
    DBL_PIPELINE_SQL,
};

/* A statement of the pipeline's own.  GOOD: its Parse has succeeded; LEARNED: it has
 * given rows, so that their format can be chosen. */
typedef struct Statement {
    char name[48];
    int habit;      /* see dbl_binary_habit */
    unsigned group; /* in which it was prepared */
    enum { DBL_STATEMENT_SENT, DBL_STATEMENT_GOOD, DBL_STATEMENT_LEARNED, DBL_STATEMENT_BAD } state;
} Statement;

/* What a place in the queue is for. */
enum {
    DBL_ODD,    /* a command that nobody asks about */
    DBL_PARSE,  /* of `statement` */
    DBL_TICKET, /* a query with a ticket, which stands in the ring */
    DBL_BARE,   /* one without: its answer is to be collected, and lies with libpq yet */
    DBL_KEPT,   /* its result stands in the ring */
    DBL_FAILED, /* its error does */
};

typedef struct Place {
    unsigned char kind, reading, statement; /* as those of a ticket */
    unsigned weight;                        /* bytes that it took on its way, more or less */
} Place;

typedef struct Pipeline {
    const void *mark; /* by which we know our own */
    Conn *conn;
    Place *queue;
    unsigned turn;        /* of the connection, which is at another when this is over */
    unsigned first, last; /* to be answered next, to be given out next */
    unsigned oldest;      /* to be collected next, if it is a query without a ticket */
    unsigned owed;        /* how many there are to collect */
    unsigned size;        /* of the ring; a power of 2 */
    unsigned asked;       /* the answers before this one the server does not keep back */
    unsigned group;       /* counts the syncs */
    unsigned open;        /* commands since the last sync */
    int inside;           /* the first one's result was here, its end was not */
    int big;              /* DBL_OVER_...: why that result was thrown away */
    int ending;
    double deadline;   /* of the whole */
    size_t unsent;     /* at most so many bytes */
    size_t ahead;      /* the weight of what is not answered */
    size_t room;       /* what a ticket has */
    lua_Integer given; /* how many were collected */
    PGresult *lent;    /* an answer that is being read, or Lua has raised meanwhile: no finalizer
                        * touches it, and it is freed with the pipeline at the latest */
    int reading;       /* how it is read */
    int row;           /* of the result that is walked, the next one to give; -1: none is */
    const char *sql;   /* of the statement that was run last: its number is `known` */
    int known;
    int seen, statements;
    Statement statement[DBL_PIPELINE_STATEMENTS]; /* by number, from 1 */
} Pipeline;

/* The pipeline at that stack index; raises if it is none. */
Pipeline *dbl_pipeline(lua_State *L, int i);
void dbl_pipeline_mark(Pipeline *p);

/* Whether its time is over: it was closed, or the connection was. */
static inline int dbl_pipeline_is_over(const Pipeline *p)
{
    return p->conn->turn != p->turn;
}

/* Whether nobody waits on its connection: else nil and an error are pushed.  Raises where
 * that is closed or a parent's; the pipeline's index is i. */
int dbl_pipeline_is_free(lua_State *L, const Pipeline *p, int i);

/* What is waited for from now on is waited for until then, or the deadline of the whole. */
void dbl_pipeline_deadline(Pipeline *p, double deadline);

/* Pushes the user value of the pipeline at that index, and the ring; below, `own` is the
 * stack index of the former, with the latter behind it. */
int dbl_queue_push(lua_State *L, int pipeline);

/* Makes room for two, so that nothing can raise between a query and its place.  i: the
 * pipeline's index. */
void dbl_queue_reserve(lua_State *L, Pipeline *p, int i);

/* Puts what was sent behind the others; the ticket on the top before. */
void dbl_queue_put(Pipeline *p, int kind, int reading, int statement, size_t weight);
void dbl_queue_put_ticket(lua_State *L, const Pipeline *p, int own);

/* Asks the server not to keep back the answers to what was sent. */
int dbl_queue_ask(Pipeline *p);

/* Takes the answers that have arrived to their tickets, and makes those that are to be
 * collected and stand before `end`; the others stay with libpq: whether one has arrived. */
int dbl_queue_take(lua_State *L, Pipeline *p, int own, unsigned end);

/* Takes the answer to the next query into p->lent if it is the next one to be collected, has
 * arrived, and can be read as it is: it has one row or none, and needs nothing but our
 * decoders.  0 where not; what is there may have been taken in the usual way then. */
int dbl_queue_read(lua_State *L, Pipeline *p, int i);

/* Whether the command of that number is answered. */
static inline int dbl_queue_has(const Pipeline *p, unsigned number)
{
    int ahead = (int)(number - p->first);
    return ahead < 0 || (ahead == 0 && p->inside);
}

/* The next one to collect, of those that are owed. */
unsigned dbl_queue_next(Pipeline *p);

/* It was: pushes what the ring has for it, as a result, or as nil and an error. */
int dbl_queue_give(lua_State *L, Pipeline *p, int own);
void dbl_queue_given(Pipeline *p);

/* Sends what the socket takes, reads what is there. */
void dbl_queue_work(lua_State *L, Pipeline *p, int own, int all);

/* Whether one more may be sent; waits in place until it may: 0 where Lua has to. */
int dbl_queue_has_room(const Pipeline *p);
int dbl_queue_make_room(lua_State *L, Pipeline *p, int i);

/* Waits in place for whatever is driven at: 0 where Lua has to. */
int dbl_queue_settle(lua_State *L, const Pipeline *p, int own);

#endif
