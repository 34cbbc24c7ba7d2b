/*
 * thread.c -- a thread for an errand, unless the host runs it otherwise.
 *
 * The thread takes no signal, which is the host's to take, and is nobody's to join.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "dblink.h"
#include "process.h"

typedef struct Work {
    void (*run)(void *);
    void *what;
} Work;

enum { STACK = 256 * 1024 };

static void *begin(void *work)
{
    Work w = *(Work *)work;
    free(work);
    w.run(w.what);
    return NULL;
}

int dblink_thread(void *data, void (*run)(void *), void *what)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    Work *w = malloc(sizeof *w);
    (void)data;
    if (!w)
        return 0;
    dbl_forks(); /* from now on the library stays, though its lua_State may go */
    w->run = run;
    w->what = what;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int started = pthread_create(&thread, &attributes, begin, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!started)
        free(w);
    return started;
}
