local core = require "dblink.core"
local dblink = require "dblink"
local server = require "support.server"

describe("core.crowd", function()
  local crowd
  before_each(function() crowd = assert(core.crowd()) end)
  after_each(function() crowd:close() end)

  it("tells which of many descriptors has its event", function()
    local bells = {}
    for i = 1, 100 do
      bells[i] = core.bell()
      assert.is_true(crowd:watch(bells[i]:getfd(), "r"))
    end
    assert.is_nil(crowd:ready(0))
    bells[70]:ring()
    bells[7]:ring()
    local found = { crowd:ready(), crowd:more() }
    table.sort(found)
    local expected = { bells[70]:getfd(), bells[7]:getfd() }
    table.sort(expected)
    assert.same(expected, found)
    assert.is_nil(crowd:more())
  end)

  it("says no more of what is forgotten", function()
    local bell = core.bell()
    crowd:watch(bell:getfd(), "r")
    bell:ring()
    crowd:forget(bell:getfd())
    assert.is_nil(crowd:ready(0))
  end)

  it("waits until a deadline", function()
    local deadline = core.now() + 0.02
    assert.is_nil(crowd:ready(deadline))
    assert.is_true(core.now() >= deadline)
  end)

  it("is a descriptor itself, which is ready when one in it is", function()
    local gate, bell = crowd:getfd(), core.bell()
    if not gate then return end
    crowd:watch(bell:getfd(), "r")
    assert.is_nil(core.poll(gate, "r", 0))
    bell:ring()
    assert.is_true(core.poll(gate, "r", 5))
  end)

  it("says what cannot be watched, and stays harmless when closed", function()
    local bell = core.bell()
    local fd = bell:getfd()
    assert.is_true(crowd:watch(fd, "w"))
    assert.is_true(crowd:watch(fd, "r"))
    bell:close()
    assert.is_false(bell:ring())
    assert.is_false(crowd:watch(fd, "r"))
    assert.is_false(crowd:watch(-1, "r"))
    crowd:close()
    assert.is_nil(crowd:getfd())
    assert.is_false(crowd:watch(0, "r"))
    crowd:forget(0)
    crowd:close()
  end)
end)

describe("core.bell", function()
  it("may be rung however often, though nobody hears it", function()
    local bell, times = core.bell(), 0
    while bell:ring() do times = times + 1 end
    assert.is_true(times >= 512)
    assert.is_true(core.poll(bell:getfd(), "r", 3e6)) -- a month, and more than poll(2) takes at once
    bell:close()
  end)
end)

describe("core.look", function()
  local one, two, three
  before_each(function()
    one, two, three = server.connect(), server.connect(), server.connect()
  end)
  after_each(function()
    one:close()
    two:close()
    three:close()
  end)

  it("gives the connections that have a result, in the order of the list", function()
    one:send_query "select pg_sleep(60)"
    two:send_query "select 2"
    three:send_query "select 3"
    server.until_true(function() return not two:is_busy() and not three:is_busy() end)
    assert.same({ three, two }, core.look({ one, three, two }, 0))
    assert(one:cancel())
  end)

  it("takes a lease of a pool for its connection", function()
    local pool = dblink.pool { server.conninfo, max = 1 }
    local lease = assert(pool:acquire())
    assert(lease:send_query "select pg_sleep(0.01)")
    assert.same({ lease }, dblink.wait_any({ lease }, 5))
    lease:release()
    pool:close()
  end)

  it("gives nil at the deadline", function()
    assert.is_nil(core.look({ one, two }, core.now() + 0.01))
  end)

  it("gives those that have failed, that have a result made already, and waits for what is to be sent", function()
    local refused = assert(dblink.connect_start "host=127.0.0.1 port=1")
    for _ = 1, 2 do assert.same({ refused }, dblink.wait_any({ one, refused }, 20)) end
    refused:close()
    assert(one:send_query { "select 1", max_bytes = 1000 })
    while one:is_busy() do core.poll(one:getfd(), "r", 1) end
    for _ = 1, 2 do assert.same({ one }, core.look({ one, two }, 0)) end
    assert(two:send_query("select length($1)", ("x"):rep(3e7)))
    assert.same({ two }, dblink.wait_any({ two }, 20))
    assert.equal(3e7, assert(two:get_result())(1, 1))
    if not server.own then return end
    local relay = require "support.wire".open()
    relay "hold"
    local started = core.now()
    local silent = assert(dblink.connect_start(relay.conninfo .. " connect_timeout=1"))
    assert.is_nil((dblink.wait_any({ silent, three }, 0.05)))
    assert.same({ silent }, dblink.wait_any({ three, silent }, 20))
    assert.is_true(core.now() - started >= 1)
    assert.equal("bad", silent:status())
    silent:close()
    relay:close()
  end)

  it("refuses what is no connection, or a closed one", function()
    assert.error(function() core.look({ 1 }, 0) end)
    local closed = server.connect()
    closed:close()
    assert.error_matches(function() core.look({ closed }, 0) end, "connection is closed")
  end)
end)
