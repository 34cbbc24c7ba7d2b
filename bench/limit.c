/*
 * limit.c -- the work of bench.lua in C, on libpq alone: what a binding could reach.
 *
 *   limit WORKLOAD N      prints client CPU and wall time for each of N, in
 *                         microseconds, and the process's peak in MB
 *
 * The server is the one that PGHOST and so on name, with run.lua's tables.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

static PGconn *pg;
static volatile double sink; /* so that no value is made for nothing */

static void die(const char *what)
{
    fprintf(stderr, "limit: %s: %s\n", what, pg ? PQerrorMessage(pg) : "");
    exit(1);
}

static PGconn *open_connection(void)
{
    PGconn *c = PQconnectdb("");
    if (PQstatus(c) != CONNECTION_OK) {
        pg = c;
        die("connect");
    }
    return c;
}

static void must(PGresult *res, ExecStatusType status)
{
    if (PQresultStatus(res) != status)
        die(PQresStatus(PQresultStatus(res)));
    PQclear(res);
}

/* ---- values ---- */

static long long get_int(const char *s)
{
    long long n = 0;
    int negative = *s == '-';
    for (s += negative; *s; s++)
        n = n * 10 + (*s - '0');
    return negative ? -n : n;
}

/* As good as strtod for what the table holds, and five times as fast. */
static double get_float(const char *s)
{
    static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8};
    double n = 0;
    int places = -1, negative = *s == '-';
    for (s += negative; *s; s++) {
        if (*s == '.') {
            places = 0;
            continue;
        }
        n = n * 10 + (*s - '0');
        places += places >= 0;
    }
    n = places > 0 && places < 9 ? n / powers[places] : n;
    return negative ? -n : n;
}

static int two(const char *s)
{
    return (s[0] - '0') * 10 + s[1] - '0';
}

/* Seconds since 1970 of "2024-01-31 12:34:56+00", which is all that the table holds. */
static long long get_time(const char *s)
{
    int month = two(s + 5), early = month < 3;
    long long year = two(s) * 100 + two(s + 2) - early;
    long long days = 365 * year + year / 4 - year / 100 + year / 400 +
                     (153 * (month + (early ? 9 : -3)) + 2) / 5 + two(s + 8) - 719469;
    return days * 86400 + two(s + 11) * 3600 + two(s + 14) * 60 + two(s + 17);
}

typedef struct Record {
    long long i, ts;
    double f;
    char t[32], b;
} Record;

static void convert(const PGresult *res, int row, Record *to)
{
    int size = PQgetlength(res, row, 2);
    to->i = get_int(PQgetvalue(res, row, 0));
    to->f = get_float(PQgetvalue(res, row, 1));
    memcpy(to->t, PQgetvalue(res, row, 2), (size_t)size < sizeof to->t ? (size_t)size : 31);
    to->ts = get_time(PQgetvalue(res, row, 3));
    to->b = PQgetvalue(res, row, 4)[0] == 't';
    sink = to->f;
}

/* ---- workloads ---- */

static void exec(long n)
{
    while (n-- > 0) {
        PGresult *res = PQexec(pg, "select 1");
        sink = (double)get_int(PQgetvalue(res, 0, 0));
        must(res, PGRES_TUPLES_OK);
    }
}

static void params(long n)
{
    char a[24];
    const char *values[] = {a, "2"};
    while (n-- > 0) {
        snprintf(a, sizeof a, "%ld", n);
        PGresult *res =
            PQexecParams(pg, "select $1::int4 + $2::int4", 2, NULL, values, NULL, NULL, 0);
        sink = (double)get_int(PQgetvalue(res, 0, 0));
        must(res, PGRES_TUPLES_OK);
    }
}

static void rows(long n)
{
    char sql[80];
    snprintf(sql, sizeof sql, "select * from bench_rows limit %ld", n);
    PGresult *res = PQexec(pg, sql);
    Record *all = malloc((size_t)n * sizeof *all);
    for (int i = 0; i < PQntuples(res); i++)
        convert(res, i, &all[i]);
    must(res, PGRES_TUPLES_OK);
}

static void single(long n)
{
    Record one;
    char sql[80];
    PGresult *res;
    snprintf(sql, sizeof sql, "select * from bench_rows limit %ld", n);
    PQsendQuery(pg, sql);
    PQsetSingleRowMode(pg);
    while ((res = PQgetResult(pg))) {
        for (int i = 0; i < PQntuples(res); i++)
            convert(res, i, &one);
        PQclear(res);
    }
}

static void pipeline(long n)
{
    enum { BATCH = 1000 };
    char a[24];
    const char *values[] = {a};
    must(PQprepare(pg, "s", "select $1::int4", 1, NULL), PGRES_COMMAND_OK);
    PQenterPipelineMode(pg);
    while (n > 0) {
        long batch = n < BATCH ? n : BATCH;
        for (long i = 0; i < batch; i++) {
            snprintf(a, sizeof a, "%ld", i);
            PQsendQueryPrepared(pg, "s", 1, values, NULL, NULL, 0);
        }
        PQpipelineSync(pg);
        for (long i = 0; i < batch; i++) {
            PGresult *res = PQgetResult(pg);
            sink = (double)get_int(PQgetvalue(res, 0, 0));
            must(res, PGRES_TUPLES_OK);
            PQgetResult(pg);
        }
        must(PQgetResult(pg), PGRES_PIPELINE_SYNC);
        n -= batch;
    }
}

/* ---- COPY ---- */

enum { PIECE = 65536, ROWS = 1000 };

static struct Row {
    long long i;
    double f;
    char t[24], ts[32];
    int b;
} table[ROWS];

static void make_rows(void)
{
    for (int i = 0; i < ROWS; i++) {
        table[i].i = i * 1234567LL;
        table[i].f = i * 1.25 + 0.01;
        snprintf(table[i].t, sizeof table[i].t, "a text of twenty %03d", i);
        snprintf(table[i].ts, sizeof table[i].ts, "2024-01-01 00:%02d:%02d+00", i / 60, i % 60);
        table[i].b = i % 2;
    }
}

static char *encode_string(char *to, const char *s)
{
    for (; *s; s++) {
        if (*s == '\\' || *s == '\t' || *s == '\n' || *s == '\r')
            *to++ = '\\';
        *to++ = *s == '\t' ? 't' : *s == '\n' ? 'n' : *s == '\r' ? 'r' : *s;
    }
    return to;
}

static char *encode(char *to, const struct Row *r)
{
    to += sprintf(to, "%lld\t%.17g\t", r->i, r->f);
    to = encode_string(to, r->t);
    *to++ = '\t';
    to = encode_string(to, r->ts);
    *to++ = '\t';
    *to++ = r->b ? 't' : 'f';
    *to++ = '\n';
    return to;
}

static void begin_copy(void)
{
    must(PQexec(pg, "truncate bench_copy"), PGRES_COMMAND_OK);
    must(PQexec(pg, "copy bench_copy from stdin"), PGRES_COPY_IN);
}

static void end_copy(void)
{
    if (PQputCopyEnd(pg, NULL) != 1)
        die("copy");
    must(PQgetResult(pg), PGRES_COMMAND_OK);
}

static char *bytes; /* all rows of copy_bytes, made before the clock runs */
static size_t size;

static void make_bytes(long n)
{
    make_rows();
    bytes = malloc((size_t)n * 100 + 200);
    char *to = bytes;
    for (long i = 0; i < n; i++)
        to = encode(to, &table[i % ROWS]);
    size = (size_t)(to - bytes);
}

static void copy_bytes(long n)
{
    (void)n;
    begin_copy();
    for (size_t at = 0; at < size; at += PIECE)
        if (PQputCopyData(pg, bytes + at, size - at < PIECE ? (int)(size - at) : PIECE) != 1)
            die("copy");
    end_copy();
}

static void copy_rows(long n)
{
    static char buffer[PIECE + 200];
    char *to = buffer;
    make_rows();
    begin_copy();
    for (long i = 0; i < n; i++) {
        to = encode(to, &table[i % ROWS]);
        if (to - buffer >= PIECE) {
            if (PQputCopyData(pg, buffer, (int)(to - buffer)) != 1)
                die("copy");
            to = buffer;
        }
    }
    if (PQputCopyData(pg, buffer, (int)(to - buffer)) != 1)
        die("copy");
    end_copy();
}

static void copy_out(long n)
{
    char sql[80], *line;
    int length;
    snprintf(sql, sizeof sql, "copy (select * from bench_rows limit %ld) to stdout", n);
    must(PQexec(pg, sql), PGRES_COPY_OUT);
    while ((length = PQgetCopyData(pg, &line, 0)) > 0) {
        sink = length + line[0];
        PQfreemem(line);
    }
    must(PQgetResult(pg), PGRES_COMMAND_OK);
}

/* ---- many connections ---- */

enum { CONNECTIONS = 100 };
static PGconn *many[CONNECTIONS];

static void open_many(long n)
{
    (void)n;
    for (int i = 0; i < CONNECTIONS; i++)
        many[i] = open_connection();
}

static const char *const nap = "select pg_sleep(0.01)";

static void fanout(long n)
{
    struct epoll_event events[CONNECTIONS];
    int fd = epoll_create1(0), running = CONNECTIONS;
    long left = n - CONNECTIONS;
    for (int i = 0; i < CONNECTIONS; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (unsigned)i};
        epoll_ctl(fd, EPOLL_CTL_ADD, PQsocket(many[i]), &e);
        PQsendQuery(many[i], nap);
    }
    while (running > 0) {
        int ready = epoll_wait(fd, events, CONNECTIONS, -1);
        for (int k = 0; k < ready; k++) {
            PGconn *c = many[events[k].data.u32];
            PQconsumeInput(c);
            while (!PQisBusy(c)) {
                PGresult *res = PQgetResult(c);
                if (res) {
                    must(res, PGRES_TUPLES_OK);
                } else if (left > 0) {
                    left--;
                    PQsendQuery(c, nap);
                } else {
                    running--;
                    break;
                }
            }
        }
    }
}

static const struct {
    const char *name;
    void (*prepare)(long), (*work)(long);
} workloads[] = {
    {"exec",       NULL,       exec      },
    {"params",     NULL,       params    },
    {"rows",       NULL,       rows      },
    {"single",     NULL,       single    },
    {"pipeline",   NULL,       pipeline  },
    {"copy_bytes", make_bytes, copy_bytes},
    {"copy_rows",  NULL,       copy_rows },
    {"copy_out",   NULL,       copy_out  },
    {"fanout",     open_many,  fanout    },
};

static double cpu(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1e6 +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec);
}

int main(int argc, char **argv)
{
    struct rusage before, after;
    struct timespec begin, end;
    long n = argc > 2 ? atol(argv[2]) : 1;
    pg = open_connection();
    for (unsigned i = 0; argc > 1 && i < sizeof workloads / sizeof workloads[0]; i++) {
        if (strcmp(workloads[i].name, argv[1]) != 0)
            continue;
        if (workloads[i].prepare)
            workloads[i].prepare(n);
        getrusage(RUSAGE_SELF, &before);
        clock_gettime(CLOCK_MONOTONIC, &begin);
        workloads[i].work(n);
        clock_gettime(CLOCK_MONOTONIC, &end);
        getrusage(RUSAGE_SELF, &after);
        printf("%.4f %.4f %ld\n", (cpu(&after) - cpu(&before)) / (double)n,
               ((double)(end.tv_sec - begin.tv_sec) * 1e6 +
                (double)(end.tv_nsec - begin.tv_nsec) / 1e3) /
                   (double)n,
               after.ru_maxrss / 1024);
        return 0;
    }
    puts("not there");
    return 0;
}
