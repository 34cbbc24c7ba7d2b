local dblink = require "dblink"
local core = require "dblink.core"
local crew = require "dblink.crew"
local poll = require "dblink.wait.poll"
local protect = require "dblink.protect"
local loops = require "support.loops"
local server = require "support.server"

local own = loops["a host's own"]

describe("dblink.pool", function()
  local pool, admin
  before_each(function()
    admin = server.connect()
  end)
  after_each(function()
    if pool then pool:close() end
    pool = nil
    admin:close()
  end)

  local function new(options)
    options[1] = options[1] or server.conninfo
    pool = dblink.pool(options)
    return pool
  end
  local function pid(conn) return conn:query "select pg_backend_pid()"(1, 1) end

  it("lends one connection again and again", function()
    new {}
    local first = pid(pool)
    for _ = 1, 5 do assert.equal(first, pid(pool)) end
    local stats = pool:stats()
    assert.equal(1, stats.opened)
    assert.equal(5, stats.hits)
    assert.equal(1, stats.idle)
    assert.equal(0, stats.lent)
  end)

  it("takes a conninfo or libpq's keywords, and refuses what it does not know", function()
    assert.error_matches(function() dblink.pool { server.conninfo, foo = 1 } end, "unknown option 'foo'")
    assert.error_matches(function() dblink.pool { max = 0 } end, "option max")
    assert.error_matches(function() dblink.pool { configure = 1 } end, "option configure")
    for name, value in pairs { rows = "typo", int8 = "x", numeric = "x", json = 5, codecs = 5, statement_cache = "x",
      max = 0 / 0, min = 0 / 0, acquire_timeout = 0 / 0, idle = 0 / 0, lifetime = 0 / 0, check = 0 / 0 } do
      assert.error_matches(function() dblink.pool { [name] = value } end, "^option " .. name)
    end
    assert.error_matches(function() dblink.pool { codecs = { mood = {} } } end, "'mood' is no type")
    pool = dblink.pool { host = "/nowhere", acquire_timeout = 0.1 }
    local res, err = pool:query "select 1"
    assert.is_nil(res)
    assert.equal("connection", err.kind)
  end)

  it("lends a lease, which is like a connection until it is given back", function()
    new { max = 1 }
    local lease = assert(pool:acquire())
    assert.equal(1, lease:query "select 1"(1, 1))
    assert.equal("idle", lease:transaction_status())
    assert.equal(1, pool:stats().lent)
    lease:release()
    assert.error_matches(function() lease:query "select 1" end, "given back to the pool")
    lease:release()
    lease = assert(pool:acquire())
    pool:release(lease)
    assert.equal(0, pool:stats().lent)
  end)

  it("takes back a lease that goes out of scope, or that nobody has any more", function()
    new { max = 1 }
    local load = loadstring or load
    local scoped = load("local pool = ... local lease <close> = pool:acquire() return lease:query 'select 1'")
    if scoped then
      assert(scoped(pool))
      assert.equal(0, pool:stats().lent)
    end
    assert(pool:acquire())
    collectgarbage()
    collectgarbage()
    assert.equal(1, pool:stats().leaked)
    assert(pool:query "select 1")
  end)

  it("calls a function with a connection, which goes back whatever happens", function()
    new { max = 1 }
    assert.equal(3, pool:with(function(conn, n) return conn:query("select $1::int", n)(1, 1) end, 3))
    assert.error_matches(function()
      pool:with(function(conn)
        conn:query "begin"
        error("enough", 0)
      end)
    end, "enough")
    assert.equal(0, pool:stats().lent)
    pool:with(function(conn) assert.equal("idle", conn:transaction_status()) end)
  end)

  it("says at once in a plain script that all are lent", function()
    new { max = 1 }
    local lease = assert(pool:acquire())
    local none, err = pool:acquire()
    assert.is_nil(none)
    assert.equal("usage", err.kind)
    lease:release()
    assert(pool:query "select 1")
  end)

  describe("cleans a connection that comes back", function()
    local function spoil(f)
      local lease = assert(pool:acquire())
      f(lease)
      local was = lease.conn
      lease:release()
      return was
    end

    it("in a transaction", function()
      new { max = 1 }
      spoil(function(conn) conn:query "begin; create temp table leftover()" end)
      pool:with(function(conn)
        assert.equal("idle", conn:transaction_status())
        assert.is_nil(conn:query "select * from leftover")
      end)
      assert.equal(1, pool:stats().opened)
    end)

    it("with a query running, or results left", function()
      new { max = 1 }
      spoil(function(conn)
        conn:send_query "select pg_sleep(60)"
        server.wait_active(admin, conn:backend_pid())
      end)
      assert.equal(1, pool:query "select 1"(1, 1))
      spoil(function(conn) conn:send_query "select 2; select 3" end)
      assert.equal(1, pool:query "select 1"(1, 1))
    end)

    it("listening", function()
      new { max = 1 }
      spoil(function(conn) conn:query "listen pool_spec" end)
      pool:with(function(conn)
        assert.equal(0, conn:query "select count(*)::int from pg_listening_channels()"(1, 1))
        assert(admin:query "notify pool_spec")
        conn:query "select 1"
        assert.is_nil(conn:get_notify())
      end)
      -- by ways that nobody sees: the notification tells
      local was = spoil(function(conn) conn:query "do $$ begin execute 'listen pool_spec'; end $$" end)
      assert(admin:query "notify pool_spec")
      core.poll(was:getfd(), "r", 5)
      pool:with(function(conn)
        assert.equal(0, conn:query "select count(*)::int from pg_listening_channels()"(1, 1))
      end)
    end)

    it("closed or lost, by opening another", function()
      new { max = 1 }
      spoil(function(conn) conn:close() end)
      assert.equal(1, pool:query "select 1"(1, 1))
      spoil(function(conn) admin:query("select pg_terminate_backend($1)", conn:backend_pid()) end)
      server.until_true(function() return pool:query "select 1" end)
      assert.equal(1, pool:stats().size)
    end)

    it("while a coroutine still waits on it, by closing it: nobody gets another's answer", function()
      new { max = 1, wait = own.wait }
      local mine, err
      own.run(function()
        local observer, lease = server.connect(nil, { wait = own.wait }), pool:acquire()
        own.spawn(function() mine, err = lease:query "select pg_sleep(60), 'mine'" end)
        server.wait_active(observer, lease:backend_pid())
        lease:release()
        assert.equal("secret", pool:query "select 'secret'"(1, 1))
        observer:close()
      end)
      assert.is_nil(mine)
      assert.equal("connection", err.kind)
      assert.is_true(err.connection_lost)
      assert.equal(1, pool:stats().lost)
    end)

    it("of the time that a transaction had", function()
      new { max = 1 }
      spoil(function(conn)
        coroutine.wrap(function()
          conn:transaction(function()
            conn:query "commit"
            conn:send_query "select 1"
            coroutine.yield()
          end, { timeout = 0 })
        end)()
      end)
      assert.equal(1, assert(pool:query "select 1")(1, 1))
      assert.error_matches(function()
        pool:transaction(function(conn) conn:query "commit" end, { timeout = 0.01 })
      end, "ended by its own function")
      assert.equal(1, assert(pool:query "select 1 from pg_sleep(0.05)")(1, 1))
    end)

    it("of the codecs that its borrower gave it, and of no others", function()
      local function decode(text) return "<" .. text .. ">" end
      new { max = 1, codecs = { text = { decode = decode } }, configure = function(conn)
        conn:codec("float8", { decode = decode, decode_binary = function() return "<0.5>" end })
      end }
      for _ = 1, 2 do
        pool:with(function(conn)
          local res = conn:query "select 1, 'a', 0.5::float8"
          assert.same({ 1, "<a>", "<0.5>" }, { res(1, 1), res(1, 2), res(1, 3) })
          conn:codec("int4", { decode = function() return "evil" end })
          assert.equal("evil", conn:query "select 1"(1, 1))
        end)
      end
      assert.equal(1, pool:query "select 1"(1, 1))
      assert.equal("<a>", pool:query "select 'a'"(1, 1))
      assert.equal(1, pool:stats().opened)
    end)

    it("by the option reset", function()
      new { max = 1, reset = "discard all" }
      spoil(function(conn) conn:query "set application_name = 'leftover'" end)
      assert.not_equal("leftover", pool:query "show application_name"(1, 1))
      assert.equal(1, pool:stats().opened)
      pool:close()
      new { max = 1, reset = function(conn) return conn:query "no such statement" end }
      spoil(function(conn) conn:query "set application_name = 'leftover'" end)
      assert.not_equal("leftover", pool:query "show application_name"(1, 1))
      assert.equal(2, pool:stats().lost)
    end)

    it("for nobody: who drains the pool meanwhile need not wait for it", function()
      local drained
      new { max = 1, wait = own.wait, reset = function(conn)
        own.spawn(function() drained = pool:drain(2) end)
        return conn:query "select pg_sleep(0.1)"
      end }
      own.run(function() pool:query "select 1" end)
      assert.is_true(drained)
    end)
  end)

  it("keeps its places where something raises, and says whose line it was", function()
    local function check_raises(text, f, ...)
      for _ = 1, 3 do
        local fine, err = protect.pcall(f, ...)
        assert.is_false(fine)
        assert.matches(text, err)
      end
    end
    new { max = 1 }
    local function ask(...) return assert(pool:query(...)) end
    for _, run in ipairs { function(f) f() end, function(f) coroutine.wrap(f)() end } do
      run(function()
        check_raises("^spec/pool_spec.lua:%d+: parameter $1: a table", ask, "select $1", {})
        check_raises("^spec/pool_spec.lua:%d+: unknown option 'timout'", ask, { "select 1", timout = 1 })
        check_raises("^spec/pool_spec.lua:%d+: parameter $1: a table", ask, { "select $1", {}, timeout = 9 })
      end)
    end
    assert.equal(1, pool:query "select 1"(1, 1))
    assert.equal(1, pool:stats().opened)
    pool:close()
    new { max = 1, configure = function() error "not configured" end }
    check_raises("not configured", ask, "select 1")
    assert.equal(0, pool:stats().size)
    assert.equal(0, pool:stats().opening)
    pool:close()
    new { max = 1, configure = function() return nil, "not ours" end }
    local none, err = pool:query "select 1"
    assert.is_nil(none)
    assert.equal("not ours", err.message)
    pool:close()
    new { max = 1, reset = function() error "not reset" end }
    check_raises("not reset", ask, "select 1")
    assert.equal(0, pool:stats().size)
    pool:close()
    local raised = false
    new { max = 3, configure = function()
      if not raised then
        raised = true
        error "not all configured"
      end
    end }
    assert.error_matches(function() pool:fill(3) end, "not all configured")
    assert.same({ 2, 2, 0 }, { pool:stats().size, pool:stats().idle, pool:stats().opening })
    pool:close()
    new { max = 1, reset = function() error "not reset" end }
    check_raises("^mine$", pool.with, pool, function() error("mine", 0) end)
    assert.equal(0, pool:stats().size)
    pool:close()
    local cannot = { wait = function() error("cannot wait", 0) end, forget = poll.forget }
    new { max = 1 }
    pool:fill(1)
    check_raises("cannot wait", function()
      local lease = pool:acquire()
      require "dblink.await".use(lease.conn, cannot)
      local fine, why = protect.pcall(lease.query, lease, "select 1")
      lease:release()
      assert(fine, why)
    end)
    assert.equal(1, pool:query "select 1"(1, 1))
  end)

  it("takes back what a coroutine had that nobody resumes any more", function()
    local stalled
    local how = {
      wait = function(fd, events, seconds)
        if not stalled then return poll.wait(fd, events, seconds) end
        coroutine.yield()
        return true
      end,
      forget = poll.forget,
    }
    new { max = 1, wait = how, acquire_timeout = 5 }
    local function drop(f, ...)
      stalled = true
      local co = coroutine.create(f)
      assert(coroutine.resume(co, ...))
      assert.equal("suspended", coroutine.status(co))
      stalled = false
    end
    local coxpcall = package.loaded.coxpcall
    package.loaded.coxpcall = nil -- its own table keeps all coroutines
    local function check()
      collectgarbage()
      collectgarbage()
      local stats = pool:stats()
      assert.same({ 0, 0 }, { stats.lent, stats.opening })
      assert.equal(1, assert(pool:query "select 1")(1, 1))
      assert.same({ 0, 1 }, { pool:stats().waiting, pool:stats().idle })
    end
    drop(pool.query, pool, "select 1") -- opens
    check()
    drop(pool.query, pool, "select pg_sleep(60)")
    check()
    drop(pool.with, pool, function(conn) return (conn:query "select pg_sleep(60)") end)
    check()
    local lease = pool:acquire()
    drop(pool.query, pool, "select 1") -- waits in the queue
    drop(pool.acquire, pool)
    assert.equal(2, pool:stats().waiting)
    collectgarbage()
    collectgarbage()
    lease:release()
    check()
    assert.equal(3, pool:stats().leaked)
    package.loaded.coxpcall = coxpcall
  end)

  it("finds at checkout what has died or grown old meanwhile", function()
    new { max = 2, lifetime = 3600 }
    local lost = pid(pool)
    admin:query("select pg_terminate_backend($1)", lost)
    server.until_true(function()
      return admin:query("select count(*)::int from pg_stat_activity where pid = $1", lost)(1, 1) == 0
    end)
    assert.not_equal(lost, pid(pool))
    assert.equal(1, pool:stats().lost)
    pool:close()
    new { max = 2, lifetime = 0 }
    pid(pool)
    pid(pool)
    assert.equal(2, pool:stats().opened)
    assert.equal(2, pool:stats().expired)
    pool:close()
    new { max = 2, check = 0 }
    pid(pool)
    assert.equal(pid(pool), pid(pool))
  end)

  it("configures each new connection once", function()
    local times = 0
    new { max = 1, configure = function(conn)
      times = times + 1
      return conn:query "set application_name = 'configured'"
    end }
    for _ = 1, 3 do assert.equal("configured", pool:query "show application_name"(1, 1)) end
    assert.equal(1, times)
  end)

  it("covers the wait for a connection by the timeout of a query", function()
    new { max = 1 }
    local res, err = pool:query { "select pg_sleep(60)", timeout = 0.05 }
    assert.is_nil(res)
    assert.equal("timeout", err.kind)
    assert.equal(1, pool:query "select 1"(1, 1))
  end)

  it("leaves a connection alone that is lent again, when its last lease is collected", function()
    new { max = 1 }
    assert(pool:acquire()):release()
    local lease = assert(pool:acquire())
    collectgarbage()
    collectgarbage()
    assert.equal(1, assert(lease:query "select 1")(1, 1))
    lease:release()
  end)

  it("serves in order, and loses nothing: 1,000 coroutines on 10 connections", function()
    new { max = 10 }
    assert(pool:fill(10))
    local hands, order, answers = crew.new(poll), {}, {}
    for i = 1, 1000 do
      hands:spawn(function()
        local lease = assert(pool:acquire())
        order[#order + 1] = i
        answers[i] = assert(lease:query("select $1::int", i))(1, 1)
        lease:release()
      end)
    end
    hands:run()
    hands:close()
    for i = 1, 1000 do
      assert.equal(i, answers[i])
      assert.equal(i, order[i])
    end
    local stats = pool:stats()
    assert.equal(10, stats.opened)
    assert.equal(990, stats.waits)
    assert.is_true(stats.mean_wait > 0 and stats.longest_wait >= stats.mean_wait)
  end)

  for _, loop in ipairs(loops) do
    if loop.spawn then
      it("hands what comes back to a gather, too, by " .. loop.name, function()
        if loop.missing then return pending(loop.missing) end
        new { max = 1, wait = loop.wait }
        local answer, in_time
        loop.run(function()
          local lease, other = assert(pool:acquire()), server.connect(nil, { wait = loop.wait })
          loop.spawn(function()
            local results = dblink.gather({ { pool, "select 'mine'" } }, { wait = loop.wait })
            answer = results[1] and results[1](1, 1)
          end)
          while pool:stats().waiting == 0 do other:query "select pg_sleep(0.01)" end
          lease:release()
          for _ = 1, 200 do
            if not answer then other:query "select pg_sleep(0.01)" end
          end
          in_time = answer
          other:close()
        end)
        assert.equal("mine", in_time)
      end)
    end
  end

  it("lets wait no more than max_waiting, and no longer than acquire_timeout", function()
    new { max = 1, max_waiting = 2, acquire_timeout = 0.4 } -- to connect is part of it
    local list = {}
    for i = 1, 4 do list[i] = { pool, "select pg_sleep(1)" } end
    local results, errors = dblink.gather(list)
    assert.is_not_nil(results[1])
    assert.equal("timeout", errors[2].kind)
    assert.equal("timeout", errors[3].kind)
    assert.equal("usage", errors[4].kind)
    assert.equal(2, pool:stats().timeouts)
    assert.equal(0, pool:stats().waiting)
  end)

  it("tells those who waited in vain why none could be opened", function()
    new { "host=/nowhere", max = 1, acquire_timeout = 0.2 }
    local _, errors = dblink.gather { { pool, "select 1" }, { pool, "select 2" } }
    assert.equal("connection", errors[1].kind)
    assert.equal("timeout", errors[2].kind)
    assert.matches("within 0.2 seconds, since none could be opened: .*/nowhere", errors[2].message)
  end)

  it("keeps nothing of what is called off", function()
    new { max = 2 }
    local list = {}
    for i = 1, 6 do list[i] = { pool, "select pg_sleep(60)" } end
    local _, errors = dblink.gather(list, { timeout = 0.1 })
    for i = 1, 6 do assert.equal("timeout", errors[i].kind) end
    local stats = pool:stats()
    assert.same({ 0, 0, 0 }, { stats.size, stats.lent, stats.waiting })
    assert.equal(1, pool:query "select 1"(1, 1))
  end)

  it("opens many at once on demand", function()
    new { max = 5, min = 3 }
    assert.is_true(pool:fill())
    assert.equal(3, pool:stats().idle)
    assert.is_true(pool:fill(50))
    assert.equal(5, pool:stats().idle)
  end)

  it("can be resized, drained and closed", function()
    new { max = 5 }
    pool:fill(5)
    pool:resize(2)
    assert.equal(2, pool:stats().size)
    local lease = pool:acquire()
    local ok, err = pool:drain(0.01)
    assert.is_nil(ok)
    assert.equal("timeout", err.kind)
    lease:release()
    assert.equal(0, pool:stats().size)
    assert.error_matches(function() pool:query "select 1" end, "the pool is closed")
    assert.error_matches(function() pool:fill "x" end, "^argument 'n' must be a number")
    assert.error_matches(function() pool:drain "x" end, "^argument 'seconds' must be a number")
    assert.error_matches(function() pool:resize(0 / 0) end, "argument 'max' must be a number")
  end)

  it("can be drained by two at once", function()
    new { max = 1 }
    local hands, drained, lease = crew.new(poll), {}, nil
    hands:spawn(function() lease = pool:acquire() end)
    hands:run()
    for i = 1, 2 do
      hands:spawn(function() drained[i] = pool:drain() end)
    end
    hands:spawn(function() lease:release() end)
    assert.is_true(hands:run(core.now() + 5))
    hands:close()
    assert.same({ true, true }, drained)
  end)

  it("waits no longer for what configures a connection than for the connection", function()
    new { max = 1, configure = function(conn) return conn:query "select pg_sleep(60)" end }
    local none, err = pool:acquire(0.3)
    assert.is_nil(none)
    assert.equal("timeout", err.kind)
    assert.equal(0, pool:stats().size)
    pool:close()
    new { max = 1, configure = function(conn) return conn:query "select 1" end }
    local lease = assert(pool:acquire())
    assert.is_nil(core.set_limit(lease.conn, nil))
    lease:release()
  end)

  it("gives up at once when the server will not have us", function()
    new { server.conninfo .. " dbname=nobody_made_this", acquire_timeout = 60 }
    local res, err = pool:query "select 1"
    assert.is_nil(res)
    assert.matches("nobody_made_this", err.message)
  end)

  it("parks by a descriptor where the wait has no hooks", function()
    local yielding = { wait = function(...) return coroutine.yield(...) end, forget = function() end }
    new { max = 1, wait = yielding }
    local order, tasks = {}, {}
    for i = 1, 5 do
      tasks[i] = { co = coroutine.create(function()
        assert(pool:query("select $1::int from pg_sleep(0.01)", i))
        order[#order + 1] = i
      end) }
    end
    while #order < 5 do
      for _, task in ipairs(tasks) do
        local ready = not task.fd or core.poll(task.fd, task.events, 0.001)
        if coroutine.status(task.co) ~= "dead" and ready then
          local ok, fd, events = coroutine.resume(task.co, true)
          assert(ok, fd)
          task.fd, task.events = fd, events
        end
      end
    end
    assert.same({ 1, 2, 3, 4, 5 }, order)
  end)
end)
