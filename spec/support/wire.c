/*
 * wire.c -- a relay before a server, that does harm when it is told to.
 *
 *   wire PORTFILE TARGET      listens on a free port of 127.0.0.1, which it writes into the file;
 *                             TARGET is a port of 127.0.0.1, or the path of a Unix socket
 *
 * Lines on its standard input, with whose end it ends.  For the connections that come from then on:
 *   pass          no harm
 *   cut N         both ways are closed after N bytes from the server       upcut N   ... from the client
 *   reset N       the same, by RST                                         stall N   nothing more comes then
 *   flip N        bit N%8 of byte N/8 from the server is another; closed when the server then falls silent
 *   chunk N       N bytes at a time come from the server                   delay N   each time N ms late
 *   hold          nothing is passed on, in either direction
 * For those that are there:
 *   freeze        nothing is passed on any more        release   all that was held or frozen goes on, as for those to come
 *   hush N        nothing more comes from the server after N bytes from now on
 *   kill          all are closed
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PASS, CUT, UPCUT, RESET, STALL, FLIP, CHUNK, DELAY, HOLD };
static const char *const words[] = {"pass", "cut",   "upcut", "reset", "stall",
                                    "flip", "chunk", "delay", "hold",  NULL};

enum { MOST = 200 };
static struct link {
    int client, server, harm, frozen;
    long n, up, down; /* bytes that went up and down */
    double heard;     /* when the server last said something */
} links[MOST];
static int count, harm;
static long number;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int reach(const char *target)
{
    int fd, one = 1, failed;
    if (*target == '/') {
        struct sockaddr_un u = {.sun_family = AF_UNIX};
        strncpy(u.sun_path, target, sizeof u.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        failed = connect(fd, (struct sockaddr *)&u, sizeof u);
    } else {
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_port = htons((unsigned short)atoi(target))};
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        failed = connect(fd, (struct sockaddr *)&a, sizeof a);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    if (!failed)
        return fd;
    close(fd);
    return -1;
}

static int put(int fd, const char *data, long n)
{
    while (n > 0) {
        ssize_t k = send(fd, data, (size_t)n, MSG_NOSIGNAL);
        if (k <= 0)
            return 0;
        data += k;
        n -= k;
    }
    return 1;
}

static void nap(long ms)
{
    poll(NULL, 0, (int)ms);
}

/* 0: the link is over. */
static int down(struct link *l)
{
    char b[65536];
    long n = recv(l->server, b, l->harm == CHUNK ? (size_t)l->n : sizeof b, 0), at = l->down;
    if (n <= 0)
        return l->harm == STALL && at >= l->n ? -1 : 0;
    l->down += n;
    l->heard = now();
    switch (l->harm) {
    case CUT:
    case RESET:
        if (l->down >= l->n) {
            put(l->client, b, l->n - at);
            return 0;
        }
        break;
    case STALL:
        if (at < l->n)
            put(l->client, b, l->down > l->n ? l->n - at : n);
        return 1;
    case FLIP:
        if (at <= l->n / 8 && l->n / 8 < l->down)
            b[l->n / 8 - at] ^= (char)(1 << (l->n % 8));
        break;
    case DELAY:
        nap(l->n);
        break;
    }
    return put(l->client, b, n);
}

static int up(struct link *l)
{
    char b[65536];
    long n = recv(l->client, b, sizeof b, 0);
    if (n <= 0)
        return 0;
    if (l->harm == UPCUT && l->up + n >= l->n) {
        put(l->server, b, l->n - l->up);
        return 0;
    }
    l->up += n;
    return put(l->server, b, n);
}

static void end(struct link *l)
{
    struct linger none = {1, 0};
    if (l->harm == RESET && l->down >= l->n) /* a cancel request's link ends well before */
        setsockopt(l->client, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(l->client);
    if (l->server >= 0)
        close(l->server);
    *l = links[--count];
}

static void take(int listener, const char *target)
{
    int one = 1, fd = accept(listener, NULL, NULL), server = fd < 0 ? -1 : reach(target);
    if (server < 0) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    links[count++] = (struct link){fd, server, harm, harm == HOLD, number, 0, 0, now()};
}

static void obey(const char *line)
{
    char word[16] = "";
    sscanf(line, "%15s %ld", word, &number);
    if (strcmp(word, "kill") == 0)
        while (count > 0)
            end(&links[0]);
    for (int i = 0; i < count; i++)
        if (strcmp(word, "hush") == 0)
            links[i].harm = STALL, links[i].n = links[i].down + number;
        else if (strcmp(word, "freeze") == 0)
            links[i].frozen = 1;
        else if (strcmp(word, "release") == 0)
            links[i].frozen = 0;
    if (strcmp(word, "release") == 0)
        harm = PASS;
    for (int i = 0; words[i]; i++)
        if (strcmp(word, words[i]) == 0)
            harm = i;
}

int main(int argc, char **argv)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t size = sizeof a;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    char temporary[4096], input[4096];
    size_t used = 0;
    if (argc != 3)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 128) ||
        getsockname(listener, (struct sockaddr *)&a, &size))
        return 1;
    snprintf(temporary, sizeof temporary, "%s.new", argv[1]);
    FILE *file = fopen(temporary, "w");
    if (!file)
        return 1;
    fprintf(file, "%d\n", ntohs(a.sin_port));
    fclose(file);
    rename(temporary, argv[1]);
    for (;;) {
        /* the listener before the orders: who orders and then connects must find the order done */
        struct pollfd p[2 + 2 * MOST] = {
            {.fd = count < MOST ? listener : -1, .events = POLLIN},
            {.fd = 0,                            .events = POLLIN}
        };
        int flips = 0;
        for (int i = 0; i < count; i++) {
            p[2 + 2 * i] =
                (struct pollfd){.fd = links[i].frozen ? -1 : links[i].client, .events = POLLIN};
            p[3 + 2 * i] =
                (struct pollfd){.fd = links[i].frozen ? -1 : links[i].server, .events = POLLIN};
            flips |= links[i].harm == FLIP;
        }
        poll(p, (nfds_t)(2 + 2 * count), flips ? 20 : -1);
        for (int i = count - 1; i >= 0; i--) { /* downwards: end() moves the last one here */
            struct link *l = &links[i];
            int on = 1;
            if (p[2 + 2 * i].revents)
                on = up(l);
            if (on && p[3 + 2 * i].revents && (on = down(l)) < 0) {
                close(l->server); /* the client shall not hear of it */
                l->server = -1;
            }
            if (on && l->harm == FLIP && l->down > l->n / 8 && now() - l->heard > 0.1)
                on = 0;
            if (!on)
                end(l);
        }
        if (p[1].revents) {
            ssize_t n = read(0, input + used, sizeof input - 1 - used);
            if (n <= 0)
                return 0;
            input[used += (size_t)n] = '\0';
            char *line = input, *stop;
            for (; (stop = strchr(line, '\n')); line = stop + 1) {
                *stop = '\0';
                obey(line);
            }
            memmove(input, line, used -= (size_t)(line - input));
        }
        if (p[0].revents)
            take(listener, argv[2]);
    }
}
