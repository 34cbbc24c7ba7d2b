local core = require "dblink.core"
local server = require "support.server"

describe("conn:query", function()
  local conn
  before_each(function() conn = server.connect() end)
  after_each(function() conn:close() end)

  it("gives the result of the last statement", function()
    assert.equal(2, conn:query "select 1; select 2"(1, 1))
    assert.equal("CREATE TABLE", conn:query "select 1; create temp table t (a int)".command)
  end)

  it("gives the first error, whatever came before it", function()
    local res, err = conn:query "select 1; select 1/0; select 2"
    assert.is_nil(res)
    assert.equal("22012", err.sqlstate)
    assert.equal("idle", conn:transaction_status())
    res, err = conn:query "selct 1"
    assert.is_nil(res)
    assert.is_true(err:is "syntax_error")
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("takes one statement when it takes parameters", function()
    local res, err = conn:query("select $1::int; select 2", 1)
    assert.is_nil(res)
    assert.equal("42601", err.sqlstate)
  end)

  it("gives all results with exec_all", function()
    local list = assert(conn:exec_all "select 1; create temp table t (a int); select 3")
    assert.equal(3, #list)
    assert.equal(1, list[1](1, 1))
    assert.equal("CREATE TABLE", list[2].command)
    assert.equal(3, list[3](1, 1))
    local none, err = conn:exec_all "select 1; select 1/0"
    assert.is_nil(none)
    assert.equal("22012", err.sqlstate)
    assert.equal("idle", conn:transaction_status())
  end)

  it("refuses options that are none", function()
    for message, options in pairs {
      ["max_bytes must be"] = { max_bytes = "much" }, ["max_bytes must be a number"] = { max_bytes = 0 },
      ["option n must"] = { n = "all" }, ["timeout must be"] = { timeout = "soon" },
      ["rows must be"] = { rows = "columns" }, ["unknown option 'what'"] = { what = 1 },
    } do
      options[1] = "select 1"
      assert.error_matches(function() conn:query(options) end, message)
    end
    assert.error_matches(function() conn:query { timeout = 1 } end, "no SQL")
    assert.equal(1, conn:query { "select 1", max_bytes = false }(1, 1))
    assert.equal(1, conn:query { "select 1", max_bytes = 1e300 }(1, 1))
  end)

  it("refuses options that cannot be", function()
    for what, query in pairs {
      ["timeout must be a number"] = { "select 1", timeout = -1 },
      ["timeout must be a number of seconds"] = { "select 1", timeout = "1" },
      ["rows must be"] = { "select 1", rows = {} },
      ["\"array\""] = { "select 1", rows = "columns" },
      ["unknown option '?'"] = { "select 1", [true] = 1 },
      ["n must be a number"] = { "select 1", n = "1" },
      ["max_bytes must be"] = { "select 1", max_bytes = 0 },
      ["more parameters than PostgreSQL takes"] = { "select 1", n = 70000 },
    } do
      assert.error_matches(function() conn:query(query) end, what, 1, true)
    end
    assert.equal(1, conn:query { "select 1", timeout = math.huge, max_bytes = math.huge }(1, 1))
  end)

  it("gives the format that was asked for", function()
    local function ask(options)
      options[1], options[2] = "select $1::int4", 258
      local res = assert(conn:query(options))
      return { res:columns()[1].format, res(1, 1) }
    end
    assert.same({ "text", 258 }, ask { binary = false })
    assert.same({ "binary", 258 }, ask { binary = true })
    assert.same({ "text", "258" }, ask { binary = false, decode = false })
    assert.same({ "binary", "\0\0\1\2" }, ask { binary = true, decode = false })
  end)

  it("refuses what encodes a parameter and begins something on its connection", function()
    local act
    local mark = assert(conn:codec("int4", { encode = function(v)
      act()
      return tostring(v)
    end }))
    local p
    for i, f in ipairs {
      function() conn:rows "select 1" end,
      function() conn:pipeline() end,
      function() -- another one
        p:close()
        conn:pipeline()
      end,
    } do
      act, p = f, i == 3 and assert(conn:pipeline()) or conn
      assert.error_matches(function() p:query("select $1::int", mark(1)) end, "must leave the connection alone")
      assert.equal(1, conn:query "select 1"(1, 1))
    end
  end)

  it("is stopped where it is too big, whatever has come already, and whatever ends it", function()
    local sql = "select repeat('x', 1000), 1 / (%s - g) from generate_series(1, 50) g"
    for _, case in ipairs { { 100, "too_big" }, { 2, "server" }, { 40, "too_big" } } do
      local res, err = conn:query { sql:format(case[1]), max_bytes = 5000 }
      assert.is_nil(res)
      assert.equal(case[2], err.kind, tostring(err))
      assert.equal(1, conn:query "select 1"(1, 1))
    end
    assert(conn:send_query { sql:format(100), max_bytes = 5000 })
    while conn:is_busy() do core.poll(conn:getfd(), "r", 1) end
    local res, err = conn:get_result()
    assert.is_nil(res)
    assert.equal("too_big", err.kind)
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("is refused while results are left, in all its forms", function()
    local stmt = assert(conn:prepare "select 1")
    assert(conn:send_query "select pg_sleep(0.01)")
    for what, f in pairs {
      query = function() return stmt:query() end, send = function() return stmt:send_query() end,
      rows = function() return stmt:rows():next() end, prepare = function() return conn:prepare "select 2" end,
      parameters = function() return conn:query("select $1", 1) end,
      copy = function() return conn:copy_in "copy t from stdin" end, pipeline = function() return conn:pipeline() end,
      all = function() return conn:exec_all "select 1" end,
    } do
      local ok, err = f()
      assert.is_nil(ok, what)
      assert.equal("usage", err.kind, what)
    end
    assert.equal("usage", select(2, stmt:close()).kind)
    assert(conn:get_result())
    assert.is_nil(conn:get_result())
  end)

  it("stops at its timeout, and the connection is ready for the next", function()
    local res, err = conn:query { "select pg_sleep(60)", timeout = 0.05 }
    assert.is_nil(res)
    assert.equal("timeout", err.kind)
    assert.is_false(err.connection_lost)
    assert.equal("idle", conn:transaction_status())
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("says that the connection was lost under it", function()
    local admin = server.connect()
    admin:query("select pg_terminate_backend($1)", conn:backend_pid())
    server.until_true(function()
      return admin:query("select count(*) = 0 from pg_stat_activity where pid = $1", conn:backend_pid())(1, 1)
    end)
    local res, err = conn:query "select 1"
    assert.is_nil(res)
    assert.is_true(err.connection_lost)
    res, err = conn:query "select 1"
    assert.is_nil(res)
    assert.is_true(err.connection_lost)
    assert.equal("connection", err.kind)
    admin:close()
  end)
end)
