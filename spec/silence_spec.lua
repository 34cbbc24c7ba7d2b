-- A network that falls silent in the middle of an operation, for each that there is: it ends by its timeout, and then
-- the connection is ready, or says that it is lost. And what is given up: nothing of it runs on on the server.
local await = require "dblink.await"
local core = require "dblink.core"
local dblink = require "dblink"
local own = require "support.loops" ["a host's own"]
local server = require "support.server"
local wire = require "support.wire"

if not server.own then return end

local TIME = 0.04

-- Each is begun on a good connection, gives what it goes on with, and then goes on: an answer, or nil and an error.
local function straight(f) return { begin = function() end, go_on = f } end

local BIG = "select g, repeat('x', 500) from generate_series(1, 200) g"

local function all_rows(stream)
  local row, err
  repeat row, err = stream:next() until not row
  return not err or nil, err
end

local OPERATIONS = {
  query = straight(function(conn) return conn:query { BIG, timeout = TIME } end),
  ["query with parameters"] = straight(function(conn)
    return conn:query { "select repeat($1, 90000)", "x", timeout = TIME }
  end),
  ["query within max_bytes"] = straight(function(conn) return conn:query { BIG, max_bytes = 1e7, timeout = TIME } end),
  exec_all = straight(function(conn) return conn:exec_all("select 1; " .. BIG, TIME) end),
  json = straight(function(conn) return conn:json { BIG, timeout = TIME } end),
  get_result = {
    begin = function(conn) assert(conn:send_query(BIG)) end,
    go_on = function(conn) return conn:get_result(TIME) end,
  },
  prepare = straight(function(conn) return conn:prepare("select $1::int, $2::text", nil, TIME) end),
  ["a prepared statement"] = {
    begin = function(conn) return assert(conn:prepare(BIG)) end,
    go_on = function(_, stmt) return stmt:query { timeout = TIME } end,
  },
  ["a prepared statement that the server has lost"] = {
    begin = function(conn)
      local stmt = assert(conn:prepare(BIG))
      assert(conn:query "deallocate all")
      return stmt
    end,
    go_on = function(_, stmt) return stmt:query { timeout = TIME } end,
  },
  ["rows of a prepared statement that the server has lost"] = {
    begin = function(conn)
      local stmt = assert(conn:prepare(BIG))
      assert(conn:query "discard all")
      return stmt
    end,
    go_on = function(_, stmt) return all_rows(stmt:rows { timeout = TIME }) end,
  },
  rows = straight(function(conn) return all_rows(conn:rows { BIG, timeout = TIME }) end),
  copy_out = straight(function(conn)
    local reader, err = conn:copy_out { "copy (" .. BIG .. ") to stdout", timeout = TIME }
    if not reader then return nil, err end
    local line
    repeat line, err = reader:line() until not line
    return not err or nil, err
  end),
  copy_in = {
    begin = function(conn) assert(conn:query "create temporary table t (a text)") end,
    go_on = function(conn)
      local writer, err = conn:copy_in { "copy t from stdin", timeout = TIME }
      local ok = writer
      for _ = 1, 20 do
        if ok then ok, err = writer:write(("x"):rep(1000) .. "\n") end
      end
      if not ok then return nil, err end
      return writer:finish()
    end,
  },
  listen = straight(function(conn) return conn:listen("silence", TIME) end),
  unlisten = straight(function(conn) return conn:unlisten(nil, TIME) end),
  notify = straight(function(conn) return conn:notify("silence", "hello", TIME) end),
  transaction = straight(function(conn)
    return conn:transaction(function()
      local ok, err = conn:query "select 1"
      if not ok then return nil, err end
      return conn:query(BIG)
    end, { timeout = TIME })
  end),
  gather = straight(function(conn)
    local results, errors = dblink.gather({ { conn, BIG }, { conn, "select 2" } }, { timeout = TIME, grace = 0.02 })
    return results[2], errors[2]
  end),
  race = straight(function(conn) return dblink.race({ { conn, BIG } }, { timeout = TIME, grace = 0.02 }) end),
  hedge = straight(function(conn)
    return dblink.hedge({ { conn, BIG }, { conn, "select 2" } }, { timeout = TIME, grace = 0.02, after = TIME / 4 })
  end),
}

if core.methods.pipeline then
  OPERATIONS.pipeline = straight(function(conn)
    local p, err = conn:pipeline { timeout = TIME }
    if not p then return nil, err end
    local tickets = {}
    for i = 1, 30 do tickets[i] = assert(p:query("select $1::int, repeat('x', 500)", i)) end
    for _, ticket in ipairs(tickets) do
      local res, failure = ticket:result()
      if not res then
        p:close()
        return nil, failure
      end
    end
    return p:close()
  end)
end

-- After how many bytes from the server: at once, within a message, behind an error, among the rows.
local PLACES = { 0, 3, 200, 2000 }

local names = {}
for name in pairs(OPERATIONS) do names[#names + 1] = name end
table.sort(names)

local function plainly(f) f() end

local WAYS = {
  { "a plain script", "poll", plainly },
  { "coroutines #heavy", own.wait, own.run },
  { "a plain script, with TLS #heavy", "poll", plainly, tls = true },
}

for _, way in ipairs(WAYS) do
  local where, how, run = way[1], way[2], way[3]
  describe("a network that falls silent, in " .. where, function()
    local relay, grace
    setup(function() relay = wire.open(way.tls) end)
    teardown(function() relay:close() end)
    before_each(function() grace, await.grace = await.grace, 0.02 end)
    after_each(function()
      await.grace = grace
      relay "kill"
      relay "pass"
    end)

    local function connect(seconds)
      return dblink.connect(relay.conninfo, { wait = how, timeout = seconds or 20 })
    end

    -- The relay has taken its orders before it takes another connection.
    local function obeyed() assert(connect()):close() end

    local function assert_timeout(ok, err)
      assert.is_nil(ok)
      assert.equal("timeout", err.kind, tostring(err))
    end

    -- What a transaction says whose COMMIT meets the silence, and how many rows are there; leave: does more in it.
    local function commit_into_silence(leave)
      local admin, name = server.connect(nil, { wait = how }), server.name "silent"
      assert(admin:query("create table " .. name .. " (a int)"))
      local conn = assert(connect())
      local ok, err = conn:transaction(function()
        assert(conn:query("insert into " .. name .. " values (1)"))
        if leave then leave(conn) end
        relay "hush 0"
        obeyed()
        relay "hold"
        return true
      end, { timeout = 0.3 })
      conn:close()
      relay "kill"
      assert.is_nil(ok)
      assert.is_true(err.connection_lost)
      server.until_true(function() -- its session has come to its end
        return admin:query([[select not exists (select from pg_locks where relation = $1::regclass)]], name)(1, 1)
      end)
      local rows = admin:query("select count(*)::int from " .. name)(1, 1)
      assert(admin:query("drop table " .. name))
      admin:close()
      return err.message, rows
    end

    it("is no answer to a COMMIT: nobody knows", function()
      run(function()
        local message, rows = commit_into_silence()
        assert.matches("nobody knows whether the transaction was committed", message, 1, true)
        assert.equal(1, rows)
      end)
    end)

    it("comes before the COMMIT where a stream is left in the transaction: all know", function()
      run(function()
        local message, rows = commit_into_silence(function(conn)
          assert(conn:rows "select generate_series(1, 10000000)":next())
        end)
        assert.not_matches("nobody knows", message, 1, true)
        assert.equal(0, rows)
      end)
    end)

    for _, name in ipairs(names) do
      it("ends by its timeout: " .. name, function()
        run(function()
          local operation, silent = OPERATIONS[name], 0
          for _, place in ipairs(PLACES) do
            local conn = assert(connect())
            local thing = operation.begin(conn)
            relay("hush " .. place)
            obeyed()
            relay "hold" -- no cancel comes through either
            local ok, err = operation.go_on(conn, thing)
            if not ok then
              silent = silent + 1
              assert_timeout(ok, err)
              assert.equal("bad", conn:status())
            end
            conn:close()
            relay "kill"
            relay "pass"
          end
          assert.is_true(silent > 0)
        end)
      end)
    end

    it("ends by its timeout: connect, reset and ping", function()
      run(function()
        local opened, place = 0, 0
        repeat
          relay("stall " .. place)
          local conn, err = connect(TIME)
          if conn then
            opened = opened + 1
            conn:close()
          else
            assert_timeout(conn, err)
            assert.is_true(err.connection_lost)
          end
          place = place + (way.tls and 397 or 97)
        until opened > 0
        assert.is_true(place > 97)
        relay "pass"
        local conn = assert(connect())
        relay "hold"
        assert_timeout(conn:reset(TIME))
        if how == "poll" then assert.equal("no response", dblink.ping(relay.conninfo, TIME)) end
        relay "release"
        assert(conn:reset(20))
        conn:close()
      end)
    end)

    it("ends by its timeout: cancel, and its query ends when it speaks again", function()
      run(function()
        local conn = assert(connect())
        assert(conn:send_query "select pg_sleep(60)")
        relay "hold"
        assert_timeout(conn:cancel(TIME))
        assert.equal("ok", conn:status())
        relay "release"
        local _, err = conn:get_result(20)
        assert.equal("cancelled", err.kind)
        conn:close()
      end)
    end)

    it("ends by its timeout: what a pool does", function()
      run(function()
        local pool = dblink.pool { relay.conninfo, max = 2, wait = how, acquire_timeout = TIME, check = 0 }
        relay "hold"
        assert_timeout(pool:acquire())
        relay "release"
        local lease = assert(pool:acquire(20))
        lease:release()
        relay "freeze"
        relay "hold"
        assert_timeout(pool:query { "select 1", timeout = TIME }) -- an idle one, which is asked for a sign of life
        relay "release"
        lease = assert(pool:acquire(20)) -- another
        assert.equal(1, assert(lease:query { "select 1", timeout = 20 })(1, 1))
        relay "freeze"
        relay "hold"
        assert_timeout(lease:query { "select 1", timeout = TIME })
        lease:release()
        assert.equal(0, pool:stats().lent)
        pool:close()
      end)
    end)
  end)
end

local ENDLESS = "select generate_series(1, 1000000000), repeat('x', 1000)" -- row by row

local RUNNING = {
  send_query = function(conn) assert(conn:send_query(ENDLESS)) end,
  ["a prepared statement"] = function(conn) assert(assert(conn:prepare(ENDLESS)):send_query()) end,
  rows = function(conn)
    local stream = conn:rows(ENDLESS)
    assert(stream:next())
    return stream
  end,
  copy_out = function(conn)
    local reader = assert(conn:copy_out("copy (" .. ENDLESS .. ") to stdout"))
    assert(reader:line())
    return reader
  end,
  copy_in = function(conn)
    assert(conn:query "create temporary table t (a text)")
    local writer = assert(conn:copy_in "copy t from stdin")
    assert(writer:write(("x\n"):rep(1e5)))
    return writer
  end,
  pipeline = core.methods.pipeline and function(conn)
    local p = assert(conn:pipeline())
    assert(p:query "select pg_sleep(60)")
    assert(p:flush())
    return p
  end,
}

-- What its owner does then: the connection, if it is still there.
local ABANDONED = {
  closed = function(conn) conn:close() end,
  collected = function() end,
  ["left for another query"] = function(conn, thing)
    if not thing then return end -- its results must be collected
    if thing.close then thing:close(0.05) end
    assert.equal(1, assert(conn:query "select 1")(1, 1))
    return conn
  end,
}

describe("a server", function()
  for operation, begin in pairs(RUNNING) do
    for how, abandon in pairs(ABANDONED) do
      it(("runs nothing any more for what was %s: %s"):format(how, operation), function()
        local admin = server.connect()
        local function leave() -- whose variables are then gone
          local conn = server.connect()
          local pid = conn:backend_pid()
          return pid, abandon(conn, begin(conn))
        end
        local pid, kept = leave()
        collectgarbage()
        collectgarbage()
        server.until_true(function()
          return admin:query("select count(*) = 0 from pg_stat_activity where pid = $1 and state = 'active'", pid)(1, 1)
        end, 20)
        if kept then kept:close() end
        admin:close()
      end)
    end
  end

  -- A cancel request that comes before the server has begun is lost.
  it("runs nothing that was sent just before its connection was closed", function()
    local admin, mark = server.connect(), server.name "closed"
    for _ = 1, 30 do
      local conn = server.connect()
      assert(conn:send_query("select pg_sleep(60) as " .. mark))
      conn:close()
    end
    server.until_true(function()
      return admin:query("select count(*) = 0 from pg_stat_activity where query like '%' || $1", mark)(1, 1)
    end, 20)
    admin:close()
  end)
end)
