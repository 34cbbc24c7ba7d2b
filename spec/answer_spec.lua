local core = require "dblink.core"
local dblink = require "dblink"
local loops = require "support.loops"
local server = require "support.server"

local FEW = os.getenv "DBLINK_UNDER"

-- The same by C's own loop and by Lua's.
local waits = { ["a plain script"] = "poll", ["a wait of its own"] = { wait = core.poll, forget = function() end } }

for where, wait in pairs(waits) do
  describe("a query of a pipeline without a ticket, in " .. where, function()
    local conn, p
    local function connect(options)
      options.wait = wait
      conn = server.connect(nil, options)
      p = assert(conn:pipeline())
    end
    before_each(function() connect {} end)
    after_each(function() conn:close() end)

    local function usable()
      assert.is_true(p:close())
      assert.equal(1, assert(conn:query "select 1")(1, 1))
      assert.equal("idle", conn:transaction_status())
    end

    local function send(...) assert.is_true((assert(p:send_query(...)))) end

    -- The next answer's one value, or nil and the error.
    local function value(...)
      local res, err = p:get_result(...)
      if not res then return nil, err end
      return res(1, 1)
    end

    local function fails(kind, ...)
      local res, err = p:get_result(...)
      assert.is_nil(res)
      assert.equal(kind, err.kind)
      return err
    end

    local function is_end()
      assert.equal(1, select("#", p:get_result()))
      assert.is_nil((p:get_result()))
      assert.is_nil((p:next_values()))
    end

    -- All rows that p:values() gives, as strings.
    local function all()
      local list = {}
      for n, a, b in p:values() do list[#list + 1] = ("%d %s %s"):format(n, tostring(a), tostring(b)) end
      return list
    end

    it("is run as it was written, whatever memory long SQL lay in", function()
      local function sql(i) return ("select %06d /* a query of more than forty characters */"):format(i) end
      for i = 100, 130 do
        for _, n in ipairs { i, i, i + 50 } do
          send(sql(n))
          collectgarbage()
        end
        for _, n in ipairs { i, i, i + 50 } do assert.equal(n, value()) end
      end
      usable()
    end)

    it("gives no error to the one behind it, where it was refused after its statement had failed", function()
      local sql = "select * from missing where a = $1"
      send(sql, "x")
      p:sync()
      fails "server"
      assert.has_error(function() p:send_query(sql, "a\0b") end)
      p:sync()
      send "select 42"
      p:sync()
      assert.equal(42, value())
      usable()
    end)

    it("waits no longer than it was told behind one without rows", function()
      connect { null = dblink.null }
      send "select from pg_sleep(0.2) where false"
      p:flush()
      send "select pg_sleep(60)"
      local n, err = p:next_values(0.5)
      assert.is_nil(n)
      assert.equal("timeout", err.kind)
    end)

    it("may find its connection closed by what hears of its notices", function()
      conn:close()
      connect { on_notice = function() conn:close() end }
      send "do $$ begin raise notice 'hello'; end $$"
      local ticket = assert(p:query "select 1")
      p:sync()
      assert.is_nil((ticket:result()))
      assert.is_nil((ticket:result()))
      conn = server.connect(nil, { wait = wait, on_notice = function() conn:close() end })
      assert(conn:query [[create function pg_temp.tell() returns int language plpgsql as
        'begin raise notice ''hello''; return 7; end']])
      p = assert(conn:pipeline())
      send "select pg_temp.tell(), 2, 3, 4, 5"
      assert.is_nil((p:next_values()))
    end)

    it("leaves the limit of another coroutine's query alone, when it is collected late", function()
      if wait == "poll" then return end
      local loop, closed, ended = require "support.turns".new(), nil, nil
      conn = loop.call(function() return server.connect(nil, loop.options) end)
      loop.spawn(function()
        p = assert(conn:pipeline())
        send "select 1"
        closed = p:close()
        ended = { conn:query { "select pg_sleep(60)", timeout = 0.3 } }
      end)
      loop.run(function() return closed and conn:transaction_status() == "active" end)
      assert.equal(1, value())
      loop.run()
      assert.equal("timeout", ended[2].kind)
    end)

    it("is refused where what encodes its parameter uses the pipeline", function()
      local mark = assert(conn:codec("int4", { encode = function(v)
        if v == 1 then conn:close() end
        return tostring(p:send_query "select 5" and v)
      end }))
      p = assert(conn:pipeline())
      assert.has_error(function() p:send_query("select $1::int", mark(2)) end)
      assert.equal(5, value())
      usable()
      assert.has_error(function() conn:query("select $1::int", mark(1)) end)
    end)

    it("gives its result in its turn, and nil after the last", function()
      is_end()
      for i = 1, 1000 do send("select $1::int8 as n, 'x' || $1 as t", i) end
      for i = 1, 1000 do assert.same({ n = i, t = "x" .. i }, assert(p:get_result())[1]) end
      is_end()
      send "select 7"
      assert.equal(7, value())
      is_end()
      usable()
    end)

    it("gives its values behind its number, row for row", function()
      for round = 0, 1 do
        send("select $1::int4, null::text", 5)
        send "select i, 'x' from generate_series(1, 3) i"
        send "select 1 where false"
        send "set local work_mem = '1MB'"
        send "select"
        send "select true, 2.5::float8"
        p:sync()
        local n = round * 6
        assert.same({ n + 1 .. " 5 nil", n + 2 .. " 1 x", n + 2 .. " 2 x", n + 2 .. " 3 x", n + 5 .. " nil nil",
          n + 6 .. " true 2.5" }, all())
        is_end()
      end
      usable()
    end)

    it("gives the rest of its rows to nobody when the next result is asked for", function()
      send "select i from generate_series(1, 3) i"
      send "select 4"
      send "select 5"
      assert.same({ 1, 1 }, { p:next_values() })
      assert.equal(4, value())
      assert.same({ 3, 5 }, { p:next_values() })
      is_end()
      usable()
    end)

    it("stands in one row with tickets", function()
      send "select 1"
      local two = p:query "select 2"
      send "select 3"
      local four = p:query "select 4"
      send "select 5, 5"
      assert.equal(4, assert(four:result())(1, 1))
      assert.equal(1, value())
      assert.same({ "2 3 nil", "3 5 5" }, all())
      assert.equal(2, assert(two:result())(1, 1))
      local six = p:query "select 6"
      is_end()
      assert.equal(6, assert(six:result())(1, 1))
      usable()
    end)

    it("fails by itself, and what is behind it up to the next sync is aborted", function()
      for _ = 1, 2 do
        send "select 1"
        send "select 1/0"
        send("select $1::int", 3)
        p:sync()
        send "select 4"
      end
      assert.equal(1, value())
      assert.equal("22012", fails("server").sqlstate)
      assert.match("a query before it", fails("pipeline_aborted").message)
      assert.equal(4, value())
      assert.same({ 5, 1 }, { p:next_values() })
      local none, err, n = p:next_values()
      assert.same({ nil, "22012", 6 }, { none, err.sqlstate, n })
      assert.equal("pipeline_aborted", select(2, p:next_values()).kind)
      assert.same({ "8 4 nil" }, all())
      is_end()
      usable()
    end)

    it("raises in a loop, which then can be gone on with", function()
      send "select 1"
      send "select nonsense"
      p:sync()
      send "select 3"
      local seen = {}
      local ok, err = pcall(function() for n, v in p:values() do seen[n] = v end end)
      assert.is_false(ok)
      assert.equal("42703", err.sqlstate)
      assert.same({ 1 }, seen)
      assert.same({ "3 3 nil" }, all())
      usable()
    end)

    it("says so too where its statement was prepared on the way", function()
      for i = 1, 3 do
        send("select nonsense, $1::int", i)
        p:sync()
      end
      for i = 1, 30 do
        if i % 10 == 0 then send("select 1/($1::int - $1)", i) end
        if i % 10 == 0 then p:sync() end
        send("select $1::int", i)
      end
      for _ = 1, 3 do assert.equal("42703", fails("server").sqlstate) end
      for i = 1, 30 do
        if i % 10 == 0 then assert.equal("22012", fails("server").sqlstate) end
        assert.equal(i, value())
      end
      is_end()
      usable()
    end)

    it("can be collected when the pipeline is closed", function()
      send "select 1"
      send "select nonsense"
      p:sync()
      send "select i, 2 from generate_series(1, 2) i"
      send "select 3, 3"
      usable()
      assert.equal(1, value())
      fails "server"
      assert.same({ "3 1 2", "3 2 2", "4 3 3" }, all())
      is_end()
      assert.error_matches(function() p:send_query "select 1" end, "pipeline is closed")
    end)

    it("takes megabytes each way without waiting to be read", function()
      local text, n = ("x"):rep(300000), FEW and 5 or 60
      for i = 1, n do send("select $1 || repeat('y', 300000)", text .. i) end
      p:sync()
      for i = 1, n do assert.equal(600000 + #tostring(i), #value()) end
      for i = 1, n do send("select repeat('y', $1::int)", 1000000 + i) end
      for i = 1, n do assert.equal(1000000 + i, #select(2, p:next_values())) end
      usable()
    end)

    it("takes more queries than the server answers without being asked", function()
      local n, sum = FEW and 500 or 20000, 0
      for i = 1, n do send("select $1::int4", i) end
      for i = 1, n / 2 do assert.equal(i, value()) end
      for i = 1, n do send("select $1::int4", i) end
      for number, v in p:values() do sum = sum + (number > n and v or 0) end
      assert.equal(n * (n + 1) / 2, sum)
      is_end()
      usable()
    end)

    it("gives values as a query does", function()
      local sql = "select 1.5::float8 as f, true as b, null as none, '{1,NULL}'::int4[] as a, 12.30::numeric as n"
      for _ = 1, 4 do send(sql) end
      send { sql, binary = true }
      send { sql, rows = "array" }
      send { sql, decode = false }
      send ""
      local stmt_values = { select(2, p:next_values()) }
      assert.same({ 1.5, true, nil, { 1, dblink.null, n = 2 }, "12.30" }, stmt_values)
      local expected = { f = 1.5, b = true, a = { 1, dblink.null, n = 2 }, n = "12.30" }
      for _ = 1, 4 do assert.same(expected, assert(p:get_result())[1]) end
      assert.equal(5, assert(p:get_result())[1].n)
      assert.equal("t", select(3, p:next_values()))
      assert.equal("empty_query", assert(p:get_result()).status)
      usable()
    end)

    it("knows null and codecs of the connection", function()
      conn:close()
      connect { null = dblink.null }
      conn:codec("date", { decode = function(s) return "on " .. s end })
      for _ = 1, 3 do send "select null as none, date '2024-02-29' as d" end
      assert.same({ none = dblink.null, d = "on 2024-02-29" }, p:get_result()[1])
      for _ = 2, 3 do assert.same({ dblink.null, "on 2024-02-29" }, { select(2, p:next_values()) }) end
      usable()
    end)

    it("runs prepared statements", function()
      p:close()
      local stmt = assert(conn:prepare "select $1::int + 1")
      p = assert(conn:pipeline())
      for i = 1, 20 do send(stmt, i) end
      for n, v in p:values() do assert.equal(n + 1, v) end
      usable()
    end)

    it("knows a session that has forgotten its statements", function()
      for i = 1, 4 do send("select $1::int", i) end
      p:sync()
      send "deallocate all"
      p:sync()
      for _ = 1, 6 do p:next_values() end
      for i = 1, 4 do send("select $1::int", i) end
      for i = 1, 4 do assert.equal(i, value()) end
      usable()
    end)

    it("is refused with a wrong argument, and nothing else is disturbed", function()
      send "select 1"
      assert.error_matches(function() p:send_query() end, "sql")
      assert.error_matches(function() p:send_query("select $1", {}) end, "dblink.array")
      assert.error_matches(function() p:send_query "select '\0'" end, "NUL")
      assert.error_matches(function() p:send_query { "select 1", timeout = 1 } end, "timeout")
      assert.error_matches(function() p:get_result(-1) end, "negative")
      assert.error_matches(function() p:next_values "soon" end, "number expected")
      assert.error_matches(function() p.get_result(conn) end, "dblink.pipeline expected")
      assert.equal(1, value())
      is_end()
      usable()
    end)

    it("may take longer than somebody waits, and can be asked for again", function()
      send "select pg_sleep(0.2), 1"
      send "select 2"
      fails("timeout", 0)
      assert.equal("timeout", select(2, p:next_values(0.001)).kind)
      assert.same({ 1, "", 1 }, { p:next_values() })
      assert.equal(2, value(10))
      usable()
    end)

    it("is stopped with its pipeline at the deadline of the whole", function()
      p:close()
      p = assert(conn:pipeline { timeout = 0.1 })
      send "select 1"
      p:flush()
      send "select pg_sleep(1000)"
      send "select 3"
      assert.equal(1, value())
      fails "timeout"
      assert.equal("timeout", select(2, p:close()).kind)
      fails "connection"
      fails "connection"
      is_end()
      assert.equal(1, assert(conn:query "select 1")(1, 1))
    end)

    it("says that the connection was lost, each of them", function()
      send "select 1"
      p:flush()
      send "select pg_terminate_backend(pg_backend_pid())"
      send "select 3"
      send "select 4"
      assert.equal(1, value())
      assert.is_true(select(2, p:get_result()).connection_lost)
      assert.is_nil((p:get_result()))
      local none, err = p:next_values()
      assert.is_nil(none)
      assert.is_not_nil(err)
      is_end()
      assert.is_nil(p:close())
      assert.equal("bad", conn:status())
    end)

    it("says that the connection was closed", function()
      send "select 1"
      send "select 2"
      conn:close()
      fails "connection"
      fails "connection"
      is_end()
    end)

    it("says in values, too, that the connection was closed", function()
      send "select 1"
      conn:close()
      local n, err = p:next_values()
      assert.is_nil(n)
      assert.equal("connection", err.kind)
    end)

    it("may have many columns", function()
      send "select 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"
      assert.same({ 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, { p:next_values() })
    end)

    it("is stopped where its rows are too big, alone", function()
      conn:close()
      connect { max_bytes = 10000 }
      send "select 1"
      send "select repeat('x', 100) from generate_series(1, 1000)"
      send "select 2"
      send "select repeat('x', 100000)"
      send "select i from generate_series(1, 2) i"
      assert.equal(1, value())
      fails "too_big"
      assert.same({ 3, 2 }, { p:next_values() })
      assert.equal("too_big", select(2, p:next_values()).kind)
      assert.same({ "5 1 nil", "5 2 nil" }, all())
      usable()
    end)

    it("hands notices out", function()
      conn:close()
      local told = {}
      connect { on_notice = function(n) told[#told + 1] = n.message end }
      for _ = 1, 2 do send "do $$begin raise warning 'careful'; end$$" end
      assert.is_not_nil(p:get_result())
      assert.same({ "careful" }, told)
      assert.is_nil((p:next_values()))
      assert.same({ "careful", "careful" }, told)
      send "select 1"
      assert.same({ 3, 1 }, { p:next_values() })
      usable()
    end)
  end)
end

describe("answers of a pipeline while others run", function()
  for _, loop in ipairs(loops) do
    it("come in order under " .. loop.name, function()
      if loop.missing then return pending(loop.missing) end
      local turns = loops.work(loop, function(conn)
        local p = assert(conn:pipeline())
        for round = 0, 2 do
          assert(p:send_query "select pg_sleep(0.05), 1")
          for i = 1, 100 do assert(p:send_query("select $1 || repeat('x', 100000), 2", i)) end
          assert(p:send_query "select 1/0")
          p:sync()
          for i = 1, 101 do
            local n, _, v = p:next_values() -- no for: its iterator could not wait on Lua 5.1
            assert.same({ round * 102 + i, i > 1 and 2 or 1 }, { n, v })
          end
          assert.equal("22012", select(2, p:get_result()).sqlstate)
          assert.is_nil((p:next_values()))
        end
        assert(p:send_query "select pg_sleep(1000)")
        assert.equal("timeout", select(2, p:get_result(0.02)).kind)
        assert.equal("timeout", select(2, p:close(0.02)).kind)
        assert.equal("connection", select(2, p:get_result()).kind)
        assert.is_nil((p:get_result()))
        assert.equal(1, assert(conn:query "select 1")(1, 1))
      end)
      assert.is_true(not turns or turns > 5)
    end)
  end

  it("are kept from other coroutines than the one that waits", function()
    local loop = require "support.turns".new()
    local conn = loop.call(function() return server.connect(nil, loop.options) end)
    local p
    loop.spawn(function()
      p = assert(conn:pipeline())
      assert(p:send_query "select pg_sleep(0.1), 1")
      assert.equal(1, p:get_result()(1, 2))
      p:close()
    end)
    for _, verb in ipairs { "send_query", "get_result", "next_values" } do
      local res, err = p[verb](p, verb == "send_query" and "select 1" or nil)
      assert.is_nil(res)
      assert.match("another coroutine waits", err.message)
    end
    loop.run()
    assert.is_nil((p:get_result()))
    conn:close()
  end)
end)
