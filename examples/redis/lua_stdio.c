/* The streams of Debian's liblua.a, see the Makefile. */
#include <stdio.h>

extern FILE *lua_stdin, *lua_stdout, *lua_stderr;
FILE *lua_stdin, *lua_stdout, *lua_stderr;

__attribute__((constructor)) static void set_stdio(void)
{
    lua_stdin = stdin;
    lua_stdout = stdout;
    lua_stderr = stderr;
}
