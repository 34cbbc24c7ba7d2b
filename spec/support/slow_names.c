/* Makes getaddrinfo take a second, as a slow name server does: LD_PRELOAD=slow_names.so.  Names
 * that are addresses are looked up at once, as ever. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <unistd.h>

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (host && !(hints && hints->ai_flags & AI_NUMERICHOST))
        sleep(1);
    return real(host, port, hints, found);
}
