local nginx = require "support.nginx"
local server = require "support.server"

local missing = nginx.missing()

local PAGES = [[
  init_by_lua_block {
    dblink = require "dblink"
    pool = dblink.pool { os.getenv "DBLINK_CONNINFO" .. " application_name=NAME", max = 30, wait = "WAIT" }
    function answer(res, err)
      ngx.print(res and tostring(res(1, 1)) or err.kind .. ": " .. tostring(err))
    end
  }
]]

local LOCATIONS = [[
  location /one { content_by_lua_block { answer(pool:query "select 1") } }
  location /nap { content_by_lua_block { answer(pool:query "select 'slept' from pg_sleep(0.05)") } }
  location /long { content_by_lua_block { answer(pool:query "select 'long' from pg_sleep(2)") } }
  location /forever { content_by_lua_block { answer(pool:query "select pg_sleep(60)") } }
  location /late { content_by_lua_block {
    pool:query "select 1" -- connects, which a busy machine does not do in so little
    for _ = 1, 3 do answer(pool:query { "select 1 from pg_sleep(60)", timeout = 0.3 }) end
    answer(pool:query "select 'after'")
  } }
  location /own { content_by_lua_block {
    local conn = assert(dblink.connect(os.getenv "DBLINK_CONNINFO" .. " application_name=NAME", { wait = "WAIT" }))
    answer(conn:query("select $1::text", "own"))
  } }
  location /ownlong { content_by_lua_block {
    local conn = assert(dblink.connect(os.getenv "DBLINK_CONNINFO" .. " application_name=NAME", { wait = "WAIT" }))
    answer(conn:query "select pg_sleep(60)")
  } }
  location /exit { content_by_lua_block {
    ngx.thread.spawn(function() pool:query "select pg_sleep(60)" end)
    ngx.sleep(0.1)
    ngx.exit(204)
  } }
  location /owns { content_by_lua_block {
    local list = {}
    for i = 1, 3 do
      list[i] = { os.getenv "DBLINK_CONNINFO" .. " application_name=NAME", "select $1::int from pg_sleep(1)", i }
    end
    local results, errors = dblink.gather(list, { wait = "WAIT" })
    for i = 1, 3 do answer(results[i], errors[i]) end
  } }
  location /lease { content_by_lua_block {
    local conn = pool:acquire()
    ngx.sleep(tonumber(ngx.var.arg_s))
    answer(conn:query "select 'lease'")
    conn:release()
  } }
  location /forgotten { content_by_lua_block { pool:acquire():query "begin" } }
  location /gather { content_by_lua_block {
    local list = {}
    for i = 1, 5 do list[i] = { pool, "select pg_sleep($2)::text || $1::int", i, tonumber(ngx.var.arg_s) } end
    local results = dblink.gather(list)
    for i = 1, 5 do answer(results[i]) end
  } }
  location /threads { content_by_lua_block {
    local threads = {}
    for i = 1, 5 do
      threads[i] = ngx.thread.spawn(function() return pool:query("select $1::int from pg_sleep(0.1)", i) end)
    end
    for i = 1, 5 do
      local _, res, err = ngx.thread.wait(threads[i])
      answer(res, err)
    end
  } }
  location /much { content_by_lua_block {
    local big = ("x"):rep(4e6)
    local res, err = pool:query("select $1::text", big)
    ngx.print(res and res(1, 1) == big and "much" or err)
  } }
  location /rows { content_by_lua_block {
    local res, err = pool:query "select i as id, i * 2 as twice, 'row ' || i as name from generate_series(1, 1000) i"
    ngx.print(res and #res or err)
  } }
  location /phases {
    rewrite_by_lua_block { ngx.ctx.rewrite = pool:query "select 'rewrite'" (1, 1) }
    access_by_lua_block { ngx.ctx.access = pool:query "select 'access'" (1, 1) }
    content_by_lua_block {
      ngx.timer.at(0, function() local _, err = pool:query "create table if not exists NAME (i int)" end)
      ngx.print(ngx.ctx.rewrite, " ", ngx.ctx.access)
    }
  }
  location /refused {
    set_by_lua_block $what { local _, err = pool:query "insert into refused values (1)"; return tostring(err) }
    content_by_lua_block {
      ngx.ctx.conn = pool:acquire()
      ngx.print(ngx.var.what)
    }
    header_filter_by_lua_block {
      local _, err = ngx.ctx.conn:query "insert into refused values (1)"
      ngx.header.what = tostring(err)
      _, err = dblink.connect(os.getenv "DBLINK_CONNINFO")
      ngx.header.connect = tostring(err)
    }
    log_by_lua_block {
      local _, err = dblink.gather { { pool, "insert into refused values (1)" } }
      ngx.log(ngx.ERR, "LOG: ", tostring(err))
    }
  }
  location /stats { content_by_lua_block {
    local stats = pool:stats()
    ngx.print(stats.lent, " lent, ", stats.waiting, " waiting, ", stats.size <= stats.max and "in bounds" or "too many")
  } }
  location /selftest { content_by_lua_block {
    local good, report = require "dblink.wait".selftest("WAIT", { spawn = function(f) ngx.thread.spawn(f) end })
    ngx.print(good and "good" or tostring(report))
  } }
]]

for _, wait in ipairs { "openresty", "openresty-direct" } do
  describe("nginx, waiting by " .. wait .. " #nginx #heavy", function()
    if missing then
      pending("answers (" .. missing .. ")")
      return
    end

    local n, admin, name
    local function count(where)
      return admin:query(("select count(*)::int from pg_stat_activity where application_name = '%s' and %s")
        :format(name, where))(1, 1)
    end
    local function at_rest()
      return n:get "stats" == "0 lent, 0 waiting, in bounds" and count "state <> 'idle'" == 0
    end
    local function start(options)
      local function fill(text) return (text:gsub("NAME", name):gsub("WAIT", wait)) end
      options.http, options.server = fill(PAGES), fill(LOCATIONS)
      return nginx.start(options)
    end

    setup(function()
      name = server.name "nginx"
      admin = server.connect()
      n = start {}
    end)
    teardown(function()
      n:stop()
      local log = n:log()
      assert.not_matches("signal 11", log)
      assert.not_matches("open socket", log)
      assert.not_matches("%[alert%]", log)
      assert.not_matches("%[crit%]", log)
      assert.not_matches("%[emerg%]", log)
      admin:query("drop table if exists " .. name)
      admin:close()
    end)

    it("passes the examination of waits", function()
      assert.equal("good", n:get "selftest")
    end)

    it("answers pages from a pool, and from connections of their own", function()
      assert.equal("1", n:get "one")
      assert.equal("own", n:get "own")
      assert.equal("much", n:get "much")
      assert.equal("1000", n:get "rows")
      assert.equal("12345", n:get "gather?s=0.05")
      assert.equal("12345", n:get "threads")
      assert.is_true(at_rest())
    end)

    it("keeps deadlines", function()
      local late = "timeout: the query took longer than its timeout"
      assert.equal(late:rep(3) .. "after", n:get "late")
      assert.not_matches("timed out", n:log())
    end)

    it("serves fifty at once, and other pages meanwhile", function()
      local slow = assert(io.popen(("wrk -t1 -c50 -d2s http://127.0.0.1:%d/nap"):format(n.port)))
      local good, bad = n:hammer("hello", 1, 1)
      assert.is_true(good > 100 and bad == 0, good .. " pages, and " .. bad .. " failed")
      local output = slow:read "*a"
      slow:close()
      assert.not_matches("Non%-2xx", output)
      assert.is_true(tonumber(output:match "(%d+) requests in") > 200, output) -- one by one: 40
      good, bad = n:hammer("one", 50, 2)
      assert.is_true(good > 1000 and bad == 0, good .. " pages, and " .. bad .. " failed")
      server.until_true(at_rest)
    end)

    it("works in the phases that can wait, and in timers", function()
      assert.equal("rewrite access", n:get "phases")
      server.until_true(function() return admin:query("select to_regclass($1)::text", name)(1, 1) == name end)
    end)

    it("refuses the others before anything is sent", function()
      local output = require "support.host".run(("curl -si http://127.0.0.1:%d/refused"):format(n.port))
      assert.matches("nothing can be waited for in nginx's phase set$", output)
      assert.matches("what: nothing can be waited for in nginx's phase header_filter", output)
      assert.matches("connect: nothing can be waited for in nginx's phase header_filter", output)
      local refused = "LOG: nothing can be waited for in nginx's phase log"
      server.until_true(function() return n:log():find(refused, 1, true) end)
      server.until_true(at_rest) -- the lease that nobody gave back, too
    end)

    it("cancels the query of a request that is gone, and loses no connection", function()
      local clients = n:begin("forever", 1.5, 20)
      server.until_true(function() return count "state = 'active'" == 20 end)
      clients:read "*a"
      clients:close()
      server.until_true(at_rest, 2)
      clients = n:begin("gather?s=60", 1.5, 5)
      server.until_true(function() return count "state = 'active'" == 25 end)
      clients:read "*a"
      clients:close()
      server.until_true(at_rest, 2)
      n:get("ownlong", 0.3)
      n:get("lease?s=60", 0.3)
      n:get "forgotten"
      server.until_true(at_rest, 2)
      assert.equal("1", n:get "one")
    end)

    it("does so within a second, by the server's own clock, whatever else goes on", function()
      local log = server.sh("log", "a"):gsub("%s+$", "")
      local line = "^(%d.- UTC) %[%d+%] " .. name:gsub("%p", "%%%0") .. " ERROR:  canceling statement due to user"
      local function cancels()
        local moments = {}
        for text in io.lines(log) do
          local stamp = text:match(line)
          if stamp then moments[#moments + 1] = stamp end
        end
        return moments
      end
      local worst
      for _ = 1, 3 do -- a machine may have its own pauses
        local before, load = #cancels(), assert(io.popen(("wrk -t1 -c20 -d4s http://127.0.0.1:%d/one"):format(n.port)))
        local gone = n:leave("forever", 1.5, 10)
        server.until_true(function() return #cancels() == before + 10 end, 5)
        worst = 0
        local moments = cancels()
        for i = 1, 10 do
          local moment = admin:query("select extract(epoch from $1::timestamptz)::float8", moments[before + i])(1, 1)
          worst = math.max(worst, moment - gone[i])
        end
        load:read "*a"
        load:close()
        if worst <= 1 then break end
      end
      assert.is_true(worst <= 1, worst .. " seconds")
    end)

    it("cancels the query of a request that has ended by itself", function()
      n:get "exit"
      server.until_true(at_rest, 2)
      assert.equal("1", n:get "one")
    end)

    it("lets many at once take as long as they like", function()
      assert.equal("123", n:get "owns")
    end)

    it("serves others while the name of a host is looked up", function()
      local other = start { preload = "slow_names",
        conninfo = ("host=localhost port=%s dbname=postgres user=by_scram password=secret"):format(os.getenv "PGPORT") }
      local clients = other:begin("one", 30, 3)
      local own = other:begin("own", 30)
      local good, bad, output = other:hammer("hello", 2, 2)
      assert.equal("111own", clients:read "*a" .. own:read "*a")
      clients:close()
      own:close()
      assert.is_true(good > 100 and bad == 0, output)
      assert.is_true(tonumber(output:match "Max.-\n%s+Latency%s+%S+%s+%S+%s+([%d.]+)ms" or 0) < 500, output)
      other:stop()
    end)

    it("lets nobody wait for a connection of one who is gone", function()
      local clients = n:begin("forever", 2, 40) -- ten of them wait in the queue
      server.until_true(function() return n:get "stats":find "[1-9]%d* waiting" end)
      clients:read "*a"
      clients:close()
      server.until_true(at_rest, 2)
      assert.equal("1", n:get "one")
    end)

    it("gets over many who come and go", function()
      for i = 1, 5 do
        for _, page in ipairs { "long", "nap", "one", "gather?s=1" } do n:begin(page, 0.05 * i, 6):close() end
      end
      server.until_true(at_rest, 3)
      assert.equal("1", n:get "one")
      assert.not_matches("exited on signal", n:log())
    end)

    it("answers what is in flight when it is reloaded, and leaves nothing behind", function()
      local before = n:workers()[1]
      n:get "one"
      local client = n:begin("long", 10)
      server.until_true(function() return count "state = 'active'" == 1 end)
      n:reload()
      server.until_true(function() return n:workers()[1] ~= before or n:workers()[2] end)
      assert.equal("long", client:read "*a")
      client:close()
      server.until_true(function()
        local workers = n:workers()
        return #workers == 1 and workers[1] ~= before
      end)
      server.until_true(function() return count "true" == 0 end)
      assert.equal("1", n:get "one")
    end)

    it("gets over a restart of PostgreSQL", function()
      server.sh("ensure", "web")
      local other = start { conninfo = server.conninfo_of "web" }
      assert.equal("1", other:get "one")
      local clients = other:begin("long", 10, 3)
      server.sh("restart", "web")
      assert.matches("57P01.*57P01.*57P01", clients:read "*a")
      clients:close()
      assert.equal("1", other:get "one")
      local good, bad = other:hammer("one", 20, 1)
      assert.is_true(good > 100 and bad == 0, good .. " pages, and " .. bad .. " failed")
      other:stop()
    end)

    it("naps whatever the log takes, where nginx has OpenResty's patches", function()
      local other = start { preload = "delayed_events", level = "warn" }
      for _ = 1, 3 do assert.equal("slept", other:get "nap") end
      if not os.getenv "DBLINK_NGINX" then -- Debian's only seems to have them
        assert.matches("sleep%(0%) called without delayed events patch", other:log())
      end
      other:stop()
    end)

    it("shares a port among workers, under a log that takes warnings", function()
      local two = start { workers = 2, level = "info" }
      local good, bad = two:hammer("one", 40, 1)
      assert.is_true(good > 500 and bad == 0, good .. " pages, and " .. bad .. " failed")
      assert.not_matches("%[warn%]", two:log())
      two:stop()
    end)
  end)
end

describe("openresty-direct where it cannot be used #nginx #heavy", function()
  if missing then
    pending("is the relay (" .. missing .. ")")
    return
  end

  it("is the relay, and says so once in each worker", function()
    local n = nginx.start { level = "warn", http = [[
      init_by_lua_block {
        require "dblink.core".direct = function() return nil, "as if" end
        pool = require "dblink".pool { os.getenv "DBLINK_CONNINFO", wait = "openresty-direct" }
      }
    ]], server = [[
      location /one { content_by_lua_block {
        ngx.print(pool:query "select 1 from pg_sleep(0.05)"(1, 1))
      } }
    ]] }
    assert.equal("1", n:get "one")
    assert.equal("1", n:get "one")
    local _, times = n:log():gsub("openresty%-direct cannot be used, the relay waits instead: as if", "")
    assert.equal(1, times)
    n:stop()
  end)
end)

describe("a worker of nginx #nginx #heavy", function()
  if missing then
    pending("gets over what it is refused (" .. missing .. ")")
    return
  end

  -- Refused to the relay, or to openresty-direct: what a page then says, the next one being answered; or the log.
  local no_epoll, no_folder = "no epoll descriptor can be had", "no folder .- takes a Unix socket"
  local no_cosocket, no_use = "no cosocket to wait with: the cosocket did not come: ", "direct cannot be used, .-: "
  local another_kind = no_use .. "the connections of this nginx are of another kind"
  local cases = {
    { "openresty", "epoll_create1 1 1", page = no_epoll }, { "openresty", "eventfd 1 1", page = no_epoll },
    { "openresty", "epoll_ctl 1 1", page = no_epoll }, { "openresty", "mkdtemp 1 4", page = no_folder },
    { "openresty", "pthread_create 1 1", page = "no thread can be started" },
    { "openresty", "accept 1 1", log = no_cosocket }, { "openresty", "epoll_ctl 2 1" },
    { "openresty-direct", "ngx_exiting 1 1", log = no_use .. "this nginx does not export ngx_exiting" },
    { "openresty-direct", "socketpair 1 1", log = another_kind },
    { "openresty-direct", "ngx_get_connection 1 1", log = another_kind },
    { "openresty-direct", "ngx_get_connection 2 1" }, { "openresty-direct", "fcntl 1 1" },
    { "openresty-direct", "ngx_handle_read_event 1 1" }, { "openresty-direct", "ngx_handle_write_event 1 1" },
    { "openresty-direct", "ngx_http_cleanup_add 1 1" },
  }
  for i = 1, 11 do cases[#cases + 1] = { "openresty-direct", ("odd_connection %d 0"):format(i), log = another_kind } end
  for _, case in ipairs(cases) do
    it(("gets over a refusal, waiting by %s: %s"):format(case[1], case[2]), function()
      local n = nginx.start { refuse = case[2], level = "warn", http = ([[
        init_by_lua_block {
          pool = require "dblink".pool { os.getenv "DBLINK_CONNINFO", wait = "%s" }
        }
      ]]):format(case[1]), server = [[
        location /one { content_by_lua_block {
          local res, err = pool:query "select 1 from pg_sleep(0.05)"
          ngx.print(res and res(1, 1) or err.kind .. ": " .. err.message)
        } }
      ]] }
      if case.page then assert.matches("^connection: " .. case.page, n:get "one") end
      for _ = 1, 2 do assert.equal("1", n:get "one") end
      if case.log then assert.matches(case.log, n:log()) end
      n:stop()
      assert.not_matches("exited on signal", n:log())
    end)
  end
end)

describe("the example of a page #nginx #heavy", function()
  if missing then
    pending("runs (" .. missing .. ")")
    return
  end

  local function tell_primes(tree)
    local file = assert(io.open "examples/openresty/nginx.conf")
    local http = file:read "*a"
    file:close()
    local n = nginx.start {
      http = http:match "\n  (init_by_lua_block [^\n]*)", server = http:match "(location /primes [^\n]*)", tree = tree,
    }
    assert.equal("2 3 5 7 11 13 17 19 23 29\n", n:get "primes?below=30")
    n:stop()
  end

  it("tells primes", function() tell_primes() end)

  it("does so with the installed rock", function()
    local tree = nginx.rock()
    if not tree then return pending "make rock has not been run" end
    tell_primes(tree)
  end)
end)
