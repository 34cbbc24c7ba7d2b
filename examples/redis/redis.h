/*
 * redis.h -- as much of the Redis module API as this example uses.
 *
 * Redis hands a module its functions by name.  Debian ships no redismodule.h; these
 * are the same declarations, of Redis 7.0 and later, fetched the same way.
 */
#ifndef REDIS_H
#define REDIS_H

#include <stddef.h>

typedef struct RedisModuleCtx RedisModuleCtx;
typedef struct RedisModuleString RedisModuleString;
typedef struct RedisModuleBlockedClient RedisModuleBlockedClient;
typedef unsigned long long RedisModuleTimerID;
typedef int (*RedisModuleCmdFunc)(RedisModuleCtx *, RedisModuleString **, int);
typedef void (*RedisModuleEventLoopFunc)(int fd, void *data, int mask);
typedef void (*RedisModuleTimerProc)(RedisModuleCtx *, void *data);

enum { REDISMODULE_OK, REDISMODULE_ERR };
enum { REDISMODULE_EVENTLOOP_READABLE = 1, REDISMODULE_EVENTLOOP_WRITABLE = 2 };
enum {
    REDISMODULE_CTX_FLAGS_LUA = 1 << 0,
    REDISMODULE_CTX_FLAGS_MULTI = 1 << 1,
    REDISMODULE_CTX_FLAGS_DENY_BLOCKING = 1 << 21,
};

#define REDIS_FUNCTIONS(X)                                                                         \
    X(int, SetModuleAttribs, (RedisModuleCtx *, const char *, int, int))                           \
    X(int, CreateCommand,                                                                          \
      (RedisModuleCtx *, const char *, RedisModuleCmdFunc, const char *, int, int, int))           \
    X(void *, Alloc, (size_t))                                                                     \
    X(void *, Realloc, (void *, size_t))                                                           \
    X(void, Free, (void *))                                                                        \
    X(const char *, StringPtrLen, (const RedisModuleString *, size_t *))                           \
    X(int, WrongArity, (RedisModuleCtx *))                                                         \
    X(int, GetContextFlags, (RedisModuleCtx *))                                                    \
    X(int, ReplyWithError, (RedisModuleCtx *, const char *))                                       \
    X(int, ReplyWithLongLong, (RedisModuleCtx *, long long))                                       \
    X(int, ReplyWithStringBuffer, (RedisModuleCtx *, const char *, size_t))                        \
    X(int, ReplyWithArray, (RedisModuleCtx *, long))                                               \
    X(int, ReplyWithNull, (RedisModuleCtx *))                                                      \
    X(RedisModuleBlockedClient *, BlockClient,                                                     \
      (RedisModuleCtx *, RedisModuleCmdFunc, RedisModuleCmdFunc,                                   \
       void (*)(RedisModuleCtx *, void *), long long))                                             \
    X(int, UnblockClient, (RedisModuleBlockedClient *, void *))                                    \
    X(RedisModuleCtx *, GetThreadSafeContext, (RedisModuleBlockedClient *))                        \
    X(RedisModuleCtx *, GetDetachedThreadSafeContext, (RedisModuleCtx *))                          \
    X(void, FreeThreadSafeContext, (RedisModuleCtx *))                                             \
    X(int, EventLoopAdd, (int, int, RedisModuleEventLoopFunc, void *))                             \
    X(int, EventLoopDel, (int, int))                                                               \
    X(RedisModuleTimerID, CreateTimer,                                                             \
      (RedisModuleCtx *, long long, RedisModuleTimerProc, void *))                                 \
    X(int, StopTimer, (RedisModuleCtx *, RedisModuleTimerID, void **))

#define REDIS_DECLARE(result, name, arguments) static result(*RedisModule_##name) arguments;
REDIS_FUNCTIONS(REDIS_DECLARE)

/* 0 where this Redis lacks one of them. */
static int redis_init(RedisModuleCtx *ctx, const char *name, int version)
{
    int (*get)(const char *, void *) = *(int (**)(const char *, void *))ctx;
#define REDIS_FETCH(result, name, arguments)                                                       \
    if (get("RedisModule_" #name, (void *)&RedisModule_##name) != REDISMODULE_OK)                  \
        return 0;
    REDIS_FUNCTIONS(REDIS_FETCH)
    RedisModule_SetModuleAttribs(ctx, name, version, 1);
    return 1;
}

#endif
