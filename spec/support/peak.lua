-- make proof: by how much many rows raise the peak of a process's memory (VmHWM, Linux), in MiB, beyond that of a
-- thousand of them. Fails where it is more than 16.
--   peak.lua [ROWS [WAY ...]]        through the server that PG* names; the ways are those below
local core = require "dblink.core"
local dblink = require "dblink"
local peak = require("support.memory").peak
local server = require "support.server"

local MOST, LINE = 16, "one line of the hundred bytes or so that a common row may well have\tand another\t%d\n"
local conn = server.connect()

local function each(iterator, n)
  local count = 0
  for _ in iterator do count = count + 1 end
  assert(count == n, "not all rows came")
end

local function rows(n, options)
  options[1] = "select i::int8, i * 1.25::float8 as f, 'a text of twenty ' || i as t, now() as at, i % 2 = 0 as even "
    .. "from generate_series(1, $1) i"
  options[2] = n
  each((conn:rows(options)), n)
end

local ways = {
  rows = function(n) rows(n, {}) end,
  binary = function(n) rows(n, { binary = true, rows = "array" }) end,
  budget = function(n) rows(n, { max_bytes = 1e12 }) end,
  coroutine = function(n)
    local plain = conn
    local wait = { wait = function(...) return coroutine.yield(...) end, forget = function() end }
    local co = coroutine.create(function()
      conn = server.connect(nil, { wait = wait })
      local stream, count = conn:rows("select i, 'x' || i as t from generate_series(1, $1) i", n), 0
      while stream:next() do count = count + 1 end
      assert(count == n)
      conn:close()
    end)
    local ok, fd, events, seconds = coroutine.resume(co)
    while coroutine.status(co) == "suspended" do
      ok, fd, events, seconds = coroutine.resume(co, core.poll(fd, events, seconds))
    end
    conn = plain
    assert(ok, fd)
  end,
  copy_out = function(n)
    each((conn:copy_out(("copy (select i, 'a text', now() from generate_series(1, %d) i) to stdout"):format(n))), n)
  end,
  copy_in = function(n)
    assert(conn:query "create temporary table if not exists t (a text, b text, i int)")
    local writer = assert(conn:copy_in "copy t from stdin where false")
    for i = 1, n do assert(writer:write(LINE:format(i))) end
    assert(writer:finish())
  end,
  collected = function(n)
    local p = assert(conn:pipeline())
    for i = 1, n do
      assert(p:send_query("select $1::int8, 'and a text'", i))
      if i % 1000 == 0 then
        p:sync()
        for _, v in p:values() do assert(v) end
      end
    end
    assert(p:close())
  end,
  pipeline = function(n)
    local p = assert(conn:pipeline())
    for i = 1, n do
      p:query("select $1::int8, 'and a text'", i)
      if i % 1000 == 0 then p:sync() end
    end
    assert(p:close())
  end,
}
local ORDER = { "rows", "binary", "budget", "coroutine", "copy_out", "copy_in", "pipeline", "collected" }

local n, bad = tonumber(arg[1]) or 10000000, false
for _, way in ipairs(arg[2] and { select(2, (unpack or table.unpack)(arg)) } or ORDER) do
  ways[way](1000)
  local before, began = peak(), dblink.now()
  ways[way](n)
  local raised = peak() - before
  bad = bad or raised > MOST
  print(("%-10s %d in %.1f s raise the peak of %.1f MiB by %.1f"):format(way, n, dblink.now() - began, before, raised))
end
os.exit(bad and 1 or 0)
