/*
 * type_text.c -- text and its kin, and bytea: strings of Lua.
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
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int octal(const char *s, const char *end)
{
    return end - s >= 3 && s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' &&
           s[2] >= '0' && s[2] <= '7';
}

/* bytea_output is "hex" (\x0102...) or "escape" (\\, \ooo, and bytes). */
static int bytea_text(lua_State *L, const Type *type, const char *s, size_t size)
{
    const char *end = s + size;
    (void)type;
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    if (size >= 2 && s[0] == '\\' && s[1] == 'x') {
        if (size % 2 != 0)
            goto malformed;
        for (s += 2; s < end; s += 2) {
            int high = hex_digit(s[0]), low = hex_digit(s[1]);
            if (high < 0 || low < 0)
                goto malformed;
            luaL_addchar(&b, (char)(high << 4 | low));
        }
    } else {
        while (s < end) {
            if (*s != '\\') {
                luaL_addchar(&b, *s++);
            } else if (s + 1 < end && s[1] == '\\') {
                luaL_addchar(&b, '\\');
                s += 2;
            } else if (octal(s + 1, end)) {
                luaL_addchar(&b, (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0')));
                s += 4;
            } else {
                goto malformed;
            }
        }
    }
    luaL_pushresult(&b);
    return 1;
malformed:
    luaL_pushresult(&b);
    lua_pop(L, 1);
    return 0;
}

const Type dbl_raw_type = {0, 0, "raw", dbl_decode_raw, dbl_decode_raw};

const Type dbl_text_types[] = {
    {17,   1001, "bytea",   bytea_text,     dbl_decode_raw},
    {18,   1002, "char",    dbl_decode_raw, dbl_decode_raw},
    {19,   1003, "name",    dbl_decode_raw, dbl_decode_raw},
    {25,   1009, "text",    dbl_decode_raw, dbl_decode_raw},
    {705,  0,    "unknown", dbl_decode_raw, dbl_decode_raw},
    {1042, 1014, "bpchar",  dbl_decode_raw, dbl_decode_raw},
    {1043, 1015, "varchar", dbl_decode_raw, dbl_decode_raw},
    {0,    0,    NULL,      NULL,           NULL          },
};
