local core = require "dblink.core"
local protect = require "dblink.protect"
local own = require "support.loops" ["a host's own"]
local server = require "support.server"

local own_wait = { wait = core.poll, forget = function() end }

for where, wait in pairs { ["a plain script"] = "poll", ["a wait of its own"] = own_wait } do
  describe("a notification in " .. where, function()
    local conn, other, channel
    before_each(function()
      conn, other = server.connect(nil, { wait = wait }), server.connect()
      channel = server.name 'Über "alles"'
      assert.is_true(conn:listen(channel))
    end)
    after_each(function()
      conn:close()
      other:close()
    end)

    it("arrives, with or without a payload", function()
      assert.is_true(other:notify(channel))
      assert.is_true(other:notify(channel, "hello"))
      local list = {}
      for n in conn:notifications { timeout = 10, limit = 2 } do list[#list + 1] = n end
      assert.same({
        { channel = channel, payload = "", pid = other:backend_pid() },
        { channel = channel, payload = "hello", pid = other:backend_pid() },
      }, list)
    end)

    it("is not waited for longer than one likes", function()
      for _ in conn:notifications { timeout = 0 } do error "there is none" end
      for _ in conn:notifications { timeout = 0.01 } do error "there is none" end
      for _ in conn:notifications { limit = 0 } do error "no more than none" end
      assert(other:notify(channel, "late"))
      local got = 0
      for n in conn:notifications { timeout = 0.2 } do
        got = got + 1
        assert.equal("late", n.payload)
      end
      assert.equal(1, got)
      assert.equal(1, assert(conn:query "select 1")(1, 1))
    end)

    it("is not lost while queries run", function()
      for round = 0, 9 do
        assert(conn:send_query "select generate_series(1, 1000); select pg_sleep(0.01)")
        for i = 1, 100 do assert(other:notify(channel, tostring(round * 100 + i))) end
        for _, res in conn:results() do assert(res) end
      end
      local last = 0
      for n in conn:notifications { timeout = 10, limit = 1000 } do
        last = last + 1
        assert.equal(tostring(last), n.payload)
      end
      assert.equal(1000, last)
    end)

    it("is waited for while a query runs, whose results are kept", function()
      assert(conn:query "select 1")
      assert(other:notify(channel, "before"))
      server.until_true(function() return assert(conn:query "select pg_sleep(0.01)") and conn:dirty() == false end)
      assert(conn:send_query "select pg_sleep(0.05)::text || 'done'")
      assert.equal("before", conn:notifications { timeout = 10 } ().payload)
      assert.equal("done", assert(conn:get_result())(1, 1))
      assert.is_nil(conn:get_result())
    end)

    it("is had by get_notify too, which never waits", function()
      assert.is_nil(conn:get_notify())
      assert(other:notify(channel, "x"))
      local n = server.until_true(function() return conn:get_notify() end)
      assert.same({ channel = channel, payload = "x", pid = other:backend_pid() }, n)
      assert.is_nil(conn:get_notify())
    end)

    it("comes no more when one has stopped listening", function()
      assert.is_true(conn:listen "another")
      assert.is_true(conn:unlisten(channel))
      assert(other:notify(channel, "x"))
      assert(other:notify("another", "y"))
      assert.equal("y", conn:notifications { timeout = 10 } ().payload)
      assert.is_true(conn:unlisten())
      assert(other:notify "another")
      for _ in conn:notifications { timeout = 0.02 } do error "there is none" end
    end)

    it("waits for the sender's commit, and goes with its rollback", function()
      assert(other:query "begin")
      assert(other:notify(channel, "no"))
      assert(other:query "rollback")
      assert(other:query "begin")
      assert(other:notify(channel, "yes"))
      assert(other:query "commit")
      assert.equal("yes", conn:notifications { timeout = 10 } ().payload)
    end)

    it("is dropped and counted when nobody asks for too long", function()
      local payload = ("x"):rep(7990)
      for i = 1, 6 do
        assert(other:query("select pg_notify($1, $2 || i) from generate_series(1, 100) i", channel, payload .. i))
        assert(conn:query "select 1")
      end
      assert(other:notify(channel, "last"))
      server.until_true(function() return conn:query "select pg_sleep(0.01)" end)
      local got, dropped = 0, 0
      for n in conn:notifications { timeout = 0.05 } do
        got, dropped = got + 1, dropped + (n.dropped or 0)
      end
      assert.is_true(dropped > 0)
      assert.equal(601, got + dropped)
      assert(other:notify(channel, "again"))
      assert.same({ channel = channel, payload = "again", pid = other:backend_pid() },
        conn:notifications { timeout = 10 } ())
    end)

    it("says so when the connection is lost", function()
      assert(other:query("select pg_terminate_backend($1)", conn:backend_pid()))
      local fine, err = pcall(conn:notifications { timeout = 10 })
      assert.is_false(fine)
      assert.is_true(err.connection_lost)
      assert.is_nil((conn:get_notify()))
    end)
  end)
end

describe("a for loop in a coroutine", function()
  it("waits for notifications, or says how to", function()
    own.run(function()
      local conn = server.connect(nil, { wait = own.wait })
      local other = server.connect(nil, { wait = "poll" })
      assert(conn:listen "c")
      if protect.native then
        for _ in conn:notifications { timeout = 0.01 } do error "there is none" end
      else
        local fine, failure = pcall(conn:notifications())
        assert.is_false(fine)
        assert.matches("conn:next_notification()", failure, 1, true)
      end
      assert.is_nil(conn:next_notification(0.01))
      assert(other:notify("c", "x"))
      assert.equal("x", conn:next_notification().payload)
      assert(other:query("select pg_terminate_backend($1)", conn:backend_pid()))
      local none, err = conn:next_notification(10)
      assert.is_nil(none)
      assert.is_true(err.connection_lost)
      assert.same({ "57P01", "FATAL", "server" }, { err.sqlstate, err.severity, err.kind })
      none, err = conn:next_notification(10)
      assert.is_nil(none)
      assert.is_true(err.connection_lost)
      assert.has_error(function() conn:next_notification "1" end)
      conn:close()
      other:close()
    end)
  end)
end)

describe("a channel", function()
  local conn
  before_each(function() conn = server.connect() end)
  after_each(function() conn:close() end)

  it("has a name that PostgreSQL does not cut", function()
    for _, bad in ipairs { "", ("x"):rep(64), 1, {} } do
      assert.has_error(function() conn:listen(bad) end)
      assert.has_error(function() conn:notify(bad) end)
      assert.has_error(function() conn:unlisten(bad) end)
    end
    assert.has_error(function() conn:listen() end)
    assert.has_error(function() conn:listen "a\0b" end)
    local longest = ("x"):rep(63)
    assert(conn:listen(longest))
    assert(conn:notify(longest))
    assert.equal(longest, conn:notifications { timeout = 10 } ().channel)
  end)

  it("takes payloads up to PostgreSQL's limit", function()
    local ok, err = conn:notify("c", ("x"):rep(8000))
    assert.is_nil(ok)
    assert.equal("22023", err.sqlstate)
    assert.is_true(conn:notify("c", ("x"):rep(7999)))
  end)

  it("is asked with options that are some", function()
    assert.has_error(function() conn:notifications(1) end)
    assert.has_error(function() conn:notifications { timeout = "1" } end)
    assert.has_error(function() conn:notifications { limit = -1 } end)
    assert.has_error(function() conn:notifications { stop = 1 } end)
  end)
end)

describe("a notice", function()
  local raise = "do $$ begin raise notice 'one'; raise warning 'two'; end $$"
  local told
  local function connect(handler, wait)
    told = {}
    return server.connect(nil, { wait = wait, on_notice = handler or function(n) told[#told + 1] = n.message end })
  end

  it("is told after the verb that met it", function()
    for _, wait in ipairs { "poll", own_wait } do
      local conn = connect(nil, wait)
      assert.equal("DO", assert(conn:query(raise)).command)
      assert.same({ "one", "two" }, told)
      local res, err = conn:query "do $$ begin raise notice 'three'; raise exception 'no'; end $$"
      assert.is_nil(res)
      assert.equal("no", err.message)
      assert(conn:send_query(raise))
      assert(conn:get_result())
      assert.same({ "one", "two", "three", "one", "two" }, told)
      assert.same({ {}, 0 }, { conn:notices() })
      conn:close()
    end
  end)

  it("harms nothing when the function that is told raises", function()
    local calls = 0
    local conn = connect(function(n)
      calls = calls + 1
      error("not " .. n.message, 0)
    end)
    assert.equal(1, #assert(conn:query(raise .. "; select 1")))
    assert.equal(2, calls)
    local notices, dropped, err = conn:notices()
    assert.same({ {}, 0, "not two" }, { notices, dropped, err })
    assert.same({ {}, 0 }, { conn:notices() })
    conn:close()
  end)

  it("keeps its function off the connection", function()
    local conn, result, failure
    conn = connect(function() result, failure = conn:query "select 1" end)
    assert(conn:query(raise))
    assert.is_nil(result)
    assert.equal("usage", failure.kind)
    assert.equal(1, assert(conn:query "select 1")(1, 1))
    conn:close()
    conn = connect(function() conn:close() end)
    assert(conn:query(raise))
    assert.equal("closed", conn:status())
  end)

  it("needs a function", function()
    assert.has_error(function() connect "print" end)
  end)
end)
