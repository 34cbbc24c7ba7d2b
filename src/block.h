/*
 * block.h -- a clock, and poll(2) for those who bring no loop.
 */
#ifndef DBL_BLOCK_H
#define DBL_BLOCK_H

/* What to wait for; a sum of these, 0 for nothing. */
enum { DBL_READ = 1, DBL_WRITE = 2 };

/* A deadline that never comes. */
#define DBL_NEVER 1e300

/* Seconds on a clock that no one sets. */
double dbl_now(void);

/* Waits until fd is ready for one of events, or until the deadline:
 * 1 ready (an error or hang-up counts, so that the reader meets it),
 * 0 the deadline has come, -1 a signal came. */
int dbl_block(int fd, int events, double deadline);

/* The same for a list that the caller has filled: how many are ready. */
struct pollfd;
int dbl_block_many(struct pollfd *list, int count, double deadline);

/* From now until the deadline, as poll(2) counts: -1 for never, a month at most. */
int dbl_milliseconds(double deadline);

/* The sum of the events that are named: "r", "w", "rw". */
int dbl_events(const char *words);

/* The same sum as poll(2) writes it. */
int dbl_poll_events(int events);

#endif
