/*
 * block.c -- a clock, and poll(2) for those who bring no loop.
 *
 * This is the only place of the C core where anything waits; only plain
 * scripts come here.
 */
#include "block.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

double dbl_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int dbl_block(int fd, int events, double deadline)
{
    struct pollfd p = {.fd = fd};
    if (events & DBL_READ)
        p.events |= POLLIN;
    if (events & DBL_WRITE)
        p.events |= POLLOUT;
    for (;;) {
        int ms = -1;
        if (deadline < DBL_NEVER) {
            double left = (deadline - dbl_now()) * 1e3;
            /* rounded up: never early; and a month at most, which fits an int */
            ms = left <= 0 ? 0 : left >= 2e9 ? 2000000000 : (int)left + 1;
        }
        int n = poll(&p, 1, ms);
        if (n > 0)
            return 1;
        if (n < 0)
            return errno == EINTR ? -1 : 1; /* a bad fd: whoever uses it next will say so */
        if (ms < 2000000000)
            return 0;
    }
}
