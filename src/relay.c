/*
 * relay.c -- a thread that watches descriptors for an nginx worker.
 *
 * In nginx Lua can wait for its own sockets (cosockets), and for no other
 * descriptor.  So a thread watches ours with epoll(7), and wakes the Lua code by a
 * byte on a pair of sockets, whose one end is a cosocket: it was connected to a
 * Unix socket that only this process listens on.
 *
 * A slot is such a pair.  It is armed for a descriptor; whoever disarms it (the
 * thread, because the descriptor is ready or the time is over, or Lua, because the
 * descriptor goes) sends exactly one byte.  So there is never a byte too many, and
 * the cosocket needs no time limit of its own, about which nginx would write to
 * its log.  Nothing is locked: a slot is disarmed by one atomic exchange, and its
 * socket is closed by Lua only, when it is not armed.
 *
 * nginx closes the cosocket when the request ends, for whatever reason: so the pair
 * also tells whether a request is still there (relay:gone).
 */
#include "relay.h"

#include "fail.h"

#ifdef __linux__

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "block.h"
#include "dblink.h"

#define CLASS "dblink.relay"

enum { MOST = 65536 };        /* slots */
enum { IDLE, ARMED, FIRING }; /* their states */
#define KICK  UINT64_MAX      /* the event that only makes the thread look */
#define NEVER INT64_MAX       /* microseconds */

typedef struct Slot {
    int peer; /* our end; -1: none */
    int state;
    int fd;
    unsigned turn;    /* an event of an earlier turn is none */
    int64_t deadline; /* NEVER: none */
} Slot;

/* Shared by Lua's userdata and the thread; the last of both frees it. */
typedef struct Relay {
    int owners, stop;
    int epoll, kick, listener;
    pid_t pid;
    int top;      /* slots that ever were in use lie below */
    int64_t next; /* when the thread looks at the deadlines again */
    struct sockaddr_un address;
    Slot slots[MOST];
} Relay;

#define load(p)     __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define store(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

static int exchange(int *p, int from, int to)
{
    return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static int64_t microseconds(double seconds)
{
    return (int64_t)(seconds * 1e6);
}

/* Disarms, and wakes the cosocket with the reason.  Whoever was woken may have armed
 * it again before send returns. */
static void fire(Slot *s, char why)
{
    if (!exchange(&s->state, ARMED, FIRING))
        return;
    send(s->peer, &why, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    exchange(&s->state, FIRING, IDLE);
}

/* 1 where that is sooner than what the thread knew of. */
static int lower(int64_t *next, int64_t deadline)
{
    int64_t known = load(next);
    while (deadline < known)
        if (__atomic_compare_exchange_n(next, &known, deadline, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
            return 1;
    return 0;
}

/* A deadline that is set meanwhile is either seen here or lowers next again. */
static void ring_alarms(Relay *r, int64_t moment)
{
    store(&r->next, NEVER);
    for (int i = 0; i < load(&r->top); i++) {
        Slot *s = &r->slots[i];
        int64_t deadline = load(&s->deadline);
        if (load(&s->state) != ARMED || deadline == NEVER)
            continue;
        if (deadline <= moment)
            fire(s, 't');
        else
            lower(&r->next, deadline);
    }
}

static void leave(Relay *r)
{
    if (__atomic_sub_fetch(&r->owners, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (int i = 0; i < r->top; i++)
        if (r->slots[i].peer >= 0)
            close(r->slots[i].peer);
    close(r->epoll);
    close(r->kick);
    free(r);
}

/* A counter of eventfd that cannot be changed is as it should be. */
static void ignore(ssize_t n)
{
    (void)n;
}

static void run(void *relay)
{
    Relay *r = relay;
    struct epoll_event e[64];
    uint64_t count;
    while (!load(&r->stop)) {
        int64_t next = load(&r->next);
        int n = epoll_wait(r->epoll, e, sizeof e / sizeof e[0],
                           dbl_milliseconds(next == NEVER ? DBL_NEVER : (double)next / 1e6));
        for (int i = 0; i < n; i++) {
            Slot *s = &r->slots[e[i].data.u64 % MOST];
            if (e[i].data.u64 == KICK)
                ignore(read(r->kick, &count, sizeof count));
            else if (load(&s->turn) == e[i].data.u64 / MOST)
                fire(s, 'r');
        }
        int64_t moment = microseconds(dbl_now());
        if (moment >= load(&r->next))
            ring_alarms(r, moment);
    }
    leave(r);
}

static void kick(Relay *r)
{
    uint64_t one = 1;
    ignore(write(r->kick, &one, sizeof one));
}

/* A socket that nobody else can find: in a folder of mode 0700. */
static int listen_somewhere(Relay *r)
{
    const char *const places[] = {getenv("TMPDIR"), "/tmp", "/dev/shm", "/var/tmp"};
    char *path = r->address.sun_path;
    r->address.sun_family = AF_UNIX;
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (!places[i] || strlen(places[i]) > sizeof r->address.sun_path - 20)
            continue;
        sprintf(path, "%s/dblink-XXXXXX", places[i]);
        if (!mkdtemp(path)) {
            *path = '\0';
            continue;
        }
        strcat(path, "/w");
        r->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (r->listener >= 0 &&
            bind(r->listener, (struct sockaddr *)&r->address, sizeof r->address) == 0 &&
            listen(r->listener, 128) == 0)
            return 1;
        *strrchr(path, '/') = '\0';
        rmdir(path);
        *path = '\0';
        if (r->listener >= 0)
            close(r->listener);
        r->listener = -1;
    }
    return 0;
}

/* A child of fork has a copy of all descriptors, and the folder is not its own. */
static void end(Relay *r)
{
    char *path = r->address.sun_path;
    if (*path && r->pid == getpid()) {
        unlink(path);
        *strrchr(path, '/') = '\0';
        rmdir(path);
    }
    if (r->listener >= 0)
        close(r->listener);
    store(&r->stop, 1);
    kick(r);
    leave(r);
}

static Relay *relay(lua_State *L)
{
    Relay **box = luaL_checkudata(L, 1, CLASS);
    if (!*box)
        luaL_error(L, "relay is closed");
    return *box;
}

/* Slots are numbered from 1 in Lua. */
static Slot *slot(lua_State *L, Relay *r)
{
    lua_Integer i = luaL_checkinteger(L, 2);
    if (i < 1 || i > MOST)
        luaL_argerror(L, 2, "no such slot");
    while (r->top < i) {
        r->slots[r->top].peer = -1;
        store(&r->top, r->top + 1);
    }
    return &r->slots[i - 1];
}

/* core.relay(): one for this process, its thread running; or nil and an error. */
static int relay_new(lua_State *L)
{
    Relay **box = dbl_newuserdata(L, sizeof(Relay *));
    *box = NULL;
    luaL_getmetatable(L, CLASS);
    lua_setmetatable(L, -2);
    Relay *r = calloc(1, sizeof *r);
    if (!r)
        return dbl_fail(L, DBL_MEMORY, "out of memory");
    r->owners = 1;
    r->next = NEVER;
    r->pid = getpid();
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->listener = -1;
    *box = r;
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = KICK};
    if (r->epoll < 0 || r->kick < 0 || epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->kick, &e) != 0)
        return dbl_fail(L, DBL_CONNECTION, "no epoll descriptor can be had");
    if (!listen_somewhere(r))
        return dbl_fail(L, DBL_CONNECTION,
                        "no folder (TMPDIR, /tmp, /dev/shm, /var/tmp) takes a Unix socket");
    r->owners = 2;
    if (!dblink_thread(NULL, run, r)) {
        r->owners = 1;
        return dbl_fail(L, DBL_CONNECTION, "no thread can be started");
    }
    return 1;
}

static int relay_path(lua_State *L)
{
    lua_pushstring(L, relay(L)->address.sun_path);
    return 1;
}

/* The thread may be sending on it just now. */
static void shut(Slot *s)
{
    while (!exchange(&s->state, IDLE, IDLE))
        if (!exchange(&s->state, ARMED, IDLE))
            sched_yield();
    if (s->peer >= 0)
        close(s->peer);
    s->peer = -1;
}

/* Whether a cosocket of this process is at the other end, and nobody has given it up. */
static int is_cosocket(int fd)
{
    struct { /* struct ucred, which is not for everybody */
        pid_t pid;
        uid_t uid;
        gid_t gid;
    } who = {0};
    char byte;
    socklen_t size = sizeof who;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size);
    return who.pid == getpid() && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
}

/* relay:accept(slot): takes the other end of a cosocket that has just connected.  Those that came before it, when
 * there were no descriptors, wait still. */
static int relay_accept(lua_State *L)
{
    Relay *r = relay(L);
    Slot *s = slot(L, r);
    int fd;
    shut(s);
    while ((fd = accept(r->listener, NULL, NULL)) >= 0 && !is_cosocket(fd))
        close(fd);
    if (fd < 0)
        return dbl_fail(L, DBL_CONNECTION, "the cosocket did not come: %s", strerror(errno));
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    s->peer = fd;
    lua_pushboolean(L, 1);
    return 1;
}

/* relay:arm(slot, fd, events [, seconds]): from now on one byte is on its way, 'r',
 * 't' (the time is over) or 'f' (forgotten).  false: it need not be waited for. */
static int relay_arm(lua_State *L)
{
    Relay *r = relay(L);
    Slot *s = slot(L, r);
    int fd = (int)luaL_checkinteger(L, 3);
    const char *events = luaL_checkstring(L, 4);
    double seconds = luaL_optnumber(L, 5, DBL_NEVER);
    int64_t deadline = seconds < 1e9 ? microseconds(dbl_now() + seconds) : NEVER;
    unsigned turn = s->turn + 1;
    struct epoll_event e = {.events = EPOLLONESHOT | EPOLLRDHUP};
    e.events |= strchr(events, 'r') ? EPOLLIN : 0u;
    e.events |= strchr(events, 'w') ? EPOLLOUT : 0u;
    e.data.u64 = (uint64_t)turn * MOST + (uint64_t)(s - r->slots);
    s->fd = fd;
    store(&s->turn, turn);
    store(&s->deadline, deadline);
    store(&s->state, ARMED);
    int armed = epoll_ctl(r->epoll, EPOLL_CTL_MOD, fd, &e) == 0 ||
                (errno == ENOENT && epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) == 0);
    if (!armed && exchange(&s->state, ARMED, IDLE)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (deadline != NEVER && lower(&r->next, deadline))
        kick(r);
    lua_pushboolean(L, 1);
    return 1;
}

/* relay:ring(slot): a byte is on its way at once. */
static int relay_ring(lua_State *L)
{
    Slot *s = slot(L, relay(L));
    store(&s->state, ARMED);
    fire(s, 'r');
    return 0;
}

/* relay:forget(fd): whoever waits for it is woken. */
static int relay_forget(lua_State *L)
{
    Relay *r = relay(L);
    int fd = (int)luaL_checkinteger(L, 2);
    struct epoll_event e = {0};
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, fd, &e);
    for (int i = 0; i < r->top; i++)
        if (r->slots[i].fd == fd && load(&r->slots[i].state) == ARMED)
            fire(&r->slots[i], 'f');
    return 0;
}

/* relay:gone(slot): whether the cosocket was closed. */
static int relay_gone(lua_State *L)
{
    char byte;
    Slot *s = slot(L, relay(L));
    ssize_t n = recv(s->peer, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    lua_pushboolean(L, n == 0 || (n < 0 && errno != EAGAIN));
    return 1;
}

/* relay:drop(slot): closes our end too. */
static int relay_drop(lua_State *L)
{
    shut(slot(L, relay(L)));
    return 0;
}

static int relay_close(lua_State *L)
{
    Relay **box = luaL_checkudata(L, 1, CLASS);
    Relay *r = *box;
    *box = NULL;
    if (r)
        end(r);
    return 0;
}

void dbl_relay_open(lua_State *L)
{
    static const luaL_Reg metamethods[] = {
        {"__gc", relay_close},
        {NULL,   NULL       },
    };
    static const luaL_Reg methods[] = {
        {"path",   relay_path  },
        {"accept", relay_accept},
        {"arm",    relay_arm   },
        {"ring",   relay_ring  },
        {"forget", relay_forget},
        {"gone",   relay_gone  },
        {"drop",   relay_drop  },
        {"close",  relay_close },
        {NULL,     NULL        },
    };
    dbl_newclass(L, CLASS, metamethods, methods);
    lua_pop(L, 1);
}

#else

static int relay_new(lua_State *L)
{
    return dbl_fail(L, DBL_UNSUPPORTED, "the wait \"openresty\" needs epoll(7)");
}

void dbl_relay_open(lua_State *L)
{
    (void)L;
}

#endif

const luaL_Reg dbl_relay_functions[] = {
    {"relay", relay_new},
    {NULL,    NULL     },
};
