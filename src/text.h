/*
 * text.h -- a text that is being written, in one piece of memory that grows.
 */
#ifndef DBL_TEXT_H
#define DBL_TEXT_H

#include <string.h>

#include "compat.h"

typedef struct Text {
    char *s;
    size_t used, size;
} Text;

/* An empty one, in a box on the top of the stack that Lua collects. */
Text *dbl_text_new(lua_State *L);

/* Room for n more bytes, where the next are to be written; raises where there is no memory. */
char *dbl_text_grow(lua_State *L, Text *t, size_t n);

static inline char *dbl_text_room(lua_State *L, Text *t, size_t n)
{
    return t->size - t->used >= n ? t->s + t->used : dbl_text_grow(L, t, n);
}

static inline void dbl_text_add(lua_State *L, Text *t, const char *s, size_t n)
{
    char *to = dbl_text_room(L, t, n);
    memcpy(to, s, n);
    t->used += n;
}

static inline void dbl_text_char(lua_State *L, Text *t, char c)
{
    *dbl_text_room(L, t, 1) = c;
    t->used++;
}

#define dbl_text_literal(L, t, s) dbl_text_add(L, t, "" s, sizeof(s) - 1)

/* A string of JSON, in its quotes. */
void dbl_text_json(lua_State *L, Text *t, const char *s, size_t n);

/* Two hexadecimal digits for each byte. */
void dbl_text_hex(lua_State *L, Text *t, const char *s, size_t n);

/* Pushes it as a string and frees the memory. */
void dbl_text_push(lua_State *L, Text *t);

void dbl_text_open(lua_State *L);

#endif
