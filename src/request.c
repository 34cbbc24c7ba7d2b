/*
 * request.c -- asking the server to drop what it is doing.
 *
 * Errands are run in threads; they hold nothing of Lua's, and own what they work
 * on.  A process that ends in the middle of errands gives
 * them a moment at exit, or a script that is over would leave its last query
 * running on the server.
 */
#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block.h"
#include "process.h"

#if DBL_HAS_ASYNC_CANCEL
typedef PGcancelConn Handle;
#define new_handle  PQcancelCreate
#define free_handle PQcancelFinish
#else
typedef PGcancel Handle;
#define new_handle  PQgetCancel
#define free_handle PQfreeCancel
#endif

/* Where nobody answers, errands must not pile up without end. */
enum { MOST_ERRANDS = 100, ERRAND_SECONDS = 30 };
#define FIRST_PAUSE 0.05

/* What a thread and those who wait for it share; the last of them frees it. */
typedef struct Errand {
    Handle *handle;
    int wake[2]; /* a pipe: its end of file means over; -1 where nobody waits */
    int left;    /* the socket of a connection that is being closed; or -1 */
    int owners;
    int over;
    char error[256];
} Errand;

static int running;   /* errands of this process, all Lua states together */
static unsigned born; /* which process that is: a forked child has none of them */

static void copy_error(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
    size_t n = strlen(to);
    while (n > 0 && to[n - 1] == '\n')
        to[--n] = '\0';
}

static void leave(Errand *e)
{
    if (__atomic_sub_fetch(&e->owners, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    free_handle(e->handle);
    if (e->wake[0] >= 0)
        close(e->wake[0]);
    if (e->left >= 0)
        close(e->left);
    free(e);
}

#if DBL_HAS_ASYNC_CANCEL

/* What to wait for; 0: over, and the error is "" if the request was sent. */
static int poll_handle(Handle *h, char *error, size_t size)
{
    switch (PQcancelPoll(h)) {
    case PGRES_POLLING_READING:
        return DBL_READ;
    case PGRES_POLLING_WRITING:
        return DBL_WRITE;
    case PGRES_POLLING_OK:
        return 0;
    default:
        copy_error(error, size, PQcancelErrorMessage(h));
        return 0;
    }
}

/* As PQcancelBlocking, with a limit. */
static void do_errand(Errand *e)
{
    double limit = dbl_now() + ERRAND_SECONDS;
    PQcancelReset(e->handle);
    int need = PQcancelStart(e->handle) ? DBL_WRITE : 0;
    while (need && dbl_now() < limit) {
        dbl_block(PQcancelSocket(e->handle), need, limit);
        need = poll_handle(e->handle, e->error, sizeof e->error);
    }
}

#else

static void do_errand(Errand *e)
{
    char error[sizeof e->error] = "";
    if (!PQcancel(e->handle, error, sizeof error))
        copy_error(e->error, sizeof e->error, error);
}

#endif

/* Whether the server has closed its end until then.  Reads away what else it says. */
static int has_gone(const Errand *e, double until)
{
    char bytes[4096];
    do {
        int ready = dbl_block(e->left, DBL_READ, until);
        ssize_t n = ready > 0 ? recv(e->left, bytes, sizeof bytes, MSG_DONTWAIT) : 1;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return 1;
    } while (dbl_now() < until);
    return 0;
}

/* Nobody will collect what a request may have missed that came before its query had begun:
 * it is repeated until the server is gone from there.  What libpq could not send to tell it that
 * nobody is left, it is told by the end of what it can read. */
static void see_off(Errand *e)
{
    double limit = dbl_now() + ERRAND_SECONDS;
    for (double pause = FIRST_PAUSE; dbl_now() < limit; pause *= 2) {
        if (has_gone(e, dbl_now() + pause))
            return;
        shutdown(e->left, SHUT_WR);
        do_errand(e);
    }
}

static void run(void *errand)
{
    Errand *e = errand;
    do_errand(e);
    if (e->left >= 0)
        see_off(e);
    __atomic_store_n(&e->over, 1, __ATOMIC_RELEASE);
    if (e->wake[1] >= 0)
        close(e->wake[1]);
    leave(e);
    __atomic_sub_fetch(&running, 1, __ATOMIC_ACQ_REL);
}

/* Where the host has threads of no kind, whoever asked waits in here. */
static int send_off(Errand *e, const dblink_hooks *hooks)
{
    if (born != dbl_forks()) {
        born = dbl_forks();
        running = 0;
    }
    int n = __atomic_add_fetch(&running, 1, __ATOMIC_ACQ_REL), sent = n <= MOST_ERRANDS;
    if (sent && hooks && !hooks->errand)
        run(e);
    else if (sent)
        sent = dbl_elsewhere(hooks, run, e);
    if (!sent)
        __atomic_sub_fetch(&running, 1, __ATOMIC_ACQ_REL);
    return sent;
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

/* Takes the handle, and the socket that is left.  waited: one more owner, who waits on
 * wake[0].  NULL: it could not start, and what it took is gone. */
static Errand *errand(Handle *h, int left, int waited, const dblink_hooks *hooks)
{
    Errand *e = calloc(1, sizeof *e);
    if (!e) {
        free_handle(h);
        if (left >= 0)
            close(left);
        return NULL;
    }
    e->handle = h;
    e->left = left;
    e->owners = 1 + waited;
    e->wake[0] = e->wake[1] = -1;
    if ((!waited || open_pipe(e->wake)) && send_off(e, hooks))
        return e;
    if (e->wake[1] >= 0)
        close(e->wake[1]);
    e->owners = 1;
    leave(e);
    return NULL;
}

/* At exit: errands under way have a second to get through. */
__attribute__((destructor)) static void grant_a_moment(void)
{
    if (born == dbl_forks())
        for (int i = 0; i < 200 && __atomic_load_n(&running, __ATOMIC_ACQUIRE) > 0; i++)
            poll(NULL, 0, 5);
}

void dbl_request_errand(PGconn *pg, const dblink_hooks *hooks)
{
    Handle *h = !hooks || hooks->errand ? new_handle(pg) : NULL;
    if (h)
        errand(h, fcntl(PQsocket(pg), F_DUPFD_CLOEXEC, 0), 0, hooks);
}

/* A Request has a part of its own for either libpq; these are its verbs. */
struct Request {
    Request *next; /* of the same connection */
    const dblink_hooks *hooks;
    unsigned born; /* a forked child must not touch it */
    int owners;
    int over;
    char error[256];
#if DBL_HAS_ASYNC_CANCEL
    PGcancelConn *handle;
    int need;  /* what its socket is waited for */
    int watch; /* the same socket for who waits: libpq may close its own meanwhile */
#else
    Errand *errand; /* NULL: it never started */
#endif
};

#if DBL_HAS_ASYNC_CANCEL

static void begin(Request *r, PGconn *pg)
{
    r->handle = PQcancelCreate(pg);
    r->need = DBL_WRITE;
    r->watch = -1;
    r->over = !r->handle || !PQcancelStart(r->handle);
    if (r->over)
        copy_error(r->error, sizeof r->error, PQcancelErrorMessage(r->handle));
}

static int go_on(Request *r)
{
    if (dbl_block(PQcancelSocket(r->handle), r->need, 0) == 1)
        r->need = poll_handle(r->handle, r->error, sizeof r->error);
    return r->need;
}

static void unwatch(Request *r)
{
    dbl_forget(r->hooks, r->watch);
    if (r->watch >= 0)
        close(r->watch);
    r->watch = -1;
}

static void end(Request *r)
{
    PQcancelFinish(r->handle);
}

/* Whether the server can have heard of it. */
static int was_sent(const Request *r)
{
    return PQcancelStatus(r->handle) == CONNECTION_AWAITING_RESPONSE;
}

int dbl_request_fd(Request *r)
{
    unwatch(r);
    r->watch = fcntl(PQcancelSocket(r->handle), F_DUPFD_CLOEXEC, 0);
    return r->watch;
}

#else

static void begin(Request *r, PGconn *pg)
{
    Handle *h = PQgetCancel(pg);
    if (!h)
        PQcancel(NULL, r->error, sizeof r->error); /* libpq's own words for it */
    else if (!(r->errand = errand(h, -1, 1, r->hooks)))
        strcpy(r->error, "could not start a thread for the cancel request");
    r->over = !r->errand;
}

static int go_on(Request *r)
{
    if (!__atomic_load_n(&r->errand->over, __ATOMIC_ACQUIRE))
        return DBL_READ;
    strcpy(r->error, r->errand->error);
    return 0;
}

static void end(Request *r)
{
    if (r->errand)
        leave(r->errand);
}

static void unwatch(Request *r)
{
    dbl_forget(r->hooks, dbl_request_fd(r));
}

static int was_sent(const Request *r)
{
    (void)r;
    return 1; /* who knows */
}

int dbl_request_fd(Request *r)
{
    return r->errand ? r->errand->wake[0] : -1;
}

#endif

Request *dbl_request_new(Memory memory, PGconn *pg, Request **list, const dblink_hooks *hooks)
{
    Request *r = dbl_alloc(memory, sizeof *r);
    if (!r)
        return NULL;
    memset(r, 0, sizeof *r);
    r->hooks = hooks;
    begin(r, pg);
    r->born = dbl_forks();
    r->owners = 2;
    r->next = *list;
    *list = r;
    return r;
}

int dbl_request_step(Request *r)
{
    int need = r->over || r->born != dbl_forks() ? 0 : go_on(r);
    r->over = !need;
    return need;
}

static void disown(Request *r)
{
    if (--r->owners > 0 || r->born != dbl_forks())
        return;
    end(r);
    dbl_free(r);
}

void dbl_request_leave(Request *r)
{
    unwatch(r);
    r->over |= !was_sent(r);
    disown(r);
}

int dbl_requests_pending(Request **list)
{
    while (*list) {
        Request *r = *list;
        if (dbl_request_step(r))
            return 1;
        *list = r->next;
        disown(r);
    }
    return 0;
}

void dbl_requests_forget(Request **list)
{
    while (*list) {
        Request *r = *list;
        *list = r->next;
        disown(r);
    }
}

const char *dbl_request_error(const Request *r)
{
    return r->error[0] ? r->error : NULL;
}
