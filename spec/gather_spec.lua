local dblink = require "dblink"
local core = require "dblink.core"
local loops = require "support.loops"
local server = require "support.server"

-- A wait that yields to the loop below, which knows nothing but descriptors.
local yielding = {
  wait = function(fd, events, seconds) return coroutine.yield(fd, events, seconds) end,
  forget = function() end,
}

-- Runs coroutines in turns until all are over.
local function run_all(...)
  local list = { ... }
  local alive = {}
  for _, f in ipairs(list) do alive[#alive + 1] = { co = coroutine.create(f), args = {} } end
  local turns = 0
  while #alive > 0 do
    for i = #alive, 1, -1 do
      local task = alive[i]
      local ready = not task.fd or core.poll(task.fd, task.events, 0.002)
      if ready or (task.till and core.now() >= task.till) then
        local ok, fd, events, seconds = coroutine.resume(task.co, ready, not ready and "timeout" or nil)
        if not ok then error(fd, 0) end
        task.fd, task.events, task.till = fd, events, seconds and core.now() + seconds
        if coroutine.status(task.co) == "dead" then table.remove(alive, i) end
      end
    end
    turns = turns + 1
  end
  return turns
end

describe("dblink.gather", function()
  local one, two, admin
  before_each(function()
    one, two, admin = server.connect(), server.connect(), server.connect()
  end)
  after_each(function()
    one:close()
    two:close()
    admin:close()
  end)

  local function is_free(conn) return conn:query "select 1"(1, 1) == 1 end

  it("asks many at once, and gives the results in the order of the list", function()
    local results, errors = dblink.gather {
      { one, "select pg_sleep(0.05), 'first'" },
      { server.conninfo, "select 'second'" },
      { two, "select 'third', $1::int", 3 },
    }
    assert.same({}, errors)
    assert.equal(3, results.n)
    assert.equal("first", results[1](1, 2))
    assert.equal("second", results[2](1, 1))
    assert.equal(3, results[3](1, 2))
  end)

  it("keeps many on few connections in their order, with parameters and options, past failures", function()
    local list, expected = {}, { n = 61 }
    for i = 1, 61 do
      local conn = i % 2 == 0 and one or two
      list[i] = i % 7 == 0 and { conn, "select $1::int / 0", i }
        or i % 5 == 0 and { conn, "select $1::int", i, rows = "array", timeout = 30 }
        or i % 3 == 0 and { conn, "select coalesce($1::int, $2)", nil, i, n = 4 }
        or { conn, "select " .. i }
      expected[i] = i % 7 ~= 0 and i or nil
    end
    local results, errors = dblink.gather(list)
    for i = 1, 61 do
      if i % 7 == 0 then
        assert.equal("22012", errors[i].sqlstate)
      else
        results[i] = results[i](1, 1)
      end
    end
    assert.same(expected, results)
    assert.is_true(is_free(one))
    assert.is_true(is_free(two))
  end)

  it("gives errors beside the results", function()
    local results, errors = dblink.gather { { one, "select 1/0" }, { two, "select 2" } }
    assert.is_nil(results[1])
    assert.is_true(errors[1]:is "division_by_zero")
    assert.equal(2, results[2](1, 1))
    assert.is_nil(errors[2])
  end)

  it("lets queries on one connection take turns", function()
    local list = {}
    for i = 1, 10 do list[i] = { one, "select $1::int", i } end
    local results = dblink.gather(list)
    for i = 1, 10 do assert.equal(i, results[i](1, 1)) end
  end)

  it("takes parameters with nil at the end, and options of the query", function()
    local results, errors = dblink.gather {
      { one, "select $1::int, $2::int", 1, nil, n = 4 },
      { two, "select $1::int as a", 5, rows = "array" },
      { server.conninfo, "select pg_sleep(60)", timeout = 0.05 },
    }
    assert.is_nil(results[1](1, 2))
    assert.equal(5, results[2][1][1])
    assert.equal("timeout", errors[3].kind)
  end)

  it("gives an error for a server that cannot be reached", function()
    local results, errors = dblink.gather { { "host=/nowhere", "select 1" }, { one, "select 1" } }
    assert.is_nil(results[1])
    assert.equal("connection", errors[1].kind)
    assert.equal(1, results[2](1, 1))
  end)

  it("connects all at once, and leaves nothing open", function()
    local name = server.name "gather"
    local list = {}
    for i = 1, 20 do
      list[i] = { server.conninfo .. " application_name=" .. name, "select pg_backend_pid(), pg_sleep(0.05)" }
    end
    local results, errors = dblink.gather(list)
    assert.same({}, errors)
    local pids, count = {}, 0
    for i = 1, 20 do pids[results[i](1, 1)] = true end
    for _ in pairs(pids) do count = count + 1 end
    assert.equal(20, count)
    server.until_true(function() return server.backends(admin, name) == 0 end)
  end)

  it("runs at most `limit` at a time", function()
    local name = server.name "limit"
    local count = ([[select count(*)::int from pg_stat_activity, pg_sleep(0.01)
      where application_name = '%s']]):format(name)
    local list = {}
    for i = 1, 12 do list[i] = { server.conninfo .. " application_name=" .. name, count } end
    local results, errors = dblink.gather(list, { limit = 3 })
    assert.same({}, errors)
    -- a backend takes a moment to go, but 12 at once there never were
    for i = 1, 12 do assert.is_true(results[i](1, 1) < 12) end
  end)

  it("tells of its progress", function()
    local seen = {}
    local list = { { one, "select 1" }, { two, "select 1/0" }, { one, "select 3" } }
    dblink.gather(list, { on_progress = function(done, total, item, res, err)
      seen[done] = { total, item[2], res and res(1, 1), err and err.sqlstate }
    end })
    assert.equal(3, #seen)
    for _, s in ipairs(seen) do
      assert.equal(3, s[1])
      if s[2] == "select 1/0" then assert.equal("22012", s[4]) end
    end
  end)

  it("stops everything at its timeout, and the connections can go on", function()
    local name = server.name "late"
    local results, errors = dblink.gather({
      { one, "select pg_sleep(60)" },
      { two, "select 2" },
      { one, "select 3" },
      { server.conninfo .. " application_name=" .. name, "select pg_sleep(60)" },
    }, { timeout = os.getenv "DBLINK_UNDER" and 2 or 0.3 })
    assert.equal("timeout", errors[1].kind)
    assert.equal(2, results[2](1, 1))
    assert.equal("timeout", errors[3].kind)
    assert.equal("timeout", errors[4].kind)
    assert.is_true(is_free(one))
    server.until_true(function() return server.backends(admin, name) == 0 end)
  end)

  it("stops the rest at the first failure with on_error = \"cancel\"", function()
    local pid = one:backend_pid()
    local results, errors = dblink.gather({
      { one, "select pg_sleep(60)" },
      { two, "select pg_sleep(0.05), 1/0" },
      { two, "select 3" },
    }, { on_error = "cancel" })
    assert.same({ n = 3 }, results)
    assert.equal("cancelled", errors[1].kind)
    assert.equal("22012", errors[2].sqlstate)
    assert.equal("cancelled", errors[3].kind)
    assert.equal("idle", admin:query("select state from pg_stat_activity where pid = $1", pid)(1, 1))
    assert.is_true(is_free(one))
  end)

  it("raises what is misused, in the caller's line, and leaves nothing running", function()
    local _, message = pcall(function() dblink.gather { { one } } end)
    assert.matches("gather_spec.lua:%d+: item 1: %[2%] must be SQL", message)
    assert.error_matches(function() dblink.gather { { 1, "select 1" } } end, "item 1: %[1%] must be a connection")
    assert.error_matches(function() dblink.gather({}, { foo = 1 }) end, "unknown option 'foo'")
    assert.error_matches(function() dblink.gather({}, { limit = 0 }) end, "option limit")
    assert.error_matches(function()
      dblink.gather { { one, "select pg_sleep(60)" }, { two, "select 1", foo = 1 } }
    end, "unknown option 'foo'")
    _, message = pcall(function()
      dblink.gather { { one, "select pg_sleep(60)" }, { two, "select $1", print }, { two, "select 2" } }
    end)
    assert.matches("gather_spec.lua:%d+: parameter %$1: a function", message)
    assert.is_true(is_free(one))
    assert.is_true(is_free(two))
  end)

  it("passes on an error of on_progress, and leaves nothing running", function()
    local ok, err = pcall(dblink.gather, { { one, "select pg_sleep(60)" }, { two, "select 1" } },
      { on_progress = function() error("enough", 0) end })
    assert.is_false(ok)
    assert.equal("enough", err)
    assert.is_true(is_free(one))
  end)

  it("leaves a connection alone on which another run waits", function()
    local refused
    local results, errors = dblink.gather({ { one, "select 1" }, { two, "select pg_sleep(0.1)::text || 'mine'" } }, {
      on_progress = function(done)
        if done > 1 then return end
        refused = select(2, dblink.gather { { two, "select 'not mine'" } })
        assert.matches("in use", select(2, two:get_result()).message)
      end,
    })
    assert.matches("in use", refused[1].message)
    assert.same({}, errors)
    assert.equal("mine", results[2](1, 1))
  end)

  it("of an empty list is nothing", function()
    local results, errors = dblink.gather {}
    assert.same({ n = 0 }, results)
    assert.same({}, errors)
  end)

  it("yields under a wait that yields", function()
    local answer
    local turns = 0
    run_all(function()
      local conn = server.connect("", { wait = yielding })
      local results, errors = dblink.gather({
        { conn, "select pg_sleep(0.05), 1" }, { server.conninfo, "select pg_sleep(0.05), 2" },
        { conn, "select 1/0" },
      })
      answer = { results[1](1, 2), results[2](1, 2), errors[3].sqlstate }
      assert.equal(4, conn:query "select 4"(1, 1))
      local res, which = dblink.race { { conn, "select pg_sleep(60)" }, { server.conninfo, "select 5" } }
      answer[4], answer[5] = res(1, 1), which
      assert.equal(4, conn:query "select 4"(1, 1))
      conn:close()
    end, function()
      local other = server.connect("", { wait = yielding })
      while not (answer and answer[5]) do
        assert.equal(7, other:query "select 7 from pg_sleep(0.005)"(1, 1))
        turns = turns + 1
      end
      other:close()
    end)
    assert.same({ 1, 2, "22012", 5, 2 }, answer)
    assert.is_true(turns > 1)
  end)
end)

describe("dblink.as_completed", function()
  local one, two, three
  before_each(function()
    one, two, three = server.connect(), server.connect(), server.connect()
  end)
  after_each(function()
    one:close()
    two:close()
    three:close()
  end)

  it("iterates in the order of completion", function()
    local order = {}
    for i, res, err in dblink.as_completed {
      { one, "select pg_sleep(0.2), 'slow'" },
      { two, "select 1/(random()*0)::int from pg_sleep(0.1)" },
      { three, "select 1, 'fast'" },
    } do
      order[#order + 1] = { i, res and res(1, 2), err and err.sqlstate }
    end
    assert.same({ { 3, "fast" }, { 2, nil, "22012" }, { 1, "slow" } }, order)
  end)

  it("lets a connection that is done be used in the loop", function()
    for i in dblink.as_completed { { one, "select 1" }, { two, "select pg_sleep(0.05)" } } do
      assert.equal(5, (i == 1 and one or two):query "select 5"(1, 1))
    end
  end)

  it("ends what is left when it is closed", function()
    local each = dblink.as_completed { { one, "select 1" }, { two, "select pg_sleep(60)" } }
    assert.equal(1, (each()))
    each:close()
    assert.is_nil((each()))
    assert.equal(2, two:query "select 2"(1, 1))
  end)
end)

describe("dblink.race and dblink.hedge", function()
  local one, two
  before_each(function()
    one, two = server.connect(), server.connect()
  end)
  after_each(function()
    one:close()
    two:close()
  end)

  it("give the first good answer and which it was, and cancel the others", function()
    local res, which = dblink.race { { one, "select pg_sleep(60)" }, { two, "select pg_sleep(0.05), 2" },
      { server.conninfo, "select 1/0" } }
    assert.equal(2, which)
    assert.equal(2, res(1, 2))
    assert.equal(1, one:query "select 1"(1, 1))
  end)

  it("leave the caller's options as they were", function()
    local of_race, of_hedge = { timeout = 60 }, { after = 60 }
    dblink.race({ { one, "select 1" } }, of_race)
    dblink.hedge({ { one, "select 1" } }, of_hedge)
    assert.same({ timeout = 60 }, of_race)
    assert.same({ after = 60 }, of_hedge)
  end)

  it("give all errors when nobody has a good answer", function()
    local res, err, errors = dblink.race { { one, "select 1/0" }, { two, "select nope" } }
    assert.is_nil(res)
    assert.is_not_nil(err.sqlstate)
    assert.equal("22012", errors[1].sqlstate)
    assert.equal("42703", errors[2].sqlstate)
  end)

  it("ask the second only when the first is late", function()
    local pid = two:backend_pid()
    local asked = "select query from pg_stat_activity where pid = " .. pid
    local res, which = dblink.hedge({ { one, "select 1" }, { two, "select 2" } }, { after = 60 })
    assert.equal(1, which)
    assert.equal(1, res(1, 1))
    assert.not_equal("select 2", one:query(asked)(1, 1))
    res, which = dblink.hedge({ { one, "select pg_sleep(60)" }, { two, "select 2" } }, { after = 0.01 })
    assert.equal(2, which)
    assert.equal(2, res(1, 1))
    assert.equal("select 2", one:query(asked)(1, 1))
  end)

  it("ask the second at once when the first fails", function()
    local res, which = dblink.hedge({ { one, "select 1/0" }, { two, "select 2" } }, { after = 60 })
    assert.equal(2, which)
    assert.equal(2, res(1, 1))
  end)
end)

describe("dblink.wait_any", function()
  local one, two
  before_each(function()
    one, two = server.connect(), server.connect()
  end)
  after_each(function()
    one:close()
    two:close()
  end)

  it("gives those that have a result", function()
    one:send_query "select pg_sleep(0.1), 1"
    two:send_query "select 2"
    assert.same({ two }, dblink.wait_any { one, two })
    assert.equal(2, two:get_result()(1, 1))
    assert.is_nil(two:get_result())
    assert.same({ one }, dblink.wait_any({ one, two }, 5))
    assert.equal(1, one:get_result()(1, 2))
  end)

  it("gives those that have a notification, and those that were lost", function()
    assert(one:query "listen wait_any_spec")
    assert(two:query "notify wait_any_spec, 'hello'")
    assert.same({ one }, dblink.wait_any({ two, one }, 5))
    assert.equal("hello", one:get_notify().payload)
    assert(one:query("select pg_terminate_backend($1)", two:backend_pid()))
    assert.same({ two }, dblink.wait_any({ one, two }, 5))
    assert.equal("bad", two:status())
  end)

  it("gives those that have connected", function()
    local conn = dblink.connect_start(server.conninfo)
    assert.same({ conn }, dblink.wait_any({ one, conn }, 5))
    assert.equal("ok", conn:status())
    conn:close()
  end)

  it("says so when the time is over, and cancels nothing", function()
    one:send_query "select pg_sleep(0.05), 1"
    local list, err = dblink.wait_any({ one }, 0.01)
    assert.is_nil(list)
    assert.equal("timeout", err.kind)
    assert.equal(1, one:get_result()(1, 2))
  end)

  it("yields under a wait that yields", function()
    local found, noticed
    run_all(function()
      local conn = server.connect("", { wait = yielding })
      conn:send_query "select pg_sleep(0.05)"
      found = dblink.wait_any({ conn }, 5)[1] == conn
      conn:get_result()
      conn:get_result()
      noticed = dblink.wait_any({ conn }, 0.01) == nil
      conn:close()
    end)
    assert.is_true(found)
    assert.is_true(noticed)
  end)
end)

describe("under each loop", function()
  for _, loop in ipairs(loops) do
    it("many at once and a shared pool work under " .. loop.name, function()
      if loop.missing then return pending(loop.missing) end
      local options = { wait = loop.wait }
      local pool = dblink.pool { server.conninfo, max = 3, wait = loop.wait }
      local seen, served = {}, 0
      local users = {}
      for i = 1, loop.spawn and 20 or 0 do
        users[i] = function()
          local res = assert(pool:query("select $1::int from pg_sleep(0.002)", i))
          served = served + (res(1, 1) == i and 1 or 0)
          if served == 20 then pool:close() end
        end
      end
      loop.run(function()
        local conn = assert(dblink.connect(server.conninfo, options))
        local results, errors = dblink.gather({
          { conn, "select 1 from pg_sleep(0.02)" }, { server.conninfo, "select 2" }, { conn, "select 1/0" },
        }, options)
        seen = { results[1](1, 1), results[2](1, 1), errors[3].sqlstate }
        local res, which = dblink.hedge({ { conn, "select pg_sleep(60)" }, { server.conninfo, "select 5" } },
          { wait = loop.wait, after = 0.01 })
        seen[4], seen[5] = res(1, 1), which
        conn:send_query "select pg_sleep(0.02)"
        seen[6] = dblink.wait_any({ conn }, 5)[1] == conn
        conn:close()
      end, (table.unpack or unpack)(users))
      assert.same({ 1, 2, "22012", 5, 2, true }, seen)
      assert.equal(#users, served)
      pool:close()
    end)
  end
end)
