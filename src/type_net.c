/*
 * type_net.c -- inet, cidr, macaddr, macaddr8, uuid, bit strings: bytes that have
 * a spelling.
 *
 * They are the strings that the server prints; from binary the string is made here.
 */
#include "type.h"

#include <stdio.h>
#include <string.h>

static const char hex[] = "0123456789abcdef";

static char *put_byte(char *to, unsigned char byte)
{
    to[0] = hex[byte >> 4];
    to[1] = hex[byte & 15];
    return to + 2;
}

static int uuid_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    char text[36], *to = text;
    (void)type;
    if (size != 16)
        return 0;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        to = put_byte(to, (unsigned char)s[i]);
    }
    lua_pushlstring(L, text, sizeof text);
    return 1;
}

/* 6 bytes, or 8. */
static int mac_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    char text[24], *to = text;
    if (size != (type->oid == 829 ? 6 : 8))
        return 0;
    for (size_t i = 0; i < size; i++) {
        if (i > 0)
            *to++ = ':';
        to = put_byte(to, (unsigned char)s[i]);
    }
    lua_pushlstring(L, text, (size_t)(to - text));
    return 1;
}

/* Where the longest run of zero groups begins, of two at least; its length, or 0. */
static int longest_run(const unsigned group[8], int *first)
{
    int best = 1;
    *first = -1;
    for (int i = 0; i < 8; i++) {
        int n = 0;
        while (i + n < 8 && group[i + n] == 0)
            n++;
        if (n > best) {
            best = n;
            *first = i;
        }
        i += n;
    }
    return *first < 0 ? 0 : best;
}

/* The longest run of zeros becomes "::"; addresses that hold one of IPv4 end as it is written. */
static int write_ipv6(char *to, const unsigned char *a)
{
    char *begin = to;
    unsigned group[8];
    int first;
    for (int i = 0; i < 8; i++)
        group[i] = (unsigned)a[2 * i] << 8 | a[2 * i + 1];
    int run = longest_run(group, &first);
    int v4 =
        first == 0 && (run == 6 || (run == 7 && group[7] != 1) || (run == 5 && group[5] == 0xffff));
    for (int i = 0; i < 8; i++) {
        if (i >= first && i < first + run) {
            if (i == first)
                *to++ = ':';
            continue;
        }
        if (i > 0)
            *to++ = ':';
        if (i == 6 && v4)
            return (int)(to - begin) + sprintf(to, "%d.%d.%d.%d", a[12], a[13], a[14], a[15]);
        to += sprintf(to, "%x", group[i]);
    }
    if (first >= 0 && first + run == 8)
        *to++ = ':';
    *to = '\0';
    return (int)(to - begin);
}

/* family (2: IPv4, 3: IPv6), bits of the netmask, whether a cidr, bytes; the address. */
static int inet_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    char text[64];
    const unsigned char *u = (const unsigned char *)s, *a = u + 4;
    int n, full;
    if (size == 8 && u[0] == 2 && u[3] == 4) {
        n = sprintf(text, "%d.%d.%d.%d", a[0], a[1], a[2], a[3]);
        full = 32;
    } else if (size == 20 && u[0] == 3 && u[3] == 16) {
        n = write_ipv6(text, a);
        full = 128;
    } else {
        return 0;
    }
    if (u[1] > full)
        return 0;
    if (type->oid == 650 || u[1] != full)
        n += sprintf(text + n, "/%d", u[1]);
    lua_pushlstring(L, text, (size_t)n);
    return 1;
}

/* How many bits, then bytes with the first bit uppermost. */
static int bit_binary(lua_State *L, const Type *type, const char *s, size_t size)
{
    (void)type;
    if (size < 4 || dbl_get32(s) > 8 * (size - 4) || size - 4 != ((size_t)dbl_get32(s) + 7) / 8)
        return 0;
    unsigned bits = dbl_get32(s);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (unsigned i = 0; i < bits; i += 8) {
        char eight[8];
        for (int k = 0; k < 8; k++)
            eight[k] = s[4 + i / 8] & 0x80 >> k ? '1' : '0';
        luaL_addlstring(&b, eight, bits - i < 8 ? bits - i : 8);
    }
    luaL_pushresult(&b);
    return 1;
}

const Type dbl_net_types[] = {
    {650,  651,  "cidr",     dbl_decode_raw, inet_binary, DBL_TEXTUAL},
    {774,  775,  "macaddr8", dbl_decode_raw, mac_binary,  DBL_TEXTUAL},
    {829,  1040, "macaddr",  dbl_decode_raw, mac_binary,  DBL_TEXTUAL},
    {869,  1041, "inet",     dbl_decode_raw, inet_binary, DBL_TEXTUAL},
    {1560, 1561, "bit",      dbl_decode_raw, bit_binary,  DBL_TEXTUAL},
    {1562, 1563, "varbit",   dbl_decode_raw, bit_binary,  DBL_TEXTUAL},
    {2950, 2951, "uuid",     dbl_decode_raw, uuid_binary, DBL_TEXTUAL},
    {0,    0,    NULL,       NULL,           NULL,        0          },
};
