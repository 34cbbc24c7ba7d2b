/*
 * param.h -- Lua arguments into the arrays that libpq wants.
 *
 * Types are left to the server (OID 0), values are never put into SQL.
 */
#ifndef DBL_PARAM_H
#define DBL_PARAM_H

#include "compat.h"
#include "digits.h"
#include "pq.h"

enum { DBL_MOST_PARAMS = 65535, DBL_FEW_PARAMS = 8 };

/* What a parameter takes in the arrays, and its digits if it is a number. */
#define DBL_PARAM_ROOM (sizeof(const char *) + 2 * sizeof(int) + sizeof(Oid) + DBL_DIGITS)

typedef struct Params {
    int count;
    const char *const *values;
    const int *lengths;
    const int *formats;
    const Oid *types; /* NULL: the server infers all of them */
    union {
        const char *aligned;
        char bytes[DBL_FEW_PARAMS * DBL_PARAM_ROOM];
    } room; /* of a few of them */
} Params;

/* Reads count values from stack index first on, or, as a list, out of the table there.
 * May push a scratch value, which must stay on the stack while the arrays are used;
 * the values themselves must stay where they are.  Raises where a value can be no
 * parameter, naming it by its position. */
void dbl_params(lua_State *L, int first, int count, int list, Params *p);

/* Makes the value at i a plain one, string, number, boolean or nil: a marked value
 * becomes its string, dblink.null and its like become nil.  1 where the string is the
 * bytes of a bytea, else 0.  type, if there: where the OID of a mark's type goes.
 * Raises for what cannot be sent, as "what position: ...". */
int dbl_param_plain(lua_State *L, int i, const char *what, int position, Oid *type);

#endif
