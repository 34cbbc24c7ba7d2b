/*
 * crowd.c -- waiting for many descriptors as if for one.
 *
 * A crowd is a set of descriptors.  On Linux it is an epoll(7) set, which is a
 * descriptor itself: whatever loop the program runs waits for that one, and
 * need not know how to wait for many.  It costs one system call a turn however
 * many are in it.  Elsewhere poll(2) is asked.
 *
 * A descriptor stays watched until it is forgotten, so a connection that asks
 * again and again costs nothing more.  libpq closes sockets as it sees fit, the
 * kernel forgets them then, and their numbers come again: whoever brings a
 * descriptor to a crowd for the first time forgets what was known of its number.
 *
 * A bell is a descriptor that one coroutine waits for and another rings.
 */
#include "crowd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "block.h"
#include "conn.h"
#include "fail.h"
#include "hooks.h"
#include "memory.h"
#include "receive.h"

#if defined(__linux__) && !defined(DBL_NO_EPOLL)
#define HAS_EPOLL 1
#include <sys/epoll.h>
#else
#define HAS_EPOLL 0
#endif

#define CROWD "dblink.crowd"
#define BELL  "dblink.bell"

enum { AT_ONCE = 256 };

struct Crowd {
    Memory memory;
    int gate; /* the epoll descriptor; -1: closed, or there is none */
    int closed;
    int ready;        /* how many are in fds */
    int fds[AT_ONCE]; /* have an event that was not told yet */
#if !HAS_EPOLL
    struct pollfd *at; /* all that are watched */
    int count, size;
#endif
};

#if HAS_EPOLL

static int crowd_start(Crowd *w)
{
    w->gate = epoll_create1(EPOLL_CLOEXEC);
    return w->gate >= 0;
}

static int crowd_set(Crowd *w, int fd, int need)
{
    struct epoll_event e = {.data.fd = fd};
    e.events = (need & DBL_READ ? EPOLLIN : 0u) | (need & DBL_WRITE ? EPOLLOUT : 0u);
    return epoll_ctl(w->gate, EPOLL_CTL_ADD, fd, &e) == 0 ||
           (errno == EEXIST && epoll_ctl(w->gate, EPOLL_CTL_MOD, fd, &e) == 0);
}

static void crowd_drop(Crowd *w, int fd)
{
    struct epoll_event e = {0};
    epoll_ctl(w->gate, EPOLL_CTL_DEL, fd, &e);
}

static void crowd_end(Crowd *w)
{
    if (w->gate >= 0)
        close(w->gate);
}

static int crowd_look(Crowd *w, double deadline)
{
    struct epoll_event e[AT_ONCE];
    int n = epoll_wait(w->gate, e, AT_ONCE, dbl_milliseconds(deadline));
    for (w->ready = 0; w->ready < n; w->ready++)
        w->fds[w->ready] = e[w->ready].data.fd;
    return n;
}

#else

static int crowd_start(Crowd *w)
{
    (void)w;
    return 1;
}

static struct pollfd *find(Crowd *w, int fd)
{
    for (int i = 0; i < w->count; i++)
        if (w->at[i].fd == fd)
            return &w->at[i];
    return NULL;
}

static int crowd_set(Crowd *w, int fd, int need)
{
    struct pollfd *p = find(w, fd);
    if (!p && w->count == w->size) {
        int size = w->size ? 2 * w->size : 32;
        p = dbl_realloc(w->memory, w->at, (size_t)size * sizeof *p);
        if (!p)
            return 0;
        w->at = p;
        w->size = size;
    }
    p = find(w, fd);
    if (!p)
        p = &w->at[w->count++];
    *p = (struct pollfd){.fd = fd, .events = (short)dbl_poll_events(need)};
    return 1;
}

static void crowd_drop(Crowd *w, int fd)
{
    struct pollfd *p = find(w, fd);
    if (p)
        *p = w->at[--w->count];
}

static int crowd_look(Crowd *w, double deadline)
{
    int n = dbl_block_many(w->at, w->count, deadline);
    w->ready = 0;
    for (int i = 0; n > 0 && i < w->count && w->ready < AT_ONCE; i++)
        if (w->at[i].revents)
            w->fds[w->ready++] = w->at[i].fd;
    return n;
}

static void crowd_end(Crowd *w)
{
    dbl_free(w->at);
}

#endif

Crowd *dbl_crowd(lua_State *L, int i)
{
    return luaL_checkudata(L, i, CROWD);
}

int dbl_crowd_watch(Crowd *w, int fd, int need)
{
    return !w->closed && fd >= 0 && crowd_set(w, fd, need);
}

int dbl_crowd_more(Crowd *w)
{
    return w->ready > 0 ? w->fds[--w->ready] : -1;
}

int dbl_crowd_next(Crowd *w, double deadline)
{
    if (w->ready == 0 && crowd_look(w, deadline) < 0)
        return -2;
    return dbl_crowd_more(w);
}

/* core.crowd(): an empty one. */
static int crowd_new(lua_State *L)
{
    Crowd *w = dbl_newuserdata(L, sizeof *w);
    *w = (Crowd){.memory = dbl_memory(L), .gate = -1};
    luaL_getmetatable(L, CROWD);
    lua_setmetatable(L, -2);
    return crowd_start(w) ? 1 : dbl_fail(L, DBL_MEMORY, "no descriptor is left for an epoll set");
}

static int crowd_close(lua_State *L)
{
    Crowd *w = dbl_crowd(L, 1);
    dbl_forget(dbl_hooks(L), w->gate);
    crowd_end(w);
    *w = (Crowd){.memory = w->memory, .gate = -1, .closed = 1};
    return 0;
}

/* crowd:watch(fd, events): whether it can be watched. */
static int crowd_watch(lua_State *L)
{
    Crowd *w = dbl_crowd(L, 1);
    int fd = (int)luaL_checkinteger(L, 2), need = dbl_events(luaL_checkstring(L, 3));
    lua_pushboolean(L, dbl_crowd_watch(w, fd, need));
    return 1;
}

static int crowd_forget(lua_State *L)
{
    Crowd *w = dbl_crowd(L, 1);
    int fd = (int)luaL_checkinteger(L, 2), n = 0;
    crowd_drop(w, fd);
    for (int i = 0; i < w->ready; i++)
        if (w->fds[i] != fd)
            w->fds[n++] = w->fds[i];
    w->ready = n;
    return 0;
}

/* crowd:ready(deadline): the next descriptor that has its event; nil at the
 * deadline (0: without waiting), false when a signal came.  Several events come
 * at a time; crowd:more() gives the others, and asks nobody. */
static int crowd_ready(lua_State *L)
{
    int fd = dbl_crowd_next(dbl_crowd(L, 1), luaL_optnumber(L, 2, DBL_NEVER));
    if (fd == -1)
        return 0;
    if (fd < 0)
        lua_pushboolean(L, 0);
    else
        lua_pushinteger(L, fd);
    return 1;
}

static int crowd_more(lua_State *L)
{
    int fd = dbl_crowd_more(dbl_crowd(L, 1));
    if (fd < 0)
        return 0;
    lua_pushinteger(L, fd);
    return 1;
}

/* The descriptor that is readable when some of the crowd are ready, or nil. */
static int crowd_getfd(lua_State *L)
{
    Crowd *w = dbl_crowd(L, 1);
    if (w->gate < 0)
        return 0;
    lua_pushinteger(L, w->gate);
    return 1;
}

typedef struct Bell {
    int fd[2];
} Bell;

/* core.bell() */
static int bell_new(lua_State *L)
{
    Bell *b = dbl_newuserdata(L, sizeof *b);
    *b = (Bell){
        {-1, -1}
    };
    luaL_getmetatable(L, BELL);
    lua_setmetatable(L, -2);
    if (pipe(b->fd) != 0)
        return dbl_fail(L, DBL_MEMORY, "no descriptor is left for a pipe");
    for (int i = 0; i < 2; i++) {
        fcntl(b->fd[i], F_SETFD, FD_CLOEXEC);
        fcntl(b->fd[i], F_SETFL, O_NONBLOCK);
    }
    return 1;
}

static int bell_close(lua_State *L)
{
    Bell *b = luaL_checkudata(L, 1, BELL);
    dbl_forget(dbl_hooks(L), b->fd[0]);
    for (int i = 0; i < 2; i++)
        if (b->fd[i] >= 0)
            close(b->fd[i]);
    *b = (Bell){
        {-1, -1}
    };
    return 0;
}

static int bell_ring(lua_State *L)
{
    Bell *b = luaL_checkudata(L, 1, BELL);
    lua_pushboolean(L, b->fd[1] >= 0 && write(b->fd[1], "", 1) == 1);
    return 1;
}

static int bell_getfd(lua_State *L)
{
    lua_pushinteger(L, ((Bell *)luaL_checkudata(L, 1, BELL))->fd[0]);
    return 1;
}

/* Whether a connection needs somebody, as far as is known without asking the
 * socket: opened or failed, a result, a notification, lost. */
static int needs_attention(Conn *c)
{
    if (!c->pg)
        return c->need == 0 && dbl_conn_failed(c);
    if (c->kept || c->notifications.first || PQstatus(c->pg) == CONNECTION_BAD)
        return 1;
    if (PQtransactionStatus(c->pg) == PQTRANS_ACTIVE && !PQisBusy(c->pg))
        return dbl_step(c) == 0;
    dbl_notifications_take(&c->notifications, c->pg);
    return c->notifications.first != NULL;
}

/* The same after its socket has become ready. */
static int look_at(Conn *c)
{
    int connecting = c->attempt != NULL;
    int over = dbl_step(c) == 0;
    return (connecting && over) || needs_attention(c);
}

/* The connection at list[i]; a lease stands for its own. */
static Conn *conn_at(lua_State *L, int i)
{
    lua_rawgeti(L, 1, i);
    if (lua_istable(L, -1)) {
        lua_getfield(L, -1, "conn");
        lua_replace(L, -2);
    }
    Conn *c = dbl_conn(L, lua_gettop(L));
    lua_pop(L, 1);
    return c;
}

/* core.look(list, deadline): the connections of the list that need attention, in a
 * list; nil when the deadline has come, or a signal, and when one of them wants to
 * be looked at anyhow.  One poll(2) for them all. */
static int look(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    double deadline = luaL_optnumber(L, 2, DBL_NEVER), wake = DBL_NEVER;
    int n = (int)dbl_rawlen(L, 1), found = 0;
    lua_settop(L, 1);
    struct pollfd *p = lua_newuserdata(L, (size_t)(n + 1) * sizeof *p);
    for (int i = 0; i < n; i++) {
        Conn *c = conn_at(L, i + 1);
        PGconn *pg = c->attempt ? c->attempt->pg : c->pg;
        if (c->attempt && c->need == 0)
            c->need = (unsigned char)dbl_step(c);
        int done = needs_attention(c);
        int need = c->attempt ? c->need : DBL_READ | (PQflush(pg) > 0 ? DBL_WRITE : 0);
        found += done;
        p[i] =
            (struct pollfd){.fd = done ? -1 : PQsocket(pg), .events = (short)dbl_poll_events(need)};
        p[i].revents = 0;
        if (c->attempt && c->attempt->deadline < wake)
            wake = c->attempt->deadline;
    }
    int ready = dbl_block_many(p, n, found ? 0 : wake < deadline ? wake : deadline);
    lua_newtable(L);
    int list = lua_gettop(L), k = 0;
    for (int i = 0; i < n && (ready >= 0 || found); i++) {
        Conn *c = conn_at(L, i + 1);
        int late = c->attempt && c->attempt->deadline <= dbl_now();
        if (p[i].fd < 0 ? 1 : (p[i].revents || late) && look_at(c)) {
            lua_rawgeti(L, 1, i + 1);
            lua_rawseti(L, list, ++k);
        }
    }
    if (k == 0) {
        lua_pushnil(L);
        lua_pushnumber(L, wake);
    }
    return k == 0 ? 2 : 1;
}

const luaL_Reg dbl_crowd_functions[] = {
    {"crowd", crowd_new},
    {"bell",  bell_new },
    {"look",  look     },
    {NULL,    NULL     },
};

void dbl_crowd_open(lua_State *L)
{
    static const luaL_Reg crowd_meta[] = {
        {"__gc",    crowd_close},
        {"__close", crowd_close},
        {NULL,      NULL       },
    };
    static const luaL_Reg crowd_methods[] = {
        {"watch",  crowd_watch },
        {"forget", crowd_forget},
        {"ready",  crowd_ready },
        {"more",   crowd_more  },
        {"getfd",  crowd_getfd },
        {"close",  crowd_close },
        {NULL,     NULL        },
    };
    static const luaL_Reg bell_meta[] = {
        {"__gc", bell_close},
        {NULL,   NULL      },
    };
    static const luaL_Reg bell_methods[] = {
        {"ring",  bell_ring },
        {"getfd", bell_getfd},
        {"close", bell_close},
        {NULL,    NULL      },
    };
    dbl_newclass(L, CROWD, crowd_meta, crowd_methods);
    dbl_newclass(L, BELL, bell_meta, bell_methods);
    lua_pop(L, 2);
}
