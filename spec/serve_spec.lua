local dblink = require "dblink"
local core = require "dblink.core"
local server = require "support.server"

local MANY = os.getenv "DBLINK_UNDER" and 100 or 1000

describe("a lane of a gather", function()
  local one, two
  before_each(function()
    one, two = server.connect(), server.connect()
  end)
  after_each(function()
    one:close()
    two:close()
  end)

  -- What the items of a list gave, results as their first value and errors as their kinds.
  local function gather(list, options)
    local results, errors = dblink.gather(list, options)
    local seen = {}
    for i = 1, results.n do
      assert.is_true((results[i] == nil) ~= (errors[i] == nil))
      seen[i] = results[i] and (results[i](1, 1) or results[i].command) or errors[i].sqlstate or errors[i].kind
    end
    return seen, errors
  end

  it("has many items, which are asked one after the other", function()
    assert(one:query "create temp sequence lane_seq")
    local list, expected = {}, {}
    for i = 1, MANY do
      list[2 * i - 1] = { one, "select nextval('lane_seq')::int" }
      list[2 * i] = { two, "select $1::int", i }
      expected[2 * i - 1], expected[2 * i] = i, i
    end
    assert.same(expected, (gather(list)))
  end)

  it("that is closed meanwhile fails with what it still had to ask, and no other does", function()
    local list = { { one, "select 1" }, { one, "select 2" }, { two, "select pg_sleep(0.1), 3" }, { one, "select 4" } }
    for _, options in ipairs { {}, { limit = 1 } } do
      options.on_progress = function(_, _, item)
        if item == list[1] then one:close() end
      end
      assert.same({ 1, "connection", "", "connection" }, (gather(list, options)))
      one = server.connect()
      for _, i in ipairs { 1, 2, 4 } do list[i][1] = one end
    end
    local other = server.connect("", { on_notice = function() one:close() end })
    assert.same({ "DO", "connection", "connection", 4 }, (gather {
      { other, "do $$ begin raise warning 'close it' ; end $$" },
      { one, "select pg_sleep(60)" }, { one, "select 3" }, { other, "select 4" },
    }))
    other:close()
    other = server.connect("", { on_notice = function() other:close() end })
    assert.same({ "DO", "connection", 3 }, (gather {
      { other, "do $$ begin raise warning 'close me' ; end $$" }, { other, "select 2" }, { two, "select 3" },
    }))
  end)

  it("goes on after an error in its middle", function()
    local list, expected = {}, {}
    for i = 1, 40 do
      list[i] = { one, i % 3 == 0 and "select 1/0" or "select " .. i }
      expected[i] = i % 3 == 0 and "22012" or i
    end
    assert.same(expected, (gather(list)))
  end)

  it("gives an error to each item after its connection was lost, and others go on", function()
    local list, expected = {}, {}
    for i = 1, 10 do
      list[2 * i - 1] = { one, i == 4 and "select pg_terminate_backend(pg_backend_pid())" or "select " .. i }
      list[2 * i] = { two, "select " .. i }
      expected[2 * i - 1], expected[2 * i] = i, i
    end
    local seen, errors = gather(list)
    for i = 4, 10 do
      assert.is_true(errors[2 * i - 1].connection_lost)
      seen[2 * i - 1] = i
    end
    assert.same(expected, seen)
    assert.equal("bad", one:status())
  end)

  it("keeps notices and notifications that come meanwhile", function()
    local told = {}
    one:close()
    one = server.connect("", { on_notice = function(notice) told[#told + 1] = notice.message end })
    assert(two:query "listen lane_spec")
    local list, notices, payloads = {}, {}, {}
    for i = 1, 20 do
      list[2 * i - 1] = { one, ("do $$ begin raise notice 'n%d'; end $$"):format(i) }
      list[2 * i] = { two, ("notify lane_spec, 'p%d'"):format(i) }
      notices[i], payloads[i] = "n" .. i, "p" .. i
    end
    local results = dblink.gather(list)
    for i = 1, 40 do assert.is_truthy(results[i]) end
    assert.same(notices, told)
    for i = 1, 20 do assert.equal(payloads[i], two:get_notify().payload) end
  end)

  it("reads its results as the connection and the item say", function()
    one:close()
    one = server.connect("", { null = "none", max_bytes = 1000 })
    local seen = gather {
      { one, "select null" }, { one, "select 2", decode = false }, { one, "select null", null = "own" },
      { one, "select repeat('x', 2000)" }, { one, "select null::int" }, { one, "select 6" },
    }
    assert.same({ "none", "2", "own", "too_big", "none", 6 }, seen)
  end)

  it("needs no more of its list than the items to come", function()
    local list, seen = { { one, "select 1" }, { two, "select 2" }, { one, "select 3" } }, {}
    for n, res in dblink.as_completed(list, { limit = 1 }) do
      seen[n] = res(1, 1)
      list[n] = false
    end
    assert.same({ 1, 2, 3 }, seen)
  end)

  it("does not mind what becomes of a connection that is done, while others go on", function()
    local kill = ("select pg_terminate_backend(%d)"):format(one:backend_pid())
    local list = { { one, "select 1" }, { two, "select 2 from pg_sleep(0.1)" }, { two, kill }, { two, "select 3" },
      { two, "select 4 from pg_sleep(0.1)" } }
    assert.same({ 1, 2, true, 3, 4 }, (gather(list)))
  end)

  it("has the collector rest, and leaves it as it was", function()
    if not pcall(collectgarbage, "isrunning") then return end
    local function item() return { one, "select $1", {} } end
    for _, was in ipairs { "restart", "stop" } do
      collectgarbage(was)
      assert.same({ 1, 2, 3 }, (gather { { one, "select 1" }, { two, "select 2" }, { one, "select 3" } }))
      assert.equal(was == "restart", collectgarbage "isrunning")
      assert.has_error(function() gather { { one, "select 1" }, item() } end)
      assert.equal(was == "restart", collectgarbage "isrunning")
    end
    collectgarbage "restart"
  end)

  it("lets go on whom a notice handler has roused", function()
    local heard = server.connect(nil, { on_notice = function() two:close() end })
    assert(heard:query [[create function pg_temp.tell() returns int language plpgsql as
      'begin raise notice ''hello''; return 7; end']])
    local seen = gather({ { heard, "select pg_temp.tell()" }, { heard, "select 1 from pg_sleep(60)" },
      { two, "select 1 from pg_sleep(60)" } }, { on_error = "cancel" })
    assert.equal("cancelled", seen[2])
    heard:close()
  end)

  it("takes as many parameters as a query does, and survives what encodes them", function()
    local item, list = { one, "select $1::int" }, {}
    for i = 1, 65535 do
      item[i + 2] = i
      list[i] = "$" .. i .. "::int"
    end
    item[2] = "select array_length(array[" .. table.concat(list, ",") .. "], 1)"
    assert.same({ 65535 }, (gather { item }))
    local mark = assert(one:codec("int4", { encode = function(v)
      one:close()
      return tostring(v)
    end }))
    assert.has_error(function() dblink.gather { { one, "select 1" }, { one, "select $1::int", mark(1) } } end)
  end)

  it("keeps the time limits of its items", function()
    local seen = gather {
      { one, "select 1", timeout = 60 }, { one, "select 2" }, { one, "select pg_sleep(60)", timeout = 0.05 },
      { one, "select 4" }, { one, "select 5", timeout = 60 },
    }
    assert.same({ 1, 2, "timeout", 4, 5 }, seen)
  end)

  it("sends what the socket does not take at once", function()
    local long = ("x"):rep(5000000)
    local seen = gather {
      { one, "select 1" }, { one, "select length('" .. long .. "')" }, { one, "select 3" },
      { one, "select length($1)", long }, { one, "select 5" },
    }
    assert.same({ 1, #long, 3, #long, 5 }, seen)
  end)

  it("is left where a wrong item is met, with nothing running", function()
    local list = { { two, "select pg_sleep(60)" } }
    for i = 2, 10 do list[i] = { one, "select 1", i == 7 and {} or i } end
    list[5] = { one, "select 1", unknown = true }
    assert.error_matches(function() dblink.gather(list) end, "unknown option 'unknown'")
    assert.equal(1, one:query "select 1"(1, 1))
    assert.equal(2, two:query "select 2"(1, 1))
  end)

  it("gives its connection back with the wait that it had, however it ends", function()
    local state = core.state
    local waits = { state(one).wait, state(two).wait }
    local function check() assert.same({ waits[1], waits[2] }, { state(one).wait, state(two).wait }) end
    for _, items in ipairs {
      { { one, "select 1" }, { two, "select 2" }, { one, "select 3" } },
      { { one, "select 1/0" }, { two, "select 2" }, { one, "select $1::int", 3 } },
      { { two, "select 1/0" }, { one, "select pg_sleep(60)" } },
      { { one, "select pg_terminate_backend(pg_backend_pid())" }, { two, "select 2" } },
    } do
      for limit = 1, 2 do
        dblink.gather(items, { on_error = "cancel", limit = limit })
        check()
      end
    end
    pcall(dblink.gather, { { two, "select pg_sleep(60)" }, { one, "select 1", unknown = 1 } })
    check()
    assert.equal(1, two:query "select 1"(1, 1))
  end)

  it("begins no more than `limit`, one after the other as they end", function()
    local conns, list, most = {}, {}, 0
    local count = "select count(*)::int from pg_stat_activity where state = 'active' and query like '%serve_spec%'"
    for i = 1, 6 do
      conns[i] = server.connect()
      list[i] = { conns[i], count }
    end
    local results = dblink.gather(list, { limit = 2 })
    for i = 1, 6 do
      most = math.max(most, results[i](1, 1))
      conns[i]:close()
    end
    assert.is_true(most >= 1 and most <= 2)
  end)

  it("is left by a race at its first good answer", function()
    assert(one:query "create temp sequence lane_seq")
    local list = {}
    for i = 1, 10 do list[i] = { one, i < 3 and "select 1/0" or "select nextval('lane_seq')::int" } end
    local res, which = dblink.race(list)
    assert.equal(3, which)
    assert.equal(1, res(1, 1))
    assert.equal(2, one:query "select nextval('lane_seq')::int"(1, 1))
  end)

  it("tells as_completed of each item in the order in which they ended", function()
    local order = {}
    for i, res in dblink.as_completed {
      { one, "select pg_sleep(0.2), 1" }, { two, "select 2" }, { two, "select 3" }, { one, "select 4" },
    } do
      assert.is_truthy(res)
      order[#order + 1] = i
    end
    assert.same({ 2, 3, 1, 4 }, order)
  end)

  it("takes leases and connections in one list, and begins no more than `limit`", function()
    local pool = dblink.pool { server.conninfo, max = 1 }
    local lease = assert(pool:acquire())
    local list, expected = {}, {}
    for i = 1, 30 do
      local where = i % 3 == 0 and lease or i % 3 == 1 and one or i % 6 == 2 and two or server.conninfo
      list[i], expected[i] = { where, "select " .. i }, i
    end
    assert.same(expected, (gather(list, { limit = 2 })))
    lease:release()
    pool:close()
  end)
end)
