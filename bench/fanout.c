/*
 * fanout.c -- the measure of gather: connections times queries in C, libpq and epoll, nothing else.
 *   fanout CONNINFO CONNECTIONS QUERIES SQL      prints the CPU seconds of the client, and the wall's
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

static double cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    int n = atoi(argv[2]), each = atoi(argv[3]), open = n;
    PGconn **pg = calloc((size_t)n, sizeof *pg);
    int *left = calloc((size_t)n, sizeof *left);
    int gate = epoll_create1(0);
    for (int i = 0; i < n; i++) {
        pg[i] = PQconnectdb(argv[1]);
        if (PQstatus(pg[i]) != CONNECTION_OK)
            return fputs(PQerrorMessage(pg[i]), stderr), 1;
        PQsetnonblocking(pg[i], 1);
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (unsigned)i};
        epoll_ctl(gate, EPOLL_CTL_ADD, PQsocket(pg[i]), &e);
        left[i] = each;
    }
    double c = cpu(), w = wall();
    for (int i = 0; i < n; i++) {
        PQsendQuery(pg[i], argv[4]);
        PQflush(pg[i]);
    }
    while (open > 0) {
        struct epoll_event e[64];
        int ready = epoll_wait(gate, e, 64, -1);
        for (int k = 0; k < ready; k++) {
            unsigned i = e[k].data.u32;
            PQconsumeInput(pg[i]);
            while (!PQisBusy(pg[i])) {
                PGresult *r = PQgetResult(pg[i]);
                if (r) {
                    if (PQresultStatus(r) != PGRES_TUPLES_OK)
                        return 1;
                    PQclear(r);
                    continue;
                }
                if (--left[i] == 0) {
                    open--;
                    break;
                }
                PQsendQuery(pg[i], argv[4]);
                PQflush(pg[i]);
                break;
            }
        }
    }
    printf("%.6f %.6f\n", cpu() - c, wall() - w);
    return 0;
}
