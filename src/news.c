/*
 * news.c -- what the server said unasked, as values of Lua.
 *
 * A note leaves its queue when its value is made, so that none is lost when Lua raises.
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

void dbl_push_notice(lua_State *L, Notes *q)
{
    push_notice(L, q->first);
    dbl_free(dbl_notes_take(q));
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
    if (!q->last || !is_fatal(q->last))
        return 0;
    push_notice(L, q->last);
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "connection_lost");
    return 1;
}

/* Where the queue was full the first one says so, for those who count. */
void dbl_push_notification(lua_State *L, Notes *q)
{
    const Note *n = q->first;
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
    dbl_free(dbl_notes_take(q));
}
