/*
 * faults.c -- a Lua interpreter whose memory ends when it is told to.
 *
 *   faults SCRIPT ARGUMENTS...
 *
 * The script has a module more, "faults":
 *   faults.try(code, kind, n, mode, ...)
 * In a new lua_State runs `code`, which gives three functions, begin, run and judge: context = begin(...); run(context)
 * with the nth allocation refused, Lua's (kind "lua") or libpq's ("libpq"), or the nth memory of malloc, descriptor or
 * thread that our own module asks for ("system"; any other: none); judge(context, ok, err)
 * with memory again, and with what pcall made of run.  mode "once": the nth; Lua from 5.2 on collects all garbage then
 * and tries again, so "twice": the nth and the next; "on": all from the nth on.  Then the state is closed, and must
 * have left nothing: no block of its allocator's or of libpq's, no descriptor.  Returns whether the nth was reached,
 * and what judge gave; raises what is not as it should be.  What takes longer than faults.limit seconds (10) ends all.
 *
 * malloc and its like are defined here, before libc's and a sanitizer's, and see by their return address who calls.
 */
#define _GNU_SOURCE
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct Fault {
    long at, count;
    int armed, twice, on;
} Fault;

static int strikes(Fault *f)
{
    if (!f->armed)
        return 0;
    long n = ++f->count;
    return n == f->at || (f->twice && n == f->at + 1) || (f->on && n > f->at);
}

/* Who calls: a library whose memory is watched, known by where its code lies. */
typedef struct Caller {
    const char *name;
    uintptr_t from, to;
    Fault fault;
} Caller;

static Caller pq = {.name = "/libpq.so"}, us = {.name = "/core.so"};

static int is(const Caller *c, void *address)
{
    return c->from <= (uintptr_t)address && (uintptr_t)address < c->to;
}

static int find_code(struct dl_phdr_info *info, size_t size, void *caller)
{
    Caller *c = caller;
    (void)size;
    if (!strstr(info->dlpi_name, c->name))
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X)) {
            c->from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            c->to = c->from + info->dlpi_phdr[i].p_memsz;
        }
    return 1;
}

/* Whether what is asked for from that address is refused. */
static int refused(void *address, int error)
{
    if (!(is(&pq, address) && strikes(&pq.fault)) && !(is(&us, address) && strikes(&us.fault)))
        return 0;
    errno = error;
    return 1;
}

#define REFUSED(error) refused(__builtin_return_address(0), error)

/* libpq's blocks, and ours: which are alive. */

static void *(*next_malloc)(size_t), *(*next_calloc)(size_t, size_t),
    *(*next_realloc)(void *, size_t);
static void (*next_free)(void *);
static char early[65536]; /* what dlsym asks for before there is a malloc to ask */
static size_t early_used;

enum { SLOTS = 1 << 18 };
static void *blocks[SLOTS]; /* open addressing; (void *)1: was one */
static long alive;
static int lock;

static size_t slot_of(const void *p)
{
    return ((uintptr_t)p >> 4) * 2654435761u % SLOTS;
}

static void remember(void *p)
{
    size_t i;
    while (__sync_lock_test_and_set(&lock, 1))
        ;
    for (i = slot_of(p); (uintptr_t)blocks[i] > 1; i = (i + 1) % SLOTS)
        ;
    blocks[i] = p;
    alive++;
    __sync_lock_release(&lock);
}

static int forget(const void *p)
{
    int known = 0;
    while (__sync_lock_test_and_set(&lock, 1))
        ;
    for (size_t i = slot_of(p), n = 0; blocks[i] && n < SLOTS; i = (i + 1) % SLOTS, n++)
        if (blocks[i] == p) {
            blocks[i] = blocks[(i + 1) % SLOTS] ? (void *)1 : NULL;
            alive--;
            known = 1;
            break;
        }
    __sync_lock_release(&lock);
    return known;
}

static void find_next(void)
{
    static int busy;
    if (next_malloc || busy)
        return;
    busy = 1;
    *(void **)&next_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **)&next_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **)&next_free = dlsym(RTLD_NEXT, "free");
    *(void **)&next_malloc = dlsym(RTLD_NEXT, "malloc");
    busy = 0;
}

static void *early_alloc(size_t size)
{
    void *p = early + early_used;
    early_used += (size + 15) & ~(size_t)15;
    return early_used <= sizeof early ? p : NULL;
}

static int is_early(const void *p)
{
    return early <= (const char *)p && (const char *)p < early + sizeof early;
}

/* What the caller gets, of a block that was made for it. */
static void *noted(void *p, int watched)
{
    if (p && watched)
        remember(p);
    return p;
}

#define WATCHED (is(&pq, __builtin_return_address(0)) || is(&us, __builtin_return_address(0)))

void *malloc(size_t size)
{
    find_next();
    if (!next_malloc)
        return early_alloc(size);
    return REFUSED(ENOMEM) ? NULL : noted(next_malloc(size), WATCHED);
}

void *calloc(size_t n, size_t size)
{
    find_next();
    if (!next_malloc)
        return early_alloc(n * size);
    return REFUSED(ENOMEM) ? NULL : noted(next_calloc(n, size), WATCHED);
}

void *realloc(void *p, size_t size)
{
    find_next();
    if (is_early(p))
        return memcpy(next_malloc(size), p, size);
    if (REFUSED(ENOMEM))
        return NULL;
    int known = p && forget(p);
    return noted(next_realloc(p, size), known || WATCHED);
}

void free(void *p)
{
    if (!p || is_early(p))
        return;
    if (pq.from)
        forget(p);
    next_free(p);
}

char *strdup(const char *s)
{
    size_t size = strlen(s) + 1;
    find_next();
    char *p = REFUSED(ENOMEM) ? NULL : noted(next_malloc(size), WATCHED);
    return p ? memcpy(p, s, size) : NULL;
}

/* Descriptors and threads */

#define REAL(type, name, ...)                                                                      \
    type (*name)(__VA_ARGS__);                                                                     \
    *(void **)&name = dlsym(RTLD_NEXT, #name)

int pipe(int fd[2])
{
    REAL(int, pipe, int *);
    return REFUSED(EMFILE) ? -1 : pipe(fd);
}

int socketpair(int domain, int type, int protocol, int fd[2])
{
    REAL(int, socketpair, int, int, int, int *);
    return REFUSED(EMFILE) ? -1 : socketpair(domain, type, protocol, fd);
}

int epoll_create1(int flags)
{
    REAL(int, epoll_create1, int);
    return REFUSED(EMFILE) ? -1 : epoll_create1(flags);
}

int epoll_ctl(int epoll, int what, int fd, struct epoll_event *e)
{
    REAL(int, epoll_ctl, int, int, int, struct epoll_event *);
    return REFUSED(ENOSPC) ? -1 : epoll_ctl(epoll, what, fd, e);
}

int eventfd(unsigned count, int flags)
{
    REAL(int, eventfd, unsigned, int);
    return REFUSED(EMFILE) ? -1 : eventfd(count, flags);
}

int socket(int domain, int type, int protocol)
{
    REAL(int, socket, int, int, int);
    return REFUSED(EMFILE) ? -1 : socket(domain, type, protocol);
}

int bind(int fd, const struct sockaddr *to, socklen_t size)
{
    REAL(int, bind, int, const struct sockaddr *, socklen_t);
    return REFUSED(EACCES) ? -1 : bind(fd, to, size);
}

int listen(int fd, int backlog)
{
    REAL(int, listen, int, int);
    return REFUSED(EADDRINUSE) ? -1 : listen(fd, backlog);
}

int accept(int listener, struct sockaddr *restrict from, socklen_t *restrict size)
{
    REAL(int, accept, int, struct sockaddr *, socklen_t *);
    return REFUSED(EMFILE) ? -1 : accept(listener, from, size);
}

char *mkdtemp(char *path)
{
    REAL(char *, mkdtemp, char *);
    return REFUSED(EACCES) ? NULL : mkdtemp(path);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *what)
{
    REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return REFUSED(EAGAIN) ? EAGAIN : pthread_create(thread, how, run, what);
}

/* Lua's */

typedef struct Host {
    Fault fault;
    size_t used;
} Host;

static void *allocate(void *data, void *p, size_t old, size_t size)
{
    Host *h = data;
    void *q = NULL;
    size_t was =
        p ? malloc_usable_size(p) : 0; /* LuaJIT forgets an array when its hash part is refused */
    if (size > (p ? old : 0) && strikes(&h->fault))
        return NULL;
    if (size == 0)
        free(p);
    else if (!(q = realloc(p, size)))
        return NULL;
    h->used += (q ? malloc_usable_size(q) : 0) - was;
    return q;
}

static int descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static char where[512];
static lua_State *running;

/* The last that is done here: a stack that may be in disorder is looked at all the same. */
static void hung(int signal)
{
    (void)signal;
    alarm(1);
    fprintf(stderr, "%s: hung\n", where);
#if LUA_VERSION_NUM >= 502
    luaL_traceback(running, running, NULL, 0);
    fprintf(stderr, "%s\n", lua_tostring(running, -1));
#endif
    abort();
}

/* Copies nil, booleans, numbers and strings. */
static void copy(lua_State *from, int i, lua_State *to)
{
    size_t size;
    switch (lua_type(from, i)) {
    case LUA_TBOOLEAN:
        lua_pushboolean(to, lua_toboolean(from, i));
        return;
    case LUA_TNUMBER:
        lua_pushnumber(to, lua_tonumber(from, i));
        return;
    case LUA_TSTRING: {
        const char *s = lua_tolstring(from, i, &size);
        lua_pushlstring(to, s, size);
        return;
    }
    default:
        lua_pushnil(to);
    }
}

/* Everything in a child state, whose stack it leaves with: judge's answer, or why not. */
static int attempt(lua_State *child, lua_State *L, Host *h, Fault *fault)
{
    luaL_openlibs(child);
    const char *code = lua_tostring(L, 1);
    if (luaL_loadstring(child, code) || lua_pcall(child, 0, 3, 0))
        return 0;
    lua_pushvalue(child, 1); /* begin run judge begin */
    for (int i = 5; i <= lua_gettop(L); i++)
        copy(L, i, child);
    if (lua_pcall(child, lua_gettop(L) - 4, 1, 0)) /* begin run judge context */
        return 0;
    dl_iterate_phdr(find_code, &pq);
    dl_iterate_phdr(find_code, &us);
    lua_pushvalue(child, 3);
    lua_pushvalue(child, 4);
    lua_pushvalue(child, 2);
    lua_pushvalue(child, 4); /* begin run judge context judge context run context */
    h->fault.count = pq.fault.count = us.fault.count = 0;
    fault->armed = 1;
    int status = lua_pcall(child, 1, 1, 0);
    fault->armed = 0;
    lua_pushboolean(child, status == 0);
    lua_insert(child, -2); /* begin run judge context judge context ok err */
    return lua_pcall(child, 3, 1, 0) == 0;
}

static int faults_try(lua_State *L)
{
    static Fault none;
    Host h = {.used = 0};
    const char *kind = luaL_checkstring(L, 2), *mode = luaL_checkstring(L, 4);
    Fault *fault = strcmp(kind, "lua") == 0      ? &h.fault
                   : strcmp(kind, "libpq") == 0  ? &pq.fault
                   : strcmp(kind, "system") == 0 ? &us.fault
                                                 : &none;
    *fault = (Fault){.at = (long)luaL_checkinteger(L, 3),
                     .twice = strcmp(mode, "twice") == 0,
                     .on = strcmp(mode, "on") == 0};
    lua_getfield(L, lua_upvalueindex(1), "limit");
    unsigned limit = (unsigned)lua_tointeger(L, -1);
    lua_pop(L, 1);
    snprintf(where, sizeof where, "%s %s, place %ld, %s", luaL_optstring(L, 5, ""), kind, fault->at,
             mode);
    alarm(limit);
    int open = descriptors();
    long had = alive;
#if LUA_VERSION_NUM >= 505
    lua_State *child = lua_newstate(allocate, &h, 0);
#else
    lua_State *child = lua_newstate(allocate, &h);
#endif
    running = child;
    int good = child && attempt(child, L, &h, fault), reached = fault->count >= fault->at;
    lua_pushboolean(L, reached);
    if (lua_isstring(child, -1))
        copy(child, -1, L);
    else
        lua_pushfstring(L, "a %s", luaL_typename(child, -1));
    lua_close(child);
    for (int i = 0; i < 500 && (descriptors() != open || alive != had); i++)
        poll(NULL, 0, 10); /* a thread of ours may see a cancel request through */
    alarm(0);
    int left = descriptors() - open;
    if (good && h.used)
        lua_pushfstring(L, "left: %d bytes of Lua's allocator", (int)h.used);
    else if (good && alive != had)
        lua_pushfstring(L, "left: %d blocks of malloc", (int)(alive - had));
    else if (good && left)
        lua_pushfstring(L, "left: %d descriptors", left);
    else if (good)
        return 2;
    return luaL_error(L, "%s: %s", where, lua_tostring(L, -1));
}

int main(int argc, char **argv)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    signal(SIGALRM, hung);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaded");
    lua_newtable(L);
    lua_pushinteger(L, 10);
    lua_setfield(L, -2, "limit");
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, faults_try, 1);
    lua_setfield(L, -2, "try");
    lua_setfield(L, -2, "faults");
    lua_newtable(L);
    for (int i = 1; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - 1);
    }
    lua_setglobal(L, "arg");
    if (argc < 2 || luaL_loadfile(L, argv[1]) || lua_pcall(L, 0, 0, 0)) {
        fprintf(stderr, "%s\n", argc < 2 ? "faults SCRIPT" : lua_tostring(L, -1));
        return 1;
    }
    lua_close(L);
    return 0;
}
