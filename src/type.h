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
 * value of the type.  In text there is a NUL at s[size]; in binary there is not. */
typedef int Decoder(lua_State *L, const Type *type, const char *s, size_t size);

struct Type {
    Oid oid;
    Oid array; /* the OID of its array type, or 0 */
    const char *name;
    Decoder *text;
    Decoder *binary; /* NULL: ask for it in text */
};

/* Tables of types, each ended by an OID of 0. */
extern const Type dbl_number_types[];
extern const Type dbl_text_types[];

/* The type with that OID; what nobody knows is text. */
const Type *dbl_type(Oid oid);

/* The type of that name, as pg_type has it ("int4", "timestamptz"), or NULL. */
const Type *dbl_type_named(const char *name);

/* Every value as the server's text (or its bytes, in binary). */
extern const Type dbl_raw_type;

Decoder dbl_decode_raw;

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
