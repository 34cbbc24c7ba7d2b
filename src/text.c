/*
 * text.c -- a text that is being written, in one piece of memory that grows.
 *
 * A luaL_Buffer wants the top of the stack for itself, which those who write here
 * need for values; and the pieces that it is made of in older Luas cost.
 */
#include "text.h"

#include "memory.h"

#define BOX "dblink.text"

static int text_gc(lua_State *L)
{
    Text *t = lua_touserdata(L, 1);
    dbl_free(t->s);
    t->s = NULL;
    return 0;
}

Text *dbl_text_new(lua_State *L)
{
    Text *t = lua_newuserdata(L, sizeof *t);
    *t = (Text){NULL, 0, 0};
    luaL_getmetatable(L, BOX);
    lua_setmetatable(L, -2);
    return t;
}

char *dbl_text_grow(lua_State *L, Text *t, size_t n)
{
    size_t size = t->size + t->size / 2 + 256;
    if (size < t->used + n)
        size = t->used + n;
    char *s = size > t->used ? dbl_realloc(dbl_memory(L), t->s, size) : NULL;
    if (!s)
        luaL_error(L, "not enough memory");
    t->s = s;
    t->size = size;
    return s + t->used;
}

void dbl_text_json(lua_State *L, Text *t, const char *s, size_t n)
{
    static const char hex[] = "0123456789abcdef", letters[] = "btn?fr"; /* 8 to 13 */
    dbl_text_char(L, t, '"');
    for (const char *end = s + n, *from = s;; s++) {
        while (s < end && (unsigned char)*s >= ' ' && *s != '"' && *s != '\\')
            s++;
        dbl_text_add(L, t, from, (size_t)(s - from));
        if (s == end)
            break;
        unsigned c = (unsigned char)*s;
        char *to = dbl_text_room(L, t, 6);
        *to = '\\';
        if (c >= ' ') {
            to[1] = *s;
            t->used += 2;
        } else if (c >= 8 && c <= 13 && c != 11) {
            to[1] = letters[c - 8];
            t->used += 2;
        } else {
            memcpy(to + 1, "u00", 3);
            to[4] = hex[c >> 4];
            to[5] = hex[c & 15];
            t->used += 6;
        }
        from = s + 1;
    }
    dbl_text_char(L, t, '"');
}

void dbl_text_hex(lua_State *L, Text *t, const char *s, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    char *to = dbl_text_room(L, t, 2 * n);
    for (const char *end = s + n; s < end; s++) {
        *to++ = hex[(unsigned char)*s >> 4];
        *to++ = hex[*s & 15];
    }
    t->used += 2 * n;
}

void dbl_text_push(lua_State *L, Text *t)
{
    lua_pushlstring(L, t->s ? t->s : "", t->used);
    dbl_free(t->s);
    *t = (Text){NULL, 0, 0};
}

void dbl_text_open(lua_State *L)
{
    static const luaL_Reg metamethods[] = {
        {"__gc", text_gc},
        {NULL,   NULL   }
    };
    dbl_newclass(L, BOX, metamethods, NULL);
    lua_pop(L, 1);
}
