/*
 * type.c -- finding a type by its OID, or by its name.
 *
 * The rooms of types have tables; an index over them is made once in a process
 * and never changes.  Each column of each result asks it.
 */
#include "type.h"

#include <pthread.h>
#include <string.h>

static const Type *const families[] = {dbl_number_types, dbl_text_types, dbl_time_types,
                                       dbl_net_types};
enum { FAMILIES = sizeof families / sizeof families[0] };

/* Neither known nor askable in binary: text. */
static const Type unknown = {0, 0, "unknown", dbl_decode_raw, NULL, 0};

/* By OID, of a type or of its array; more than twice the places that are taken. */
enum { PLACES = 512 };
static struct Place {
    Oid oid;
    const Type *type;
} places[PLACES];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static struct Place *find(Oid oid)
{
    unsigned i = oid * 2654435769u >> 23; /* the upper 9 bits */
    while (places[i].oid && places[i].oid != oid)
        i = (i + 1) % PLACES;
    return &places[i];
}

static void enter(Oid oid, const Type *type)
{
    if (oid)
        *find(oid) = (struct Place){oid, type};
}

static void make_index(void)
{
    for (int i = 0; i < FAMILIES; i++)
        for (const Type *t = families[i]; t->oid; t++) {
            enter(t->oid, t);
            enter(t->array, t);
        }
}

const Type *dbl_type(Oid oid, int *array)
{
    pthread_once(&once, make_index);
    const Type *t = find(oid)->type;
    if (!t)
        t = &unknown;
    *array = t->oid != oid && t->oid != 0;
    return t;
}

const Type *dbl_type_named(const char *name, int *array)
{
    size_t size = strlen(name);
    *array = size > 2 && strcmp(name + size - 2, "[]") == 0;
    size -= *array ? 2 : 0;
    for (int i = 0; i < FAMILIES; i++)
        for (const Type *t = families[i]; t->oid; t++)
            if (strncmp(t->name, name, size) == 0 && !t->name[size])
                return t;
    return NULL;
}

static int setting_is(const PGconn *pg, const char *name, const char *const values[])
{
    const char *value = PQparameterStatus(pg, name);
    if (value)
        for (; *values; values++)
            if (strncmp(value, *values, strlen(*values)) == 0)
                return value[strlen(*values)] == '\0' || value[strlen(*values)] == ',';
    return 0;
}

int dbl_type_settled(const PGconn *pg, int traits)
{
    static const char *const iso[] = {"ISO", NULL}, *const postgres[] = {"postgres", NULL},
                             *const utc[] = {"UTC", "Etc/UTC", "GMT",  "Etc/GMT",
                                             "UCT", "Etc/UCT", "Zulu", NULL};
    return !((traits & DBL_BY_DATESTYLE && !setting_is(pg, "DateStyle", iso)) ||
             (traits & DBL_BY_TIMEZONE && !setting_is(pg, "TimeZone", utc)) ||
             (traits & DBL_BY_INTERVALSTYLE && !setting_is(pg, "IntervalStyle", postgres)));
}
