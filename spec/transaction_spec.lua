local core = require "dblink.core"
local dblink = require "dblink"
local protect = require "dblink.protect"
local own = require "support.loops" ["a host's own"]
local server = require "support.server"

local ways = { ["a plain script"] = { "poll", function(f) f() end }, ["coroutines"] = { own.wait, own.run } }

for where, way in pairs(ways) do
  describe("a transaction in " .. where, function()
    local conn, name

    local function sentence(text, f)
      it(text, function()
        way[2](function()
          name = server.name "account"
          conn = server.connect(nil, { wait = way[1] })
          assert(conn:query("create table " .. name .. " (a int primary key, b int)"))
          f()
          if conn:status() == "closed" then conn = server.connect(nil, { wait = way[1] }) end
          assert.equal("idle", conn:transaction_status())
          assert(conn:query("drop table " .. name))
          conn:close()
        end)
      end)
    end

    local function insert(a) return conn:query("insert into " .. name .. " values ($1, 0)", a) end
    local function list()
      return assert(conn:query("select coalesce(string_agg(a::text, ' ' order by a), '') from " .. name))(1, 1)
    end

    sentence("is committed, and gives what its function gives", function()
      local a, b, c = conn:transaction(function(given)
        assert.equal(conn, given)
        assert(insert(1))
        assert.equal("intrans", conn:transaction_status())
        return 1, nil, 3
      end)
      assert.same({ 1, 3 }, { a, c })
      assert.is_nil(b)
      assert.is_nil(conn:transaction(function() assert(insert(2)) end))
      assert.is_false(conn:transaction(function() return false, "which is no failure" end))
      assert.equal("1 2", list())
    end)

    sentence("says so where what was left running in it was stopped, and it with that", function()
      local leave = {
        function() assert(conn:rows "select generate_series(1, 10000000)":next()) end,
        function() assert(conn:copy_out "copy (select generate_series(1, 10000000)) to stdout":line()) end,
        function() assert(conn:copy_in("copy " .. name .. " from stdin"):row { 2, 0 }) end,
      }
      for _, f in ipairs(leave) do
        local res, err = conn:transaction(function()
          assert(insert(1))
          f()
          return true
        end)
        assert.is_nil(res)
        assert.equal("25P02", err.sqlstate)
        assert.equal("", list())
      end
    end)

    sentence("is rolled back when its function gives nil and a reason", function()
      local res, err = conn:transaction(function()
        assert(insert(1))
        return nil, "no"
      end)
      assert.is_nil(res)
      assert.equal("no", err)
      res, err = conn:transaction(function()
        assert(insert(1))
        return insert(1)
      end)
      assert.is_nil(res)
      assert.is_true(err:is "unique_violation")
      assert.equal("", list())
    end)

    sentence("is rolled back when its function raises", function()
      local fine, err = protect.pcall(conn.transaction, conn, function()
        assert(insert(1))
        error("a bug", 0)
      end)
      assert.is_false(fine)
      assert.equal("a bug", err)
      assert.equal("", list())
      local res
      res, err = conn:transaction(function() dblink.assert(conn:query "select 1/0") end)
      assert.is_nil(res)
      assert.is_true(err:is "division_by_zero")
    end)

    sentence("is not taken for committed when a statement in it had failed", function()
      local res, err = conn:transaction(function()
        assert(insert(1))
        insert(1)
        return "done"
      end)
      assert.is_nil(res)
      assert.equal("25P02", err.sqlstate)
      assert.equal("", list())
    end)

    sentence("tells that its commit failed", function()
      assert(conn:query("alter table " .. name .. " add constraint c unique (b) deferrable initially deferred"))
      local res, err = conn:transaction(function()
        assert(insert(1))
        assert(insert(2))
        return "done"
      end)
      assert.is_nil(res)
      assert.equal("23505", err.sqlstate)
      assert.equal("", list())
    end)

    sentence("has an isolation level and the like", function()
      local show = "select current_setting('transaction_isolation'), current_setting('transaction_read_only'), " ..
        "current_setting('transaction_deferrable')"
      local function settings(options)
        return conn:transaction(function() return assert(conn:query { show, rows = "array" })[1] end, options)
      end
      assert.same({ "read committed", "off", "off", n = 3 }, settings())
      assert.same({ "serializable", "on", "on", n = 3 },
        settings { isolation = "serializable", read_only = true, deferrable = true })
      assert.same({ "repeatable read", "off", "off", n = 3 },
        settings { isolation = "repeatable read", read_only = false, deferrable = false, retries = 3 })
      for _, bad in ipairs { { isolation = "high" }, { read_only = 1 }, { retries = "3" }, { patience = 1 } } do
        assert.has_error(function() conn:transaction(function() end, bad) end)
      end
      assert.has_error(function() conn:transaction() end)
      assert.has_error(function() conn:transaction(function() end, 1) end)
    end)

    sentence("is a savepoint inside of another", function()
      assert.equal("all", conn:transaction(function()
        assert(insert(1))
        assert.equal("inner", conn:transaction(function()
          assert(insert(2))
          return "inner"
        end))
        local res, err = conn:transaction(function()
          assert(insert(3))
          assert.equal("deep", conn:transaction(function() return insert(4) and "deep" end))
          return insert(3)
        end)
        assert.is_nil(res)
        assert.equal("23505", err.sqlstate)
        res, err = conn:transaction(function() insert(2) end)
        assert.is_nil(res)
        assert.equal("25P02", err.sqlstate)
        assert.has_error(function() conn:transaction(function() end, { retries = 1 }) end)
        assert(insert(5))
        return "all"
      end))
      assert.equal("1 2 5", list())
      assert(conn:query "begin")
      conn:transaction(function() return nil, insert(6) end)
      conn:transaction(function() return insert(7) end)
      assert.equal("intrans", conn:transaction_status())
      assert(conn:query "commit")
      assert.equal("1 2 5 7", list())
    end)

    sentence("is tried again when others were in its way, and then only", function()
      local other = server.connect(nil, { wait = "poll" })
      assert(insert(1))
      local tries = 0
      local function clash()
        tries = tries + 1
        assert(conn:query("select * from " .. name))
        if tries < 3 then assert(other:query("update " .. name .. " set b = b + 1")) end
        return conn:query("update " .. name .. " set b = b + 10")
      end
      assert(conn:transaction(clash, { isolation = "repeatable read", retries = 5 }))
      assert.equal(3, tries)
      assert.equal(12, assert(conn:query("select b from " .. name))(1, 1))

      tries = 0
      local res, err = conn:transaction(clash, { isolation = "repeatable read", retries = 1 })
      assert.is_nil(res)
      assert.equal("40001", err.sqlstate)
      assert.equal(2, tries)

      tries = 0
      res, err = conn:transaction(function()
        tries = tries + 1
        return insert(1)
      end, { retries = 5 })
      assert.is_nil(res)
      assert.equal("23505", err.sqlstate)
      assert.equal(1, tries)

      tries = 0
      assert.equal(3, conn:transaction(function()
        tries = tries + 1
        if tries == 1 then dblink.assert(conn:query "do $$ begin raise sqlstate '40P01'; end $$") end
        if tries == 2 then return conn:query "do $$ begin raise sqlstate '40001'; end $$" end
        return tries
      end, { retries = 2 }))
      other:close()
    end)

    sentence("leaves no query running", function()
      local res, err = conn:transaction(function()
        assert(conn:send_query "select pg_sleep(30)")
        return nil, "no patience"
      end)
      assert.is_nil(res)
      assert.equal("no patience", err)
      res, err = conn:transaction(function()
        assert(insert(1))
        assert(conn:send_query "select pg_sleep(30)")
        return "in a hurry"
      end)
      assert.is_nil(res)
      assert.equal("usage", err.kind)
      assert.equal("", list())
    end)

    sentence("has one time for all of it, after which it is rolled back", function()
      local calls = 0
      local function slowly(seconds)
        return function()
          calls = calls + 1
          assert(insert(calls))
          assert(conn:query("select pg_sleep($1)", seconds))
          local ok, err = conn:query("select pg_sleep($1)", seconds)
          if ok then return "in time" end
          assert.is_nil(conn:query "select pg_sleep(60)") -- whoever goes on has no other time
          return nil, err
        end
      end
      local res, err = conn:transaction(slowly(0.2), { timeout = 0.3 })
      assert.is_nil(res)
      assert.equal("timeout", err.kind)
      assert.is_false(err.connection_lost)
      assert.equal("", list())
      assert.equal("in time", conn:transaction(slowly(0), { timeout = 30 }))
      assert.equal("2", list())
      assert.equal(1, conn:query "select 1 from pg_sleep(0.35)"(1, 1)) -- and nothing of it is left
      assert.is_nil(conn:timeout())
    end)

    sentence("is not committed after its time, nor tried again", function()
      local res, err = conn:transaction(function()
        assert(insert(1))
        repeat until core.overdue(conn)
        return true
      end, { timeout = 0.5 })
      assert.is_nil(res)
      assert.equal("timeout", err.kind)
      assert.equal("", list())
      local ends = core.now() + 0.1
      res, err = conn:transaction(function()
        return conn:query "do $$ begin raise sqlstate '40001'; end $$"
      end, { timeout = 0.1, retries = 1e9 })
      assert.is_nil(res)
      assert.equal("timeout", err.kind)
      assert.is_true(core.now() >= ends)
      assert.error_matches(function() conn:transaction(print, { timeout = "soon" }) end, "timeout cannot be soon")
    end)

    -- A deferred trigger runs in the COMMIT itself. heedless: it is not to be stopped.
    local function commit_slowly(heedless)
      assert(conn:exec_all(([[
        create function pg_temp.wait() returns trigger language plpgsql as $$ begin
          perform pg_sleep(60); return null;
          exception when %s then return null;
        end $$;
        create constraint trigger slow after insert on %s deferrable initially deferred
          for each row execute function pg_temp.wait()]])
        :format(heedless and "query_canceled" or "division_by_zero", name)))
      return conn:transaction(function() return assert(insert(1)) and "done" end, { timeout = 0.1 })
    end

    sentence("whose time comes during its COMMIT is rolled back, if that can still be stopped", function()
      local admin, pid = server.connect(nil, { wait = "poll" }), conn:backend_pid()
      local res, err = commit_slowly()
      assert.is_nil(res)
      assert.equal("timeout", err.kind)
      assert.is_false(err.connection_lost)
      assert.equal("idle", assert(admin:query("select state from pg_stat_activity where pid = $1", pid))(1, 1))
      assert.equal("", list())
      admin:close()
    end)

    sentence("whose time comes during its COMMIT is committed, where that was through", function()
      assert.equal("done", commit_slowly(true))
      assert.equal("1", list())
      assert.is_nil(conn:timeout())
    end)

    sentence("says that nobody knows, where the connection is lost in its COMMIT", function()
      local _, err = conn:transaction(function()
        assert(conn:exec_all(([[
          create function pg_temp.leave() returns trigger language plpgsql as $$ begin
            perform pg_terminate_backend(pg_backend_pid()); return null;
          end $$;
          create constraint trigger last after insert on %s deferrable initially deferred
            for each row execute function pg_temp.leave()]]):format(name)))
        return insert(1)
      end)
      assert.is_true(err.connection_lost)
      assert.matches("nobody knows whether the transaction was committed", err.message, 1, true)
      conn:close()
      conn = server.connect(nil, { wait = way[1] })
      assert.equal("", list())
    end)

    sentence("survives a connection that is lost or closed", function()
      local admin = server.connect(nil, { wait = "poll" })
      local res, err = conn:transaction(function()
        assert(admin:query("select pg_terminate_backend($1)", conn:backend_pid()))
        return conn:query "select 1"
      end)
      assert.is_nil(res)
      assert.is_true(err.connection_lost)
      assert.not_matches("committed", err.message)
      conn:close()
      conn = server.connect(nil, { wait = way[1] })
      res, err = conn:transaction(function()
        conn:close()
        return nil, "closed"
      end)
      assert.is_nil(res)
      assert.equal("closed", err)
      admin:close()
    end)

    sentence("must not be ended by others", function()
      local fine, err = protect.pcall(conn.transaction, conn, function() return conn:query "commit" end)
      assert.is_false(fine)
      assert.matches("ended by its own function", err)
      assert.equal("", list())
      fine, err = protect.pcall(conn.transaction, conn, function() return conn:query "commit" end, { timeout = 1 })
      assert.is_false(fine)
      assert.matches("ended by its own function", err)
      assert.is_nil(conn:timeout())
      conn:send_query "select 1"
      assert.is_nil(conn:timeout()) -- what comes after has all the time
      assert(conn:get_result())
      assert.is_nil(conn:get_result())
    end)
  end)
end

describe("a transaction whose time comes while a stream that was left in it is stopped", function()
  it("is told as rolled back, since it was", function()
    local late
    local slow = { forget = function() end }
    function slow.wait(fd, events, seconds)
      while late and core.now() < late do end
      return core.poll(fd, events, seconds)
    end
    local conn, name = server.connect(nil, { wait = slow }), server.name "account"
    assert(conn:query("create table " .. name .. " (a int)"))
    local res, err = conn:transaction(function()
      assert(conn:query("insert into " .. name .. " values (1)"))
      assert(conn:rows "select generate_series(1, 10000000)":next())
      late = core.now() + 0.1
      return "done"
    end, { timeout = 0.1 })
    assert.is_nil(res)
    assert.is_truthy(err.sqlstate == "25P02" or err.kind == "timeout")
    assert.equal("idle", conn:transaction_status())
    assert.equal(0, assert(conn:query("select count(*)::int from " .. name))(1, 1))
    assert(conn:query("drop table " .. name))
    conn:close()
  end)
end)

describe("transactions of coroutines on one connection", function()
  it("must end in order", function()
    local conn = server.connect()
    local outer = coroutine.create(function()
      return conn:transaction(function() coroutine.yield() end)
    end)
    local inner = coroutine.create(function()
      return conn:transaction(function() coroutine.yield() end)
    end)
    assert(coroutine.resume(outer))
    assert(coroutine.resume(inner))
    local fine, err = coroutine.resume(outer)
    assert.is_false(fine)
    assert.matches("inside of this one", err)
    assert.equal("idle", conn:transaction_status())
    fine, err = coroutine.resume(inner)
    assert.is_false(fine)
    assert.matches("over already", err)
    assert.equal(1, assert(conn:query "select 1")(1, 1))
    conn:close()
  end)

  it("cost the connection where another still waits in one: its answer is nobody else's", function()
    own.run(function()
      local conn, observer = server.connect(nil, { wait = own.wait }), server.connect(nil, { wait = own.wait })
      local name = server.name "waits"
      assert(conn:query("create table " .. name .. " ()"))
      for i = 1, 2 do
        local mine, lost
        local none, err = conn:transaction(function()
          assert(conn:query("insert into " .. name .. " default values"))
          own.spawn(function() mine, lost = conn:query "select pg_sleep(60), 'mine'" end)
          server.wait_active(observer, conn:backend_pid())
          return i == 1 or nil, "no"
        end)
        assert.is_nil(none)
        assert.matches(i == 1 and "another coroutine waits for: select pg_sleep" or "no", tostring(err), 1, true)
        server.until_true(function()
          observer:query ""
          return lost
        end)
        assert.is_nil(mine)
        assert.equal("connection", lost.kind)
        assert(conn:reset())
        assert.equal(0, observer:query("select count(*)::int from " .. name)(1, 1))
      end
      assert(observer:query("drop table " .. name))
      conn:close()
      observer:close()
    end)
  end)
end)
