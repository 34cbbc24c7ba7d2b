local core = require "dblink.core"
local dblink = require "dblink"
local loops = require "support.loops"
local program = require "support.program"
local server = require "support.server"
local wait = require "dblink.wait"

-- Under sanitizers and a hard-working collector everything takes ten times as long.
local MANY = os.getenv "DBLINK_UNDER" and 400 or 10000

local function connect(loop, extra)
  return assert(dblink.connect(server.conninfo .. " " .. (extra or ""), { wait = loop.wait }))
end

-- Every way to wait passes the same examination.
for _, loop in ipairs(loops) do
  describe("the wait " .. loop.name, function()
    -- Says what is examined; in the coroutines of that loop, where it can be had.
    local function examine(what, needs_others, ...)
      local functions = { ... }
      it(what, function()
        if loop.missing then return pending(loop.missing) end
        if needs_others and not loop.spawn then return end
        loop.run((table.unpack or unpack)(functions)) -- luacheck: ignore
      end)
    end

    examine("is a wait", false, function()
      local good, report = wait.selftest(loop.wait, { spawn = loop.spawn })
      assert.is_true(good, tostring(report))
    end)

    examine("is found where its loop runs", false, function()
      if not loop.finds then return end
      local conn = server.connect()
      assert.equal(require("dblink.wait." .. loop.name), core.state(conn).wait)
      assert.equal(1, conn:query "select 1"(1, 1))
      conn:close()
    end)

    it("serves ten thousand queries on twenty connections, while others run", function()
      if loop.missing then return pending(loop.missing) end
      local connections, done, turns = loop.spawn and 20 or 1, 0, 0
      local functions = {}
      for i = 1, connections do
        functions[i] = function()
          local conn = connect(loop)
          for j = 1, MANY / 20 do
            if conn:query("select $1::int4", j)(1, 1) == j then done = done + 1 end
          end
          conn:close()
        end
      end
      if loop.spawn then
        local p, how = core.pair(), wait.find(loop.wait)
        table.insert(functions, function()
          while done < MANY do
            how.wait(p:getfd(), "r", 0.001)
            turns = turns + 1
          end
          how.forget(p:getfd())
          p:close()
        end)
      end
      loop.run((table.unpack or unpack)(functions)) -- luacheck: ignore
      assert.equal(connections * MANY / 20, done)
      assert.is_true(turns > 2 or not loop.spawn, turns .. " turns")
    end)

    examine("keeps deadlines, and the connection lives on", false, function()
      local conn = connect(loop)
      for _ = 1, 3 do
        local res, err = conn:query { "select pg_sleep(60)", timeout = 0.03 }
        assert.is_nil(res)
        assert.equal("timeout", err.kind)
        assert.equal("done", conn:query "select 'done' from pg_sleep(0.02)"(1, 1))
      end
      conn:close()
    end)

    examine("connects to the last of several hosts", false, function()
      local plain = server.connect("", { wait = "poll" })
      local info = plain:info()
      plain:close()
      for _ = 1, 2 do
        local conn = assert(dblink.connect({
          host = "127.0.0.1,127.0.0.1,/nowhere," .. info.host, port = "1,1,5432," .. info.port,
          user = info.user, dbname = info.dbname, password = "secret",
        }, { wait = loop.wait }))
        assert.equal(1, conn:query "select 1"(1, 1))
        conn:close()
      end
    end)

    examine("tells why no host would have it", false, function()
      local conn, err = dblink.connect("host=127.0.0.1,127.0.0.1 port=1", { wait = loop.wait })
      assert.is_nil(conn)
      assert.equal("connection", err.kind)
      assert.matches("refused.*refused", err.message)
    end)

    examine("sends much, and receives much", false, function()
      local conn = connect(loop)
      local big = ("0123456789abcdef"):rep(2 ^ 19) -- 8 MiB
      assert.equal(big, conn:query("select $1::text", big)(1, 1))
      assert.equal(#big, conn:query("select length($1)", big)(1, 1))
      conn:close()
    end)

    examine("does not stall over TLS, whatever the size", false, function()
      if not server.own then return end
      local conn = assert(dblink.connect({
        host = "127.0.0.1", port = os.getenv "PGPORT", user = "by_scram", password = "secret", dbname = "postgres",
        sslmode = "require",
      }, { wait = loop.wait }))
      for size = 81800, 82000, 10 do
        assert.equal(size, #conn:query { "select repeat('x', $1)", size, timeout = 20 }(1, 1))
      end
      local big = ("x"):rep(1e6)
      assert.equal(big, conn:query { "select $1::text", big, timeout = 20 }(1, 1))
      conn:close()
    end)

    examine("opens and closes, one after the other", false, function()
      for i = 1, 10 do
        local conn = connect(loop)
        assert.equal(i, conn:query("select $1::int4", i)(1, 1))
        if i % 2 == 0 then assert(conn:reset()) end
        conn:close()
      end
    end)

    -- The loop would stop, or watch a stranger.
    examine("is not disturbed by a connection that is collected", false, function()
      for _ = 1, 10 do
        assert.equal(1, connect(loop):query "select 1"(1, 1))
        collectgarbage()
        collectgarbage()
        local conn = connect(loop)
        assert.equal(1, conn:query "select 1"(1, 1))
        conn:close()
      end
    end)

    -- Of two coroutines: one waits, the other does something about it.
    local function while_waiting(what, waiter, other)
      examine(what, true, function()
        local conn, over = connect(loop), nil
        loop.spawn(function()
          local admin = connect(loop)
          server.wait_active(admin, conn:backend_pid())
          other(conn, admin)
          admin:close()
          over = true
        end)
        waiter(conn)
        local pacer = connect(loop)
        while not over do pacer:query "select pg_sleep(0.01)" end
        pacer:close()
        conn:close()
      end)
    end

    while_waiting("ends when another coroutine closes the connection", function(conn)
      local res, err = conn:query "select pg_sleep(60)"
      assert.is_nil(res)
      assert.equal("connection", err.kind)
      assert.is_true(err.connection_lost)
      assert.matches("closed meanwhile", err.message)
      assert.equal("closed", conn:status())
    end, function(conn)
      conn:close()
      local another = connect(loop) -- the number may be the same
      assert.equal(1, another:query "select 1"(1, 1))
      another:close()
    end)

    while_waiting("lets another coroutine cancel the query", function(conn)
      local res, err = conn:query "select pg_sleep(60)"
      assert.is_nil(res)
      assert.equal("cancelled", err.kind)
      assert.equal(1, conn:query "select 1"(1, 1))
    end, function(conn)
      assert(conn:cancel())
    end)

    local holder
    while_waiting("refuses a second coroutine, and says what the first waits for", function(conn)
      holder = connect(loop)
      assert(holder:query "select pg_advisory_lock(7)")
      assert.equal("mine", conn:query "select 'mine' from pg_advisory_lock(7)"(1, 1))
      assert.equal(2, conn:query "select 2"(1, 1))
    end, function(conn)
      for _, verb in ipairs { "query", "send_query", "get_result", "try_result", "reset" } do
        local res, err = conn[verb](conn, verb:find "query" and "select 2" or nil)
        assert.is_nil(res, verb)
        assert.equal("usage", err.kind)
        assert.matches("another coroutine waits for: select 'mine' from pg_advisory_lock", err.message)
      end
      assert.error_matches(function() conn:step() end, "another coroutine waits for: select 'mine'")
      assert.is_true(conn:is_busy())
      assert.is_nil(conn:get_notify())
      holder:close()
    end)

    it("goes on when the server ends a connection, and another has its number", function()
      if loop.missing then return pending(loop.missing) end
      local answers = {}
      loop.run(function()
        for i = 1, 3 do
          local conn = connect(loop)
          local none, err = conn:query "select pg_terminate_backend(pg_backend_pid())"
          answers[i] = none == nil and err.connection_lost
          local other = connect(loop)
          answers[3 + i] = other:query("select $1::int", i)(1, 1)
          other:close()
          conn:close()
        end
      end)
      assert.same({ true, true, true, 1, 2, 3 }, answers)
    end)

    it("leaves nothing behind when a program just ends, or closes when its loop is over", function()
      if loop.missing then return pending(loop.missing) end
      if type(loop.wait) == "table" then return end -- a table cannot be handed to another program
      for _, last in ipairs { "", "conn:close()" } do
        local output, status = program.run_text(([[
        local dblink = require "dblink"
        local loops = require "support.loops"
        loops[%q].run(function()
          conn = assert(dblink.connect(%q))
          print(conn:query "select 'fine'" (1, 1))
        end)
        %s
        ]]):format(loop.name, server.conninfo, last), os.getenv "DBLINK_UNDER")
        assert.equal("fine\n", output)
        assert.equal(0, status)
      end
    end)
  end)
end

describe("the wait luv", function()
  it("goes on when a coroutine was closed that waited", function()
    local loop = loops.luv
    if loop.missing or not coroutine.close then return pending(loop.missing or "this Lua closes no coroutines") end
    local output, status = program.run_text(([[
      local dblink = require "dblink"
      local loops = require "support.loops"
      local co
      loops.luv.run(function()
        co = coroutine.create(function()
          local conn = assert(dblink.connect(%q))
          conn:query "select pg_sleep(0.1)"
        end)
        coroutine.resume(co)
        local conn = assert(dblink.connect(%q))
        assert(coroutine.close(co))
        print(conn:query "select 'fine' from pg_sleep(0.2)" (1, 1))
      end)
    ]]):format(server.conninfo, server.conninfo), os.getenv "DBLINK_UNDER")
    assert.equal("fine\n", output)
    assert.equal(0, status)
  end)
end)

describe("what options.wait means", function()
  it("is checked", function()
    assert.error_matches(function() wait.find "nonsense" end, "option wait: no wait is named 'nonsense'")
    assert.error_matches(function() wait.find(7) end, "option wait: no wait is named '7'")
    assert.error_matches(function() wait.find { wait = print } end, "must be a name or a table")
  end)

  it("is poll(2) where no loop runs", function()
    assert.equal(require "dblink.wait.poll", wait.find())
  end)
end)

describe("the examination of waits", function()
  local poll = require "dblink.wait.poll"

  it("leaves out what needs a second coroutine, where there is none", function()
    local good, report = wait.selftest "poll"
    assert.is_true(good)
    local left_out = 0
    for _, entry in ipairs(report) do
      if entry.ok == nil then left_out = left_out + 1 end
    end
    assert.is_true(left_out > 3 and #report - left_out > 10)
  end)

  it("finds what is wrong", function()
    local function failures(f)
      local good, report = wait.selftest { wait = f, forget = function() end }
      assert.is_false(good)
      return tostring(report)
    end
    assert.matches("FAILED  nothing to read", failures(function() return true end))
    assert.matches("FAILED  ready to be written", failures(function(fd, _, seconds)
      return poll.wait(fd, "r", seconds and 0.01)
    end))
    assert.matches("FAILED  \"rw\" where only reading", failures(function(fd, events, seconds)
      return poll.wait(fd, events == "rw" and "w" or events, seconds and 0.01)
    end))
  end)
end)
