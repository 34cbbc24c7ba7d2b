/*
 * server.c -- libFuzzer plays the server: a real libpq and all of ours read what it says.
 *
 * connect and poll are defined here, in place of libc's.  The first byte says what is asked of the server.  Who waits
 * to read gets what comes next, up to a ReadyForQuery, and behind all of it the end; before it, unless the server is
 * to be "raw", a good welcome.
 */
#define _GNU_SOURCE
#include "fuzz.h"

#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char script[] =
    "local dblink = ...\n"
    "local ops, turns = {}, 0\n"
    "function ops.query(c) for _ = 1, 3 do local r = c:query 'q' if r then r:json() r:csv() each(r:rows()) end end end\n"
    "function ops.params(c) for _ = 1, 3 do local r = c:query('q', 1, 'x') if r then return r[1] end end end\n"
    "function ops.send(c)\n"
    "  c:send_query 'q'\n"
    "  for _ = 1, 9 do c:is_busy() c:step() local r, e = c:get_result() if not r and not e then return end end\n"
    "end\n"
    "function ops.list(c) c:exec_all 'q; q' c:query { 'q', max_bytes = 10 } end\n"
    "function ops.rows(c)\n"
    "  local s = c:rows { 'q', rows = 'array' }\n"
    "  while s:next() do s:columns() end\n"
    "  s = c:rows { 'q', max_bytes = 100 } s:next() s:close()\n"
    "end\n"
    "function ops.copy_in(c)\n"
    "  local w = c:copy_in 'copy t from stdin'\n"
    "  w:row { 1, 'x' } w:write 'x' w:finish()\n"
    "end\n"
    "function ops.copy_out(c)\n"
    "  for r in c:copy_out('copy t to stdout'):rows { 'int4', 'float8[]', 'bytea', 'timestamptz', 'bool' } do r = r end\n"
    "end\n"
    "function ops.copy_lines(c) local r = c:copy_out 'copy t to stdout' r:line() r:read() r:line() r:close() end\n"
    "function ops.prepare(c)\n"
    "  local s = c:prepare 'q' s:describe() s:query(1) s:rows(1):next() s:close()\n"
    "end\n"
    "function ops.pipeline(c)\n"
    "  local p = c:pipeline() local t = {}\n"
    "  for i = 1, 3 do t[i] = p:query('q', i) end p:sync() t[4] = p:query 'q' p:sync()\n"
    "  for i = 1, 4 do local r = t[i]:result() if r then r:json() end end p:close()\n"
    "end\n"
    "function ops.answers(c)\n"
    "  local p = c:pipeline()\n"
    "  for i = 1, 3 do p:send_query('q', i) end p:next_values() p:get_result(1) p:sync() p:send_query 'q'\n"
    "  for _ = 1, 9 do if p:next_values(1) == nil then break end end p:get_result(1) p:close()\n"
    "end\n"
    "function ops.notify(c) c:listen 'x' c:get_notify() c:next_notification(0.001) c:notices() end\n"
    "function ops.transaction(c)\n"
    "  c:transaction(function() c:transaction(function() return c:query 'q' end) return c:query 'q' end)\n"
    "end\n"
    "function ops.timeout(c) c:query { 'q', timeout = 0 } c:query 'q' end\n"
    "function ops.codec(c) c:codec('mood', { decode = function(s) return s end }) c:query 'q' end\n"
    "function ops.raw(c) c:info() c:server_version() c:parameter 'TimeZone' c:query 'q' end\n"
    "local names = {}\n"
    "for name in pairs(ops) do names[#names + 1] = name end\n"
    "table.sort(names)\n"
    "function each(f, ...) while f do if f(...) == nil then return end end end\n"
    "local info = 'host=/nowhere port=1 sslmode=disable gssencmode=disable user=u dbname=d password=p'\n"
    "return function(i, cache)\n"
    "  local name = names[i % #names + 1]\n"
    "  local c = dblink.connect(info, { timeout = 1, statement_cache = cache and 10 or 0 })\n"
    "  if c then pcall(ops[name], c) c:error_message() c:notices() c:close() end\n"
    "  turns = (turns + 1) % 20\n"
    "  if turns == 0 then collectgarbage() end\n"
    "end\n";

static const uint8_t *bytes;
static size_t left;
static int peer = -1, client = -1, raw, sent;
static __thread int is_main; /* threads of ours that send a cancel request reach nobody */

static const char welcome[] = "R\0\0\0\10\0\0\0\0"
                              "S\0\0\0\30server_version\0"
                              "15.0\0"
                              "S\0\0\0\31client_encoding\0UTF8\0"
                              "K\0\0\0\14\0\0\0\1\0\0\0\2Z\0\0\0\5I";

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    int pair[2], big = 1 << 20;
    (void)address, (void)size;
    if (!is_main || peer >= 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
        return -1;
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    peer = pair[1];
    client = fd;
    dup2(pair[0], fd);
    close(pair[0]);
    return 0;
}

/* How many bytes there are up to the end of a ReadyForQuery. */
static size_t turn(void)
{
    size_t n = 0;
    while (n + 5 <= left) {
        size_t size =
            (size_t)bytes[n + 1] << 24 | bytes[n + 2] << 16 | bytes[n + 3] << 8 | bytes[n + 4];
        if (size < 4 || size > left - n - 1)
            break;
        n += size + 1;
        if (bytes[n - size - 1] == 'Z')
            return n;
    }
    return left;
}

static void answer(void)
{
    size_t n = turn();
    int last = n == left;
    if (!raw && sent++ == 0)
        last = 0;
    else if (n > 0 && send(peer, bytes, n, MSG_NOSIGNAL) == (ssize_t)n)
        bytes += n, left -= n;
    if (sent == 1 && !raw && send(peer, welcome, sizeof welcome - 1, MSG_NOSIGNAL) < 0)
        last = 1;
    if (last)
        shutdown(peer, SHUT_WR);
}

/* Who waits to read has read all there was. */
int poll(struct pollfd *list, nfds_t count, int timeout)
{
    struct timespec t = {timeout / 1000, timeout % 1000 * 1000000L};
    for (nfds_t i = 0; i < count; i++)
        if (is_main && peer >= 0 && list[i].fd == client && list[i].events & POLLIN)
            answer();
    return ppoll(list, count, timeout < 0 ? NULL : &t, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lua_State *L;
    if (!L) {
        is_main = 1;
        L = fuzz_open(script);
    }
    if (size < 1)
        return -1;
    raw = (data[0] & 0x7f) % 16 == 11; /* of the names in order */
    bytes = data + 1;
    left = size - 1;
    sent = 0;
    lua_pushinteger(L, data[0] & 0x7f);
    lua_pushboolean(L, data[0] & 0x80);
    fuzz_run(L, 2);
    if (peer >= 0)
        close(peer);
    peer = client = -1;
    return 0;
}
