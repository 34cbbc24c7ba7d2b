local dblink = require "dblink"
local core = require "dblink.core"
local server = require "support.server"

describe("core.lanes", function()
  local conn
  before_each(function() conn = server.connect() end)
  after_each(function() conn:close() end)

  it("lets items wait for those before them on the same connection", function()
    local list = { { conn, "a" }, { "x", "b" }, { conn, "c" }, { conn, "d" }, { "y", "e" } }
    local lanes = core.lanes(list)
    assert.equal(2, lanes.check(1))
    assert.equal(5, lanes.check(3))
    assert.is_nil(lanes.check(6))
    assert.equal(conn, lanes.first())
    local crowd = core.crowd()
    lanes.server(crowd, {}, {}, core.state(conn).wait)
    assert.same({ 1, 1, conn }, { lanes.next() })
    assert.same({ 2 }, { lanes.next() })
    assert.same({ 5 }, { lanes.next() })
    assert.is_nil(lanes.next())
    assert.equal(1, lanes.item(1))
    assert.equal(3, lanes.advance(1))
    assert.equal(4, lanes.advance(1))
    assert.is_nil(lanes.advance(1))
    crowd:close()
  end)

  it("takes a connection that is named otherwise", function()
    local lanes = core.lanes { { {}, "a" }, { conn, "b" } }
    assert.equal(1, lanes.check(1))
    lanes.add(1, conn)
    assert.is_nil(lanes.check(2))
    local crowd = core.crowd()
    lanes.server(crowd, {}, {}, core.state(conn).wait)
    assert.same({ 1, 1, conn }, { lanes.next() })
    assert.is_nil(lanes.next())
    assert.equal(2, lanes.advance(1))
    crowd:close()
    assert.is_nil(core.lanes({ { {}, "a" } }).first())
  end)

  it("counts what is over, in order", function()
    local lanes = core.lanes { {}, {} }
    assert.is_nil(lanes.ended(1))
    assert.equal(1, lanes.finish(2))
    assert.equal(2, lanes.finish(1))
    assert.equal(2, lanes.ended(1))
    assert.equal(1, lanes.ended(2))
    assert.is_nil(lanes.ended(3))
  end)

  it("leaves what is no connection with its SQL to Lua", function()
    local closed = server.connect()
    closed:close()
    for _, item in ipairs { { closed, "select 1" }, { conn }, { conn, 5 }, { "x", "select 1" }, { 7, "select 1" } } do
      assert.equal(1, core.lanes { item }.check(1))
    end
    local odd = setmetatable({ conn, "select 2" }, {})
    local results = dblink.gather { { conn, "select 1" }, odd, { conn, "select 3", timeout = 20 } }
    for i = 1, 3 do assert.equal(i, results[i](1, 1)) end
  end)

  it("refuses what is no item and no lane", function()
    local lanes = core.lanes { { conn, "select 1" } }
    assert.error(function() lanes.finish(2) end)
    assert.error(function() lanes.finish(0) end)
    assert.is_nil(lanes.check(0))
    assert.is_nil(lanes.ended(0))
    assert.equal(1, core.lanes { "select 1" }.check(1))
    local over = core.lanes { {} }
    assert.equal(1, over.finish(1))
    assert.error_matches(function() over.finish(1) end, "all are over")
    assert.error_matches(function() over.item(1) end, "no lane")
    assert.error(function() lanes.add(0, conn) end)
    assert.error(function() lanes.add(1, io.stdout) end)
    assert.error(function() lanes.ask(1) end)
    assert.error(function() lanes.arrived(7) end)
  end)
end)
