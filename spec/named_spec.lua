local dblink = require "dblink"
local named = require "dblink.named"
local server = require "support.server"

local function raised(f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok, "nothing was raised")
  return err
end

-- What must be raised: an error object of that SQLSTATE and message.
local function raises(sqlstate, message, f, ...)
  local err = raised(f, ...)
  assert.equal("table", type(err), tostring(err))
  assert.same({ sqlstate, message }, { err.sqlstate, err.message })
  return err
end

-- Or what only a wrong program does: a text with the line of the call.
local function misused(message, f, ...)
  local err = raised(f, ...)
  assert.equal("string", type(err), tostring(err))
  assert.matches("named_spec%.lua:%d+: .*" .. message, err)
end

describe("named links", function()
  local set, notices, remote_notices, admin
  before_each(function()
    notices, remote_notices = {}, {}
    set = named.new {
      decode = false,
      on_notice = function(err) table.insert(notices, err) end,
      on_remote_notice = function(err) table.insert(remote_notices, err) end,
    }
    admin = server.connect()
  end)
  after_each(function()
    for _, name in ipairs(set.get_connections() or {}) do set.disconnect(name) end
    pcall(set.disconnect)
    admin:close()
  end)

  local function connect(name, extra)
    local conninfo = server.conninfo .. " " .. (extra or "")
    if name then return set.connect(name, conninfo) end
    return set.connect(conninfo)
  end
  local function value(...) return set.dblink(...)(1, 1) end
  -- What the server says of a link: idle, idle in transaction, ...
  local pids = {}
  local function state(name)
    return assert(admin:query("select state from pg_stat_activity where pid = $1", pids[name]))(1, 1)
  end
  local function link(name, extra)
    connect(name, extra)
    pids[name] = tonumber(value(name, "select pg_backend_pid()"))
  end
  local function drain(name)
    local count = 0
    while set.get_result(name, false) do
      count = count + 1
      assert(count < 10, "it never ends")
    end
  end

  describe("give", function()
    before_each(function() link "c" end)

    it("results, of which nil is the end, and a result without rows is not", function()
      assert.equal(1, set.send_query("c", "select 1; select 2 where false"))
      assert.equal("1", set.get_result "c"(1, 1))
      assert.equal(0, #set.get_result "c")
      assert.is_nil(set.get_result "c")
      assert.is_nil(set.get_result "c")
    end)

    it("a command's tag as a row of one column", function()
      set.send_query("c", "create temp table t(a int); insert into t values (1), (2)")
      local res = set.get_result "c"
      assert.same({ status = "CREATE TABLE" }, res[1])
      res = set.get_result "c"
      assert.equal(1, #res)
      assert.equal("INSERT 0 2", res(1, "status"))
      assert.same({ "INSERT 0 2", n = 1 }, res:column "status")
      assert.same({ name = "status", oid = 25, modifier = -1, size = -1, format = "text" }, res:columns()[1])
      assert.equal("INSERT 0 2", res.command)
      assert.equal(2, res.affected)
      assert.is_nil(res.error)
      for row in res:rows "array" do assert.same({ "INSERT 0 2", n = 1 }, row) end
      drain "c"
    end)

    it("an empty result with its error where fail is false", function()
      for _, res in ipairs {
        set.dblink("c", "select 1; select 1/0", false),
        set.fetch("c", "nosuch", 1, false),
        set.send_query("c", "select 1/0") == 1 and set.get_result("c", false),
      } do
        assert.equal("userdata", type(res))
        assert.equal(0, #res)
        assert.same({}, res:columns())
        assert.is_nil(res[1])
        assert.is_nil(res(1, 1))
        assert.equal(table.remove(notices, 1), res.error)
        assert.equal("NOTICE", res.error.severity)
      end
      assert.is_true(set.get_result "c" == nil)
    end)

    it("values by the set's options", function()
      local typed = named.new { null = dblink.null, rows = "array" }
      typed.connect("c", server.conninfo)
      assert.same({ 5, dblink.null, true, n = 3 }, typed.dblink("c", "select 5, null, true")[1])
      assert.same({ "SET", n = 1 }, typed.dblink("c", "set work_mem = '1MB'")[1])
      assert.equal(7, typed.dblink(server.conninfo, "select 7")(1, 1))
      typed.open("c", "cur", "select 8")
      assert.equal(8, typed.fetch("c", "cur", 1)(1, 1))
      assert.equal("OK", typed.close("c", "cur"))
      assert.equal("idle", typed.dblink(server.conninfo,
        "select state from pg_stat_activity where pid = " .. typed.dblink("c", "select pg_backend_pid()")(1, 1))(1, 1))
      typed.disconnect "c"
    end)

    it("errors that read well, without what dblink does not pass on", function()
      set.exec("c", "create temp table t(a int constraint named_k unique)")
      local err = raised(set.exec, "c", "insert into t values (1), (1)")
      assert.is_true(err:is "unique_violation")
      assert.equal('ERROR 23505: duplicate key value violates unique constraint "named_k"\n'
        .. "DETAIL: Key (a)=(1) already exists.", tostring(err))
      assert.equal("server", err.kind)
      assert.is_false(err.connection_lost)
      for _, field in ipairs { "constraint", "table", "schema", "position", "file", "routine" } do
        assert.is_nil(err[field])
      end
    end)

    it("the names of the links, sorted, and nil without any", function()
      for _, name in ipairs { "b", "a", "" } do connect(name) end
      connect()
      assert.same({ "", "a", "b", "c" }, set.get_connections())
      for _, name in ipairs { "b", "a", "", "c" } do set.disconnect(name) end
      assert.is_nil(set.get_connections())
    end)

    it("what was sent to the server, to the last byte, though nobody asks for it", function()
      local table_name = server.name "sent"
      set.exec("c", ("create table %s(a int)"):format(table_name))
      assert.equal(1, set.send_query("c", ("insert into %s values (1) /* %s */"):format(table_name, ("x"):rep(8e6))))
      set.disconnect "c"
      server.until_true(function() return assert(admin:query("select count(*) from " .. table_name))(1, 1) == 1 end)
      admin:query("drop table " .. table_name)
    end)

    it("big results, which is_busy reads as they arrive", function()
      set.send_query("c", "select repeat('x', 1000) from generate_series(1, 5000)")
      server.until_true(function() return set.is_busy "c" == 0 end)
      assert.equal(5000, #set.get_result "c")
    end)
  end)

  describe("belong to a set", function()
    it("whose names are its own, and the module is one", function()
      connect "c"
      local other = named.new()
      raises("08003", 'connection "c" not available', other.is_busy, "c")
      raises("08003", 'connection "c" not available', named.is_busy, "c")
      assert.equal("OK", named.connect("c", server.conninfo))
      assert.equal(1, named.dblink("c", "select 1")(1, 1))
      assert.equal("OK", named.disconnect "c")
      assert.equal(0, set.is_busy "c")
    end)

    it("and go with it", function()
      local name = server.name "named_gone"
      connect("c", "application_name=" .. name)
      assert.equal(1, server.backends(admin, name))
      set = named.new()
      collectgarbage()
      collectgarbage()
      server.until_true(function() return server.backends(admin, name) == 0 end)
    end)

    it("which knows what a connection's options are", function()
      misused("on_notice", named.new, { on_notice = "x" })
      misused("options", named.new, 5)
      misused("unknown option 'nosuch'", function() named.new { nosuch = 1 }.connect("c", server.conninfo) end)
    end)
  end)

  describe("have names compared whole:", function()
    it("two long ones that differ at their end are two", function()
      local long = ("n"):rep(100)
      connect(long .. "1")
      connect(long .. "2")
      assert.same({ long .. "1", long .. "2" }, set.get_connections())
      assert.same({}, notices)
      local err = raised(set.exec, long .. "2", "bad")
      assert.equal('while executing command on dblink connection named "' .. long .. '2"', err.context)
    end)
  end)

  describe("take a conninfo", function()
    it("for one call, and leave nothing behind", function()
      local name = server.name "named_once"
      local conninfo = server.conninfo .. " application_name=" .. name
      assert.equal(name, value(conninfo, "select current_setting('application_name')"))
      assert.equal("SET", set.exec(conninfo, "set work_mem = '1MB'"))
      local err = raised(set.exec, conninfo, "do $$ begin raise notice 'first'; raise exception 'then'; end $$")
      assert.matches("while executing command on unnamed dblink connection$", err.context)
      assert.equal("first", remote_notices[1].message)
      assert.equal(0, #set.dblink(conninfo, "bad", false))
      raises("2F003", "statement returning results not allowed", set.exec, conninfo, "select 1")
      raises("0A000", "COPY is not supported by dblink functions", set.dblink, conninfo, "copy pg_class to stdout")
      assert.is_nil(set.get_connections())
      server.until_true(function() return server.backends(admin, name) == 0 end)
    end)

    it("that is a table, too", function()
      local info = admin:info()
      local conninfo = { host = info.host, port = info.port, user = info.user, dbname = info.dbname,
        password = server.conninfo:match "password='?([^' ]*)" }
      assert.equal("OK", set.connect("c", conninfo))
      assert.equal("OK", set.connect(conninfo))
      assert.equal("1", value(conninfo, "select 1"))
    end)
  end)

  describe("refuse a COPY", function()
    before_each(function() link "c" end)
    local copies = { "copy pg_class to stdout", "copy pg_class from stdin",
      "select 1; copy (select 1) to stdout; select 2" }

    for _, sql in ipairs(copies) do
      it("and are free afterwards: " .. sql, function()
        local message = "COPY is not supported by dblink functions"
        for _, fail in ipairs { true, false } do
          assert.equal("unsupported", raises("0A000", message, set.exec, "c", sql, fail).kind)
          raises("0A000", message, set.dblink, "c", sql, fail)
          set.open("c", "cur", "select 1")
          raises("0A000", message, set.fetch, "c", "cur; " .. sql, 1, fail)
          set.exec("c", "abort")
          assert.equal("SET", set.exec("c", "set work_mem = '1MB'"))
        end
        raises("0A000", message, set.open, "c", "cur", "select 1; " .. sql, false)
        set.exec("c", "abort")
        assert.same({}, notices)
      end)
    end

    it("sent without waiting, which then has its end like any query", function()
      for _, sql in ipairs { copies[1], copies[2] } do
        assert.equal(1, set.send_query("c", sql))
        server.until_true(function() return set.is_busy "c" == 0 end)
        raises("0A000", "COPY is not supported by dblink functions", set.get_result, "c", false)
        assert.is_nil(set.get_result "c")
        assert.equal("1", value("c", "select 1"))
      end
      assert.equal(1, set.send_query("c", copies[3]))
      assert.equal("1", set.get_result "c"(1, 1))
      raises("0A000", "COPY is not supported by dblink functions", set.get_result, "c")
      assert.equal("2", set.get_result "c"(1, 1))
      assert.is_nil(set.get_result "c")
    end)
  end)

  describe("with a query pending", function()
    it("fail in dblink() and keep its results", function()
      link "c"
      set.send_query("c", "select 1; select 2")
      server.until_true(function() return set.is_busy "c" == 0 end)
      local text = "could not send query: another command is already in progress"
      raises("XX000", text, set.dblink, "c", "select 3")
      raises("XX000", text .. "\nanother command is already in progress", set.dblink, "c", "select 3", false)
      assert.same({}, notices)
      assert.equal("1", set.get_result "c"(1, 1))
      assert.equal("2", set.get_result "c"(1, 1))
      assert.is_nil(set.get_result "c")
      assert.equal("3", value("c", "select 3"))
    end)
  end)

  describe("commit for a cursor of their own", function()
    before_each(function() link "c" end)

    it("when the last is closed, also one that failed to open before", function()
      set.open("c", "a", "select 1")
      set.exec("c", "savepoint s")
      assert.equal("ERROR", set.open("c", "b", "bad", false))
      set.exec("c", "rollback to s")
      assert.equal("idle in transaction", state "c")
      set.close("c", "a")
      assert.equal("idle", state "c")
    end)

    it("though others were closed without close()", function()
      set.open("c", "a", "select 1")
      set.exec("c", "savepoint s")
      set.open("c", "b", "select 1")
      set.open("c", "d", "select 1")
      set.close("c", "d")
      assert.equal("idle in transaction", state "c")
      set.exec("c", "rollback to s")
      set.close("c", "a")
      assert.equal("idle", state "c")
      set.open("c", "a", "select 1")
      set.open("c", "b", "select 1")
      set.send_query("c", "close a")
      drain "c"
      set.close("c", "b")
      assert.equal("idle", state "c")
    end)

    it("and never a transaction of somebody else's", function()
      for _, ending in ipairs { "abort; begin", "commit; begin", "rollback and chain", "commit and chain" } do
        set.open("c", "a", "select 1")
        set.exec("c", ending)
        assert.equal("OK", set.open("c", "b", "select 1"))
        assert.equal("OK", set.close("c", "b"))
        assert.equal("idle in transaction", state "c", ending)
        set.exec("c", "declare own cursor for select 1")
        assert.equal("OK", set.close("c", "own"))
        assert.equal("idle in transaction", state "c", ending)
        set.exec("c", "rollback")
      end
      set.open("c", "a", "select 1")
      set.exec("c", "commit")
      set.exec("c", "declare held cursor with hold for select 1")
      assert.equal("OK", set.close("c", "held"))
      set.exec("c", "begin")
      set.open("c", "b", "select 1")
      set.close("c", "b")
      assert.equal("idle in transaction", state "c")
    end)

    it("of the unnamed link, which forgets them when it is replaced", function()
      connect()
      set.open("a", "select 1")
      connect()
      set.exec "begin"
      set.exec "declare own cursor for select 1"
      set.close "own"
      assert.equal("ROLLBACK", set.exec "rollback")
      assert.same({}, remote_notices)
    end)
  end)

  describe("in the hands of on_notice", function()
    -- Calls f from within on_notice of a link that is given, or the unnamed one.
    local function within(name, f)
      local told
      set = named.new { decode = false, on_notice = function() told = { pcall(f) } end }
      connect(name)
      if name then set.exec(name, "bad", false) else set.exec("bad", false) end
      return told[1], told[2]
    end
    local calls = {
      function(n) return set.disconnect(n) end,
      function(n) return set.exec(n, "select 1", false) end,
      function(n) return set.dblink(n, "select 1", false) end,
      function(n) return set.send_query(n, "select 1") end,
      function(n) return set.is_busy(n) end,
      function(n) return set.get_result(n) end,
      function(n) return set.cancel_query(n) end,
      function(n) return set.error_message(n) end,
      function(n) return set.get_notify(n) end,
      function(n) return set.open(n, "cur", "select 1", false) end,
      function(n) return set.fetch(n, "cur", 1, false) end,
      function(n) return set.close(n, "cur", false) end,
      function(n) return set.get_pkey(n, "pg_class") end,
      function(n) return set.build_sql_delete(n, "pg_class", { 1 }, 1, { "1" }) end,
    }

    it("are in use, and free again afterwards", function()
      for _, call in ipairs(calls) do
        local ok, err = within("c", function() return call "c" end)
        assert.is_false(ok)
        assert.same({ "55006", 'connection "c" is already in use' }, { err.sqlstate, err.message })
        assert.equal("1", value("c", "select 1"))
        set.disconnect "c"
      end
    end)

    it("are in use without a name, too", function()
      for _, call in ipairs {
        function() return set.dblink "select 1" end,
        function() return set.exec("select 1", false) end,
        function() return set.connect(server.conninfo) end,
        function() return set.disconnect() end,
        function() return set.get_notify() end,
        function() return set.open("cur", "select 1") end,
        function() return set.get_pkey(nil, "pg_class") end,
      } do
        local ok, err = within(nil, call)
        assert.is_false(ok)
        assert.same({ "55006", "connection is already in use" }, { err.sqlstate, err.message })
        assert.equal("1", value "select 1")
        set.disconnect()
      end
    end)

    it("are in use while a codec reads a value of theirs", function()
      local err
      local function odd() return {} end
      set = named.new { codecs = {
        numeric = { decode = odd },
        name = { decode = odd },
        text = { decode = odd },
        int4 = { decode = function(text)
          err = err or raised(set.exec, "c", "select 1")
          return "<" .. text .. ">"
        end },
      } }
      connect "c"
      local res = set.dblink("c", "select 5 as n")
      assert.equal("<5>", res[1].n)
      assert.same({ "55006", 'connection "c" is already in use' }, { err.sqlstate, err.message })
      assert.equal("<6>", set.dblink("c", "select 6")(1, 1))
      set.open("c", "cur", "select 1")
      set.close("c", "cur")
      raises("25P01", "SAVEPOINT can only be used in transaction blocks", set.exec, "c", "savepoint s")
      assert.equal("oid", set.get_pkey("c", "pg_class")[1].colname)
    end)

    it("leave the others free", function()
      assert.is_true(within("c", function()
        connect "d"
        assert.equal("1", value("d", "select 1"))
        assert.same({ "c", "d" }, set.get_connections())
        raises("42710", "duplicate connection name", set.connect, "c", server.conninfo)
        assert.equal("1", value(server.conninfo, "select 1"))
      end))
    end)

    it("survive an error in it, which goes to the caller", function()
      set = named.new { decode = false, on_notice = function() error "oops" end }
      connect "c"
      assert.matches("oops", raised(set.exec, "c", "bad", false))
      set.send_query("c", "select 1")
      assert.matches("oops", raised(set.send_query, "c", "select 2"))
      assert.equal("1", set.get_result "c"(1, 1))
    end)
  end)

  describe("tell of the remote server's notices", function()
    it("on_remote_notice, and nobody else", function()
      link "c"
      set.exec("c", "do $$ begin raise notice 'hello' using hint = 'h'; raise warning 'w'; end $$")
      assert.same({ "hello", "w" }, { remote_notices[1].message, remote_notices[2].message })
      assert.same({ "NOTICE", "h" }, { remote_notices[1].severity, remote_notices[1].hint })
      assert.same({}, notices)
      assert.equal("OK", set.error_message "c")
    end)

    it("while the link is in use", function()
      local err
      set = named.new { on_remote_notice = function() err = raised(set.is_busy, "c") end }
      connect "c"
      set.exec("c", "do $$ begin raise notice 'hello'; end $$")
      assert.equal("55006", err.sqlstate)
      assert.equal(0, set.is_busy "c")
    end)
  end)

  describe("refuse what is no argument", function()
    before_each(function() link "c" end)

    it("numbers, tables and booleans for texts", function()
      misused("'connname' %(string expected, got number%)", set.connect, 1, server.conninfo)
      misused("'connstr' %(string expected, got number%)", set.connect, "x", 1)
      misused("'connstr' %(no value%)", set.connect)
      misused("'connname' %(string expected, got table%)", set.is_busy, {})
      misused("'connname' %(no value%)", set.is_busy)
      misused("'connname' %(no value%)", set.get_result)
      misused("'connname' %(string expected, got number%)", set.disconnect, 1)
      misused("'sql' %(no value%)", set.send_query, "c")
      misused("'sql' %(string expected, got number%)", set.send_query, "c", 5)
      misused("'sql' %(no value%)", set.dblink)
      misused("'sql' %(string expected, got number%)", set.dblink, "c", 5)
      misused("'sql' %(string expected, got table%)", set.exec, {})
      misused("'sql' %(no value%)", set.open, "cur")
      misused("'connname' %(string expected, got table%)", set.open, {}, "cur", "select 1")
      misused("'howmany' %(number expected, got string%)", set.fetch, "c", "cur", "5")
      misused("'howmany' %(an int4 expected, got 2.5%)", set.fetch, "c", "cur", 2.5)
      misused("'howmany' %(an int4 expected", set.fetch, "c", "cur", 2 ^ 31)
      misused("'howmany' %(an int4 expected", set.fetch, "c", "cur", 0 / 0)
      misused("'howmany' %(an int4 expected", set.fetch, "c", "cur", math.huge)
      misused("'fail' %(boolean expected, got number%)", set.get_result, "c", 0)
      misused("'fail' %(boolean expected, got string%)", set.exec, "c", "select 1", "false")
      misused("'relname' %(string expected, got number%)", set.get_pkey, "c", 5)
      misused("'attnums' %(table expected, got string%)", set.build_sql_delete, "c", "t", "1", 1, { "1" })
      misused("'attnums' %(number expected, got string%)", set.build_sql_delete, "c", "t", { "1" }, 1, { "1" })
      misused("'n' %(number expected, got string%)", set.build_sql_delete, "c", "t", { 1 }, "1", { "1" })
      misused("'tgt' %(table expected, got string%)", set.build_sql_delete, "c", "t", { 1 }, 1, "1")
      assert.equal("idle", state "c")
      assert.equal("1", value("c", "select 1"))
    end)

    it("a NUL, before anything is sent", function()
      misused("'sql' %(a NUL byte", set.exec, "c", "select 1\0; drop table x")
      misused("'sql' %(a NUL byte", set.send_query, "c", "\0")
      misused("'sql' %(a NUL byte", set.open, "c", "cur", "select '\0'")
      misused("'cursorname' %(a NUL byte", set.open, "c", "c\0r", "select 1")
      misused("'connname' %(a NUL byte", set.connect, "c\0", server.conninfo)
      misused("'connstr' %(a NUL byte", set.connect, "x", server.conninfo .. "\0")
      misused("'relname' %(a NUL byte", set.get_pkey, "c", "pg_class\0")
      assert.equal("idle", state "c")
      assert.equal(0, set.is_busy "c")
    end)

    it("but take nil for fail as its default", function()
      raises("42601", 'syntax error at or near "bad"', set.exec, "c", "bad", nil)
      raises("34000", 'cursor "x" does not exist', set.fetch, "c", "x", 1, nil)
      set.send_query("c", "bad")
      raises("42601", 'syntax error at or near "bad"', set.get_result, "c", nil)
      connect()
      raises("34000", 'cursor "x" does not exist', set.fetch, "x", 1, nil)
      assert.equal(1, #set.dblink("select 1", true))
    end)
  end)

  describe("build SQL", function()
    it("from keys that are numbers or NULL, as the set writes it", function()
      set = named.new { null = "none" }
      connect "c"
      set.exec("c", "create temp table t(a int, b text, c float8); insert into t values (1, null, 0.5)")
      local build = set.build_sql_insert
      assert.equal("INSERT INTO t(a,b,c) VALUES('2',NULL,'0.5')", build("c", "t", { 1 }, 1, { 1 }, { 2 }))
      assert.equal("INSERT INTO t(a,b,c) VALUES('1','x','0.5')", build("c", "t", { 2 }, 1, { dblink.null }, { "x" }))
      assert.equal("INSERT INTO t(a,b,c) VALUES('1',NULL,'0.5')", build("c", "t", { 2 }, 1, { "none" }, { n = 1 }))
      assert.equal("DELETE FROM t WHERE a IS NULL AND c = '2.5'",
        set.build_sql_delete("c", "t", { 1, 3 }, 2, { dblink.null, 2.5 }))
    end)

    it("on the unnamed link where the name is nil", function()
      raises("08003", "connection not available", set.get_pkey, nil, "pg_class")
      connect()
      assert.same({ { position = 1, colname = "oid" } }, set.get_pkey(nil, "pg_class"))
      assert.equal("DELETE FROM pg_class WHERE oid = '1'", set.build_sql_delete(nil, "pg_class", { 1 }, 1, { "1" }))
    end)

    it("not while a query is pending, nor on a dead link, nor in a failed transaction", function()
      link "c"
      set.send_query("c", "select 1")
      raises("08006", "another command is already in progress", set.get_pkey, "c", "pg_class")
      drain "c"
      set.exec("c", "begin")
      set.exec("c", "bad", false)
      raises("25P02", "current transaction is aborted, commands ignored until end of transaction block",
        set.build_sql_delete, "c", "pg_class", { 1 }, 1, { "1" })
      admin:query("select pg_terminate_backend($1, 5000)", pids.c)
      assert.is_true(raised(set.get_pkey, "c", "pg_class").connection_lost)
    end)
  end)

  describe("in coroutines", function()
    -- A wait that lets others run.
    local function poll(fd, events)
      coroutine.yield()
      return require "dblink.core".poll(fd, events, 0.001)
    end
    -- Runs functions in turns until all have ended: what they raised.
    local function run(...)
      local threads, errors = {}, {}
      for i, f in ipairs { ... } do threads[i] = coroutine.create(f) end
      while threads[1] do
        for i = #threads, 1, -1 do
          local ok, err = coroutine.resume(threads[i])
          if not ok then errors[#errors + 1] = err end
          if coroutine.status(threads[i]) == "dead" then table.remove(threads, i) end
        end
      end
      return errors
    end
    before_each(function()
      set = named.new { decode = false, wait = { wait = poll, forget = function() end } }
    end)

    it("wait without keeping others waiting", function()
      local order = {}
      local function job(name, seconds)
        return function()
          connect(name)
          local res = set.dblink(name, ("select pg_sleep(%g), '%s'"):format(seconds, name))
          order[#order + 1] = res(1, 2)
        end
      end
      assert.same({}, run(job("slow", 0.3), job("quick", 0)))
      assert.same({ "quick", "slow" }, order)
    end)

    it("have a link to themselves while they wait, except for a cancel", function()
      local refused, result
      assert.same({}, run(function()
        connect "c"
        set.send_query("c", "select pg_sleep(30)")
        result = set.get_result("c", false)
        assert.is_nil(set.get_result "c")
      end, function()
        while not set.get_connections() do coroutine.yield() end
        while set.is_busy "c" == 0 do coroutine.yield() end
        for _ = 1, 3 do coroutine.yield() end
        refused = raised(set.exec, "c", "select 1")
        assert.equal(1, set.is_busy "c")
        assert.same({}, set.get_notify "c")
        assert.equal("OK", set.error_message "c")
        while not result do assert.equal("OK", set.cancel_query "c") end
      end))
      assert.same({ "55006", 'connection "c" is already in use' }, { refused.sqlstate, refused.message })
      assert.equal("57014", result.error.sqlstate)
    end)

    it("send what is big in many pieces", function()
      local refused, size
      assert.same({}, run(function()
        connect "c"
        assert.equal(1, set.send_query("c", "select length('" .. ("x"):rep(2e7) .. "')::text"))
        size = set.get_result "c"(1, 1)
      end, function()
        while not set.get_connections() do coroutine.yield() end
        while not refused do refused = raised(set.exec, "c", "select 1") end
      end))
      assert.equal("20000000", size)
      assert.equal("55006", refused.sqlstate)
    end)

    it("cannot both have a name", function()
      local function job() connect "c" end
      local errors = run(job, job)
      assert.same({ 1, "42710" }, { #errors, errors[1].sqlstate })
      assert.same({ "c" }, set.get_connections())
    end)
  end)
end)
