-- The state rules of dblink, as the methods have them.
local server = require "support.server"

describe("a query sent", function()
  local conn, admin
  before_each(function()
    conn, admin = server.connect(), server.connect()
  end)
  after_each(function()
    conn:close()
    admin:close()
  end)

  -- What results are left: values of the first column, or SQLSTATEs.
  local function rest()
    local list = {}
    for i, res, err in conn:results() do
      list[i] = res and (res(1, 1) or res.command) or err.sqlstate or err.kind
    end
    return list
  end

  it("is collected until nil", function()
    assert.is_true(conn:send_query "select 1")
    assert.equal(1, conn:get_result()(1, 1))
    local res, err = conn:get_result()
    assert.is_nil(res)
    assert.is_nil(err)
    assert.is_nil(conn:get_result())
  end)

  it("gives a result for each of its statements, also for one without rows", function()
    assert(conn:send_query "select 1; select 2 where false; create temp table t (a int); select 3")
    local seen = {}
    for i, res in conn:results() do seen[i] = { #res, res.command } end
    assert.same({ { 1, "SELECT 1" }, { 0, "SELECT 0" }, { 0, "CREATE TABLE" }, { 1, "SELECT 1" } }, seen)
  end)

  it("ends with its first error, and the end is still collected", function()
    assert(conn:send_query "select 1; select 1/0; select 2")
    assert.same({ 1, "22012" }, rest())
    assert.equal(3, conn:query "select 3"(1, 1))
  end)

  it("is not disturbed by a second one, which is refused", function()
    assert(conn:send_query "select 1, pg_sleep(0.01)")
    local ok, err = conn:send_query "select 2"
    assert.is_nil(ok)
    assert.equal("another command is already in progress", err.message)
    assert.equal("usage", err.kind)
    ok, err = conn:query "select 2"
    assert.is_nil(ok)
    assert.matches("already in progress", err.message)
    assert.same({ 1 }, rest())
  end)

  it("is refused while the end of the last one has not been collected", function()
    assert(conn:send_query "select 1")
    assert(conn:get_result())
    assert.is_nil((conn:send_query "select 2"))
    assert.is_nil(conn:get_result())
    assert.is_true(conn:send_query "select 2")
    assert.same({ 2 }, rest())
  end)

  it("is busy until its result can be had without waiting", function()
    assert.is_false(conn:is_busy())
    assert(admin:query "begin; lock pg_description")
    assert(conn:send_query "select count(*) from pg_description")
    server.until_true(function()
      return admin:query("select wait_event_type = 'Lock' from pg_stat_activity where pid = $1",
        conn:backend_pid())(1, 1)
    end)
    assert.is_true(conn:is_busy())
    assert.is_false(conn:try_result())
    assert(admin:query "commit")
    server.until_true(function() return not conn:is_busy() end)
    assert.equal(1, #conn:try_result())
    assert.is_nil(conn:try_result())
    assert.is_false(conn:is_busy())
  end)

  it("is not busy when much has arrived, however often it would have to be read", function()
    assert(conn:send_query "select repeat('x', 1000) from generate_series(1, 20000)")
    local calls = 0
    server.until_true(function()
      calls = calls + 1
      return not conn:is_busy()
    end)
    assert.is_true(calls < 200)
    assert.equal(20000, #conn:get_result())
    assert.is_nil(conn:get_result())
  end)

  it("makes an error visible through is_busy, without fetching it", function()
    assert(conn:send_query "select 1/0")
    server.until_true(function() return not conn:is_busy() end)
    assert.equal("ERROR:  division by zero", conn:error_message())
    assert.same({ "22012" }, rest())
  end)

  it("may be empty", function()
    for _, sql in ipairs { "", ";", "-- nothing" } do
      assert.is_true(conn:send_query(sql))
      local res = conn:get_result()
      assert.equal("empty_query", res.status)
      assert.equal(0, #res)
      assert.is_nil(conn:get_result())
      assert.equal("empty_query", conn:query(sql).status)
    end
  end)

  it("cannot wedge the connection with a COPY", function()
    for _, sql in ipairs { "copy (select generate_series(1, 100000)) to stdout", "copy pg_description from stdin" } do
      assert(conn:send_query(sql))
      local res, err = conn:get_result()
      assert.is_nil(res)
      assert.equal("0A000", err.sqlstate)
      assert.is_true(#rest() <= 1)
      assert.equal(1, conn:query "select 1"(1, 1))
      res, err = conn:query(sql)
      assert.is_nil(res)
      assert.matches("copy_in or conn:copy_out", err.message)
      assert.equal(1, conn:query "select 1"(1, 1))
    end
  end)

  it("loses nothing that had arrived when the backend is killed", function()
    assert(conn:send_query "select 1")
    server.until_true(function() return not conn:is_busy() end)
    admin:query("select pg_terminate_backend($1)", conn:backend_pid())
    assert.equal(1, conn:get_result()(1, 1))
  end)

  it("gives the error, then the loss, then nil when the backend is killed", function()
    assert(conn:send_query "select pg_sleep(60)")
    server.wait_active(admin, conn:backend_pid())
    admin:query("select pg_terminate_backend($1)", conn:backend_pid())
    assert.same({ "57P01", "connection" }, rest())
    assert.equal("bad", conn:status())
    local ok, err = conn:send_query "select 1"
    assert.is_nil(ok)
    assert.is_true(err.connection_lost)
    assert.matches("no connection to the server", err.message)
    assert.is_nil(conn:get_result())
  end)

  it("can be larger than what the sockets hold", function()
    local big = ("x"):rep(8e6)
    assert(conn:send_query("select $1::text", big))
    assert.equal(big, conn:get_result()(1, 1))
    assert.is_nil(conn:get_result())
    assert.equal(#big, conn:query("select length('" .. big .. "')")(1, 1))
  end)
end)

describe("a result being made", function()
  -- What Lua collects next, and does then.
  local function litter(action)
    if newproxy then
      getmetatable(newproxy(true)).__gc = action
    else
      setmetatable({}, { __gc = action })
    end
  end

  -- Asks again and again, while finalizers ask on the same connection. What is taken from a
  -- query in the moment of its making is raised; all else is answered.
  local function ask_beside_finalizers(conn, sql, check)
    local within, raised = 0, 0
    for _ = 1, os.getenv "DBLINK_UNDER" and 300 or 3000 do
      litter(function()
        within = within + 1
        pcall(conn.query, conn, "select 1/0")
      end)
      collectgarbage("step", 50) -- however much there is to be looked at
      local ok, res, err = pcall(conn.query, conn, sql)
      if ok then
        check(res, err)
      else
        raised = raised + 1
        assert.matches("a finalizer has used the connection", res)
      end
    end
    assert.is_true(within > 0)
    assert.is_true(raised <= within)
  end

  local KINDS = { plain = {}, ["through codecs"] = { null = 0, codecs = { [23] = { decode = tostring } } } }
  for name, options in pairs(KINDS) do
    it("bears finalizers that use its connection, " .. name, function()
      local conn = server.connect("", options)
      ask_beside_finalizers(conn, "select 41, null", function(res) assert.equal("41", tostring(res(1, 1))) end)
      ask_beside_finalizers(conn, "select 1/0", function(_, err) assert.equal("22012", err.sqlstate) end)
      conn:close()
    end)
  end
end)

describe("conn:try_result()", function()
  it("tells of what was too big, once, and then of the end", function()
    local conn = server.connect()
    assert(conn:send_query { "select repeat('x', 10000) from generate_series(1, 100)", max_bytes = 20000 })
    local res, err
    server.until_true(function()
      res, err = conn:try_result()
      return res ~= false
    end)
    assert.is_nil(res)
    assert.equal("too_big", err.kind)
    server.until_true(function()
      res, err = conn:try_result()
      return res ~= false
    end)
    assert.is_nil(res)
    assert.is_nil(err)
    assert.equal(1, conn:query "select 1"(1, 1))
    conn:close()
  end)
end)

describe("conn:step()", function()
  it("says what to wait for, and nil when nothing is left to do", function()
    local conn = server.connect()
    local wait = require "dblink.wait.poll".wait
    assert.is_nil(conn:step())
    assert(conn:send_query "select 1, pg_sleep(0.01)")
    local turns, need = 0, conn:step()
    while need do
      assert.matches("^r?w?$", need)
      assert(wait(conn:getfd(), need, 5))
      turns, need = turns + 1, conn:step()
    end
    assert.is_true(turns > 0)
    assert.is_false(conn:is_busy())
    assert.equal(1, conn:get_result()(1, 1))
    conn:close()
  end)
end)

describe("conn:get_notify()", function()
  it("gives notifications in their order, then nil", function()
    local conn, other = server.connect(), server.connect()
    local channel = server.name "ch"
    assert(conn:query("listen " .. channel))
    assert.is_nil(conn:get_notify())
    other:query(("notify %s, 'one'; notify %s; notify %s, 'one'"):format(channel, channel, channel))
    local first = server.until_true(function() return conn:get_notify() end)
    assert.same({ channel = channel, payload = "one", pid = other:backend_pid() }, first)
    assert.equal("", conn:get_notify().payload)
    assert.is_nil(conn:get_notify())
    other:close()
    conn:close()
  end)
end)
