/*
 * result.h -- what a query gave: rows, columns and a status, owned by Lua.
 *
 * A small result is copied into its userdata and libpq's is freed at once: it
 * then needs no finalizer, which would cost more than all the rest of a short
 * query.  A large one keeps its PGresult until it is collected or cleared.
 * Other rooms see no difference: they ask dbl_cell.
 */
#ifndef DBL_RESULT_H
#define DBL_RESULT_H

#include "collector.h"
#include "compat.h"
#include "pq.h"
#include "type.h"

/* How the values of a result are read; bits of Result.reading. */
enum {
    DBL_READ_RAW = 1,     /* decode = false */
    DBL_READ_NULL = 2,    /* the user value has a `null` for NULL */
    DBL_READ_CODECS = 4,  /* the user value has `codecs` by OID */
    DBL_READ_ARRAYS = 8,  /* rows are arrays unless asked otherwise */
    DBL_READ_NUMBER = 16, /* numeric as a number */
};

/* For dbl_result_pieces alone. */
#define DBL_READ_PIECES 128

typedef struct Column {
    const char *name;
    const Type *type; /* of the values, or of the elements of arrays */
    Decoder *decode;  /* dbl_unreadable where they cannot be read */
    Oid oid, table;
    int modifier, size, number; /* number: the column's in its table, or 0 */
    unsigned char binary, array;
    unsigned char codec; /* what decode gives goes through [column + 1] of the user value */
} Column;

typedef struct Cell {
    const char *value; /* NULL for an SQL NULL */
    int size;
} Cell;

typedef struct Result {
    const void *mark;      /* by which we know our own */
    PGresult *pg;          /* NULL: small, or cleared */
    Outside *outside;      /* where its memory is counted */
    PGresult *description; /* of one that comes in pieces: has the columns' names */
    int rows, columns;
    unsigned char status; /* ExecStatusType */
    unsigned char reading;
    unsigned char cleared;
    unsigned char
        lent; /* a function of a codec runs, and others of its values are still to be read */
    unsigned char distinct; /* the columns' names, as dbl_push_names found */
    unsigned short readers; /* see dbl_begin_reading */
    const char *command;
    const Cell *cells; /* of a small one */
    Column column[];
} Result;

/* Makes a result of *pg and leaves it on the stack.  *pg, which lies in a box of
 * its own meanwhile, is taken (and NULL afterwards).  uservalue: the stack index
 * of the table with `null` and `codecs`, used where reading says so, or 0. */
Result *dbl_result_push(lua_State *L, PGresult **pg, int reading, int uservalue);

/* Raises where a result is not what it was before Lua was called: finalizers can use the
 * connection to which it belongs. */
void dbl_result_check(lua_State *L, const PGresult *was, const PGresult *is);

/* Moves *pg into a box that is left on the stack, and tells where it lies there: what Lua
 * calls meanwhile, finalizers among it, may use the connection.  The caller clears it. */
PGresult **dbl_result_hold(lua_State *L, PGresult **pg);

/* A result in memory that is there already: how much a result takes, 0 where it is not
 * small; then makes it there.  dbl_push_small gives the metatable it needs. */
size_t dbl_result_size(PGresult *pg);
void dbl_result_make(lua_State *L, Result *r, PGresult *pg, int reading);
void dbl_push_small(lua_State *L);

/* Pushes the values of the one row of *pg, without a result; no codecs and no `null`. */
void dbl_result_values(lua_State *L, const PGresult *pg, int reading);

/* The decoder of columns whose type cannot be read in binary: 0, always. */
Decoder dbl_unreadable;

/* Raises the error of a value in this column that cannot be read. */
DBL_COLD int dbl_column_error(lua_State *L, const Column *c);

/* Whether its values are the bytes that came, or what a Reader makes of them. */
int dbl_is_plain(const Column *c);

/* True in the registry where results of such columns alone are read by themselves (sheet.c). */
#define DBL_SHEETS "dblink.sheets"

/* Whether all columns of a description (a result, of PQsendDescribePrepared say) can be
 * had in binary, and are not better had in text: the traits of their types, which
 * dbl_type_settled takes, or -1 if not.  reading and uservalue: those of the results to come. */
int dbl_binary_traits(lua_State *L, const PGresult *description, int reading, int uservalue);

/* Likewise, for rows that come in pieces: *pg has the columns, and no rows.  Then
 * the pieces one after the other, each of which it takes. */
Result *dbl_result_pieces(lua_State *L, PGresult **pg, int reading, int uservalue);
static inline void dbl_result_next(Result *r, PGresult *pg)
{
    if (r->pg)
        PQclear(r->pg);
    r->pg = pg;
    r->rows = pg ? PQntuples(pg) : 0;
}

/* Between the two Lua may be called though names and values are still to be read: a finalizer
 * that clears the result, or closes the stream whose row it is, leaves its memory to the
 * collector.  (Where Lua raises in between, that stays so.) */
static inline void dbl_begin_reading(Result *r)
{
    r->readers++;
}
static inline void dbl_end_reading(Result *r)
{
    r->readers--;
}

/* The result at stack index i; raises where it is none or was cleared. */
Result *dbl_result(lua_State *L, int i);

static inline Cell dbl_cell(const Result *r, int row, int column)
{
    if (r->pg) {
        Cell cell = {PQgetvalue(r->pg, row, column), PQgetlength(r->pg, row, column)};
        if (cell.size == 0 && PQgetisnull(r->pg, row, column))
            cell.value = NULL;
        return cell;
    }
    return r->cells[(size_t)row * (size_t)r->columns + (size_t)column];
}

/* The names of libpq's statuses, as res.status has them. */
const char *dbl_status_name(int status);

extern const luaL_Reg dbl_result_functions[];

/* The metatables, left on the stack, that a result may have: with and without
 * a finalizer.  row.c adds what reads rows to both. */
void dbl_result_open(lua_State *L);
void dbl_result_metatables(lua_State *L);

#endif
