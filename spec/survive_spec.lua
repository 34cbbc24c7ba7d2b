-- Servers that die, freeze, refuse or fall silent: each a clear error in bounded time, and nothing left behind.
local await = require "dblink.await"
local core = require "dblink.core"
local dblink = require "dblink"
local server = require "support.server"
local wire = require "support.wire"

if not server.own then return end

-- f's results; it must be back long before a test would be given up.
local function bounded(f, ...)
  local began = core.now()
  local a, b = f(...)
  assert(core.now() - began < 20, "it took too long")
  return a, b
end

local function refusal(conninfo, options)
  local conn, err = bounded(dblink.connect, conninfo, options)
  assert.is_nil(conn)
  assert.is_true(err.connection_lost)
  return err
end

-- What a connection must be like whose server is gone.
local function assert_lost(conn, err)
  assert.equal("bad", conn:status())
  assert.is_true(err.connection_lost)
  assert.is_true(#err.message > 0)
  assert.is_nil(err.message:find "\n$")
  for _, verb in ipairs { "query", "send_query" } do
    local ok, again = bounded(conn[verb], conn, "select 1")
    assert.is_nil(ok)
    assert.is_true(again.connection_lost)
  end
  local ok, again = bounded(conn.get_result, conn)
  assert.is_nil(ok)
  assert.is_nil(again)
  assert.is_false(conn:is_busy())
end

describe("a server that dies #heavy", function()
  local conn, info
  before_each(function()
    server.sh("ensure", "mortal")
    info = server.conninfo_of "mortal"
    conn = assert(dblink.connect(info))
  end)
  after_each(function()
    conn:close()
    server.sh("drop", "mortal")
  end)

  -- The query's end, from a server that does this meanwhile.
  local function end_of_query(f)
    assert(conn:send_query "select pg_sleep(60)")
    f()
    local res, err = bounded(conn.get_result, conn)
    assert.is_nil(res)
    assert.is_nil((bounded(conn.get_result, conn)))
    return err
  end

  it("tells who was in the middle of a query, when its backend is ended", function()
    local admin = assert(dblink.connect(info))
    local err = end_of_query(function()
      server.wait_active(admin, conn:backend_pid())
      assert(admin:query("select pg_terminate_backend($1)", conn:backend_pid()))
    end)
    assert.equal("57P01", err.sqlstate)
    assert_lost(conn, err)
    admin:close()
  end)

  it("tells the others, when one backend is killed", function()
    local admin = assert(dblink.connect(info))
    local err = end_of_query(function()
      os.execute(("kill -9 %d"):format(admin:backend_pid()))
    end)
    assert.is_true(err.sqlstate == "57P02" or err.kind == "connection", tostring(err))
    assert_lost(conn, err)
    assert_lost(admin, select(2, bounded(admin.query, admin, "select 1")))
    admin:close()
    server.until_true(function() return conn:reset(10) end, 20) -- it recovers by itself
  end)

  for _, how in ipairs { "fast", "immediate" } do
    it("tells who was in the middle of a query, when it is stopped: " .. how, function()
      local err = end_of_query(function() server.sh("stop", "mortal", how) end)
      assert.is_true(err.sqlstate == "57P01" or err.sqlstate == "57P02" or err.kind == "connection", tostring(err))
      assert_lost(conn, err)
      assert.matches("No such file or directory", refusal(info).message)
    end)
  end

  it("is noticed at the next query of an idle connection, and reset brings it back after a restart", function()
    server.sh("restart", "mortal", "immediate")
    local res, err = bounded(conn.query, conn, "select 1")
    assert.is_nil(res)
    assert_lost(conn, err)
    assert(conn:reset(10))
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("is noticed when all its processes are gone at once", function()
    local err = end_of_query(function() server.sh("kill", "mortal") end)
    assert.equal("connection", err.kind)
    assert.matches("server closed the connection unexpectedly", err.message)
    assert_lost(conn, err)
  end)

  it("tells why it lets nobody in while it starts", function()
    server.sh("stop", "mortal", "immediate")
    assert.equal("no response", bounded(dblink.ping, info, 5))
    server.sh("start", "mortal")
    assert.equal("ok", dblink.ping(info, 10))
  end)
end)

describe("a server that is frozen #heavy", function()
  local conn, info, grace
  before_each(function()
    server.sh("ensure", "mortal")
    info = server.conninfo_of "mortal"
    conn = assert(dblink.connect(info))
    grace, await.grace = await.grace, 0.2
  end)
  after_each(function()
    server.sh("thaw", "mortal")
    await.grace = grace
    conn:close()
    server.sh("drop", "mortal")
  end)

  it("costs no more than the timeout and the grace; the connection is given up", function()
    server.sh("freeze", "mortal")
    local res, err = bounded(conn.query, conn, { "select 1", timeout = 0.1 })
    assert.is_nil(res)
    assert.equal("timeout", err.kind)
    assert_lost(conn, err)
  end)

  it("costs no more when there is much to send", function()
    server.sh("freeze", "mortal")
    local res, err = bounded(conn.query, conn, { "select length($1)", ("x"):rep(2e7), timeout = 0.1 })
    assert.is_nil(res)
    assert.equal("timeout", err.kind)
    assert_lost(conn, err)
  end)

  it("holds up neither cancel, nor close", function()
    assert(conn:send_query "select pg_sleep(60)")
    server.sh("freeze", "mortal")
    local ok, err = bounded(conn.cancel, conn, 0.1)
    assert.is_nil(ok)
    assert.equal("timeout", err.kind)
    assert.is_true((bounded(conn.is_busy, conn)))
    bounded(conn.close, conn)
  end)

  it("does not let a connection be opened, and the timeout says so", function()
    server.sh("freeze", "mortal")
    local err = refusal(info, { timeout = 0.2 })
    assert.equal("timeout", err.kind)
    assert.equal("no response", bounded(dblink.ping, info, 0.2))
    local ok
    ok, err = bounded(conn.reset, conn, 0.2)
    assert.is_nil(ok)
    assert.equal("timeout", err.kind)
    server.sh("thaw", "mortal")
    assert(conn:reset(10))
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("goes on where it was, for who waits", function()
    server.sh("freeze", "mortal")
    assert(conn:send_query "select 'patience'")
    assert.is_true(conn:is_busy())
    server.sh("thaw", "mortal")
    assert.equal("patience", conn:get_result()(1, 1))
  end)
end)

for _, tls in ipairs { false, true } do
  describe("a network that falls silent, " .. (tls and "with TLS" or "without TLS"), function()
    local relay, conn, grace
    before_each(function()
      relay = wire.open(tls)
      conn = assert(dblink.connect(relay.conninfo))
      grace, await.grace = await.grace, 0.2
    end)
    after_each(function()
      await.grace = grace
      conn:close()
      relay:close()
    end)

    it("costs no more than the timeout and the grace; what ran on the server ends", function()
      local admin, pid = server.connect(), conn:backend_pid()
      assert(conn:send_query "select pg_sleep(60)")
      server.wait_active(admin, pid)
      relay "hold" -- nothing new comes through, no cancel either
      relay "freeze"
      local res, err = bounded(conn.get_result, conn, 0.1)
      assert.is_nil(res)
      assert.equal("timeout", err.kind)
      assert_lost(conn, err)
      relay "release"
      server.until_true(function() return #admin:query("select from pg_stat_activity where pid = $1", pid) == 0 end)
      admin:close()
    end)

    it("in the middle of a big result too", function()
      relay "stall 300000"
      local other = assert(dblink.connect(relay.conninfo))
      local res, err = bounded(other.query, other, { "select repeat('x', 1000000)", timeout = 0.2 })
      assert.is_nil(res)
      assert.equal("timeout", err.kind)
      assert_lost(other, err)
      other:close()
    end)

    it("while a connection is opened", function()
      relay "hold"
      assert.equal("timeout", refusal(relay.conninfo, { timeout = 0.2 }).kind)
      assert.matches("timeout expired", refusal(relay.conninfo .. " connect_timeout=1").message)
    end)

    -- libpq takes rows that it reads after the loss for the description of a statement.
    it("gives no answer that was none, where it is cut behind all answers", function()
      local admin, pid = server.connect(), conn:backend_pid()
      assert(conn:send_query "select 1; select 2")
      server.until_true(function()
        return admin:query("select state = 'idle' from pg_stat_activity where pid = $1", pid)(1, 1)
      end)
      relay "kill"
      server.until_true(function() return not conn:is_busy() and conn:status() == "bad" end)
      local answers = {}
      for i, res, err in conn:results() do
        answers[i] = res and res(1, 1) or err.connection_lost
      end
      if answers[1] ~= true then -- lost already
        assert.equal(1, answers[1])
        assert.is_true(answers[2] == 2 or answers[2] == true)
      end
      admin:close()
    end)

    it("is told from one that is cut", function()
      assert(conn:send_query "select pg_sleep(60)")
      relay "kill"
      local res, err = bounded(conn.get_result, conn)
      assert.is_nil(res)
      assert.equal("connection", err.kind)
      assert_lost(conn, err)
    end)
  end)
end

describe("a refusal", function()
  local tcp
  setup(function()
    tcp = ("host=127.0.0.1 port=%s dbname=postgres password=secret "):format(os.getenv "PGPORT")
  end)
  local function message(words, pattern)
    local err = refusal(tcp .. words)
    assert.matches(pattern, err.message)
    assert.equal("connection", err.kind)
    assert.is_nil((err.message .. tostring(err)):find("secret", 1, true))
  end

  it("because nobody listens, says so", function()
    message("port=1", 'connection to server at "127.0.0.1", port 1 failed: Connection refused')
  end)

  it("because of SCRAM, says so", function()
    message("user=by_scram password=wrong", 'password authentication failed for user "by_scram"')
    message("user=by_scram sslmode=disable channel_binding=require", "channel binding required")
  end)

  it("because of TLS, says so", function()
    local dir = server.root .. "/tls/"
    message("user=by_scram sslmode=verify-full sslrootcert=/nowhere", 'certificate file "/nowhere" does not exist')
    message(("user=by_scram sslmode=verify-full sslrootcert=%sclient.crt"):format(dir), "certificate verify failed")
    message(("user=by_cert sslmode=verify-full sslrootcert=%sca.crt"):format(dir), "client certificate")
    message("user=tls_only sslmode=disable", "pg_hba.conf rejects connection")
  end)

  it("because there are too many connections, says so", function()
    local info = server.conninfo .. " user=limited host=" .. server.root .. "/s"
    local first = assert(dblink.connect(info))
    assert.matches('too many connections for role "limited"', refusal(info).message)
    first:close()
  end)

  it("does not count when the other host is well", function()
    local conn = assert(dblink.connect(tcp .. "user=by_scram host=127.0.0.1,127.0.0.1 port=1," .. os.getenv "PGPORT"))
    assert.equal(1, conn:query "select 1"(1, 1))
    conn:close()
  end)
end)

describe("everything over TLS with SCRAM", function()
  it("is so", function()
    local conn = assert(dblink.connect(("host=localhost hostaddr=127.0.0.1 port=%s user=by_scram password=secret"
      .. " dbname=postgres sslmode=verify-full sslrootcert=%s/tls/ca.crt channel_binding=require")
      :format(os.getenv "PGPORT", server.root)))
    assert.is_true(conn:query "select ssl from pg_stat_ssl where pid = pg_backend_pid()" (1, 1))
    conn:close()
  end)

  -- A record is decrypted as a whole, and what libpq leaves of it in OpenSSL no socket tells of.
  it("waits for no byte that is here already, whatever the sizes", function()
    local conn = assert(dblink.connect(("host=127.0.0.1 port=%s user=by_scram password=secret dbname=postgres"
      .. " sslmode=require"):format(os.getenv "PGPORT")))
    for size = 8000, 100000, 613 do
      assert.equal(size, #assert(conn:query { "select repeat('x', $1)", size, timeout = 10 })(1, 1))
    end
    assert.equal(3e7, #assert(conn:query { "select repeat($1, 30)", ("x"):rep(1e6), timeout = 20 })(1, 1))
    conn:close()
  end)
end)

describe("a list of hosts #heavy", function()
  local primary, replica, list
  setup(function()
    server.sh("new", "primary")
    server.sh("replica", "replica", "primary")
    primary, replica = server.sh("port", "primary"), server.sh("port", "replica")
    list = ("host=%s/s,%s/s port=%s,%s user=postgres dbname=postgres ")
      :format(server.root, server.root, replica, primary)
  end)
  teardown(function()
    server.sh("drop", "replica")
    server.sh("drop", "primary")
  end)
  local function port_of(words)
    local conn = assert(dblink.connect(list .. words, { timeout = 10 }))
    local port = conn:query "show port" (1, 1)
    conn:close()
    return port
  end

  it("gives the kind of server that target_session_attrs wants", function()
    assert.equal(replica, port_of "")
    assert.equal(primary, port_of "target_session_attrs=read-write")
    assert.equal(replica, port_of "target_session_attrs=read-only")
    assert.equal(replica, port_of "target_session_attrs=prefer-standby")
    local err = refusal(("host=%s/s port=%s user=postgres dbname=postgres target_session_attrs=read-write")
      :format(server.root, replica))
    assert.matches("session is read%-only", err.message)
  end)

  it("leads to the promoted replica when the primary is dead", function()
    local conn = assert(dblink.connect(list .. "target_session_attrs=read-write", { timeout = 10 }))
    assert.equal(primary, conn:query "show port" (1, 1))
    assert(conn:query "create table survives as select 42 as answer")
    server.until_true(function()
      return assert(conn:query "select pg_current_wal_insert_lsn() = replay_lsn from pg_stat_replication")(1, 1)
    end, 20)
    server.sh("kill", "primary")
    local res, err = bounded(conn.query, conn, "select 1")
    assert.is_nil(res)
    assert_lost(conn, err)
    res, err = bounded(conn.reset, conn, 10)
    assert.is_nil(res)
    assert.matches("read%-only", err.message)
    assert.matches("No such file or directory", err.message)
    server.sh("promote", "replica")
    assert(server.until_true(function() return conn:reset(10) end))
    assert.equal(replica, conn:query "show port" (1, 1))
    assert.equal(42, assert(conn:query "select answer from survives")(1, 1))
    conn:close()
  end)
end)

for _, mode in ipairs { "session", "transaction" } do
  describe("behind PgBouncer, pooling by " .. mode .. " #heavy", function()
    local conn, admin
    setup(function()
      server.sh("bouncer", mode, "a", mode)
    end)
    teardown(function() server.sh("drop", mode) end)
    before_each(function()
      admin = server.connect()
      conn = assert(dblink.connect(server.conninfo_of(mode, "host=127.0.0.1 password=secret")))
    end)
    after_each(function()
      conn:close()
      admin:close()
    end)

    it("queries run, with parameters, in transactions, big ones", function()
      assert.equal(7, conn:query("select $1::int", 7)(1, 1))
      assert(conn:query "begin; create temp table t (x int) on commit drop; insert into t values (1)")
      assert.equal(1, conn:query "select count(*)::int from t" (1, 1))
      assert(conn:query "commit")
      assert.equal(1e6, #conn:query("select $1::text", ("x"):rep(1e6))(1, 1))
    end)

    it("a query is stopped, and hits no other", function()
      for i = 1, 20 do
        local res, err = bounded(conn.query, conn, { "select pg_sleep(60)", timeout = 0.05 })
        assert.is_nil(res)
        assert.equal("timeout", err.kind)
        assert.is_false(err.connection_lost)
        assert.equal(i, conn:query("select $1::int, pg_sleep(0.01)", i)(1, 1))
      end
    end)

    it("conn:cancel cancels", function()
      assert(conn:send_query "select pg_sleep(60)")
      server.until_true(function()
        return admin:query "select exists (select from pg_stat_activity where query = 'select pg_sleep(60)')" (1, 1)
      end)
      assert(bounded(conn.cancel, conn, 5))
      assert.equal("cancelled", select(2, bounded(conn.get_result, conn)).kind)
      assert.is_nil(conn:get_result())
      assert.equal(1, conn:query "select 1, pg_sleep(0.01)" (1, 1))
    end)

    it("a server that dies behind it is an error, and the next query has another", function()
      assert(conn:query "select 1")
      assert(conn:send_query "select pg_sleep(60) as dying")
      server.until_true(function()
        return admin:query [[select pg_terminate_backend(pid) from pg_stat_activity
          where query = 'select pg_sleep(60) as dying' and state = 'active']](1, 1)
      end)
      local res, err = bounded(conn.get_result, conn)
      assert.is_nil(res)
      assert.equal("57P01", err.sqlstate)
      conn:reset(10)
      assert.equal(1, conn:query "select 1"(1, 1))
    end)
  end)
end
