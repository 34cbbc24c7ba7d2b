/*
 * type_number.c -- bool, int2, int4, int8, oid, float4, float8, numeric.
 *
 * int8 is exact on every Lua, see dbl_pushint8.  numeric stays the decimal
 * string that the server would print, of any length and scale.  A float4 is the
 * number that it is, not the one its digits would be as a float8.
 */
#include "type.h"

#include <limits.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

static int bool_text(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size != 1 || (*s != 't' && *s != 'f'))
        return 0;
    lua_pushboolean(L, *s == 't');
    return 1;
}

static int bool_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size != 1)
        return 0;
    lua_pushboolean(L, *s != 0);
    return 1;
}

static int read_int(const char *s, size_t size, long long *value)
{
    const char *end = s + size;
    unsigned long long n = 0;
    int negative = size > 0 && *s == '-';
    s += negative;
    if (s == end || end - s > 19)
        return 0;
    for (; s < end; s++) {
        unsigned digit = (unsigned char)*s - (unsigned)'0';
        if (digit > 9)
            return 0;
        n = n * 10 + digit;
    }
    if (n > (unsigned long long)LLONG_MAX + (unsigned)negative)
        return 0;
    *value = negative ? (long long)-n : (long long)n;
    return 1;
}

static int int_text(lua_State *L, const Type *type, const char *s, size_t size)
{
    long long value;
    (void)type;
    if (!read_int(s, size, &value))
        return 0;
    dbl_pushint8(L, value);
    return 1;
}

static int int2_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size != 2)
        return 0;
    lua_pushinteger(L, (short)dbl_get16(s));
    return 1;
}

static int int4_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size != 4)
        return 0;
    lua_pushinteger(L, (int)dbl_get32(s));
    return 1;
}

static int oid_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size != 4)
        return 0;
    dbl_pushint8(L, dbl_get32(s));
    return 1;
}

static int int8_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size != 8)
        return 0;
    dbl_pushint8(L, (long long)dbl_get64(s));
    return 1;
}

/* Digits, a point and a small exponent make an exact product of two doubles,
 * which is the right double; 0 where that is not so. */
static int quick_double(const char *s, const char *end, double *value)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8, 1e9,
                                    1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18};
    unsigned long long n = 0;
    int negative = s < end && *s == '-', digits = 0, point = 0, scale = 0;
    for (s += negative; s < end; s++) {
        unsigned digit = (unsigned char)*s - (unsigned)'0';
        if (digit <= 9) {
            n = n * 10 + digit;
            digits++;
            scale += point;
        } else if (*s == '.' && !point) {
            point = 1;
        } else {
            return 0;
        }
    }
    if (digits == 0 || digits > 18 || n > 1ULL << 53)
        return 0;
    *value = (double)n / powers[scale];
    if (negative)
        *value = -*value;
    return 1;
}

/* strtod heeds the locale, which is the host's to choose; this thread has another meanwhile.
 * It stops at s[size] (see Decoder) at the latest. */
static int slow_double(const char *s, size_t size, double *value)
{
    char *end;
    if (size == 0 || strspn(s, "+-.0123456789eEINFinftyaN") < size)
        return 0;
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0), was = uselocale(c);
    *value = strtod(s, &end);
    uselocale(was);
    freelocale(c);
    return end == s + size;
}

static int read_double(const char *s, size_t size, double *value)
{
    return quick_double(s, s + size, value) || slow_double(s, size, value);
}

static int read_float4(const char *s, size_t size, double *value)
{
    unsigned bits = size == 4 ? dbl_get32(s) : 0;
    float number;
    memcpy(&number, &bits, 4);
    *value = number;
    return size == 4;
}

static int read_float8(const char *s, size_t size, double *value)
{
    unsigned long long bits = size == 8 ? dbl_get64(s) : 0;
    memcpy(value, &bits, 8);
    return size == 8;
}

static inline int push_float(lua_State *L, Reader read, const char *s, size_t size)
{
    double value;
    if (!read(s, size, &value))
        return 0;
    lua_pushnumber(L, value);
    return 1;
}

static int float_text(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    return push_float(L, read_double, s, size);
}

static int float4_text(lua_State *L, const Type *type, const char *s, size_t size)
{
    if (!float_text(L, type, s, size))
        return 0;
    lua_pushnumber(L, (float)lua_tonumber(L, -1));
    lua_replace(L, -2);
    return 1;
}

static int float4_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    return push_float(L, read_float4, s, size);
}

static int float8_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    return push_float(L, read_float8, s, size);
}

/* The same without a lua_State: the number, where a double holds it. */

static int exactly(long long value, double *number)
{
    *number = (double)value;
    return value >= -DBL_EXACT && value <= DBL_EXACT;
}

static int number_of_int(const char *s, size_t size, double *number)
{
    long long value;
    return read_int(s, size, &value) && exactly(value, number);
}

static int number_of_int2(const char *s, size_t size, double *number)
{
    *number = size == 2 ? (short)dbl_get16(s) : 0;
    return size == 2;
}

static int number_of_int4(const char *s, size_t size, double *number)
{
    *number = size == 4 ? (int)dbl_get32(s) : 0;
    return size == 4;
}

static int number_of_int8(const char *s, size_t size, double *number)
{
    return size == 8 && exactly((long long)dbl_get64(s), number);
}

static int number_of_bool(const char *s, size_t size, double *number)
{
    *number = *s == 't';
    return size == 1 && (*s == 't' || *s == 'f');
}

static int number_of_byte(const char *s, size_t size, double *number)
{
    *number = *s != 0;
    return size == 1;
}

Reader dbl_reader(Decoder *decode)
{
    static const struct {
        Decoder *decode;
        Reader read;
    } readers[] = {
        {int_text,      number_of_int },
        {int2_binary,   number_of_int2},
        {int4_binary,   number_of_int4},
        {int8_binary,   number_of_int8},
        {float_text,    read_double   },
        {float4_binary, read_float4   },
        {float8_binary, read_float8   },
        {bool_text,     number_of_bool},
        {bool_binary,   number_of_byte},
    };
    for (unsigned i = 0; i < sizeof readers / sizeof readers[0]; i++)
        if (readers[i].decode == decode)
            return readers[i].read;
    return NULL;
}

/* The four decimal digits of group i; groups that were not sent are zero. */
static void put_group(char four[4], const char *digits, int i, int count)
{
    unsigned d = i >= 0 && i < count ? dbl_get16(digits + 2 * i) : 0;
    for (int k = 3; k >= 0; k--, d /= 10)
        four[k] = (char)('0' + d % 10);
}

/* ndigits, weight, sign, scale; then digits to the base of 10,000, the first
 * of which counts 10000^weight. */
static int numeric_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size < 8)
        return 0;
    int count = (short)dbl_get16(s), weight = (short)dbl_get16(s + 2);
    unsigned sign = dbl_get16(s + 4);
    int scale = (short)dbl_get16(s + 6);
    const char *digits = s + 8;
    switch (sign) {
    case 0xC000:
        lua_pushliteral(L, "NaN");
        return 1;
    case 0xD000:
        lua_pushliteral(L, "Infinity");
        return 1;
    case 0xF000:
        lua_pushliteral(L, "-Infinity");
        return 1;
    case 0x0000:
    case 0x4000:
        break;
    default:
        return 0;
    }
    if (count < 0 || scale < 0 || scale > 0x3fff || size != 8 + 2 * (size_t)count)
        return 0;

    for (int i = 0; i < count; i++)
        if (dbl_get16(digits + 2 * i) > 9999)
            return 0;

    /* what it takes at most, with a sign and a point */
    char small[256], *to = small, *text = small, four[4];
    size_t most = 4 * (size_t)(weight < 0 ? 1 : weight + 1) + (size_t)scale + 8;
    if (most > sizeof small)
        to = text = lua_newuserdata(L, most);
    if (sign == 0x4000)
        *to++ = '-';
    char *whole = to;
    for (int i = 0; i <= weight; i++) {
        put_group(four, digits, i, count);
        for (int k = 0; k < 4; k++)
            if (to > whole || four[k] != '0')
                *to++ = four[k];
    }
    if (to == whole)
        *to++ = '0';
    if (scale > 0)
        *to++ = '.';
    for (int i = weight + 1; scale > 0; i++, scale -= 4, to += 4) {
        put_group(four, digits, i, count);
        memcpy(to, four, 4);
    }
    lua_pushlstring(L, text, (size_t)(to - text) - (size_t)(scale < 0 ? -scale : 0));
    if (text != small)
        lua_remove(L, -2);
    return 1;
}

/* numeric = "number". */

static int inexact_text(lua_State *L, const Type *type, const char *s, size_t size)
{
    return float_text(L, type, s, size);
}

static int inexact_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    size_t length;
    double value = 0;
    if (!numeric_binary(L, type, s, size))
        return 0;
    const char *text = lua_tolstring(L, -1, &length);
    read_double(text, length, &value);
    lua_pop(L, 1);
    lua_pushnumber(L, value);
    return 1;
}

#define NUMBER DBL_JSON_NUMBER
#define EXACT  (DBL_JSON_NUMBER | DBL_TEXTUAL)

const Type dbl_inexact_type = {1700, 1231, "numeric", inexact_text, inexact_binary, NUMBER};

const Type dbl_number_types[] = {
    {16,   1000, "bool",    bool_text,      bool_binary,    DBL_JSON_BOOL},
    {20,   1016, "int8",    int_text,       int8_binary,    NUMBER       },
    {21,   1005, "int2",    int_text,       int2_binary,    NUMBER       },
    {23,   1007, "int4",    int_text,       int4_binary,    NUMBER       },
    {26,   1028, "oid",     int_text,       oid_binary,     NUMBER       },
    {700,  1021, "float4",  float4_text,    float4_binary,  NUMBER       },
    {701,  1022, "float8",  float_text,     float8_binary,  NUMBER       },
    {1700, 1231, "numeric", dbl_decode_raw, numeric_binary, EXACT        },
    {0,    0,    NULL,      NULL,           NULL,           0            },
};
