/*
 * pair.c -- two ends of a socket, for examining waits.
 *
 * Whoever writes a wait of his own can have it examined (dblink.wait.selftest)
 * without any server: the wait watches the near end, and the examination brings
 * about at the far end what a server or a network would.
 */
#include "pair.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fail.h"

#define CLASS "dblink.pair"

typedef struct Pair {
    int near, far; /* -1: closed */
} Pair;

static Pair *pair(lua_State *L)
{
    return luaL_checkudata(L, 1, CLASS);
}

static int open_ends(int fd[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) != 0)
        return 0;
    for (int i = 0; i < 2; i++) {
        fcntl(fd[i], F_SETFD, FD_CLOEXEC);
        fcntl(fd[i], F_SETFL, O_NONBLOCK);
    }
    return 1;
}

static void shut(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* core.pair(): a pair, or nil and an error. */
static int pair_new(lua_State *L)
{
    int fd[2];
    Pair *p = dbl_newuserdata(L, sizeof *p);
    p->near = p->far = -1;
    luaL_getmetatable(L, CLASS);
    lua_setmetatable(L, -2);
    if (!open_ends(fd))
        return dbl_fail(L, DBL_CONNECTION, "no socket pair can be had");
    p->near = fd[0];
    p->far = fd[1];
    return 1;
}

static int pair_getfd(lua_State *L)
{
    lua_pushinteger(L, pair(L)->near);
    return 1;
}

/* The near end becomes readable. */
static int pair_send(lua_State *L)
{
    lua_pushboolean(L, write(pair(L)->far, "x", 1) == 1);
    return 1;
}

/* The near end is not writable any more. */
static int pair_fill(lua_State *L)
{
    Pair *p = pair(L);
    char bytes[4096] = {0};
    while (write(p->near, bytes, sizeof bytes) > 0)
        ;
    return 0;
}

static int pair_hang_up(lua_State *L)
{
    shut(&pair(L)->far);
    return 0;
}

/* Another socket takes the near end's number, as it happens while libpq tries
 * one host after the other. */
static int pair_swap(lua_State *L)
{
    Pair *p = pair(L);
    int fd[2];
    if (!open_ends(fd))
        return dbl_fail(L, DBL_CONNECTION, "no socket pair can be had");
    shut(&p->far);
    p->far = fd[1];
    lua_pushboolean(L, dup2(fd[0], p->near) >= 0);
    close(fd[0]);
    return 1;
}

static int pair_close(lua_State *L)
{
    Pair *p = pair(L);
    shut(&p->near);
    shut(&p->far);
    return 0;
}

const luaL_Reg dbl_pair_functions[] = {
    {"pair", pair_new},
    {NULL,   NULL    },
};

void dbl_pair_open(lua_State *L)
{
    static const luaL_Reg metamethods[] = {
        {"__gc",    pair_close},
        {"__close", pair_close},
        {NULL,      NULL      },
    };
    static const luaL_Reg methods[] = {
        {"getfd",   pair_getfd  },
        {"send",    pair_send   },
        {"fill",    pair_fill   },
        {"hang_up", pair_hang_up},
        {"swap",    pair_swap   },
        {"close",   pair_close  },
        {NULL,      NULL        },
    };
    dbl_newclass(L, CLASS, metamethods, methods);
    lua_pop(L, 1);
}
