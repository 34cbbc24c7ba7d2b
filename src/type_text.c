/*
 * type_text.c -- text and its kin, json, bytea: strings of Lua; and what stays the
 * server's text.
 */
#include "type.h"

#include <string.h>

int dbl_decode_raw(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    lua_pushlstring(L, s, size);
    return 1;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int octal(const char *s, const char *end)
{
    return end - s >= 3 && s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' &&
           s[2] >= '0' && s[2] <= '7';
}

/* bytea_output is "hex" (\x0102...) or "escape" (\\, \ooo, and bytes): never shorter than the bytes. */
static int bytea_text(lua_State *L, const Type *type, const char *s, size_t size)
{
    const char *end = s + size;
    char small[512], *to = small, *bytes = small;
    int good = 1;
    (void)type;
    *small = '\0';
    if (size > sizeof small)
        to = bytes = lua_newuserdata(L, size);
    if (size >= 2 && s[0] == '\\' && s[1] == 'x') {
        good = size % 2 == 0;
        for (s += 2; s < end && good; s += 2) {
            int high = hex_digit(s[0]), low = hex_digit(s[1]);
            good = (high | low) >= 0;
            *to++ = (char)(high * 16 | low);
        }
    } else {
        while (s < end && good)
            if (*s != '\\') {
                *to++ = *s++;
            } else if (end - s > 1 && s[1] == '\\') {
                *to++ = '\\';
                s += 2;
            } else {
                good = octal(s + 1, end);
                if (good)
                    *to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
                s += 4;
            }
    }
    if (good)
        lua_pushlstring(L, bytes, (size_t)(to - bytes));
    if (bytes != small)
        lua_remove(L, good ? -2 : -1);
    return good;
}

/* One byte; the NUL is nothing, and what is no ASCII is written as the server does (from 15 on). */
static int char_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size != 1)
        return 0;
    unsigned c = (unsigned char)*s;
    const char octal_text[] = {'\\', (char)('0' + (c >> 6)), (char)('0' + (c >> 3 & 7)),
                               (char)('0' + (c & 7))};
    if (c > 127)
        lua_pushlstring(L, octal_text, sizeof octal_text);
    else
        lua_pushlstring(L, s, c ? 1 : 0);
    return 1;
}

/* A version, which is 1, and the text. */
static int jsonb_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    if (size < 1 || *s != 1)
        return 0;
    return dbl_decode_raw(L, type, s + 1, size - 1);
}

const Type dbl_raw_type = {0, 0, "raw", dbl_decode_raw, dbl_decode_raw, 0};

#define RAW  dbl_decode_raw
#define TEXT dbl_decode_raw, dbl_decode_raw, DBL_TEXTUAL
#define ONLY dbl_decode_raw, NULL, 0
#define JSON DBL_TEXTUAL | DBL_JSON_ITSELF

/* clang-format off */
const Type dbl_text_types[] = {
    {17,   1001, "bytea",     bytea_text, RAW, 0},
    {18,   1002, "char",      RAW, char_binary, DBL_TEXTUAL},
    {19,   1003, "name",      TEXT},
    {25,   1009, "text",      TEXT},
    {114,  199,  "json",      RAW, RAW, JSON},
    {142,  143,  "xml",       TEXT},
    {705,  0,    "unknown",   TEXT},
    {1042, 1014, "bpchar",    TEXT},
    {1043, 1015, "varchar",   TEXT},
    {1790, 2201, "refcursor", TEXT},
    {2275, 1263, "cstring",   TEXT},
    {2278, 0,    "void",      TEXT},
    {3802, 3807, "jsonb",     RAW, jsonb_binary, JSON},
    {4072, 4073, "jsonpath",  RAW, jsonb_binary, DBL_TEXTUAL},
    /* in text alone, and arrays of them */
    {22,   1006, "int2vector",    ONLY},
    {24,   1008, "regproc",       ONLY},
    {27,   1010, "tid",           ONLY},
    {28,   1011, "xid",           ONLY},
    {29,   1012, "cid",           ONLY},
    {30,   1013, "oidvector",     ONLY},
    {600,  1017, "point",         ONLY},
    {601,  1018, "lseg",          ONLY},
    {602,  1019, "path",          ONLY},
    {603,  1020, "box",           ONLY},
    {604,  1027, "polygon",       ONLY},
    {628,  629,  "line",          ONLY},
    {718,  719,  "circle",        ONLY},
    {790,  791,  "money",         ONLY},
    {1033, 1034, "aclitem",       ONLY},
    {2202, 2207, "regprocedure",  ONLY},
    {2203, 2208, "regoper",       ONLY},
    {2204, 2209, "regoperator",   ONLY},
    {2205, 2210, "regclass",      ONLY},
    {2206, 2211, "regtype",       ONLY},
    {2249, 2287, "record",        ONLY},
    {2970, 2949, "txid_snapshot", ONLY},
    {3220, 3221, "pg_lsn",        ONLY},
    {3614, 3643, "tsvector",      ONLY},
    {3615, 3645, "tsquery",       ONLY},
    {3642, 3644, "gtsvector",     ONLY},
    {3734, 3735, "regconfig",     ONLY},
    {3769, 3770, "regdictionary", ONLY},
    {3904, 3905, "int4range",     ONLY},
    {3906, 3907, "numrange",      ONLY},
    {3908, 3909, "tsrange",       ONLY},
    {3910, 3911, "tstzrange",     ONLY},
    {3912, 3913, "daterange",     ONLY},
    {3926, 3927, "int8range",     ONLY},
    {4089, 4090, "regnamespace",  ONLY},
    {4096, 4097, "regrole",       ONLY},
    {4191, 4192, "regcollation",  ONLY},
    {4451, 6150, "int4multirange", ONLY},
    {4532, 6151, "nummultirange",  ONLY},
    {4533, 6152, "tsmultirange",   ONLY},
    {4534, 6153, "tstzmultirange", ONLY},
    {4535, 6155, "datemultirange", ONLY},
    {4536, 6157, "int8multirange", ONLY},
    {5038, 5039, "pg_snapshot",   ONLY},
    {5069, 271,  "xid8",          ONLY},
    {0, 0, NULL, NULL, NULL, 0},
};
/* clang-format on */
