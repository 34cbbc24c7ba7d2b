#include "memory.h"

typedef struct Head {
    Memory memory;
    size_t size;    /* with this head */
    double block[]; /* aligned as the blocks of LuaJIT are, to 8 bytes */
} Head;

static Head *head_of(void *block)
{
    return block ? (Head *)((char *)block - offsetof(Head, block)) : NULL;
}

Memory dbl_memory(lua_State *L)
{
    Memory memory;
    memory.allocate = lua_getallocf(L, &memory.data);
    return memory;
}

void *dbl_realloc(Memory memory, void *block, size_t size)
{
    Head *h = head_of(block);
    size += offsetof(Head, block);
    h = memory.allocate(memory.data, h, h ? h->size : 0, size);
    if (!h)
        return NULL;
    h->memory = memory;
    h->size = size;
    return h->block;
}

void *dbl_alloc(Memory memory, size_t size)
{
    return dbl_realloc(memory, NULL, size);
}

void dbl_free(void *block)
{
    Head *h = head_of(block);
    if (h) {
        Memory memory = h->memory;
        memory.allocate(memory.data, h, h->size, 0);
    }
}
