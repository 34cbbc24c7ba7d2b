/*
 * direct.c -- our descriptors in the event loop of nginx itself.
 *
 * nginx exports the functions by which its modules take part in its loop; a Lua
 * module in one of its workers finds them by name (dlsym).  What must be known of
 * its structures is written below: the beginnings of three, the same from nginx
 * 1.9.15 to 1.31.4.  nginx promises nothing, so this is for those who ask for it
 * (wait = "openresty-direct"), and what can be looked at is looked at before the
 * first use; where it differs, the relay serves.
 *
 * A watch is a duplicate of the descriptor, in a connection of nginx, whose handler
 * posts the semaphore that a light thread waits on.  A duplicate, since nginx closes
 * what it watches.  Its events are edges: once nginx has told that there is
 * something, it does not tell again before more comes.  Hence poll(2) before each wait.
 */
#include "direct.h"

#include "fail.h"

#ifdef __linux__

#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block.h"
#include "dblink.h"

#define WATCH "dblink.watch"
#define MARK  "dblink.mark"

/* ngx_event_t */
typedef struct Event {
    void *data;
    unsigned bits;
    int available;
    void (*handler)(struct Event *);
    uintptr_t index;
    void *log;
} Event;

enum { EVENT_WRITE = 1 };                /* of its bits, the first */
#define NO_INDEX ((uintptr_t)0xd0d0d0d0) /* NGX_INVALID_INDEX: not yet in the loop */

/* ngx_connection_t */
typedef struct Connection {
    void *data;
    Event *read, *write;
    int fd;
} Connection;

/* ngx_cycle_t */
typedef struct Cycle {
    void *conf_ctx, *pool, *log;
} Cycle;

/* ngx_event_actions_t */
typedef struct Actions {
    void (*add)(void), (*del)(void), (*enable)(void), (*disable)(void), (*add_conn)(void);
    intptr_t (*del_conn)(Connection *, uintptr_t);
} Actions;

/* ngx_http_cleanup_t */
typedef struct Cleanup {
    void (*handler)(void *);
    void *data;
} Cleanup;

/* What nginx exports.  The same in all Lua states of the process. */
static struct {
    Connection *(*get_connection)(int, void *);
    void (*free_connection)(Connection *);
    void (*close_connection)(Connection *);
    intptr_t (*read_event)(Event *, uintptr_t);
    intptr_t (*write_event)(Event *, size_t);
    Actions *actions;
    Cycle **cycle;
    int (*post)(void *, int);
    void *(*request)(lua_State *);
    Cleanup *(*cleanup)(void *, size_t);
    const int *quit, *terminate, *exiting; /* sig_atomic_t, and ngx_uint_t's first half */
} ngx;

typedef struct Watch {
    Connection *c; /* NULL: closed */
    int fd;        /* libpq's */
    int waiting;   /* for what: a sum of DBL_READ and DBL_WRITE */
    void *semaphore;
} Watch;

/* Whether a request is still there; of the request and of Lua's userdata the last
 * frees it. */
typedef struct Mark {
    int ended, owners;
} Mark;

static int find(void **where, const char *name)
{
    static void *program;
    if (!program)
        program = dlopen(NULL, RTLD_NOW);
    *where = dlsym(program, name);
    return *where != NULL;
}

static const char *find_all(void)
{
    const struct {
        const char *name;
        void *where;
    } names[] = {
        {"ngx_get_connection",         &ngx.get_connection  },
        {"ngx_free_connection",        &ngx.free_connection },
        {"ngx_close_connection",       &ngx.close_connection},
        {"ngx_handle_read_event",      &ngx.read_event      },
        {"ngx_handle_write_event",     &ngx.write_event     },
        {"ngx_event_actions",          &ngx.actions         },
        {"ngx_cycle",                  &ngx.cycle           },
        {"ngx_http_lua_ffi_sema_post", &ngx.post            },
        {"ngx_http_lua_get_request",   &ngx.request         },
        {"ngx_http_cleanup_add",       &ngx.cleanup         },
        {"ngx_quit",                   &ngx.quit            },
        {"ngx_terminate",              &ngx.terminate       },
        {"ngx_exiting",                &ngx.exiting         },
    };
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!find(names[i].where, names[i].name))
            return names[i].name;
    return NULL;
}

/* Whether a fresh connection of nginx looks as it should. */
static int looks_right(void)
{
    int fd[2];
    if (!*ngx.cycle || !(*ngx.cycle)->log || socketpair(AF_UNIX, SOCK_STREAM, 0, fd) != 0)
        return 0;
    Connection *c = ngx.get_connection(fd[0], (*ngx.cycle)->log);
    int right = c && c->fd == fd[0] && c->read && c->write && c->read->data == c &&
                c->write->data == c && !(c->read->bits & EVENT_WRITE) &&
                (c->write->bits & EVENT_WRITE) && !c->read->handler && !c->write->handler &&
                c->read->index == NO_INDEX && c->write->index == NO_INDEX && ngx.actions->del_conn;
    if (c)
        ngx.free_connection(c);
    if (right)
        c->fd = -1;
    close(fd[0]);
    close(fd[1]);
    return right;
}

/* core.direct(): true where this works; else nil and why not. */
static int direct(lua_State *L)
{
    const char *missing = find_all();
    if (missing)
        return dbl_fail(L, DBL_UNSUPPORTED, "this nginx does not export %s", missing);
    if (!looks_right())
        return dbl_fail(L, DBL_UNSUPPORTED, "the connections of this nginx are of another kind");
    lua_pushboolean(L, 1);
    return 1;
}

static void happened(Event *e)
{
    Connection *c = e->data;
    Watch *w = c->data;
    if (!(w->waiting & (e == c->write ? DBL_WRITE : DBL_READ)))
        return;
    w->waiting = 0;
    ngx.post(w->semaphore, 1);
}

/* While the registration is nginx's, libpq's descriptor holds it in the kernel:
 * closing the duplicate alone would not end it. */
static void end(Watch *w)
{
    Connection *c = w->c;
    w->c = NULL;
    if (!c)
        return;
    ngx.actions->del_conn(c, 0);
    ngx.close_connection(c);
}

/* core.watch(fd, semaphore): the semaphore as a number, its address.  Or nil. */
static int watch_new(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    Watch *w = dbl_newuserdata(L, sizeof *w);
    memset(w, 0, sizeof *w);
    w->fd = fd;
    w->semaphore = (void *)(uintptr_t)luaL_checknumber(L, 2);
    luaL_getmetatable(L, WATCH);
    lua_setmetatable(L, -2);
    int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate < 0)
        return 0;
    void *log = (*ngx.cycle)->log;
    Connection *c = ngx.get_connection(duplicate, log);
    if (!c) {
        close(duplicate);
        return 0;
    }
    c->data = w;
    c->read->handler = c->write->handler = happened;
    c->read->log = c->write->log = log;
    w->c = c;
    return 1;
}

static Watch *watch(lua_State *L)
{
    return luaL_checkudata(L, 1, WATCH);
}

/* watch:arm(events): true, the semaphore will be posted; false, it is ready; nil, it
 * cannot be watched. */
static int watch_arm(lua_State *L)
{
    Watch *w = watch(L);
    const char *events = luaL_checkstring(L, 2);
    int need = (strchr(events, 'r') ? DBL_READ : 0) | (strchr(events, 'w') ? DBL_WRITE : 0);
    if (!w->c || ((need & DBL_READ) && ngx.read_event(w->c->read, 0) != 0) ||
        ((need & DBL_WRITE) && ngx.write_event(w->c->write, 0) != 0))
        return 0;
    int ready = dbl_block(w->fd, need, 0) != 0;
    w->waiting = ready ? 0 : need;
    lua_pushboolean(L, !ready);
    return 1;
}

/* watch:disarm(): it will not be posted any more. */
static int watch_disarm(lua_State *L)
{
    watch(L)->waiting = 0;
    return 0;
}

/* watch:close(): whoever waits is woken. */
static int watch_close(lua_State *L)
{
    Watch *w = watch(L);
    end(w);
    if (w->waiting)
        ngx.post(w->semaphore, 1);
    w->waiting = 0;
    return 0;
}

/* At the end of a worker its loop is gone before its Lua is. */
static int watch_gc(lua_State *L)
{
    if (!*ngx.quit && !*ngx.terminate && !*ngx.exiting)
        end(watch(L));
    return 0;
}

static void leave(Mark *m)
{
    if (--m->owners == 0)
        free(m);
}

static void request_ended(void *mark)
{
    Mark *m = mark;
    m->ended = 1;
    leave(m);
}

/* core.request(): which request this is; its number comes again when it has ended. */
static int request(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)(uintptr_t)ngx.request(L));
    return 1;
}

/* core.mark(): tells whether this request has ended: mark:ended(). */
static int mark_new(lua_State *L)
{
    Mark **box = dbl_newuserdata(L, sizeof(Mark *));
    *box = NULL;
    luaL_getmetatable(L, MARK);
    lua_setmetatable(L, -2);
    void *r = ngx.request(L);
    Mark *m = calloc(1, sizeof *m);
    *box = m;
    if (!r || !m)
        return 0;
    m->owners = 1;
    Cleanup *c = ngx.cleanup(r, 0);
    if (!c)
        return 0;
    m->owners = 2;
    c->handler = request_ended;
    c->data = m;
    return 1;
}

static int mark_ended(lua_State *L)
{
    Mark **box = luaL_checkudata(L, 1, MARK);
    lua_pushboolean(L, !*box || (*box)->ended);
    return 1;
}

static int mark_gc(lua_State *L)
{
    Mark **box = luaL_checkudata(L, 1, MARK);
    if (*box)
        leave(*box);
    *box = NULL;
    return 0;
}

void dbl_direct_open(lua_State *L)
{
    static const luaL_Reg watch_meta[] = {
        {"__gc", watch_gc},
        {NULL,   NULL    },
    };
    static const luaL_Reg watch_methods[] = {
        {"arm",    watch_arm   },
        {"disarm", watch_disarm},
        {"close",  watch_close },
        {NULL,     NULL        },
    };
    static const luaL_Reg mark_meta[] = {
        {"__gc", mark_gc},
        {NULL,   NULL   },
    };
    static const luaL_Reg mark_methods[] = {
        {"ended", mark_ended},
        {NULL,    NULL      },
    };
    dbl_newclass(L, WATCH, watch_meta, watch_methods);
    dbl_newclass(L, MARK, mark_meta, mark_methods);
    lua_pop(L, 2);
}

const luaL_Reg dbl_direct_functions[] = {
    {"direct",  direct   },
    {"watch",   watch_new},
    {"request", request  },
    {"mark",    mark_new },
    {NULL,      NULL     },
};

#else

static int direct(lua_State *L)
{
    return dbl_fail(L, DBL_UNSUPPORTED, "only Linux has it");
}

void dbl_direct_open(lua_State *L)
{
    (void)L;
}

const luaL_Reg dbl_direct_functions[] = {
    {"direct", direct},
    {NULL,     NULL  },
};

#endif
