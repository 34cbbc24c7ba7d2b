/*
 * block.c -- a clock, and poll(2) for those who bring no loop.
 *
 * This is the only place of the C core where anything waits; only plain
 * scripts come here.
 */
#include "block.h"

#include <poll.h>
#include <string.h>
#include <time.h>

enum { MONTH = 2000000000 }; /* in milliseconds, nearly; it fits an int */

double dbl_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int dbl_milliseconds(double deadline)
{
    if (deadline >= DBL_NEVER)
        return -1;
    double left = deadline > 0 ? (deadline - dbl_now()) * 1e3 : 0;
    /* rounded up: never early */
    return left <= 0 ? 0 : left >= MONTH ? MONTH : (int)left + 1;
}

int dbl_events(const char *words)
{
    return (strchr(words, 'r') ? DBL_READ : 0) | (strchr(words, 'w') ? DBL_WRITE : 0);
}

int dbl_poll_events(int events)
{
    return (events & DBL_READ ? POLLIN : 0) | (events & DBL_WRITE ? POLLOUT : 0);
}

int dbl_block_many(struct pollfd *list, int count, double deadline)
{
    for (;;) {
        int ms = dbl_milliseconds(deadline);
        int n = poll(list, (nfds_t)count, ms);
        if (n != 0 || ms < MONTH)
            return n;
    }
}

int dbl_block(int fd, int events, double deadline)
{
    struct pollfd p = {.fd = fd, .events = (short)dbl_poll_events(events)};
    return dbl_block_many(&p, 1, deadline);
}
