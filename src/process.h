/*
 * process.h -- facts of the process that we are a part of.
 */
#ifndef DBL_PROCESS_H
#define DBL_PROCESS_H

/* How many forks led to this process, counted from the first call on; which also
 * keeps this module in memory for good: threads run in it that outlive a
 * lua_State, and Lua unloads what it has loaded. */
unsigned dbl_forks(void);

/* The count itself, for those who know of such a call. */
extern unsigned dbl_fork_count;

/* A handle for dlsym: the shared library that holds the address, and what that one
 * is linked with; the whole program where it is linked in.  Nothing is loaded. */
void *dbl_library_of(const void *address);

#endif
