local core = require "dblink.core"
local dblink = require "dblink"
local server = require "support.server"

-- The same by C's own loop and by Lua's.
local waits = { ["a plain script"] = "poll", ["a wait of its own"] = { wait = core.poll, forget = function() end } }

-- What the session has prepared, other than by SQL.
local function prepared(conn)
  local res = assert(conn:query "select name from pg_prepared_statements where not from_sql order by prepare_time")
  local names = {}
  for i = 1, #res do names[i] = res[i].name end
  return #res, names
end

for where, wait in pairs(waits) do
  describe("a prepared statement in " .. where, function()
    local conn
    before_each(function() conn = server.connect(nil, { wait = wait }) end)
    after_each(function() conn:close() end)

    it("runs with parameters, as often as wanted", function()
      local stmt = assert(conn:prepare "select $1::int4 + $2::int4 as sum")
      for i = 1, 5 do assert.equal(i + 10, assert(stmt:query(i, 10))[1].sum) end
      assert.is_nil(stmt:query(1, nil)(1, 1))
      assert.equal(1, (prepared(conn)))
    end)

    it("takes options with its parameters", function()
      local stmt = assert(conn:prepare "select $1::int4 as a, $2::text as b")
      assert.equal(7, stmt:query { 7, n = 2, rows = "array" }[1][1])
      assert.equal("none", stmt:query { 7, n = 2, null = "none" }[1].b)
      local slow = assert(conn:prepare "select pg_sleep($1)")
      local res, err = slow:query { 60, timeout = 0.05 }
      assert.is_nil(res)
      assert.equal("timeout", err.kind)
      assert.equal(1, #assert(slow:query(0)))
    end)

    it("takes a parameter that is a table of ours", function()
      local stmt = assert(conn:prepare "select $1::int[]")
      assert.same({ 1, 2, n = 2 }, assert(stmt:query(dblink.array({ 1, 2 }, "int4")))(1, 1))
      assert.same({ 3, n = 1 }, assert(stmt:query { dblink.array({ 3 }, "int4") })(1, 1))
    end)

    it("tells the types of its parameters and its columns", function()
      local stmt = assert(conn:prepare "select $1::int4 as a, $2::text[] as b, $3 || 'x' as c")
      local description = stmt:describe()
      assert.same({ 23, 1009, 25 }, description.parameters)
      assert.equal(3, #description.columns)
      assert.equal("a", description.columns[1].name)
      assert.equal(1009, description.columns[2].oid)
      assert.same({}, assert(conn:prepare "set work_mem = '4MB'"):describe().columns)
    end)

    it("has the name it was given, or one of its own", function()
      assert(conn:prepare("select 1", "mine ' \" own"))
      local _, names = prepared(conn)
      assert.equal("mine ' \" own", names[1])
      local stmt, err = conn:prepare("select 2", "mine ' \" own")
      assert.is_nil(stmt)
      assert.equal("42P05", err.sqlstate)
      assert.error_matches(function() conn:prepare("select 1", "") end, "'name'")
      assert.error_matches(function() conn:prepare("select 1", "a\0b") end, "'name'")
      assert.error_matches(function() conn:prepare(nil) end, "'sql'")
      assert.error_matches(function() conn:prepare "select 1\0" end, "NUL")
    end)

    it("cannot be prepared where the SQL is wrong", function()
      local stmt, err = conn:prepare "selec 1"
      assert.is_nil(stmt)
      assert.equal("42601", err.sqlstate)
      assert.equal(1, conn:query "select 1"(1, 1))
    end)

    it("is closed once, and no longer there", function()
      local stmt = assert(conn:prepare("select 1", 'a "name"'))
      assert.is_true(stmt:close())
      assert.is_true(stmt:close())
      assert.equal(0, (prepared(conn)))
      assert.error_matches(function() stmt:query() end, "statement is closed")
      assert.error_matches(function() stmt:describe() end, "statement is closed")
    end)

    it("is closed even inside a transaction that has failed, by the protocol's Close (libpq 17)", function()
      local stmt = assert(conn:prepare "select 1")
      assert(conn:query "begin")
      assert.is_nil(conn:query "select 1/0")
      local ok, err = stmt:close()
      if dblink.features.close_prepared then
        assert.is_true(ok)
      else
        assert.equal("25P02", err.sqlstate) -- DEALLOCATE
      end
      assert(conn:query "rollback")
    end)

    it("sends, and its results are collected as any", function()
      local stmt = assert(conn:prepare "select $1::int4")
      assert.is_true(stmt:send_query(5))
      assert.equal(5, conn:get_result()(1, 1))
      assert.is_nil(conn:get_result())
    end)

    it("streams its rows", function()
      local stmt = assert(conn:prepare "select i from generate_series(1, $1::int) i")
      local sum = 0
      for row in stmt:rows(100) do sum = sum + row.i end
      assert.equal(5050, sum)
      assert.error(function() for _ in stmt:rows "no number" do error "a row" end end)
    end)

    it("is prepared again after DISCARD ALL, unless a transaction was aborted by it", function()
      local stmt = assert(conn:prepare "select $1::int4 as a")
      assert(conn:query "discard all")
      assert.equal(1, assert(stmt:query(1))(1, 1))
      assert(conn:query "discard all")
      for row in stmt:rows(2) do assert.equal(2, row.a) end
      assert(conn:query "discard all")
      assert(conn:query "begin")
      local res, err = stmt:query(3)
      assert.is_nil(res)
      assert.equal("26000", err.sqlstate)
      assert.equal("inerror", conn:transaction_status())
      assert(conn:query "rollback")
      assert.equal(3, assert(stmt:query(3))(1, 1))
    end)

    it("is prepared again when its columns have changed", function()
      assert(conn:query "create temporary table t (a int); insert into t values (1)")
      local stmt = assert(conn:prepare "select * from t")
      assert.equal(1, #stmt:query():columns())
      assert(conn:query "alter table t add b text default 'b'")
      assert.equal("b", assert(stmt:query())[1].b)
      assert.equal(2, #stmt:describe().columns)
      assert(conn:query "alter table t drop b")
      local n = 0
      for row in stmt:rows() do n = n + row.a end
      assert.equal(1, n)
    end)

    it("gives the same values in binary, which it chooses by itself, as in text", function()
      local sql = "select true, 7::int2, -3::int4, 9007199254740991::int8, 1.5::float4, 'NaN'::float8, "
        .. "'text', '\\x00ff'::bytea, array[1,null,3], null::int4, 1.10::numeric, "
        .. "timestamptz '2020-02-03 04:05:06+00', interval '1 day'"
      local text = assert(conn:query(sql))
      local binary = assert(assert(conn:prepare(sql)):query())
      for j, column in ipairs(binary:columns()) do
        local a, b = text(1, j), binary(1, j)
        if a == a then assert.same(a, b, column.name) else assert.is_true(b ~= b) end
      end
      assert.equal("binary", assert(conn:prepare "select 1::int4, 'x'::text"):query():columns()[1].format)
      assert.equal("text", assert(conn:prepare "select 1::int4, '(1,2)'::point"):query():columns()[1].format)
      local jit = rawget(_G, "jit") -- whose compiler can do with a loop over text what it cannot over these in binary
      assert.equal(jit and jit.status() and "text" or "binary",
        assert(conn:prepare "select 1::int4, 1.10::numeric, now()"):query():columns()[1].format)
      assert.equal("1", assert(conn:prepare "select 1::int4"):query { decode = false }(1, 1))
    end)

    it("heeds a codec that comes later", function()
      local stmt = assert(conn:prepare "select 7::int4 as a")
      assert.equal(7, stmt:query()(1, 1))
      assert(conn:codec("int4", { decode = function(text) return "<" .. text .. ">" end }))
      assert.equal("<7>", stmt:query()(1, 1))
      for row in stmt:rows() do assert.equal("<7>", row.a) end
      assert.equal("<7>", assert(conn:prepare "select 7::int4"):query()(1, 1))
    end)

    it("follows the session's settings, of which a binary value knows nothing", function()
      local stmt = assert(conn:prepare "select date '2020-02-03', timestamptz '2020-02-03 04:05:06+00'")
      local settings = { "DateStyle = 'German'", "TimeZone = 'Asia/Tokyo'", "DateStyle = 'ISO'", "TimeZone = 'UTC'" }
      for _, setting in ipairs(settings) do
        assert(conn:query("set " .. setting))
        local text = assert(conn:query "select date '2020-02-03', timestamptz '2020-02-03 04:05:06+00'")
        local res = assert(stmt:query())
        assert.equal(text(1, 1), res(1, 1))
        assert.equal(text(1, 2), res(1, 2))
      end
    end)
  end)

  describe("the statement cache in " .. where, function()
    local conn
    before_each(function() conn = server.connect(nil, { wait = wait, statement_cache = 3 }) end)
    after_each(function() conn:close() end)

    local function plus(n, i) return assert(conn:query(("select $1::int4 + %d"):format(n), i))(1, 1) end

    it("keeps a statement for SQL with parameters, prepared once", function()
      for i = 1, 5 do assert.equal(i + 1, plus(1, i)) end
      assert.equal(1, (prepared(conn)))
      assert.equal("binary", conn:query("select $1::int4 + 1", 1):columns()[1].format)
      assert(conn:query "select 2")
      for _ = 1, 2 do assert(conn:query("select $1::int4" .. (" "):rep(9000), 1)) end -- too long to be kept
      assert.equal(1, (prepared(conn)))
    end)

    it("lets the least recently used one go", function()
      for n = 1, 3 do plus(n, 0) end
      local _, names = prepared(conn)
      plus(1, 0)
      plus(4, 0)
      plus(1, 0)
      local count, now = prepared(conn)
      assert.equal(3, count)
      assert.same({ names[1], names[3] }, { now[1], now[2] })
    end)

    it("can be off", function()
      for _, off in ipairs { 0, false } do
        local plain = server.connect(nil, { wait = wait, statement_cache = off })
        assert.equal(1, plain:query("select $1::int", 1)(1, 1))
        assert.equal(0, (prepared(plain)))
        plain:close()
      end
      assert.error_matches(function() server.connect(nil, { statement_cache = "some" }) end, "statement_cache")
    end)

    it("leaves errors as they are, and forgets what could not be prepared", function()
      for _ = 1, 3 do
        local res, err = conn:query("selec $1", 1)
        assert.is_nil(res)
        assert.equal("42601", err.sqlstate)
        assert.equal(1, err.position)
        res, err = conn:query("select 1 / $1::int", 0)
        assert.is_nil(res)
        assert.equal("22012", err.sqlstate)
      end
      assert.equal(1, conn:query("select 1 / $1::int", 1)(1, 1))
      assert.equal(1, (prepared(conn)))
    end)

    it("outlives DISCARD ALL and DEALLOCATE ALL, also in a transaction", function()
      plus(1, 0)
      assert(conn:query "discard all")
      assert.equal(2, plus(1, 1))
      assert(conn:query "begin; deallocate all")
      assert.equal(3, plus(1, 2))
      assert.equal(4, plus(1, 3))
      assert(conn:query "commit")
      assert.equal(1, (prepared(conn)))
    end)

    it("outlives what the server forgets in secret", function()
      plus(1, 0)
      assert(conn:query "do $$begin deallocate all; end$$")
      assert.equal(2, plus(1, 1))
      assert.equal(3, plus(1, 2))
    end)

    it("outlives a table that changes, and a transaction that failed by it", function()
      assert(conn:query "create temporary table t (a int); insert into t values (1)")
      local function columns() return conn:query("select * from t where a = $1", 1) end
      assert.equal(1, #columns():columns())
      assert(conn:query "alter table t add b text")
      assert.equal(2, #columns():columns())
      assert(conn:query "alter table t drop b")
      assert(conn:query "begin")
      local res, err = columns()
      assert.is_nil(res)
      assert.equal("0A000", err.sqlstate)
      assert(conn:query "rollback")
      assert.equal(1, #columns():columns())
      assert.equal(1, #columns():columns())
      assert.equal(1, (prepared(conn)))
    end)

    it("works inside a transaction, and inside one that has failed", function()
      assert(conn:query "begin")
      for n = 1, 5 do assert.equal(n, plus(n, 0)) end
      assert.is_nil(conn:query "select 1/0")
      local res, err = conn:query("select $1::int4 + 9", 1)
      assert.is_nil(res)
      assert.equal("25P02", err.sqlstate)
      assert(conn:query "rollback")
      for n = 1, 5 do assert.equal(n, plus(n, 0)) end
      assert.is_true((prepared(conn)) <= 3)
    end)

    it("does not take a parameter's type from another call", function()
      assert.equal(1, conn:query("select length($1)", "é")(1, 1))
      assert.equal(2, conn:query("select length($1)", dblink.bytea "é")(1, 1))
      assert.equal(1, conn:query("select length($1)", "é")(1, 1))
    end)

    it("stops at the timeout, the statement kept", function()
      for _ = 1, 2 do
        local res, err = conn:query { "select pg_sleep($1)", 60, timeout = 0.05 }
        assert.is_nil(res)
        assert.equal("timeout", err.kind)
      end
      assert.equal(1, #assert(conn:query("select pg_sleep($1)", 0)))
      assert.equal(1, (prepared(conn)))
    end)

    it("begins anew after a reset", function()
      plus(1, 0)
      assert(conn:reset())
      assert.equal(2, plus(1, 1))
      assert.equal(1, (prepared(conn)))
    end)
  end)
end
