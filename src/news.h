/*
 * news.h -- what the server said unasked, as values of Lua.
 */
#ifndef DBL_NEWS_H
#define DBL_NEWS_H

#include "compat.h"
#include "notice.h"

/* Take the oldest of the queue and push it: a notice as an error object, a notification as
 * {channel =, payload =, pid =}.  0 where there is none, or none any more. */
int dbl_push_notice(lua_State *L, Notes *q);
int dbl_push_notification(lua_State *L, Notes *q);

/* Where the last notice ended the session, as it does of one at rest: pushes it as the error that it
 * is, 1; else 0. */
int dbl_push_farewell(lua_State *L, const Notes *q);

#endif
