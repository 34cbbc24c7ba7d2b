/*
 * refuse.c -- a library for LD_PRELOAD that refuses our module, and nobody else in the process, what it asks for.
 *
 *   DBLINK_REFUSE="NAME FIRST COUNT"
 *
 * The calls of that function from the FIRSTth on fail, COUNT of them: one of libc's that are below, or one of nginx's, which
 * the module finds by dlsym; of another name (a variable's) nothing is found.  "odd_connection N 0": nginx's first
 * connection is another than it should be in its Nth respect.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static char name[64];
static int first, count, calls;

__attribute__((constructor)) static void read_order(void)
{
    const char *order = getenv("DBLINK_REFUSE");
    if (order)
        sscanf(order, "%63s %d %d", name, &first, &count);
}

static int strikes(const char *what)
{
    if (strcmp(what, name) != 0)
        return 0;
    int call = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    return call >= first && call < first + count;
}

static int is_ours(void *address)
{
    Dl_info place;
    return dladdr(address, &place) && strstr(place.dli_fname, "/core.so");
}

static int refused(void *address, const char *what, int error)
{
    if (!is_ours(address) || !strikes(what))
        return 0;
    errno = error;
    return 1;
}

/* dlsym is looked up without dlsym. */
static void *find(void *where, const char *symbol)
{
    static void *(*real)(void *, const char *);
    if (!real)
        *(void **)&real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    if (!real)
        *(void **)&real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
    return real(where, symbol);
}

#define REFUSED(what, error) refused(__builtin_return_address(0), what, error)
#define REAL(type, what, ...)                                                                      \
    type (*what)(__VA_ARGS__);                                                                     \
    *(void **)&what = find(RTLD_NEXT, #what)

int socketpair(int domain, int type, int protocol, int fd[2])
{
    REAL(int, socketpair, int, int, int, int *);
    return REFUSED("socketpair", EMFILE) ? -1 : socketpair(domain, type, protocol, fd);
}

int eventfd(unsigned value, int flags)
{
    REAL(int, eventfd, unsigned, int);
    return REFUSED("eventfd", EMFILE) ? -1 : eventfd(value, flags);
}

int epoll_create1(int flags)
{
    REAL(int, epoll_create1, int);
    return REFUSED("epoll_create1", EMFILE) ? -1 : epoll_create1(flags);
}

int epoll_ctl(int epoll, int what, int fd, struct epoll_event *e)
{
    REAL(int, epoll_ctl, int, int, int, struct epoll_event *);
    return REFUSED("epoll_ctl", ENOSPC) ? -1 : epoll_ctl(epoll, what, fd, e);
}

int accept(int listener, struct sockaddr *restrict from, socklen_t *restrict size)
{
    REAL(int, accept, int, struct sockaddr *, socklen_t *);
    return REFUSED("accept", EMFILE) ? -1 : accept(listener, from, size);
}

char *mkdtemp(char *path)
{
    REAL(char *, mkdtemp, char *);
    return REFUSED("mkdtemp", EACCES) ? NULL : mkdtemp(path);
}

int fcntl(int fd, int what, ...)
{
    va_list rest;
    va_start(rest, what);
    void *value = va_arg(rest, void *);
    va_end(rest);
    REAL(int, fcntl, int, int, ...);
    return what == F_DUPFD_CLOEXEC && REFUSED("fcntl", EMFILE) ? -1 : fcntl(fd, what, value);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *what)
{
    REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return REFUSED("pthread_create", EAGAIN) ? EAGAIN : pthread_create(thread, how, run, what);
}

/* nginx's */

static void *(*get_connection)(int, void *), *(*cleanup)(void *, size_t);
static intptr_t (*read_event)(void *, uintptr_t), (*write_event)(void *, size_t);

static void *get_no_connection(int fd, void *log)
{
    return strikes("ngx_get_connection") ? NULL : get_connection(fd, log);
}

static void *no_cleanup(void *request, size_t size)
{
    return strikes("ngx_http_cleanup_add") ? NULL : cleanup(request, size);
}

static intptr_t no_read_event(void *event, uintptr_t flags)
{
    return strikes("ngx_handle_read_event") ? -1 : read_event(event, flags);
}

static intptr_t no_write_event(void *event, size_t low)
{
    return strikes("ngx_handle_write_event") ? -1 : write_event(event, low);
}

/* The beginnings of ngx_event_t and ngx_connection_t. */
typedef struct Event {
    void *data;
    unsigned bits;
    int available;
    void *handler;
    uintptr_t index;
} Event;

typedef struct Connection {
    void *data;
    Event *read, *write;
    int fd;
} Connection;

static Connection was;
static Event was_read, was_write;
static void (*free_connection)(void *);

static void *get_odd_connection(int fd, void *log)
{
    Connection *c = get_connection(fd, log);
    was = *c;
    was_read = *c->read;
    was_write = *c->write;
    switch (first) {
    case 1:
        c->fd = -1;
        break;
    case 2:
        c->read = NULL;
        break;
    case 3:
        c->write = NULL;
        break;
    case 4:
        c->read->data = NULL;
        break;
    case 5:
        c->write->data = NULL;
        break;
    case 6:
        c->read->bits |= 1;
        break;
    case 7:
        c->write->bits &= ~1u;
        break;
    case 8:
        c->read->handler = c;
        break;
    case 9:
        c->write->handler = c;
        break;
    case 10:
        c->read->index = 0;
        break;
    case 11:
        c->write->index = 0;
        break;
    }
    return c;
}

static void free_odd_connection(void *connection)
{
    Connection *c = connection;
    *c = was;
    *c->read = was_read;
    *c->write = was_write;
    free_connection(c);
}

void *dlsym(void *restrict where, const char *restrict symbol)
{
    const struct {
        const char *name;
        void *real, *ours;
    } functions[] = {
        {"ngx_get_connection",     &get_connection, (void *)get_no_connection},
        {"ngx_http_cleanup_add",   &cleanup,        (void *)no_cleanup       },
        {"ngx_handle_read_event",  &read_event,     (void *)no_read_event    },
        {"ngx_handle_write_event", &write_event,    (void *)no_write_event   },
    };
    void *found = find(where, symbol);
    if (strcmp(name, "odd_connection") == 0 && strcmp(symbol, "ngx_get_connection") == 0) {
        *(void **)&get_connection = found;
        return (void *)get_odd_connection;
    }
    if (strcmp(name, "odd_connection") == 0 && strcmp(symbol, "ngx_free_connection") == 0) {
        *(void **)&free_connection = found;
        return (void *)free_odd_connection;
    }
    if (strcmp(symbol, name) != 0 || !is_ours(__builtin_return_address(0)))
        return found;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(symbol, functions[i].name) == 0) {
            *(void **)functions[i].real = found;
            return functions[i].ours;
        }
    return NULL;
}
