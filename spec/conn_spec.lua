local core = require "dblink.core"
local dblink = require "dblink"
local server = require "support.server"

describe("a connection", function()
  local conn
  before_each(function() conn = server.connect "application_name=conn_spec" end)
  after_each(function() conn:close() end)

  it("tells its state without going to the network", function()
    assert.equal("ok", conn:status())
    assert.equal("idle", conn:transaction_status())
    assert.equal("UTF8", conn:parameter "client_encoding")
    assert.is_nil(conn:parameter "no_such_parameter")
    assert.is_true(conn:server_version() >= 140000)
    assert.is_true(conn:backend_pid() > 0)
    assert.equal("number", type(conn:getfd()))
    assert.equal(conn:getfd(), conn:pollfd())
    assert.matches("^dblink%.connection %(.*open%)$", tostring(conn))
  end)

  it("tells what it is, and can be asked, in whatever state it is", function()
    local opening = assert(dblink.connect_start(server.conninfo))
    assert.matches("connecting%)$", tostring(opening))
    assert.equal("w", opening:events())
    assert.is_false(opening:dirty())
    assert.is_nil((opening:get_notify()))
    assert.is_true(opening:is_busy())
    assert.is_false(core.is_active(opening))
    opening:close()
    assert.equal("dblink.connection (closed)", tostring(opening))
    local lost = server.connect()
    assert(conn:query("select pg_terminate_backend($1)", lost:backend_pid()))
    assert.is_nil((lost:query "select pg_sleep(60)"))
    assert.matches("lost%)$", tostring(lost))
    lost:close()
  end)

  it("is at rest where nothing goes on upon it, and nothing is left to be taken", function()
    local function rests(silent) return core.is_at_rest(conn, silent) end
    local function busy_between(begin, finish)
      begin()
      assert.is_false(rests())
      finish()
      assert.is_true(rests(true))
    end
    assert.is_true(rests(true))
    local p
    busy_between(function() core.hold(conn, true) end, function() core.hold(conn, false) end)
    busy_between(function() p = assert(conn:pipeline()) end, function() p:close() end)
    busy_between(function() assert(conn:query "begin") end, function() assert(conn:query "rollback") end)
    local raise = "do $$ begin raise notice 'x'; end $$"
    busy_between(function() assert(conn:query(raise)) end, function() conn:notices() end)
    local channel = server.name "rest"
    busy_between(function() assert(conn:listen(channel)) end, function()
      assert(conn:unlisten())
      core.set_listening(conn, false) -- as a pool does then
    end)
    busy_between(function()
      assert(conn:listen(channel))
      assert(conn:notify(channel))
      assert(conn:unlisten())
      core.set_listening(conn, false)
    end, function() assert.equal(channel, conn:get_notify().channel) end)
    local admin = server.connect()
    assert(admin:query("select pg_terminate_backend($1)", conn:backend_pid()))
    admin:close()
    assert.is_true(core.poll(conn:getfd(), "r", 20))
    assert.is_false(rests(true))
    conn:close()
    assert.is_false(rests())
  end)

  it("is dirty, as LuaSocket calls it, where a result has arrived that was not taken", function()
    assert.is_false(conn:dirty())
    assert(conn:send_query "select pg_sleep(60)")
    assert.is_false(conn:dirty())
    server.wait_active(server.connect(), conn:backend_pid())
    assert(conn:cancel())
    while conn:is_busy() do core.poll(conn:getfd(), "r", 1) end
    assert.is_true(conn:dirty())
    assert.equal("cancelled", select(2, conn:get_result(math.huge)).kind)
    assert.error_matches(function() conn:get_result(-1) end, "must not be negative")
    assert.error_matches(function() conn:get_result(0 / 0) end, "must not be negative")
    local _, err = pcall(function() conn:get_result {} end)
    assert.matches("conn_spec.lua:%d+: bad argument 'seconds' %(number expected, got table", err)
  end)

  it("says once what libpq repeats at each refusal", function()
    assert(conn:send_query "select 1")
    for _ = 1, 3 do assert.equal("another command is already in progress", select(2, conn:query "select 2").message) end
    while conn:get_result() do end -- luacheck: ignore
    core.sever(conn)
    local first = select(2, conn:query "select 1").message
    for _ = 1, 3 do
      local message = select(2, conn:query "select 1").message
      assert.equal(1, select(2, message:gsub("no connection to the server", "")), first .. message)
    end
  end)

  it("takes no NaN where it wants seconds or bytes", function()
    local nan = 0 / 0
    for _, options in ipairs { { timeout = nan }, { max_bytes = nan }, { statement_cache = nan } } do
      assert.has_error(function() dblink.connect(server.conninfo, options) end)
    end
    for verb, argument in pairs { next_notification = nan, exec_all = nan, cancel = nan,
      notifications = { timeout = nan }, query = { "select 1", timeout = nan }, pipeline = { timeout = nan } } do
      local more = verb == "exec_all" and { "select 1", argument } or { argument }
      assert.has_error(function() conn[verb](conn, more[1], more[2]) end)
    end
    assert.has_error(function() dblink.wait_any({ conn }, nan) end)
    assert.has_error(function() dblink.gather({}, { timeout = nan }) end)
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("may be closed by its wait, when that is asked to forget it", function()
    local other, closing
    other = server.connect(nil, { wait = { wait = core.poll, forget = function()
      if not closing then return end
      closing = false
      other:close()
    end } })
    closing = true
    other:close()
    assert.equal("closed", other:status())
    assert.is_false(closing)
  end)

  it("follows the transaction", function()
    assert(conn:query "begin")
    assert.equal("intrans", conn:transaction_status())
    conn:query "select 1/0"
    assert.equal("inerror", conn:transaction_status())
    assert(conn:query "rollback")
    conn:send_query "select pg_sleep(30)"
    assert.equal("active", conn:transaction_status())
  end)

  it("shows its conninfo, but no password", function()
    local password = os.getenv "PGPASSWORD" or "hush"
    local other = server.connect("passfile=/nowhere password=" .. password)
    local info = other:info()
    assert.equal(other:parameter "session_authorization", info.user)
    assert.equal("dblink", info.fallback_application_name)
    for key, value in pairs(info) do
      assert.are_not.equal(password, value, key)
    end
    assert.is_nil(info.password)
    other:close()
  end)

  it("is closed once and for all, and says so", function()
    local other = server.connect()
    other:close()
    other:close()
    assert.equal("closed", other:status())
    assert.equal("dblink.connection (closed)", tostring(other))
    local ok, err = pcall(other.query, other, "select 1")
    assert.is_false(ok)
    assert.matches("conn_spec%.lua:%d+: connection is closed$", err)
    assert.is_nil(other:getfd())
  end)

  it("leaves nothing running on the server when it is closed", function()
    local name = server.name()
    local other = server.connect("application_name=" .. name)
    other:send_query "select pg_sleep(60)"
    server.wait_active(conn, other:backend_pid())
    other:close()
    server.until_true(function() return server.backends(conn, name) == 0 end)
  end)

  it("leaves nothing running on the server when it is collected", function()
    local name = server.name()
    do
      local other = server.connect("application_name=" .. name)
      other:send_query "select pg_sleep(60)"
      server.wait_active(conn, other:backend_pid())
    end
    collectgarbage()
    collectgarbage()
    server.until_true(function() return server.backends(conn, name) == 0 end)
  end)

  it("keeps the server's notices until they are asked for", function()
    assert(conn:query "do $$ begin raise notice 'one'; raise warning 'two' using hint = 'h'; end $$")
    local notices, dropped = conn:notices()
    assert.equal(2, #notices)
    assert.equal(0, dropped)
    assert.equal("one", notices[1].message)
    assert.equal("NOTICE", notices[1].severity)
    assert.equal("two", notices[2].message)
    assert.equal("h", notices[2].hint)
    assert.same({}, (conn:notices()))
  end)

  it("counts the notices it had to drop", function()
    assert(conn:query "do $$ begin for i in 1..600 loop raise notice '% %', i, repeat('x', 9999); end loop; end $$")
    local notices, dropped = conn:notices()
    assert.matches("^1 x", notices[1].message)
    assert.is_true(dropped > 0)
    assert.equal(600, #notices + dropped)
  end)

  it("has an error message as libpq keeps it", function()
    assert.equal("OK", conn:error_message())
    conn:query "select 1/0"
    assert.equal("ERROR:  division by zero", conn:error_message())
    conn:query "select 1"
    assert.equal("OK", conn:error_message())
  end)

  it("opens anew with reset", function()
    local pid = conn:backend_pid()
    assert.equal(conn, conn:reset())
    assert.are_not.equal(pid, conn:backend_pid())
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("can be reset again when a reset took too long", function()
    local ok, err = conn:reset(0)
    assert.is_nil(ok)
    assert.equal("timeout", err.kind)
    assert.equal("bad", conn:status())
    ok, err = conn:query "select 1"
    assert.is_nil(ok)
    assert.equal("connection", err.kind)
    assert(conn:reset(5))
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("comes back with reset after its backend was killed", function()
    local admin = server.connect()
    local pid = conn:backend_pid()
    admin:query("select pg_terminate_backend($1)", pid)
    server.until_true(function() return #admin:query("select from pg_stat_activity where pid = $1", pid) == 0 end)
    local res, err = conn:query "select 1"
    assert.is_nil(res)
    assert.is_true(err.connection_lost)
    assert(conn:reset())
    assert.equal(1, conn:query "select 1"(1, 1))
    admin:close()
  end)
end)

describe("the module", function()
  it("tells its version, libpq's, and what that can do", function()
    assert.equal("string", type(dblink._VERSION))
    assert.is_true(dblink.libpq_version >= 140000)
    assert.is_true(dblink.features.pipeline)
    assert.equal(dblink.libpq_version >= 170000, dblink.features.async_cancel)
    assert.equal("dblink.null", tostring(dblink.null))
  end)
end)
