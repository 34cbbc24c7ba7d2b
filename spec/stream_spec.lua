local core = require "dblink.core"
local dblink = require "dblink"
local program = require "support.program"
local protect = require "dblink.protect"
local server = require "support.server"

-- The same by C's own loop and by Lua's.
local waits = { ["a plain script"] = "poll", ["a wait of its own"] = { wait = core.poll, forget = function() end } }
local ENDLESS = "select generate_series(1, 1000000000) as i, 'x' as t"

for where, wait in pairs(waits) do
  describe("a stream in " .. where, function()
    local conn
    before_each(function() conn = server.connect(nil, { wait = wait }) end)
    after_each(function() conn:close() end)

    -- Leaves a loop at its first row.
    local function leave()
      for row in conn:rows(ENDLESS) do
        if row.i == 1 then break end
      end
    end

    local function last(stream)
      local n = -1
      while true do
        local row, err = stream:next()
        n = n + 1
        if not row then return err, n end
      end
    end

    local function usable() assert.equal(1, assert(conn:query "select 1")(1, 1)) end

    it("raises in a for loop what ends it, its timeout too", function()
      local n = 0
      local ok, err = pcall(function()
        for _ in conn:rows { "select pg_sleep(case when i > 3 then 60 else 0 end) from generate_series(1, 9) i",
          timeout = 0.1 } do
          n = n + 1
        end
      end)
      assert.is_false(ok)
      assert.equal("timeout", err.kind)
      usable()
      local stream = conn:rows "select 1"
      assert.has_error(function() debug.getmetatable(stream).__call(5) end)
      assert.has_error(function() debug.getmetatable(stream).__call(io.stdout) end)
      stream:close()
    end)

    it("gives rows by name", function()
      local n = 0
      for row in conn:rows "select i, 'x' || i as t, null as none from generate_series(1, 1000) i" do
        n = n + 1
        assert.equal(n, row.i)
        assert.equal("x" .. n, row.t)
        assert.is_nil(row.none)
      end
      assert.equal(1000, n)
      usable()
    end)

    it("gives rows as arrays, and as values behind the row's number", function()
      local n = 0
      for row in conn:rows { "select $1::int, null, i from generate_series(1, 500) i", 7, rows = "array" } do
        n = n + 1
        assert.same({ 7, nil, n, n = 3 }, row)
      end
      for i, a, b, c in conn:rows { "select null, i, null from generate_series(1, 500) i", rows = "values" } do
        n = n + 1
        assert.equal(n - 500, i)
        assert.is_nil(a)
        assert.equal(i, b)
        assert.is_nil(c)
      end
      assert.equal(1000, n)
      assert.error_matches(function() conn:query { "select 1", rows = "values" } end, "conn:rows")
      assert.error_matches(function() conn:rows { "select 1", rows = "cols" } end, "option rows")
    end)

    it("is read row by row too, nil alone at its end", function()
      local stream = conn:rows "select 1 as a union all select 2"
      assert.equal("a", stream:columns()[1].name)
      assert.equal(1, stream:next().a)
      assert.equal(2, stream:next().a)
      for _ = 1, 2 do
        local row, err = stream:next()
        assert.is_nil(row)
        assert.is_nil(err)
      end
      usable()
    end)

    it("may have no rows, or no columns", function()
      assert.is_nil((conn:rows "select 1 where false"):next())
      assert.equal(1, #(conn:rows "select 1 where false"):columns())
      assert.is_nil((conn:rows "create temporary table t (a int)"):next())
      assert.is_nil((conn:rows ""):next())
      for row in conn:rows "select from generate_series(1, 3)" do assert.is_nil(next(row)) end
      usable()
    end)

    it("puts the null that was asked for, and decodes as asked", function()
      for row in conn:rows { "select null as a, 1 as b", null = dblink.null } do
        assert.equal(dblink.null, row.a)
      end
      for row in conn:rows { "select 1 as b", decode = false } do assert.equal("1", row.b) end
      for _, b in conn:rows { "select 1, 'x'", binary = true, rows = "values" } do assert.equal(1, b) end
    end)

    it("raises the error object in a for loop, and returns it from next", function()
      local seen = 0
      local ok, err = protect.pcall(function()
        for row in conn:rows "select 1 / (3 - i) as x, i from (select generate_series(1, 1000000) as i) s" do
          seen = row.i
        end
      end)
      assert.is_false(ok)
      assert.equal("22012", err.sqlstate)
      assert.is_true(seen <= 2)
      usable()
      local stream = conn:rows "selec 1"
      local row
      row, err = stream:next()
      assert.is_nil(row)
      assert.equal("42601", err.sqlstate)
      row, err = stream:next()
      assert.is_nil(row)
      assert.is_nil(err)
      usable()
    end)

    it("is left early, and the connection serves the next verb", function()
      for row in conn:rows(ENDLESS) do
        if row.i == 10 then break end
      end
      usable()
      local stream = conn:rows(ENDLESS)
      assert.equal(1, stream:next().i)
      stream:close()
      stream:close()
      assert.equal("idle", conn:transaction_status())
      assert.is_nil(stream:next())
      usable()
      leave()
      assert.is_true(conn:send_query "select 2")
      assert.equal(2, conn:get_result()(1, 1))
      assert.is_nil(conn:get_result())
      leave()
      for row in conn:rows "select 3 as c" do assert.equal(3, row.c) end
    end)

    it("is told when another verb has ended it", function()
      local stream = conn:rows(ENDLESS)
      assert.equal(1, stream:next().i)
      usable()
      local row, err = stream:next()
      assert.is_nil(row)
      assert.equal("usage", err.kind)
      assert.is_nil(select(2, stream:next()))
      assert.error(function()
        for _ in conn:rows(ENDLESS) do usable() end
      end)
      usable()
    end)

    it("stops at its timeout, even while rows come", function()
      local stream = conn:rows { ENDLESS, timeout = 0.05 }
      assert.equal("timeout", last(stream).kind)
      assert.is_nil(select(2, stream:next()))
      usable()
      stream = conn:rows { "select pg_sleep(60)", timeout = 0.05 }
      assert.equal("timeout", select(2, stream:next()).kind)
      usable()
    end)

    it("stops over its max_bytes", function()
      local err, n = last(conn:rows { ENDLESS, max_bytes = 10000 })
      assert.equal("too_big", err.kind)
      assert.is_true(n > 100)
      usable()
      n = 0
      for _ in conn:rows { "select repeat('x', 1000) from generate_series(1, 10)", max_bytes = 11000 } do n = n + 1 end
      assert.equal(10, n)
    end)

    it("ends with the connection", function()
      local stream = conn:rows(ENDLESS)
      assert.equal(1, stream:next().i)
      local admin = server.connect()
      assert(admin:query("select pg_terminate_backend($1)", conn:backend_pid()))
      assert.is_true(last(stream).connection_lost)
      admin:close()
      assert.is_true(last(conn:rows "select 1").connection_lost)
    end)

    it("cannot be read after the connection was closed", function()
      local stream = conn:rows(ENDLESS)
      assert.equal(1, stream:next().i)
      conn:close()
      assert.error_matches(function() stream:next() end, "connection is closed")
      stream:close()
    end)

    it("keeps its memory bounded", function()
      collectgarbage()
      local base, most, n = collectgarbage "count", 0, 0
      for row in conn:rows "select i, repeat('x', 1000) as t from (select generate_series(1, 30000) as i) s" do
        n = n + #row.t
        if row.i % 3000 == 0 then -- what is alive, not what the collector has not come to
          collectgarbage()
          most = math.max(most, collectgarbage "count" - base)
        end
      end
      assert.equal(30000000, n)
      assert.is_true(most < 1000, most)
    end)

    it("is cancelled as any query", function()
      local stream = conn:rows "select pg_sleep(60)"
      local admin = server.connect()
      server.wait_active(admin, conn:backend_pid())
      admin:close()
      assert(conn:cancel())
      local row, err = stream:next()
      assert.is_nil(row)
      assert.equal("cancelled", err.kind)
      usable()
    end)

    it("refuses a COPY, and goes on", function()
      for _, sql in ipairs { "copy (select 1) to stdout", "copy pg_class from stdin" } do
        local row, err = (conn:rows(sql)):next()
        assert.is_nil(row)
        assert.is_not_nil(err)
        usable()
      end
    end)

    it("of a connection that is gone without being closed is harmless", function()
      for _ = 1, 20 do
        local other = server.connect(nil, { wait = wait })
        local stream = other:rows(ENDLESS)
        stream:next()
        other = nil -- luacheck: ignore
        collectgarbage()
        assert.equal(2, stream:next().i)
      end
      collectgarbage()
    end)
  end)
end

describe("a stream under a wait that yields", function()
  local poll = require "dblink.wait.poll"
  local yielding = {
    wait = function(fd, events, seconds) return coroutine.yield(fd, events, seconds) end,
    forget = function() end,
  }

  local turns
  local function drive(f)
    local co = coroutine.create(f)
    turns = 0
    local function go(ok, ...)
      assert(ok, ...)
      if coroutine.status(co) == "dead" then return turns end
      turns = turns + 1
      return go(coroutine.resume(co, poll.wait(...)))
    end
    return go(coroutine.resume(co))
  end

  it("is kept from other coroutines than the one that waits", function()
    local loop = require "support.turns".new()
    local conn = loop.call(function() return server.connect(nil, loop.options) end)
    local stmt = loop.call(function() return assert(conn:prepare "select 1") end)
    local stream
    loop.spawn(function()
      stream = conn:rows "select pg_sleep(0.1)"
      assert(stream:next())
      assert.equal("pg_sleep", assert(stream:columns())[1].name)
      assert.is_nil((stream:next()))
    end)
    assert.is_nil((conn:get_notify())) -- which leaves what is there to who waits
    for _, f in ipairs {
      function() return stream:next() end, function() return stream:columns() end,
      function() return conn:rows("select 1"):next() end, function() return conn:query "select 1" end,
      function() return conn:query("select $1", 1) end, function() return stmt:query() end,
      function() return stmt:close() end, function() return conn:prepare "select 2" end,
      function() return conn:exec_all "select 1" end, function() return conn:get_result() end,
      function() return conn:try_result() end, function() return conn:pipeline() end,
      function() return conn:next_notification(1) end, function() return conn:reset() end,
    } do
      local res, err = f()
      assert.is_nil(res)
      assert.equal("usage", err.kind)
      assert.matches("in use", err.message)
    end
    loop.run()
    conn:close()
  end)

  it("yields while it waits for rows", function()
    local n = 0
    drive(function()
      local conn = assert(dblink.connect(server.conninfo, { wait = yielding }))
      local before = turns
      local stream = conn:rows "select i, pg_sleep(0.05 / i), repeat('x', 9000) from generate_series(1, 20) i"
      for i = 1, 20 do assert.equal(i, stream:next().i) end
      assert.is_true(turns > before)
      assert.is_nil(stream:next())
      if protect.native then
        for row in conn:rows "select i, pg_sleep(0.001), repeat('x', 9000) from generate_series(1, 20) i" do
          n = n + row.i
          if n == 55 then break end
        end
      else -- Lua 5.1 cannot yield in a for loop
        assert.error_matches(function() for _ in conn:rows "select pg_sleep(0.1)" do n = 1 end end, "stream:next")
        n = 55
      end
      assert.equal(1, conn:query "select 1"(1, 1))
      conn:close()
    end)
    assert.equal(55, n)
  end)
end)

if _VERSION >= "Lua 5.4" then
  describe("a stream as a closing value", function()
    it("is closed however the loop is left", function()
      local run = assert((load or loadstring)([[
        local conn, endless = ...
        pcall(function() for _ in conn:rows(endless) do error "out" end end)
        local first = conn:transaction_status()
        for _ in conn:rows(endless) do break end
        local second = conn:transaction_status()
        do local stream <close> = conn:rows(endless) end
        return first, second, conn:transaction_status()
      ]]))
      local conn = server.connect()
      assert.same({ "idle", "idle", "idle" }, { run(conn, ENDLESS) })
      conn:close()
    end)
  end)
end

describe("a million rows #heavy", function()
  it("do not raise the peak of the process", function()
    local output, status = program.run "spec/support/peak.lua 1000000 rows coroutine copy_out copy_in"
    assert.equal(0, status, output)
  end)
end)
