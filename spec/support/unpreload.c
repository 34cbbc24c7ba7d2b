/*
 * unpreload.c -- preloaded after libasan: what this process starts (sh, psql, the scripts) must not inherit
 * LD_PRELOAD; a shell under LeakSanitizer ends with an error for leaks of its own.
 */
#include <stdlib.h>

__attribute__((constructor)) static void unpreload(void)
{
    unsetenv("LD_PRELOAD");
}
