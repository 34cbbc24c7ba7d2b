local core = require "dblink.core"
local dblink = require "dblink"
local loops = require "support.loops"
local server = require "support.server"

local FEW = os.getenv "DBLINK_UNDER"

-- The same by C's own loop and by Lua's.
local waits = { ["a plain script"] = "poll", ["a wait of its own"] = { wait = core.poll, forget = function() end } }

for where, wait in pairs(waits) do
  describe("a pipeline in " .. where, function()
    local conn
    before_each(function() conn = server.connect(nil, { wait = wait }) end)
    after_each(function() conn:close() end)

    local function pipeline() return assert(conn:pipeline()) end

    local function usable()
      assert.equal(1, assert(conn:query "select 1")(1, 1))
      assert.equal("idle", conn:transaction_status())
    end

    -- A ticket's one value, or nil and the error.
    local function value(ticket, seconds)
      local res, err = ticket:result(seconds)
      if not res then return nil, err end
      return res(1, 1)
    end

    local function fails(kind, ticket)
      local res, err = ticket:result()
      assert.is_nil(res)
      assert.equal(kind, err.kind)
      return err
    end

    it("runs a statement whose plan has changed meanwhile as one query", function()
      assert(conn:query "create temp table changing as select 1 as a")
      local stmt = assert(conn:prepare "select * from changing where a = $1")
      assert(stmt:query(1))
      assert(conn:query "begin")
      assert(conn:query "alter table changing add column b int")
      assert.equal("0A000", select(2, stmt:query(1)).sqlstate)
      assert(conn:query "rollback")
      local p = pipeline()
      local tickets = { p:query(stmt, 1), p:query "select 42", p:query "select 43" }
      p:sync()
      assert.equal(42, assert(tickets[2]:result())(1, 1))
      assert.equal(43, assert(tickets[3]:result())(1, 1))
      p:close()
      usable()
    end)

    it("gives each ticket its result, in any order", function()
      local p = pipeline()
      local tickets = {}
      for i = 1, 1000 do tickets[i] = p:query("select $1::int8 as n, 'x' || $1 as t", i) end
      for _, i in ipairs { 1000, 1, 500 } do
        assert.same({ n = i, t = "x" .. i }, tickets[i]:result()[1])
      end
      assert.is_true(p:sync())
      for i = 1, 1000 do assert.equal(i, value(tickets[i])) end
      assert.is_true(p:close())
      usable()
    end)

    it("gives the same result again", function()
      local p = pipeline()
      local ticket = p:query "select 7"
      local res = ticket:result()
      assert.equal(7, res(1, 1))
      assert.equal(7, value(ticket))
      assert.equal(7, value(res))
      p:close()
      assert.equal(7, value(ticket))
      assert.equal("tuples_ok", res.status)
    end)

    it("needs no sync to give a result, and none to be closed", function()
      local p = pipeline()
      assert.equal(1, value(p:query "select 1"))
      assert.equal(2, value(p:query "select 2"))
      local ticket = p:query "select 3"
      assert.is_true(p:flush())
      assert.is_true(p:close())
      assert.equal(3, value(ticket))
      assert.is_true(p:close())
      usable()
    end)

    it("runs what is between two syncs as one transaction", function()
      assert(conn:query "create temporary table t (a int)")
      local p = pipeline()
      p:query "insert into t values (1)"
      local bad = p:query "select 1/0"
      p:sync()
      local good = p:query("insert into t values ($1), ($2)", 2, 3)
      assert.is_true(p:close())
      assert.equal("22012", fails("server", bad).sqlstate)
      assert.equal(2, good:result().affected)
      assert.equal("INSERT 0 2", good:result().command)
      assert.same({ 2, 3, n = 2 }, assert(conn:query "select a from t order by a"):column(1))
    end)

    it("aborts what is behind an error, up to the next sync, and each ticket says so", function()
      local p = pipeline()
      local before, bad = p:query "select 1", p:query "select nonsense"
      local aborted = { p:query "select 2", p:query("select $1::int", 3), p:query "select 4" }
      p:sync()
      local after = p:query "select 5"
      assert.equal(1, value(before))
      local err = fails("server", bad)
      assert.equal("42703", err.sqlstate)
      assert.is_false(err.connection_lost)
      for _, ticket in ipairs(aborted) do
        assert.match("a query before it", fails("pipeline_aborted", ticket).message)
      end
      assert.equal(5, value(after))
      assert.is_nil(bad:result())
      p:close()
      usable()
    end)

    it("says so too where the statement was prepared on the way", function()
      local p = pipeline()
      local bad = {}
      for i = 1, 4 do
        bad[i] = p:query("select nonsense, $1::int", i)
        p:sync()
      end
      local good = {}
      for i = 1, 100 do
        if i % 10 == 0 then bad[#bad + 1] = p:query("select 1/($1::int - $1)", i) end
        if i % 10 == 0 then p:sync() end
        good[i] = p:query("select $1::int", i)
      end
      p:close()
      for _, ticket in ipairs(bad) do fails("server", ticket) end
      for i = 1, 100 do assert.equal(i, value(good[i])) end
      usable()
    end)

    it("leaves none of its own statements behind", function()
      local p = pipeline()
      for i = 1, 10 do p:query("select $1::int", i) end
      for i = 1, 10 do p:query("select $1::text", i) end
      p:close()
      assert.equal(0, assert(conn:query "select count(*)::int from pg_prepared_statements")(1, 1))
    end)

    it("takes megabytes each way without waiting to be read", function()
      local p, tickets, text = pipeline(), {}, ("x"):rep(300000)
      local n = FEW and 5 or 100
      for i = 1, n do
        tickets[i] = p:query("select $1 || repeat('y', 300000)", text .. i)
      end
      p:sync()
      for i = 1, n do assert.equal(600000 + #tostring(i), #value(tickets[i])) end
      p:close()
      usable()
    end)

    it("takes more queries than the server answers without being asked", function()
      local p, tickets, n = pipeline(), {}, FEW and 500 or 20000
      for i = 1, n do tickets[i] = p:query("select $1::int4", i) end
      assert.is_true(p:close())
      for i = 1, n do assert.equal(i, value(tickets[i])) end
      usable()
    end)

    it("gives values as a query does", function()
      local sql = "select 1.5::float8 as f, true as b, null as none, '{1,NULL}'::int4[] as a, 12.30::numeric as n"
      local p = pipeline()
      local tickets = {}
      for i = 1, 3 do tickets[i] = p:query(sql) end
      tickets[4] = p:query { sql, binary = true }
      local array, raw = p:query { sql, rows = "array" }, p:query { sql, decode = false }
      p:close()
      local expected = conn:query(sql)[1]
      for i = 1, 4 do assert.same(expected, tickets[i]:result()[1]) end
      assert.equal(5, array:result()[1].n)
      assert.equal("t", raw:result()[1].b)
      p = pipeline()
      local empty = p:query ""
      p:close()
      assert.equal("empty_query", empty:result().status)
    end)

    it("knows null and codecs of the connection", function()
      conn:close()
      conn = server.connect(nil, { wait = wait, null = dblink.null })
      conn:codec("date", { decode = function(s) return "on " .. s end })
      local p, tickets = pipeline(), {}
      for i = 1, 4 do tickets[i] = p:query "select null as none, date '2024-02-29' as d" end
      p:close()
      for i = 1, 4 do assert.same({ none = dblink.null, d = "on 2024-02-29" }, tickets[i]:result()[1]) end
    end)

    it("runs prepared statements", function()
      local stmt = assert(conn:prepare "select $1::int + 1")
      local p, tickets = pipeline(), {}
      for i = 1, 50 do tickets[i] = p:query(stmt, i) end
      tickets[51] = p:query { stmt, 51, rows = "array" }
      p:close()
      for i = 1, 51 do assert.equal(i + 1, value(tickets[i])) end
      assert.equal(3, stmt:query(2)(1, 1))
    end)

    it("knows a session that listens, and one that has forgotten its statements", function()
      local p = pipeline()
      p:query "listen c"
      for i = 1, 4 do p:query("select $1::int", i) end
      p:sync()
      local all = p:query "deallocate all"
      p:sync()
      assert.equal("DEALLOCATE ALL", all:result().command)
      assert.equal(5, value(p:query("select $1::int", 5)))
      assert.is_true(p:close())
      assert.is_true(core.is_listening(conn))
      usable()
    end)

    it("does not wait for a result longer than it is told, and has it later", function()
      local p = pipeline()
      local ticket = p:query "select pg_sleep(0.3), 5"
      local res, err = ticket:result(0.02)
      assert.is_nil(res)
      assert.equal("timeout", err.kind)
      assert.equal(5, ticket:result()(1, 2))
      p:close()
      usable()
    end)

    it("is closed in time: what still runs is cancelled", function()
      local p = pipeline()
      local first, endless = p:query "select 1", p:query "select pg_sleep(1000)"
      p:sync()
      local last = p:query "select pg_sleep(1000)"
      local ok, err = p:close(0.05)
      assert.is_nil(ok)
      assert.equal("timeout", err.kind)
      assert.is_false(err.connection_lost)
      usable()
      assert.match("ended before", fails("connection", endless).message)
      fails("connection", last)
      assert.is_not_nil(first)
    end)

    it("keeps to its time as a whole, whatever waits", function()
      local p = assert(conn:pipeline { timeout = 0.3 })
      local endless = p:query "select pg_sleep(1000)"
      assert.equal("timeout", select(2, endless:result(0.02)).kind)
      local ok, err = p:close()
      assert.is_nil(ok)
      assert.equal("timeout", err.kind)
      usable()

      p = assert(conn:pipeline { timeout = 0.3 })
      assert(p:query "select pg_sleep(1000)")
      local ticket
      repeat ticket, err = p:query("select $1::text", ("x"):rep(100000)) until not ticket
      assert.equal("timeout", err.kind)
      assert.is_false(err.connection_lost)
      assert.error_matches(function() p:query "select 1" end, "closed")
      usable()

      p = assert(conn:pipeline { timeout = 60 })
      assert.equal(7, value(p:query "select 7", 1000))
      assert.is_true(p:close())
      assert.is_nil(conn:timeout())
      usable()
      assert.error_matches(function() conn:pipeline { timeout = -1 } end, "timeout")
      assert.error_matches(function() conn:pipeline { time = 1 } end, "unknown option 'time'")
      assert.error_matches(function() conn:pipeline(1) end, "options must be a table")
      usable()
    end)

    it("can be cancelled", function()
      local p = pipeline()
      local ticket = p:query "select pg_sleep(1000)"
      p:sync()
      local after = p:query "select 6"
      p:sync()
      local admin = server.connect()
      server.wait_active(admin, conn:backend_pid())
      admin:close()
      assert.is_true(conn:cancel())
      assert.equal("57014", fails("cancelled", ticket).sqlstate)
      assert.is_true(p:close())
      assert.equal(6, value(after))
      usable()
    end)

    it("is seen to its end by the next verb where it was left", function()
      assert(conn:query "create temporary table t (a int)")
      local p = pipeline()
      local ticket = p:query("insert into t values ($1) returning a", 1)
      p = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.equal(1, conn:query "select count(*)::int from t"(1, 1))
      assert.equal(1, value(ticket))
      assert.error_matches(function() pipeline():close("soon") end, "number")
      usable()
    end)

    it("outlives an error in the middle", function()
      local p
      local ok = pcall(function()
        p = pipeline()
        p:query "select 1"
        p:query "select 2"
        error "enough"
      end)
      assert.is_false(ok)
      usable()
      assert.error_matches(function() p:query "select 3" end, "pipeline is closed")
      assert.is_true(p:close())
    end)

    it("refuses what is wrong, and goes on", function()
      local p = pipeline()
      local good = p:query "select 1"
      assert.error_matches(function() p:query() end, "sql")
      assert.error_matches(function() p:query("select $1", {}) end, "dblink.array")
      assert.error_matches(function() p:query("select $1", print) end, "a function cannot")
      assert.error_matches(function() p:query { "select 1", timeout = 1 } end, "timeout")
      assert.error_matches(function() p:query { "select 1", null = 0 } end, "null")
      assert.error_matches(function() p:query { "select 1", rows = "values" } end, "values")
      assert.error_matches(function() p:query { "select 1", max_bytes = 1000 } end, "max_bytes")
      assert.error_matches(function() good.result {} end, "dblink.ticket expected")
      assert.error_matches(function() good.result(1) end, "dblink.ticket expected")
      assert.error_matches(function() conn.status(p) end, "dblink.connection expected")
      assert.error_matches(function() p.query(conn, "select 1") end, "dblink.pipeline expected")
      assert.error_matches(function() good.result(p) end, "dblink.ticket expected")
      local two = p:query "select 1; select 2"
      p:sync()
      local more = p:query "select 2"
      p:close()
      assert.equal(1, value(good))
      assert.equal("42601", fails("server", two).sqlstate)
      assert.equal(2, value(more))
      usable()
    end)

    it("ends with the connection where a COPY comes, and says so", function()
      local p = pipeline()
      local before, copy, after = p:query "select 1", p:query "copy (select 1) to stdout", p:query "select 2"
      local ok, err = p:close()
      assert.is_nil(ok)
      assert.is_true(err.connection_lost)
      assert.equal(1, value(before))
      assert.match("copy_out", fails("usage", copy).message)
      fails("connection", after)
      assert.equal("bad", conn:status())
      assert.is_truthy(conn:reset())
      usable()
    end)

    it("says that the connection was lost", function()
      local p = pipeline()
      assert.equal(1, value(p:query "select 1"))
      local ticket = p:query "select pg_terminate_backend(pg_backend_pid())"
      local after = p:query "select 2"
      assert.is_nil(p:close())
      assert.is_true(select(2, ticket:result()).connection_lost)
      assert.is_nil(after:result())
      assert.equal("bad", conn:status())
    end)

    it("says that the connection was closed", function()
      local p = pipeline()
      local done = p:query "select 1"
      p:flush() -- else the server keeps its answer back
      local endless = p:query "select pg_sleep(1000)"
      assert.equal(1, value(done))
      conn:close()
      assert.equal(1, value(done))
      fails("connection", endless)
      assert.error_matches(function() p:query "select 3" end, "connection is closed")
      assert.is_true(p:close())
    end)

    it("stops what is too big, and goes on", function()
      conn:close()
      conn = server.connect(nil, { wait = wait, max_bytes = 10000 })
      local p = pipeline()
      local small, big = p:query "select 1", p:query "select repeat('x', 100) from generate_series(1, 1000)"
      local last = p:query "select 2"
      p:close()
      assert.equal(1, value(small))
      fails("too_big", big)
      assert.equal(2, value(last))
      usable()
    end)

    it("hands notices out, and takes notifications in", function()
      conn:close()
      local told = {}
      conn = server.connect(nil, { wait = wait, on_notice = function(n) told[#told + 1] = n.message end })
      local channel = server.name "c"
      assert(conn:listen(channel))
      local p = pipeline()
      local ticket = p:query "do $$begin raise warning 'careful'; end$$"
      p:query("select pg_notify($1, 'hello')", channel)
      assert.is_not_nil(ticket:result())
      p:close()
      assert.same({ "careful" }, told)
      assert.equal("hello", conn:get_notify().payload)
    end)

    it("may find its connection closed, at its end, by what hears of its notices", function()
      conn:close()
      conn = server.connect(nil, { wait = wait, on_notice = function() conn:close() end })
      local p = pipeline()
      local ticket = p:query "do $$begin raise warning 'careful'; end$$"
      p:query "select 1"
      assert.is_true(p:close())
      assert.equal("closed", conn:status())
      assert.equal("DO", ticket:result().command)
    end)

    it("takes as many parameters as there are", function()
      local p, list, sum = pipeline(), {}, {}
      for i = 1, 1500 do list[i], sum[i] = i, "$" .. i .. "::int4" end
      local seven = p:query("select " .. table.concat(sum, " + ", 1, 7), 1, 2, 3, 4, 5, 6, 7)
      local many = p:query { "select " .. table.concat(sum, " + "), (table.unpack or unpack)(list) } -- luacheck: ignore
      local take = seven.result
      local res = seven:result()
      assert.equal(28, res(1, 1))
      assert.equal(res, take(res)) -- the ticket is the result now
      assert.equal(1500 * 1501 / 2, value(many))
      assert(p:close())
    end)

    it("waits for room behind a query that takes its time", function()
      local admin = server.connect()
      assert(admin:query "select pg_advisory_lock(8)")
      local p = pipeline()
      assert(p:query "select pg_advisory_lock(8)")
      assert(p:flush())
      server.wait_active(admin, conn:backend_pid())
      assert(admin:send_query "select pg_sleep(0.1), pg_advisory_unlock(8)")
      local n = FEW and 10 or 9000
      for i = 1, n do assert(p:send_query("select $1::int", i)) end
      for i = 1, n do assert.equal(i, select(2, p:next_values())) end
      assert(p:close())
      usable()
      admin:close()
    end)

    it("stops what is too big though it ends with an error", function()
      conn:close()
      conn = server.connect(nil, { wait = wait, max_bytes = 1000 })
      local p = pipeline()
      local big = p:query "select repeat('x', 900), 1 / (3 - g) from generate_series(1, 5) g"
      local last = p:query "select 2"
      p:close()
      assert.equal("22012", fails("server", big).sqlstate)
      fails("pipeline_aborted", last)
      usable()
    end)

    it("works inside a transaction, and inside one that failed", function()
      assert(conn:query "create temporary table t (a int)")
      assert(conn:transaction(function()
        local p = pipeline()
        for i = 1, 10 do p:query("insert into t values ($1)", i) end
        assert(p:close())
        return true
      end))
      assert.is_false(pcall(conn.transaction, conn, function()
        local p = pipeline()
        p:query("insert into t values ($1)", 11)
        local bad = p:query "select 1/0"
        p:sync()
        assert(bad:result())
      end))
      assert.equal(10, conn:query "select count(*)::int from t"(1, 1))
      usable()
    end)

    it("is closed by 5.4 where its scope ends", function()
      if not (loadstring or load)("local x <close> = nil") then return end
      local f = assert(load([[
        local conn = ...
        local p <close> = conn:pipeline()
        return p:query "select 8"]]))
      local ticket = f(conn)
      assert.equal(8, value(ticket))
      usable()
    end)
  end)
end

describe("a pipeline while others run", function()
  for _, loop in ipairs(loops) do
    it("gives its results in order under " .. loop.name, function()
      if loop.missing then return pending(loop.missing) end
      local text, n = ("x"):rep(100000), FEW and 10 or 100
      local turns = loops.work(loop, function(conn)
        local p = assert(conn:pipeline())
        local tickets = { p:query "select pg_sleep(0.05)" }
        for i = 1, n do tickets[#tickets + 1] = assert(p:query("select $1 || $1", text .. i)) end
        for i = 1, n do assert.equal((text .. i):rep(2), assert(tickets[i + 1]:result())(1, 1)) end
        local bad = p:query "select 1/0"
        local slow = p:query "select pg_sleep(1000)"
        assert.equal("22012", select(2, bad:result()).sqlstate)
        p:sync()
        assert.equal("pipeline_aborted", select(2, slow:result()).kind)
        slow = p:query "select pg_sleep(1000)"
        assert.equal("timeout", select(2, slow:result(0.02)).kind)
        assert.equal("timeout", select(2, p:close(0.02)).kind)
        assert.equal(1, assert(conn:query "select 1")(1, 1))
      end)
      assert.is_true(not turns or turns > 5)
    end)
  end

  it("ends for who waits for room in it, where the connection is closed or lost", function()
    for i = 1, 2 do
      local loop = require "support.turns".new()
      local conn = loop.call(function() return server.connect(nil, loop.options) end)
      local pid, last, err = conn:backend_pid(), nil, nil
      loop.spawn(function()
        local p = assert(conn:pipeline())
        assert(p:query "select pg_sleep(60)")
        local text, ticket = ("x"):rep(1e6), nil
        repeat
          last = ticket
          ticket, err = p:query("select length($1)", text)
        until not ticket or conn:status() ~= "ok"
        last = ticket or last
      end)
      assert.is_true(core.is_held(conn)) -- neither the socket nor we take more
      if i == 1 then
        conn:close()
      else
        local admin = server.connect()
        assert(admin:query("select pg_terminate_backend($1)", pid))
        admin:close()
      end
      loop.run()
      if last then err = select(2, loop.call(function() return last:result() end)) end
      assert.is_true(err.kind == "connection" or err.kind == "pipeline_aborted", tostring(err))
      assert.equal(i == 1 and "closed" or "bad", conn:status())
      conn:close()
    end
  end)

  it("keeps other coroutines off its connection", function()
    local loop = require "support.turns".new()
    local conn = loop.call(function() return server.connect(nil, loop.options) end)
    local p, first
    loop.spawn(function()
      p = assert(conn:pipeline())
      first = p:query "select pg_sleep(0.1), 1"
      assert.equal(1, first:result()(1, 2))
      p:close()
    end)
    for _, f in ipairs { function() return p:query "select 2" end, function() return p:sync() end,
      function() return p:flush() end,
      function() return first:result() end, function() return p:close() end } do
      local res, err = f()
      assert.is_nil(res)
      assert.match("another coroutine waits", err.message)
    end
    loop.run()
    loop.spawn(function()
      p = assert(conn:pipeline())
      p:query "select pg_sleep(0.1)"
      assert(p:close())
    end)
    assert.error_matches(function() p:query "select 2" end, "pipeline is closed")
    loop.run()
    conn:close()
  end)
end)
