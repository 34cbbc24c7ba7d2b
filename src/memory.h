/*
 * memory.h -- the allocator of a lua_State, also for rooms that know no Lua.
 *
 * A host counts and bounds what its scripts use.  Lua's own accounting does not
 * see these blocks.  Not for what a thread touches: the allocator need not be
 * made for that.
 */
#ifndef DBL_MEMORY_H
#define DBL_MEMORY_H

#include "compat.h"

typedef struct Memory {
    lua_Alloc allocate;
    void *data;
} Memory;

Memory dbl_memory(lua_State *L);

/* As malloc, realloc and free; each block knows where it came from. */
void *dbl_alloc(Memory memory, size_t size);
void *dbl_realloc(Memory memory, void *block, size_t size);
void dbl_free(void *block);

#endif
