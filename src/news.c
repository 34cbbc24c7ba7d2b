/*
 * news.c -- what the server said unasked, as values of Lua.
 *
 * A note leaves its queue when its value is made, so that none is lost when Lua raises.  It is
 * made of a copy, since finalizers can take the note, or close the connection, meanwhile.
 */
#include "news.h"

#include <string.h>

#include "fail.h"

static void push_notice(lua_State *L, const Note *n)
{
    dbl_push_error(L, DBL_SERVER, "%s", "");
    for (const char *text = n->text; *text; text += strlen(text) + 1) {
        const Field *f = dbl_fields;
        while (f->code != *text) /* notice.c keeps no others */
            f++;
        dbl_set_field(L, f, text + 1);
    }
}

/* Pushes a copy of the note there, the first or the last of a queue; NULL and nothing where there
 * is none, or finalizers have taken it. */
static const Note *push_copy(lua_State *L, Note *const *place)
{
    Note *copy = NULL;
    int top = lua_gettop(L);
    for (size_t size = 0; *place && (*place)->size > size;) {
        size = (*place)->size;
        lua_settop(L, top);
        copy = lua_newuserdata(L, size);
    }
    if (*place)
        return memcpy(copy, *place, (*place)->size);
    lua_settop(L, top);
    return NULL;
}

/* The value on the top was made of that note. */
static int leave(lua_State *L, Notes *q, const Note *n)
{
    if (q->first && q->first->number == n->number)
        dbl_free(dbl_notes_take(q));
    lua_remove(L, -2);
    return 1;
}

int dbl_push_notice(lua_State *L, Notes *q)
{
    const Note *n = push_copy(L, &q->first);
    if (!n)
        return 0;
    push_notice(L, n);
    return leave(L, q, n);
}

/* Whether the server ends a session with it. */
static int is_fatal(const Note *n)
{
    const char *text = n->text;
    while (*text && *text != PG_DIAG_SEVERITY_NONLOCALIZED)
        text += strlen(text) + 1;
    return strcmp(text, "VFATAL") == 0 || strcmp(text, "VPANIC") == 0;
}

int dbl_push_farewell(lua_State *L, const Notes *q)
{
    const Note *n = q->last && is_fatal(q->last) ? push_copy(L, &q->last) : NULL;
    if (!n)
        return 0;
    push_notice(L, n);
    lua_remove(L, -2);
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "connection_lost");
    return 1;
}

/* Where the queue was full the first one says so, for those who count. */
int dbl_push_notification(lua_State *L, Notes *q)
{
    const Note *n = push_copy(L, &q->first);
    if (!n)
        return 0;
    lua_createtable(L, 0, 4);
    lua_pushstring(L, n->text);
    lua_setfield(L, -2, "channel");
    lua_pushstring(L, n->text + strlen(n->text) + 1);
    lua_setfield(L, -2, "payload");
    lua_pushinteger(L, n->pid);
    lua_setfield(L, -2, "pid");
    if (q->dropped > 0) {
        lua_pushinteger(L, q->dropped);
        lua_setfield(L, -2, "dropped");
        q->dropped = 0;
    }
    return leave(L, q, n);
}
