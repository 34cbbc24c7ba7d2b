/*
 * process.c -- facts of the process that we are a part of.
 */
#include "process.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

unsigned dbl_fork_count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A Dl_info.  dladdr is everywhere, but declared only for those who ask for GNU's names. */
typedef struct Place {
    const char *file;
    void *base;
    const char *symbol;
    void *address;
} Place;

static void *library_of(const void *address, int flags)
{
    void *program = dlopen(NULL, RTLD_LAZY), *library = NULL, *dladdr = dlsym(program, "dladdr");
    int (*look)(const void *, Place *);
    Place place = {0};
    memcpy(&look, &dladdr, sizeof look);
    if (dladdr && look(address, &place))
        library = dlopen(place.file, RTLD_LAZY | RTLD_NOLOAD | flags);
    return library ? library : program;
}

static void forked(void)
{
    dbl_fork_count++;
}

static void begin(void)
{
    pthread_atfork(NULL, NULL, forked);
    library_of(&dbl_fork_count, RTLD_NODELETE);
}

unsigned dbl_forks(void)
{
    pthread_once(&once, begin);
    return dbl_fork_count;
}

void *dbl_library_of(const void *address)
{
    return library_of(address, 0);
}
