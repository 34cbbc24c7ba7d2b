local dblink = require "dblink"
local await = require "dblink.await"
local loops = require "support.loops"
local program = require "support.program"
local server = require "support.server"

-- A wait that yields to whoever resumes, as a host's does.
local yielding = {
  wait = function(fd, events, seconds) return coroutine.yield(fd, events, seconds) end,
  forget = function() end,
}
local poll = require "dblink.wait.poll"

-- Runs f in a coroutine, waiting in its place; counts the turns.
local function drive(f)
  local co, turns = coroutine.create(f), 0
  local function go(ok, ...)
    assert(ok, ...)
    if coroutine.status(co) == "dead" then return turns, ... end
    turns = turns + 1
    return go(coroutine.resume(co, poll.wait(...)))
  end
  return go(coroutine.resume(co))
end

describe("a wait that yields", function()
  it("serves connecting, queries, results, cancel and timeouts", function()
    local turns = drive(function()
      local conn = assert(dblink.connect(server.conninfo, { wait = yielding }))
      assert.equal(7, conn:query("select $1::int, pg_sleep(0.01)", 7)(1, 1))
      assert(conn:send_query "select 1; select 2")
      assert.equal(1, conn:get_result()(1, 1)) -- no for loop: that of Lua 5.1 cannot yield
      assert.equal(2, conn:get_result()(1, 1))
      assert.is_nil(conn:get_result())
      local res, err = conn:query { "select pg_sleep(60)", timeout = 0.05 }
      assert.is_nil(res)
      assert.equal("timeout", err.kind)
      assert(conn:cancel())
      assert.equal(1, conn:query "select 1"(1, 1))
      assert(conn:reset())
      assert.equal(#("x"):rep(4e6), #conn:query("select $1::text", ("x"):rep(4e6))(1, 1))
      conn:close()
    end)
    assert.is_true(turns > 5)
  end)

  it("keeps a second coroutine off, and tells it what the first waits for", function()
    local conn
    drive(function() conn = assert(dblink.connect(server.conninfo, { wait = yielding })) end)
    local first = coroutine.wrap(function() return conn:query "select pg_sleep(0.05), 'mine'" end)
    local fd, events, seconds = first()
    local res, err = conn:query "select 2"
    assert.is_nil(res)
    assert.equal("usage", err.kind)
    assert.matches("select pg_sleep%(0%.05%), 'mine'", err.message)
    local done
    repeat
      poll.wait(fd, events, seconds)
      done, events, seconds = first()
      fd = done
    until type(done) ~= "number"
    assert.equal("mine", done(1, 2))
    conn:close()
  end)

  it("is told to forget a socket before it is closed", function()
    local forgotten = {}
    local conn
    drive(function()
      conn = assert(dblink.connect(server.conninfo, {
        wait = { wait = yielding.wait, forget = function(fd) forgotten[#forgotten + 1] = fd end },
      }))
    end)
    local fd = conn:getfd()
    forgotten = {}
    conn:close()
    assert.same({ fd }, forgotten)
  end)

  it("must be two functions", function()
    assert.error_matches(function() dblink.connect(server.conninfo, { wait = {} }) end, "option wait")
  end)
end)

describe("stopping", function()
  it("gives a connection up that cannot be brought back in time", function()
    local grace = await.grace
    await.grace = 0.2
    local conn, admin = server.connect(), server.connect()
    -- a query that will not be cancelled
    assert(conn:query [[create function pg_temp.stubborn() returns void language plpgsql as $$
      begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end $$]])
    local res, err = conn:query { "select pg_temp.stubborn()", timeout = 0.3 }
    await.grace = grace
    assert.is_nil(res)
    assert.equal("timeout", err.kind)
    assert.is_true(err.connection_lost)
    assert.equal("bad", conn:status())
    res, err = conn:query "select 1"
    assert.is_nil(res)
    assert.is_true(err.connection_lost)
    admin:query("select pg_terminate_backend($1)", conn:backend_pid())
    conn:close()
    admin:close()
  end)
end)

describe("a signal that the host takes for itself", function()
  it("disturbs no wait of a plain script", function()
    if loops.luv.missing then return pending(loops.luv.missing) end
    local output, status = program.run_text(([[
      local uv = require "luv"
      local dblink = require "dblink"
      local conn, signal = assert(dblink.connect(%q)), uv.new_signal()
      signal:start("sigusr1", function() end)
      local pid = (uv.os_getpid or uv.getpid)()
      local pipe = io.popen("for i in 1 2 3 4 5 6 7 8; do kill -USR1 " .. ("%%d"):format(pid) .. "; sleep 0.02; done")
      print(conn:query "select 'undisturbed' from pg_sleep(0.05)" (1, 1))
      local results = dblink.gather { { conn, "select 'all' from pg_sleep(0.05)" } }
      print(results[1](1, 1))
      pipe:close()
      signal:stop()
    ]]):format(server.conninfo), os.getenv "DBLINK_UNDER")
    assert.equal("undisturbed\nall\n", output)
    assert.equal(0, status)
  end)
end)

describe("Ctrl-C in a plain script", function()
  it("interrupts the wait, and leaves no query running on the server", function()
    local name, admin = server.name(), server.connect()
    local script = os.tmpname()
    local file = assert(io.open(script, "w"))
    file:write(([[
      local conn = assert(require "dblink".connect %q)
      local ok, err = pcall(conn.query, conn, "select pg_sleep(60)")
      print(ok, err)
      print(conn:query "select 'alive'" (1, 1))
    ]]):format(server.conninfo .. " application_name=" .. name))
    file:close()
    local under = os.getenv "DBLINK_UNDER" or "" -- the sanitizers' runner
    local pipe = assert(io.popen(("setsid %s %s %s 2>&1 & echo $!; wait"):format(under, program.lua, script)))
    local pid = pipe:read "*n"
    server.until_true(function()
      return admin:query([[select count(*) = 1 from pg_stat_activity
        where application_name = $1 and state = 'active']], name)(1, 1)
    end)
    os.execute(("kill -INT %d"):format(pid))
    local output = pipe:read "*a"
    pipe:close()
    os.remove(script)
    assert.matches("false%s+.*interrupted!", output)
    assert.matches("alive", output)
    server.until_true(function() return server.backends(admin, name) == 0 end)
    admin:close()
  end)
end)

describe("a coroutine that is dropped while it waits", function()
  it("keeps nobody off its connection", function()
    local conn
    drive(function() conn = assert(dblink.connect(server.conninfo, { wait = yielding })) end)
    coroutine.wrap(function() return conn:query "select pg_sleep(0.01)" end)()
    collectgarbage()
    collectgarbage()
    drive(function()
      assert(conn:get_result())
      assert.is_nil(conn:get_result())
      assert.equal(1, assert(conn:query "select 1")(1, 1))
      conn:close()
    end)
  end)

  it("keeps others off as long as it is there, also those that its own wait calls", function()
    local conn, within
    conn = server.connect("", { wait = {
      wait = function(...)
        if conn and not within then
          within = true
          within = select(2, conn:query "select 2").message
        end
        return poll.wait(...)
      end,
      forget = function() end,
    } })
    assert.equal("mine", conn:query "select pg_sleep(0.01)::text || 'mine'"(1, 1))
    assert.matches("another coroutine waits for: select pg_sleep", within)
    conn:close()
  end)
end)

describe("a wait that raises", function()
  local conn, broken
  before_each(function()
    broken = false
    conn = server.connect("", { wait = {
      wait = function(fd, events, seconds)
        if broken then
          broken = false
          error("the loop was stopped", 0)
        end
        return poll.wait(fd, events, seconds)
      end,
      forget = function() end,
    } })
  end)
  after_each(function() conn:close() end)

  local function check(verb, ...)
    local ok, err = pcall(conn[verb], conn, ...)
    assert.same({ false, "the loop was stopped" }, { ok, err })
  end

  it("in a query leaves it to be cancelled and collected", function()
    broken = true
    check("query", "select pg_sleep(60)")
    local admin = server.connect()
    server.wait_active(admin, conn:backend_pid())
    admin:close()
    assert(conn:cancel())
    assert.equal("57014", select(2, conn:get_result()).sqlstate)
    assert.is_nil(conn:get_result())
    assert.equal(1, assert(conn:query "select 1")(1, 1))
  end)

  it("ends its coroutine: the next one is let in", function()
    local co = coroutine.create(function() return conn:query "select pg_sleep(0.01)" end)
    broken = true
    assert.same({ false, "the loop was stopped" }, { coroutine.resume(co) })
    assert.is_truthy(conn:get_result())
    assert.is_nil(conn:get_result())
    assert.equal(1, assert(conn:query "select 1")(1, 1))
  end)

  it("in a transaction has it rolled back", function()
    check("transaction", function()
      broken = true
      return conn:query "select pg_sleep(60)"
    end)
    assert.equal("idle", conn:transaction_status())
    assert.equal(1, assert(conn:query "select 1")(1, 1))
  end)

  it("in a stream leaves it to the next verb to be ended", function()
    local stream = assert(conn:rows "select pg_sleep(0.01), repeat('x', 20000) from generate_series(1, 1000)")
    assert(stream:next())
    broken = true
    while broken do pcall(stream.next, stream) end
    assert.equal(1, assert(conn:prepare "select 1"):query()(1, 1))
    stream:close()
  end)

  it("while a connection is opened anew leaves it to be opened", function()
    broken = true
    check "reset"
    assert(conn:reset())
    assert.equal(1, assert(conn:query "select 1")(1, 1))
  end)
end)
