local dblink = require "dblink"
local core = require "dblink.core"
local protect = require "dblink.protect"
local own = require "support.loops" ["a host's own"]
local server = require "support.server"

-- The same by C's own loop and by Lua's.
local waits = { ["a plain script"] = "poll", ["a wait of its own"] = { wait = core.poll, forget = function() end } }

-- Under the sanitizers' collector, which never rests, a row costs a thousand times as much.
local FEW = os.getenv "DBLINK_UNDER"

for where, wait in pairs(waits) do
  describe("COPY in " .. where, function()
    local conn, name
    before_each(function()
      conn = server.connect(nil, { wait = wait })
      name = server.name "copied"
      assert(conn:query("create temporary table " .. name .. " (a int8, b text)"))
    end)
    after_each(function() conn:close() end)

    local function count() return assert(conn:query("select count(*)::int from " .. name))(1, 1) end
    local function copy_in() return assert(conn:copy_in("copy " .. name .. " from stdin")) end
    local function usable() assert.equal(1, assert(conn:query "select 1")(1, 1)) end

    it("says what it is, and that its connection is closed", function()
      local w = copy_in()
      assert.matches("^dblink COPY %(copy " .. name, tostring(w))
      conn:close()
      assert.matches("over", tostring(w))
      assert.error_matches(function() w:write "x" end, "connection is closed")
      conn = server.connect(nil, { wait = wait })
    end)

    it("reads NULL as the connection does, and types by their OIDs", function()
      local other = server.connect(nil, { wait = wait, null = "none" })
      local reader = assert(other:copy_out "copy (select 1, null::text) to stdout")
      local rows = reader:rows { 23, "text" }
      assert.same({ 1, "none", n = 2 }, rows())
      assert.is_nil(rows())
      other:close()
    end)

    it("takes text as it comes", function()
      local w = copy_in()
      assert.is_true(w:write "1\tone\n2\tt")
      assert.is_true(w:write "")
      assert.is_true(w:write "wo\n3\t\\N\n")
      local res = assert(w:finish())
      assert.equal(3, res.affected)
      assert.equal("COPY 3", res.command)
      res = assert(conn:query("select * from " .. name .. " order by a"))
      assert.equal("two", res(2, 2))
      assert.is_nil(res(3, 2))
    end)

    it("takes rows, with all that its text format has to escape", function()
      local strings = { "", "\\", "\\N", "a\tb", "a\nb", "\r", "\b\f\v", "\\.", "é\\t", ("x"):rep(200000) }
      local w = copy_in()
      for i, s in ipairs(strings) do assert.is_true(w:row { i, s }) end
      assert.is_true(w:row { 100, nil })
      assert.is_true(w:row { 101, dblink.null })
      assert.is_true(w:row { 102, true })
      assert.is_true(w:row { 103, 0.1, n = 2 })
      assert.is_true(w:row { 104, dblink.bytea "\0\1\255" })
      assert.is_true(w:row { nil, "without" })
      assert.equal(#strings + 6, assert(w:finish()).affected)
      for i, s in ipairs(strings) do
        assert.equal(s, assert(conn:query("select b from " .. name .. " where a = $1", i))(1, 1))
      end
      local res = assert(conn:query("select b from " .. name .. " where a >= 100 order by a"))
      assert.same({ n = 5, nil, nil, "t", "0.1", "\\x0001ff" }, res:column(1))
    end)

    it("takes megabytes in one string, and bytes one by one", function()
      local text = ("123\tof which there are many\n456\t\\N\n"):rep(100000)
      local w = copy_in()
      assert(w:write(text))
      for i = 1, 1000 do assert(w:write(text:sub(i, i))) end
      assert(w:write(text:sub(1001)))
      assert.equal(400000, assert(w:finish()).affected)
      local res = assert(conn:query { "select sum(a)::int8, count(b)::int from " .. name, rows = "array" })
      assert.same({ 200000 * (123 + 456), 200000, n = 2 }, res[1])
    end)

    it("gives lines", function()
      local lines = {}
      for line in assert(conn:copy_out "copy (values (1, 'a b'), (2, null), (3, E'x\\ny')) to stdout") do
        lines[#lines + 1] = line
      end
      assert.same({ "1\ta b", "2\t\\N", "3\tx\\ny" }, lines)
      usable()
    end)

    it("gives rows", function()
      local rows = {}
      local sql = "copy (values (1, E'\\b\\f\\n\\r\\t\\x0b\\\\ \\\\N', ''), (2, null, '\\N')) to stdout"
      for row in assert(conn:copy_out(sql)):rows() do rows[#rows + 1] = row end
      assert.same({ { "1", "\b\f\n\r\t\v\\ \\N", "", n = 3 }, { "2", nil, "\\N", n = 3 } }, rows)
    end)

    it("gives rows of the types one names", function()
      local sql = "copy (select 9007199254740992, 0.5, true, 'x', '\\x00ff'::bytea, null) to stdout"
      local reader = assert(conn:copy_out(sql))
      local row = reader:rows { "int8", "float8", "bool", false, "bytea" } ()
      assert.same({ 2 ^ 53, 0.5, true, "x", "\0\255", n = 6 }, row)
      assert.is_nil((reader:line()))
      reader = assert(conn:copy_out "copy (select 'x') to stdout")
      assert.has_error(function() reader:rows { "no such type" } end)
      local failed, err = pcall(reader:rows { "int4" })
      assert.is_false(failed)
      assert.equal("column 1: no int4: x", err.message)
      reader:close()
      usable()
    end)

    it("gives all that went in", function()
      local n, long = FEW and 100 or 5000, ("long\t"):rep(100)
      local w = copy_in()
      for i = 1, n do assert(w:row { i, long .. i }) end
      assert(w:finish())
      local sum = 0
      for row in assert(conn:copy_out("copy " .. name .. " to stdout")):rows { "int8" } do
        sum = sum + row[1]
        if row[2] ~= long .. row[1] then error(row[2]) end
      end
      assert.equal(n * (n + 1) / 2, sum)
      local reader, size = assert(conn:copy_out("copy " .. name .. " to stdout")), 0
      for piece in function() return reader:read() end do size = size + #piece end
      assert.equal(assert(conn:query("select sum(length(a::text) + length(b) + 102)::int8 from " .. name))(1, 1), size)
    end)

    it("passes from one connection to another, in binary too", function()
      local other = server.connect()
      local rows = FEW and 300 or 20000
      local sql = " select i, repeat('x', i % 300) from generate_series(1, $1) i"
      assert(conn:query("insert into " .. name .. sql, rows))
      assert(other:query("create temporary table b (a int8, b text)"))
      for _, format in ipairs { "text", "binary", "csv" } do
        local reader = assert(conn:copy_out(("copy %s to stdout (format %s)"):format(name, format)))
        local writer = assert(other:copy_in(("copy b from stdin (format %s)"):format(format)))
        for piece in function() return reader:read() end do assert(writer:write(piece)) end
        assert.equal(rows, assert(writer:finish()).affected)
      end
      assert.equal(3 * rows, assert(other:query "select count(*)::int from b")(1, 1))
      other:close()
    end)

    it("is done under a wait that fails, too, when it was given up", function()
      local w = copy_in()
      assert(w:row { 1, "x" })
      assert.is_true(w:fail "enough of this")
      assert.equal(0, count())
      assert.has_error(function() w:row { 2, "y" } end)
    end)

    it("leaves nothing behind when it is closed", function()
      local w = copy_in()
      for i = 1, 1000 do assert(w:row { i, ("x"):rep(100) }) end
      w:close()
      w:close()
      assert.equal(0, count())
      local reader = assert(conn:copy_out "copy (select generate_series(1, 10000000)) to stdout")
      assert.equal("1", reader:line())
      reader:close()
      assert.is_nil((reader:line()))
      usable()
    end)

    it("says at its end what the server did not like, and has taken nothing", function()
      local w = copy_in()
      assert(w:row { 1, "x" })
      assert(w:row { "no number", "y" })
      assert(w:write(("1\tmore\n"):rep(20000)))
      local res, err = w:finish()
      assert.is_nil(res)
      assert.equal("22P02", err.sqlstate)
      assert.matches("line 2", err.context)
      assert.equal(0, count())
    end)

    it("says so when the server fails in the middle of its lines", function()
      local reader = assert(conn:copy_out "copy (select 1 / (5000 - i) from generate_series(1, 10000) i) to stdout")
      local lines, line, err = -1
      repeat
        line, err = reader:line()
        lines = lines + 1
      until not line
      assert.equal(4999, lines)
      assert.equal("22012", err.sqlstate)
      assert.is_nil((reader:line()))
      local _, raised = pcall(function()
        local sql = "copy (select 1 / (i - 1) from generate_series(1, 1) i) to stdout"
        for _ in assert(conn:copy_out(sql)) do error "not reached" end
      end)
      assert.equal("22012", raised.sqlstate)
      usable()
    end)

    it("refuses what is no COPY of that kind", function()
      for _, sql in ipairs { "delete from " .. name, "", "copyx", "/* copy */ select 1" } do
        assert.has_error(function() conn:copy_in(sql) end)
      end
      local w, err = conn:copy_in("-- a remark\n /* and one */ copy " .. name .. " to stdout")
      assert.is_nil(w)
      assert.equal("usage", err.kind)
      assert.matches("FROM STDIN", err.message)
      usable()
      w, err = conn:copy_out("copy " .. name .. " from stdin")
      assert.is_nil(w)
      assert.matches("TO STDOUT", err.message)
      usable()
      w, err = conn:copy_in "copy nowhere from stdin"
      assert.is_nil(w)
      assert.equal("42P01", err.sqlstate)
      usable()
      assert.has_error(function() conn:copy_in {} end)
      assert.has_error(function() conn:copy_in { "copy x from stdin", size = 1 } end)
    end)

    it("gives the fields of a line, whatever is escaped in them", function()
      local values = { "ab", "\t", "N", "\\N", "\\", "", "\nN" }
      local w = copy_in()
      for i, s in ipairs(values) do assert(w:row { i, s }) end
      assert(w:finish())
      local i = 0
      for row in assert(conn:copy_out("copy " .. name .. " to stdout")):rows() do
        i = i + 1
        assert.same({ tostring(i), values[i], n = 2 }, row)
      end
      assert.equal(#values, i)
    end)

    it("gives one row of arrays, of no columns, and what is no line of its format", function()
      local reader = assert(conn:copy_out "copy (select '{1,2}'::int[], false) to stdout")
      assert.error_matches(function() reader:rows { true } end, "no type is named '?'", 1, true)
      assert.same({ { 1, 2, n = 2 }, false, n = 2 }, reader:rows { "int4[]", "bool" }())
      reader:close()
      local function first(sql)
        reader = assert(conn:copy_out(sql))
        local row, err = reader:row()
        reader:close()
        return row, err
      end
      assert.same({ n = 0 }, first "copy (select) to stdout")
      for sql, what in pairs {
        ["copy (select 1, 2) to stdout (format csv)"] = "not 2 fields",
        ["copy (select E'a\tb') to stdout (format csv)"] = "not 1 fields",
      } do
        local row, err = first(sql)
        assert.is_nil(row)
        assert.matches(what, err.message)
      end
      assert.same({ "\\", n = 1 }, first "copy (select '\\') to stdout (format csv)")
      usable()
    end)

    it("gives lines of any length", function()
      local reader = assert(conn:copy_out "copy (select repeat('x', 300000) union all select 'y') to stdout")
      local all = {}
      for piece in function() return reader:read() end do all[#all + 1] = piece end
      assert.equal(("x"):rep(300000) .. "\ny\n", table.concat(all))
    end)

    it("takes rows of no columns, true and false, and small ones behind a big one", function()
      assert(conn:query "create temporary table none ()")
      local w = assert(conn:copy_in "copy none from stdin")
      for _ = 1, 3 do assert(w:row {}) end
      assert.equal(3, assert(w:finish()).affected)
      w = copy_in()
      assert(w:row { 1, true })
      assert(w:row { 2, false, n = 2 })
      assert(w:row { 3, ("x"):rep(3e6) })
      assert(w:row { nil, nil, n = 2 })
      for i = 4, 100 do assert(w:row { i, ("y"):rep(2000) }) end
      assert.equal(101, assert(w:finish()).affected)
      local res = assert(conn:query("select string_agg(left(b, 5), ' ' order by a) from " .. name .. " where a < 5"))
      assert.equal("t f xxxxx yyyyy", res(1, 1))
    end)

    it("tells its writer from the writer of another COPY, behind a reset", function()
      local old = copy_in()
      assert(conn:reset())
      assert(conn:query("create temporary table " .. name .. " (a int8, b text)"))
      local new = copy_in()
      local ok, err = old:write "1\tx\n"
      assert.is_nil(ok)
      assert.matches("ended by another verb", err.message)
      assert.equal("dblink COPY (over)", tostring(old))
      assert(new:row { 2, "y" })
      assert.equal(1, assert(new:finish()).affected)
    end)

    it("knows its limits", function()
      local w = copy_in()
      for _, left in ipairs { -1, 4, 0 / 0 } do
        assert.error_matches(function() core.copy_write(w, "abc", left) end, "out of range")
      end
      assert.has_error(function() core.copy_conn(1) end)
      if newproxy then assert.has_error(function() core.copy_conn(newproxy()) end) end -- luacheck: ignore
      assert.has_error(function() core.copy_conn(conn) end)
      w:fail()
      usable()
    end)

    it("refuses rows that are none, and goes on", function()
      local w = copy_in()
      assert.has_error(function() w:row { 1, {} } end)
      assert.has_error(function() w:row { 1, print } end)
      assert.has_error(function() w:row { 1, "a\0b" } end)
      assert.has_error(function() w:row { 1, "a", "too many" } end)
      assert.has_error(function() w:row { 1, n = 1 } end)
      assert.has_error(function() w:row "x" end)
      assert.has_error(function() w:row() end)
      assert.has_error(function() w:write {} end)
      assert(w:row { 2, "x" })
      assert.equal(1, assert(w:finish()).affected)
      assert.has_error(function() w:write "x" end)
      assert.has_error(function() w:finish() end)
      assert.has_error(function() w:fail() end)
      assert.same({ 2, "x", n = 2 }, assert(conn:query { "select * from " .. name, rows = "array" })[1])
    end)

    it("knows neither rows nor lines in binary", function()
      local w = assert(conn:copy_in("copy " .. name .. " from stdin (format binary)"))
      assert.has_error(function() w:row { 1, "x" } end)
      w:fail()
      local reader = assert(conn:copy_out("copy " .. name .. " to stdout (format binary)"))
      assert.has_error(function() reader:line() end)
      assert.has_error(function() reader:row() end)
      assert.equal("PGCOPY\n", reader:read():sub(1, 7))
      reader:close()
      usable()
    end)

    it("says so when rows are asked of another format", function()
      local reader = assert(conn:copy_out "copy (values (1, 2)) to stdout csv")
      local row, err = reader:row()
      assert.is_nil(row)
      assert.equal("usage", err.kind)
      reader:close()
    end)

    it("is ended by the next verb of its connection, and says so", function()
      local verbs = {
        function() assert.equal(0, count()) end,
        function() assert.is_nil((conn:get_result())) end,
        function() assert.equal(1, #assert(conn:exec_all "select 1")) end,
        function() assert(conn:pipeline()):close() end,
        function() assert.equal(2, assert(conn:copy_out "copy (values (2)) to stdout":rows { "int4" }())[1]) end,
      }
      for _, verb in ipairs(verbs) do
        local w = copy_in()
        assert(w:row { 1, "x" })
        verb()
        local res, err = w:row { 2, "y" }
        assert.is_nil(res)
        assert.equal("usage", err.kind)
        assert.matches("ended by another verb", err.message)
        for _, rows in ipairs { "select generate_series(1, 10000000)", "values (1), (2)" } do
          local reader = assert(conn:copy_out("copy (" .. rows .. ") to stdout"))
          assert.equal("1", reader:line())
          verb()
          res, err = reader:line()
          assert.is_nil(res)
          assert.matches("ended by another verb", err.message)
        end
      end
      assert.equal(0, count())
    end)

    it("bars its connection neither behind a misuse nor behind a line that is no row", function()
      local binary = assert(conn:copy_out "copy (select 1) to stdout (format binary)")
      assert.has_error(function() binary:line() end)
      usable()
      local csv = assert(conn:copy_out "copy (values (1, 2)) to stdout csv")
      assert.is_nil((csv:row()))
      usable()
    end)

    it("reads its timeout before anything is sent", function()
      for _, timeout in ipairs { "x", -1, 0 / 0 } do
        for _, verb in ipairs { "copy_in", "copy_out" } do
          local _, err = pcall(function() conn[verb](conn, { "copy nowhere from stdin", timeout = timeout }) end)
          assert.matches("copy_spec.lua:%d+: option timeout must be a number of seconds", err)
          usable()
        end
      end
    end)

    it("has two values for a failure, of which LuaJIT's assert throws the last", function()
      for verb, sql in pairs { copy_in = "copy nowhere from stdin", copy_out = "copy nowhere to stdout" } do
        assert.equal(2, select("#", conn[verb](conn, sql)))
      end
    end)

    it("ends in time", function()
      local admin = server.connect()
      local table_name = server.name "locked"
      assert(admin:query("create table " .. table_name .. " (a int)"))
      assert(admin:exec_all("begin; lock table " .. table_name))
      local w, err = conn:copy_in { "copy " .. table_name .. " from stdin", timeout = 0.1 }
      assert.is_nil(w)
      assert.equal("timeout", err.kind)
      usable()
      -- the server sends when its buffer of 8 KiB is full
      local sql = "copy (select repeat('x', 9999), pg_sleep(i / 9 * 30) from generate_series(0, 9) i) to stdout"
      local reader = assert(conn:copy_out { sql, timeout = 0.2 })
      local lines, line = -1
      repeat
        line, err = reader:line()
        lines = lines + 1
      until not line
      assert.equal(8, lines)
      assert.equal("timeout", err.kind)
      usable()
      assert(admin:exec_all("rollback; drop table " .. table_name))
      admin:close()
    end)

    it("ends in time when the server does not read", function()
      local admin = server.connect()
      local table_name = server.name "slow"
      assert(admin:exec_all(([[create table %s (a text);
        create function %s_f() returns trigger language plpgsql as 'begin perform pg_sleep(30); return new; end';
        create trigger t before insert on %s for each row execute function %s_f()]]):gsub("%%s", table_name)))
      local w = assert(conn:copy_in { "copy " .. table_name .. " from stdin", timeout = 0.3 })
      local ok, err = w:write(("x\n"):rep(4000000))
      if ok then ok, err = w:finish() end
      assert.is_nil(ok)
      assert.equal("timeout", err.kind)
      usable()
      assert(admin:exec_all(("drop table %s; drop function %s_f"):gsub("%%s", table_name)))
      admin:close()
    end)

    it("says that the connection is lost", function()
      local admin = server.connect()
      local w = copy_in()
      assert(admin:query("select pg_terminate_backend($1)", conn:backend_pid()))
      local ok, err
      for _ = 1, 1000 do
        ok, err = w:write(("1\tx\n"):rep(20000))
        if not ok then break end
      end
      if ok then ok, err = w:finish() end
      assert.is_nil(ok)
      assert.is_true(err.connection_lost)
      conn:close()
      assert.has_error(function() w:write "x" end)

      conn = server.connect(nil, { wait = wait })
      local reader = assert(conn:copy_out "copy (select repeat('x', 1000) from generate_series(1, 1000000)) to stdout")
      assert(reader:line())
      assert(admin:query("select pg_terminate_backend($1)", conn:backend_pid()))
      local line
      repeat line, err = reader:line() until not line
      assert.is_true(err.connection_lost)
      reader:close()
      admin:close()
    end)
  end)
end

describe("a for loop in a coroutine", function()
  it("is kept from other coroutines than the one that waits", function()
    local loop = require "support.turns".new()
    local conn = loop.call(function() return server.connect(nil, loop.options) end)
    loop.call(function()
      assert(conn:exec_all [[create temporary table t (a int);
        create function pg_temp.wait() returns trigger language plpgsql
          as 'begin perform pg_sleep(0.2); return new; end';
        create trigger slow before insert on t for each row when (new.a = 1) execute function pg_temp.wait()]])
    end)
    local copy
    local function refused(...)
      loop.run(function() return copy and core.is_held(conn) end)
      for _, verb in ipairs { ... } do
        local res, err = copy[verb](copy, "why")
        assert.is_nil(res)
        assert.matches("another coroutine waits", err.message)
      end
      loop.run()
      copy = nil
    end
    loop.spawn(function()
      copy = assert(conn:copy_in "copy t from stdin")
      assert(copy:write("1\n" .. ("2\n"):rep(2e6)))
      assert(copy:fail())
    end)
    refused("row", "write", "finish", "fail")
    loop.spawn(function()
      copy = assert(conn:copy_out
        "copy (select pg_sleep(i / 5.0), repeat('x', 9999) from generate_series(0, 1) i) to stdout")
      assert(copy:line())
      assert(copy:line())
      assert.is_nil((copy:line()))
    end)
    refused("line", "read", "row")
    conn:close()
  end)

  it("waits for lines, or says how to", function()
    own.run(function()
      local holder = server.connect(nil, { wait = "poll" })
      assert(holder:query "select pg_advisory_lock(1327)")
      local conn = server.connect(nil, { wait = own.wait })
      local lines = 0
      local reader = assert(conn:copy_out [[
        copy (select i from generate_series(1, 3000) i where i < 3000 or pg_advisory_lock(1327)::text = '') to stdout]])
      local fine, line = true, nil
      while not protect.native and fine do
        fine, line = pcall(reader)
        if fine then lines = lines + 1 end
      end
      assert(holder:query "select pg_advisory_unlock(1327)")
      if protect.native then
        for _ in reader do lines = lines + 1 end
      else
        assert.matches("reader:line()", line, 1, true)
        while reader:line() do lines = lines + 1 end
      end
      assert.equal(3000, lines)
      conn:close()
      holder:close()
    end)
  end)
end)

describe("a COPY that nobody finishes", function()
  it("is ended when its loop is left, at the latest by the next verb", function()
    local conn = server.connect()
    for line in assert(conn:copy_out "copy (select generate_series(1, 10000000)) to stdout") do
      if line == "1000" then break end
    end
    assert.equal(1, assert(conn:query "select 1")(1, 1))
    conn:close()
  end)

  it("does not keep the next verb waiting for an answer", function()
    local conn = server.connect()
    assert(conn:query "create temporary table t (a int)")
    for _ = 1, 20 do
      local w = assert(conn:copy_in "copy t from stdin")
      assert(w:row { 1 })
      w = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.equal(0, assert(conn:query "select count(*)::int from t")(1, 1))
    end
    conn:close()
  end)

  it("fails when its writer is collected", function()
    local conn, admin = server.connect(), server.connect()
    local name = server.name "left"
    assert(admin:query("create table " .. name .. " (a int)"))
    local w = assert(conn:copy_in("copy " .. name .. " from stdin"))
    assert(w:row { 1 })
    w = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    server.until_true(function()
      return assert(admin:query("select state = 'idle' from pg_stat_activity where pid = $1", conn:backend_pid()))(1, 1)
    end)
    assert(admin:query("drop table " .. name))
    conn:close()
    admin:close()
  end)
end)
