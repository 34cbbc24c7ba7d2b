/*
 * lookup.c -- names of hosts become addresses, in a thread.
 *
 * libpq looks a name up by getaddrinfo(3), which may wait long for a name server.
 * Where that would stop others it is done here before: a thread makes lists of
 * hosts, addresses and ports, which libpq takes as host, hostaddr and port, so that
 * certificates and messages know the name.  An entry is there once for each of its
 * addresses, and libpq tries one after the other, as it would by itself.
 */
#include "lookup.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fail.h"
#include "hooks.h"

#define CLASS "dblink.lookup"

enum { LONGEST = 1024 }; /* bytes of a list as it is given */

/* Shared by Lua's userdata and the thread; the last of both frees it. */
typedef struct Lookup {
    int owners, over;
    int wake[2]; /* a pipe: its end of file means over */
    int entries; /* of the lists below */
    char host[LONGEST], port[LONGEST];
    char hosts[8 * LONGEST], addresses[8 * LONGEST], ports[8 * LONGEST];
    char error[LONGEST + 128];
} Lookup;

/* Whether an entry of a list is the name of a host, neither an address nor a socket's folder. */
static int is_name(const char *host)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *found = NULL;
    if (!*host || *host == '/' || *host == '@')
        return 0;
    int numeric = getaddrinfo(host, NULL, &hints, &found) == 0;
    if (found)
        freeaddrinfo(found);
    return !numeric;
}

/* Takes the next entry off a list: 0 at its end. */
static int next_entry(const char **list, char *entry)
{
    if (!*list)
        return 0;
    size_t size = strcspn(*list, ",");
    memcpy(entry, *list, size);
    entry[size] = '\0';
    *list = (*list)[size] ? *list + size + 1 : NULL;
    return 1;
}

static int fits(const char *list, const char *entry)
{
    return strlen(list) + strlen(entry) + 2 <= sizeof((Lookup *)0)->hosts;
}

static void append(char *list, int first, const char *entry)
{
    if (!first)
        strcat(list, ",");
    strcat(list, entry);
}

/* What there is no room for is left out. */
static void add(Lookup *l, const char *host, const char *address, const char *port)
{
    if (!(fits(l->hosts, host) & fits(l->addresses, address) & fits(l->ports, port)))
        return;
    append(l->hosts, l->entries == 0, host);
    append(l->addresses, l->entries == 0, address);
    append(l->ports, l->entries == 0, port);
    l->entries++;
}

static void look_up(Lookup *l, const char *host, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int why = getaddrinfo(host, NULL, &hints, &found);
    if (why != 0) {
        snprintf(l->error, sizeof l->error, "could not translate host name \"%s\" to address: %s",
                 host, gai_strerror(why));
        return;
    }
    for (struct addrinfo *a = found; a; a = a->ai_next) {
        char address[128] = ""; /* if that fails, libpq does as it would have done */
        getnameinfo(a->ai_addr, a->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST);
        add(l, host, address, port);
    }
    freeaddrinfo(found);
}

static void leave(Lookup *l)
{
    if (__atomic_sub_fetch(&l->owners, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    close(l->wake[0]);
    free(l);
}

static void run(void *lookup)
{
    Lookup *l = lookup;
    const char *hosts = l->host, *ports = l->port;
    char host[LONGEST], port[LONGEST] = "";
    while (next_entry(&hosts, host)) {
        next_entry(&ports, port); /* the last one stands for all that follow */
        if (is_name(host))
            look_up(l, host, port);
        else
            add(l, host, "", port);
    }
    __atomic_store_n(&l->over, 1, __ATOMIC_RELEASE);
    close(l->wake[1]);
    leave(l);
}

/* core.lookup(host, port): begins; nil where there is nothing to look up, or no thread. */
static int lookup_new(lua_State *L)
{
    size_t host_size, port_size;
    const char *host = luaL_checklstring(L, 1, &host_size);
    const char *port = luaL_optlstring(L, 2, "", &port_size);
    const dblink_hooks *hooks = dbl_hooks(L);
    char entry[LONGEST];
    int names = 0, hosts = 0, ports = 0;
    if (host_size >= LONGEST || port_size >= LONGEST)
        return 0;
    for (const char *list = host; next_entry(&list, entry); hosts++)
        names += is_name(entry);
    for (const char *list = port; next_entry(&list, entry);)
        ports++;
    if (names == 0 || (ports > 1 && ports != hosts)) /* libpq says what is wrong with that */
        return 0;
    Lookup **box = dbl_newuserdata(L, sizeof *box);
    *box = NULL;
    luaL_getmetatable(L, CLASS);
    lua_setmetatable(L, -2);
    Lookup *l = calloc(1, sizeof *l);
    if (!l || pipe(l->wake) != 0) {
        free(l);
        return 0;
    }
    for (int i = 0; i < 2; i++)
        fcntl(l->wake[i], F_SETFD, FD_CLOEXEC);
    strcpy(l->host, host);
    strcpy(l->port, port);
    l->owners = 2;
    *box = l;
    if (dbl_elsewhere(hooks, run, l))
        return 1;
    close(l->wake[1]);
    l->owners = 1;
    return 0;
}

/* What becomes readable when it is over. */
static int lookup_getfd(lua_State *L)
{
    Lookup **box = luaL_checkudata(L, 1, CLASS);
    lua_pushinteger(L, *box ? (*box)->wake[0] : -1);
    return 1;
}

/* lookup:result(): host, hostaddr and port; or nil and an error; false, it is not over. */
static int lookup_result(lua_State *L)
{
    Lookup **box = luaL_checkudata(L, 1, CLASS), *l = *box;
    if (!l)
        return dbl_fail(L, DBL_CONNECTION, "the connection was closed while it was being opened");
    if (!__atomic_load_n(&l->over, __ATOMIC_ACQUIRE)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (l->entries == 0)
        return dbl_fail(L, DBL_CONNECTION, "%s", l->error);
    lua_pushstring(L, l->hosts);
    lua_pushstring(L, l->addresses);
    lua_pushstring(L, l->ports);
    return 3;
}

static int lookup_close(lua_State *L)
{
    Lookup **box = luaL_checkudata(L, 1, CLASS);
    if (*box)
        leave(*box);
    *box = NULL;
    return 0;
}

void dbl_lookup_open(lua_State *L)
{
    static const luaL_Reg metamethods[] = {
        {"__gc", lookup_close},
        {NULL,   NULL        },
    };
    static const luaL_Reg methods[] = {
        {"getfd",  lookup_getfd },
        {"result", lookup_result},
        {"close",  lookup_close },
        {NULL,     NULL         },
    };
    dbl_newclass(L, CLASS, metamethods, methods);
    lua_pop(L, 1);
}

const luaL_Reg dbl_lookup_functions[] = {
    {"lookup", lookup_new},
    {NULL,     NULL      },
};
