/*
 * request.c -- asking the server to drop what it is doing.
 *
 * Threads of ours ("errands") block every signal, hold nothing of Lua's, and
 * own what they work on.  A process that ends in the middle of errands gives
 * them a moment at exit, or a script that is over would leave its last query
 * running on the server.
 */
#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block.h"

#if DBL_HAS_ASYNC_CANCEL
typedef PGcancelConn Handle;
#else
typedef PGcancel Handle;
#endif

/* Shared by a thread and whoever asked; the last of both frees it. */
typedef struct Errand {
    Handle *handle;
    int wake[2]; /* a pipe: its end of file means over; -1 where nobody listens */
    int owners;
    int sent;
    char error[256];
} Errand;

static int running; /* errands of this process, all Lua states together */

static void copy_error(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
    size_t n = strlen(to);
    while (n > 0 && to[n - 1] == '\n')
        to[--n] = '\0';
}

static void free_handle(Handle *h)
{
#if DBL_HAS_ASYNC_CANCEL
    PQcancelFinish(h);
#else
    PQfreeCancel(h);
#endif
}

static void leave(Errand *e)
{
    if (__atomic_sub_fetch(&e->owners, 1, __ATOMIC_ACQ_REL) == 0) {
        free_handle(e->handle);
        free(e);
    }
}

static void *run(void *errand)
{
    Errand *e = errand;
#if DBL_HAS_ASYNC_CANCEL
    e->sent = PQcancelBlocking(e->handle);
#else
    char error[sizeof e->error] = "";
    e->sent = PQcancel(e->handle, error, sizeof error);
    if (!e->sent)
        copy_error(e->error, sizeof e->error, error);
#endif
    if (e->wake[1] >= 0)
        close(e->wake[1]);
    leave(e);
    __atomic_sub_fetch(&running, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static int open_pipe(int fd[2])
{
    if (pipe(fd) != 0) {
        fd[0] = fd[1] = -1;
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        fcntl(fd[i], F_SETFD, FD_CLOEXEC);
        fcntl(fd[i], F_SETFL, O_NONBLOCK);
    }
    return 1;
}

/* Takes the handle.  NULL: it could not start, and the handle is gone. */
static Errand *errand(Handle *h, int owners)
{
    Errand *e = calloc(1, sizeof *e);
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    if (!e) {
        free_handle(h);
        return NULL;
    }
    e->handle = h;
    e->owners = owners;
    e->wake[0] = e->wake[1] = -1;
    if (owners == 2 && !open_pipe(e->wake))
        goto failed;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    __atomic_add_fetch(&running, 1, __ATOMIC_ACQ_REL);
    int status = pthread_create(&thread, &attributes, run, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (status == 0)
        return e;
    __atomic_sub_fetch(&running, 1, __ATOMIC_ACQ_REL);
failed:
    if (e->wake[0] >= 0) {
        close(e->wake[0]);
        close(e->wake[1]);
    }
    free_handle(h);
    free(e);
    return NULL;
}

/* At exit: errands under way have a second to get through. */
__attribute__((destructor)) static void grant_a_moment(void)
{
    for (int i = 0; i < 200 && __atomic_load_n(&running, __ATOMIC_ACQUIRE) > 0; i++)
        poll(NULL, 0, 5);
}

void dbl_request_errand(PGconn *pg)
{
#if DBL_HAS_ASYNC_CANCEL
    Handle *h = PQcancelCreate(pg);
#else
    Handle *h = PQgetCancel(pg);
#endif
    if (h)
        errand(h, 1);
}

#if DBL_HAS_ASYNC_CANCEL

struct Request {
    PGcancelConn *handle;
    int fresh;
    int over;
    char error[256];
};

Request *dbl_request_new(PGconn *pg)
{
    Request *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->handle = PQcancelCreate(pg);
    r->fresh = 1;
    r->over = !r->handle || !PQcancelStart(r->handle);
    if (r->over)
        copy_error(r->error, sizeof r->error, PQcancelErrorMessage(r->handle));
    return r;
}

int dbl_request_step(Request *r)
{
    if (r->over)
        return 0;
    if (r->fresh) {
        r->fresh = 0;
        return DBL_WRITE;
    }
    switch (PQcancelPoll(r->handle)) {
    case PGRES_POLLING_READING:
        return DBL_READ;
    case PGRES_POLLING_WRITING:
        return DBL_WRITE;
    case PGRES_POLLING_OK:
        break;
    default:
        copy_error(r->error, sizeof r->error, PQcancelErrorMessage(r->handle));
    }
    r->over = 1;
    return 0;
}

int dbl_request_fd(const Request *r)
{
    return PQcancelSocket(r->handle);
}

void dbl_request_free(Request *r)
{
    PQcancelFinish(r->handle);
    free(r);
}

#else

struct Request {
    Errand *errand; /* NULL: it never started */
    int over;
    char error[256];
};

Request *dbl_request_new(PGconn *pg)
{
    Request *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    Handle *h = PQgetCancel(pg);
    if (!h)
        PQcancel(NULL, r->error, sizeof r->error); /* libpq's own words for it */
    else if (!(r->errand = errand(h, 2)))
        strcpy(r->error, "could not start a thread for the cancel request");
    r->over = !r->errand;
    return r;
}

int dbl_request_step(Request *r)
{
    char byte;
    if (r->over)
        return 0;
    if (read(r->errand->wake[0], &byte, 1) < 0 && (errno == EAGAIN || errno == EINTR))
        return DBL_READ;
    r->over = 1;
    if (!r->errand->sent)
        strcpy(r->error, r->errand->error);
    return 0;
}

int dbl_request_fd(const Request *r)
{
    return r->errand ? r->errand->wake[0] : -1;
}

void dbl_request_free(Request *r)
{
    if (r->errand) {
        close(r->errand->wake[0]);
        leave(r->errand);
    }
    free(r);
}

#endif

const char *dbl_request_error(const Request *r)
{
    return r->error[0] ? r->error : NULL;
}
