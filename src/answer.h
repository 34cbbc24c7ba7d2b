/*
 * answer.h -- the answers of a pipeline.
 */
#ifndef DBL_ANSWER_H
#define DBL_ANSWER_H

#include "compat.h"

/* Makes the metatable of the tickets of the pipeline on the top.  wrap, a function of
 * Lua's at that index: makes of ticket:result one that waits. */
void dbl_answer_class(lua_State *L, int wrap);

/* Of pipelines: those that collect answers in their order. */
extern const luaL_Reg dbl_answer_methods[];

#endif
