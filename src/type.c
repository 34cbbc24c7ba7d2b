/*
 * type.c -- finding a type by its OID or its name.
 */
#include "type.h"

#include <string.h>

static const Type *const families[] = {dbl_number_types, dbl_text_types};

/* Neither known nor askable in binary: text. */
static const Type unknown = {0, 0, "unknown", dbl_decode_raw, NULL};

const Type *dbl_type(Oid oid)
{
    for (unsigned i = 0; i < sizeof families / sizeof families[0]; i++)
        for (const Type *t = families[i]; t->oid; t++)
            if (t->oid == oid)
                return t;
    return &unknown;
}

const Type *dbl_type_named(const char *name)
{
    for (unsigned i = 0; i < sizeof families / sizeof families[0]; i++)
        for (const Type *t = families[i]; t->oid; t++)
            if (strcmp(t->name, name) == 0)
                return t;
    return NULL;
}
