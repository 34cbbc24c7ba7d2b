local await = require "dblink.await"
local core = require "dblink.core"
local dblink = require "dblink"
local server = require "support.server"
local turns = require "support.turns"
local wire = require "support.wire"

-- Needs servers of our own.
local function own(name, f)
  it(name, function()
    if not server.own then pending "the server is not ours" end
    f()
  end)
end

describe("conn:cancel", function()
  local conn, admin
  before_each(function()
    conn, admin = server.connect(), server.connect()
  end)
  after_each(function()
    conn:close()
    admin:close()
  end)

  it("makes the server stop, and the results are still collected", function()
    assert(conn:send_query "select pg_sleep(60)")
    server.wait_active(admin, conn:backend_pid())
    assert.is_true(conn:cancel())
    local res, err = conn:get_result()
    assert.is_nil(res)
    assert.equal("57014", err.sqlstate)
    assert.equal("cancelled", err.kind)
    assert.is_nil(conn:get_result())
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("does no harm to an idle connection, nor to a finished query", function()
    assert.is_true(conn:cancel())
    assert.equal(1, conn:query "select 1"(1, 1))
    assert(conn:send_query "select 2")
    server.until_true(function() return not conn:is_busy() end)
    assert.is_true(conn:cancel(5))
    assert.equal(2, conn:get_result()(1, 1))
    assert.is_nil(conn:get_result())
  end)

  it("works on a query that waits for a lock", function()
    assert(admin:query "begin; lock pg_description")
    assert(conn:send_query "select count(*) from pg_description")
    server.until_true(function()
      return admin:query("select wait_event_type = 'Lock' from pg_stat_activity where pid = $1",
        conn:backend_pid())(1, 1)
    end)
    assert.is_true(conn:cancel())
    assert.equal("cancelled", select(2, conn:get_result()).kind)
    assert.is_nil(conn:get_result())
  end)

  it("is told from another's cancel and from a statement_timeout", function()
    assert(conn:send_query "select pg_sleep(60)")
    server.wait_active(admin, conn:backend_pid())
    assert(admin:query("select pg_cancel_backend($1)", conn:backend_pid()))
    local _, err = conn:get_result()
    assert.equal("server", err.kind)
    assert.equal("57014", err.sqlstate)
    assert.is_nil(conn:get_result())
    _, err = conn:query "set statement_timeout = 10; select pg_sleep(60)"
    assert.equal("server", err.kind)
    assert.equal("57014", err.sqlstate)
  end)

  it("tells why a request could not be sent", function()
    admin:query("select pg_terminate_backend($1)", conn:backend_pid())
    server.until_true(function()
      conn:query "select 1"
      return conn:status() == "bad"
    end)
    local ok, err = conn:cancel()
    assert.is_nil(ok)
    assert.equal("connection", err.kind)
    assert.is_true(#err.message > 0)
  end)

  it("is made by something that is over when it is closed", function()
    assert(conn:send_query "select pg_sleep(60)")
    local request = core.canceller(conn)
    request:close()
    assert.error_matches(function() request:step() end, "closed")
    assert(conn:cancel())
    assert.equal("cancelled", select(2, conn:get_result()).kind)
  end)

  it("leaves the time limit of get_result a clean connection", function()
    assert(conn:send_query "select pg_sleep(60)")
    local res, err = conn:get_result(0.05)
    assert.is_nil(res)
    assert.equal("timeout", err.kind)
    assert.equal(1, conn:query "select 1"(1, 1))
  end)
end)

-- A request names a backend, not a query: one that arrives late would stop whatever runs then.
describe("a cancel that is still under way", function()
  local relay, admin, conn
  before_each(function()
    if not server.own then return end
    admin, relay = server.connect(), wire.open()
  end)
  after_each(function()
    if not server.own then return end
    if conn then conn:close() end
    admin:close()
    relay:close()
  end)
  local function active()
    server.wait_active(admin, conn:backend_pid())
  end

  -- The backend ends its query when this is let go.
  local function lock() assert(admin:query "select pg_advisory_lock(7)") end
  local function unlock() assert(admin:query "select pg_advisory_unlock(7)") end
  local locked = "select pg_advisory_lock(7), pg_advisory_unlock(7), 'mine' as whose"

  own("bars the next query, also when nobody waits for it any more", function()
    lock()
    conn = assert(dblink.connect(relay.conninfo))
    relay "hold"
    assert(conn:send_query(locked))
    active()
    local ok, err = conn:cancel(0.05)
    assert.is_nil(ok)
    assert.equal("timeout", err.kind)
    unlock()
    assert.equal("mine", conn:get_result()(1, 3))
    assert.is_false(conn:try_result())
    assert.is_true(conn:is_busy())
    ok, err = conn:send_query "select 'next'"
    assert.is_nil(ok)
    assert.equal("usage", err.kind)
    assert.matches("a cancel request is under way", err.message)
    ok, err = conn:query "select 'next'"
    assert.is_nil(ok)
    assert.equal("usage", err.kind)
    relay "release"
    assert.is_nil(conn:get_result())
    for i = 1, 5 do assert.equal(i, conn:query("select $1::int, pg_sleep(0.01)", i)(1, 1)) end
  end)

  own("is waited for where a pipeline or a stream ends", function()
    local loop = require "support.turns".new()
    conn = loop.call(function() return assert(dblink.connect(relay.conninfo, loop.options)) end)
    local ways = {
      pipeline = function()
        local p = assert(conn:pipeline())
        local ticket = assert(p:query(locked))
        assert(p:flush())
        return function()
          assert.equal("mine", assert(ticket:result())(1, 3))
          return p:close()
        end
      end,
      stream = function()
        local stream = assert(conn:rows(locked))
        return function()
          assert.equal("mine", assert(stream:next()).whose)
          return not stream:next()
        end
      end,
    }
    for _, begin in pairs(ways) do
      local over, finish
      lock()
      loop.spawn(function()
        finish = begin()
        active()
        relay "hold"
        assert.equal("timeout", select(2, conn:cancel(0.05)).kind)
        unlock()
        over = finish()
      end)
      loop.run(function() return finish and conn:transaction_status() ~= "active" end)
      assert.is_nil(over)
      relay "release"
      loop.run()
      assert.is_true(over)
      assert.equal(1, loop.call(function() return assert(conn:query "select 1") end)(1, 1))
    end
    loop.call(function() conn:close() end)
    conn = assert(dblink.connect(relay.conninfo))
    lock()
    local stream = assert(conn:rows(locked))
    active()
    relay "hold"
    assert.equal("timeout", select(2, conn:cancel(0.05)).kind)
    unlock()
    assert.equal("mine", assert(stream:next()).whose)
    relay "release"
    assert.is_nil((stream:next()))
  end)

  own("is told of where nobody takes it any more", function()
    local other = wire.open()
    conn = assert(dblink.connect(other.conninfo))
    assert(conn:send_query "select pg_sleep(60)")
    active()
    other:close()
    local ok, err = conn:cancel(20)
    assert.is_nil(ok)
    assert.equal("connection", err.kind)
    assert.matches("onnect", err.message)
    assert.not_matches("\n$", err.message)
  end)

  own("is refused where a hundred of them wait for a thread each", function()
    if core.features.async_cancel then return end -- which needs none
    conn = assert(dblink.connect(relay.conninfo))
    assert(conn:send_query "select pg_sleep(60)")
    active()
    relay "hold"
    local ok, err
    for _ = 1, 120 do
      ok, err = conn:cancel(0)
      if err.kind ~= "timeout" then break end
    end
    assert.is_nil(ok)
    assert.equal("connection", err.kind)
    assert.matches("could not start a thread", err.message)
    relay "release"
    assert.equal("cancelled", select(2, conn:get_result(20)).kind)
  end)

  own("keeps a deadline's budget, and then costs the connection", function()
    local grace = await.grace
    await.grace = 0.2
    lock()
    conn = assert(dblink.connect(relay.conninfo))
    relay "hold"
    assert(conn:send_query(locked))
    active()
    assert.equal("timeout", select(2, conn:cancel(0.05)).kind)
    unlock()
    assert.equal("mine", conn:get_result()(1, 3))
    local res, err = conn:get_result(0.05)
    await.grace = grace
    assert.is_nil(res)
    assert.equal("timeout", err.kind)
    assert.is_true(err.connection_lost)
    relay "release"
  end)

  own("bars it when another coroutine cancels under a wait that yields", function()
    local loop = turns.new()
    lock()
    conn = loop.call(dblink.connect, relay.conninfo, loop.options)
    local mine, cancelled, after
    relay "hold"
    loop.spawn(function()
      mine = conn:query(locked)(1, 3)
      after = conn:query "select pg_sleep(0.1), 'not hit'" (1, 2)
    end)
    active()
    loop.spawn(function() cancelled = conn:cancel() end)
    unlock()
    server.until_true(function()
      loop.turn()
      return admin:query("select state = 'idle' from pg_stat_activity where pid = $1", conn:backend_pid())(1, 1)
    end)
    for _ = 1, 20 do loop.turn() end
    assert.is_nil(mine)
    relay "release"
    loop.run()
    assert.is_true(cancelled)
    assert.equal("mine", mine)
    assert.equal("not hit", after)
  end)

  own("goes on when the coroutine that asked for it is killed", function()
    local loop = turns.new()
    lock()
    conn = loop.call(dblink.connect, relay.conninfo, loop.options)
    local mine, after
    relay "hold"
    loop.spawn(function()
      mine = conn:query(locked)(1, 3)
      after = conn:query "select pg_sleep(0.1), 'not hit'" (1, 2)
    end)
    active()
    loop.kill(loop.spawn(function() conn:cancel() end))
    unlock()
    for _ = 1, 20 do loop.turn() end
    assert.is_nil(mine)
    relay "release"
    loop.run()
    assert.equal("mine", mine)
    assert.equal("not hit", after)
  end)

  own("is nobody's any more when the connection is closed", function()
    lock()
    conn = assert(dblink.connect(relay.conninfo))
    local pid = conn:backend_pid()
    relay "hold"
    assert(conn:send_query(locked))
    active()
    assert.equal("timeout", select(2, conn:cancel(0.05)).kind)
    conn:close()
    relay "release"
    unlock()
    server.until_true(function()
      return #admin:query("select from pg_stat_activity where pid = $1", pid) == 0
    end)
  end)

  own("may be one of several", function()
    local loop = turns.new()
    lock()
    conn = loop.call(dblink.connect, relay.conninfo, loop.options)
    relay "hold"
    local n, err = 0, nil
    loop.spawn(function() err = select(2, conn:query(locked)) end)
    active()
    for _ = 1, 3 do
      loop.spawn(function() if conn:cancel() then n = n + 1 end end)
    end
    relay "release"
    loop.run()
    assert.equal(3, n)
    assert.equal("cancelled", err.kind)
    unlock()
    assert.equal(1, loop.call(function() return conn:query "select 1, pg_sleep(0.05)" (1, 1) end))
  end)
end)
