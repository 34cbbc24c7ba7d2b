/*
 * type.h -- what a value type is: an OID and its decoders.
 *
 * Each family of types is a room of its own (type_number.c ...) with a table
 * of rows; type.c finds a row by its OID.
 */
#ifndef DBL_TYPE_H
#define DBL_TYPE_H

#include "compat.h"
#include "pq.h"

typedef struct Type Type;

/* Pushes the value of size bytes at s, which a hostile server may have made:
 * every length is checked.  1, or 0 and nothing pushed where the bytes are no
 * value of the type.  In text there is a byte at s[size] that is no part of any
 * value: a NUL, or what ends an element of an array; in binary there is not. */
typedef int Decoder(lua_State *L, const Type *type, const char *s, size_t size);

/* What is to be known of a type besides. */
enum {
    /* its binary decoder gives the very string that text has */
    DBL_TEXTUAL = 1,
    /* what the text looks like depends on a setting of the session; the binary
     * decoder writes it as under ISO, UTC and postgres */
    DBL_BY_DATESTYLE = 2,
    DBL_BY_TIMEZONE = 4,
    DBL_BY_INTERVALSTYLE = 8,
    /* what its text is in JSON; else a string */
    DBL_JSON_NUMBER = 16,
    DBL_JSON_BOOL = 32,
    DBL_JSON_ITSELF = 64,
    /* a timestamp, with a zone or without */
    DBL_MOMENT = 128,
};

struct Type {
    Oid oid;
    Oid array; /* the OID of its array type, or 0 */
    const char *name;
    Decoder *text;
    Decoder *binary; /* NULL: ask for it in text */
    int traits;
};

/* Tables of types, each ended by an OID of 0. */
extern const Type dbl_number_types[];
extern const Type dbl_text_types[];
extern const Type dbl_time_types[];
extern const Type dbl_net_types[];

/* The type with that OID, or that of the elements of the array type with that
 * OID (*array tells); what nobody knows is text. */
const Type *dbl_type(Oid oid, int *array);

/* The type of that name, as pg_type has it ("int4", "timestamptz"), or NULL; with
 * "[]" behind it, it is an array of them. */
const Type *dbl_type_named(const char *name, int *array);

/* Whether the text of such types in the session is as their binary decoders
 * write it; traits: those of all types that matter, or -1 for any. */
int dbl_type_settled(const PGconn *pg, int traits);

/* Every value as the server's text (or its bytes, in binary). */
extern const Type dbl_raw_type;

/* numeric as a number of Lua. */
extern const Type dbl_inexact_type;

/* timestamp and timestamptz as seconds since 1970; and the same as a function of Lua,
 * which a codec names: core.epoch(text). */
extern const Type dbl_epoch_type;
int dbl_epoch(lua_State *L);

Decoder dbl_decode_raw;

/* What some decoders push, without a lua_State: the number (of a bool 1 or 0).  0 where the
 * bytes are none, and where a double does not hold it. */
typedef int (*Reader)(const char *s, size_t size, double *number);

/* That of a decoder, or NULL. */
Reader dbl_reader(Decoder *decode);

/* An array of elements of the type, in text and in binary: a table with n, in
 * which dblink.null stands for NULL. */
Decoder dbl_array_text;
Decoder dbl_array_binary;

/* An array is walked once; what becomes of it is the sink's business.  A walk
 * calls them in good order whatever the bytes are, and gives 0 where they are no
 * array, or where element() gave 0.  It may have pushed one value meanwhile, on
 * which nothing may be pushed that stays. */
typedef struct Sink Sink;
struct Sink {
    lua_State *L;
    const Type *type;                                              /* of the elements */
    void (*open)(Sink *, int depth, size_t count);                 /* count: a guess */
    int (*element)(Sink *, int depth, const char *s, size_t size); /* s NULL: a NULL */
    void (*close)(Sink *, int depth);
};
enum { DBL_ARRAY_DEPTH = 6 }; /* depths are 1 to 6, which is PostgreSQL's limit */
int dbl_walk_text(Sink *sink, const char *s, size_t size);
int dbl_walk_binary(Sink *sink, const char *s, size_t size);

/* Numbers of the wire, in network order. */
static inline unsigned dbl_get16(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    return (unsigned)u[0] << 8 | u[1];
}

static inline unsigned dbl_get32(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    return (unsigned)u[0] << 24 | (unsigned)u[1] << 16 | (unsigned)u[2] << 8 | u[3];
}

static inline unsigned long long dbl_get64(const char *s)
{
    return (unsigned long long)dbl_get32(s) << 32 | dbl_get32(s + 4);
}

#endif
