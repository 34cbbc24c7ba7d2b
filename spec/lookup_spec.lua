local core = require "dblink.core"
local dblink = require "dblink"
local loops = require "support.loops"
local server = require "support.server"

describe("lookup", function()
  local function look_up(host, port)
    local lookup = core.lookup(host, port)
    core.poll(lookup:getfd(), "r", 60)
    return lookup:result()
  end

  it("gives libpq each address of a name, and leaves the others of a list alone", function()
    local host, address, port = look_up("127.0.0.1,localhost,/tmp,::1", "1,2,3,4")
    assert.matches("^127.0.0.1,localhost,.*/tmp,::1$", host)
    assert.matches("^,127.0.0.1,[^,]*,$", (address:gsub("::1,", "", 1)))
    assert.matches("^1,2,.*3,4$", port)
    host, address, port = look_up("localhost,localhost", "7")
    local entries = select(2, host:gsub("localhost", ""))
    assert.equal(entries - 1, select(2, address:gsub(",", "")))
    assert.equal(("7,"):rep(entries - 1) .. "7", port)
  end)

  it("leaves out what is too much of a list", function()
    local lists = { look_up(("localhost,"):rep(10):sub(1, -2), ("1"):rep(1000)) }
    for i, list in ipairs(lists) do lists[i] = select(2, list:gsub(",", "")) end
    assert.same({ 7, 7, 7 }, lists)
  end)

  it("is not begun where nothing has to be looked up", function()
    assert.is_nil(core.lookup("127.0.0.1", "5432"))
    assert.is_nil(core.lookup("/tmp,::1,", ""))
    assert.is_nil(core.lookup("@socket,/tmp", ""))
    assert.is_nil(core.lookup(("x"):rep(5000), ""))
    assert.is_nil(core.lookup("localhost", ("1"):rep(5000)))
    assert.is_nil(core.lookup("localhost", "1,2")) -- which libpq refuses, and says why
    assert.is_nil(core.hosts "host=name hostaddr=127.0.0.1")
    assert.is_nil(core.hosts "no conninfo")
    assert.same({ "a,b", "1" }, { core.hosts { host = "a,b", port = 1 } })
  end)

  it("fails for names that nobody has", function()
    local host, err = look_up("nosuch.invalid", "")
    assert.is_nil(host)
    assert.equal("connection", err.kind)
    assert.matches('^could not translate host name "nosuch.invalid" to address: ', err.message)
  end)

  it("can be closed at any time", function()
    local lookup = core.lookup("nosuch.invalid", "")
    lookup:close()
    lookup:close()
    assert.equal(-1, lookup:getfd())
    assert.is_nil(lookup:result())
    core.lookup("localhost", "")
    collectgarbage()
  end)

  it("goes before connecting where others must not be stopped", function()
    if not server.own then return end
    local conninfo = ("host=localhost port=%s dbname=postgres user=by_scram password=secret"):format(
      os.getenv "PGPORT")
    local loop = loops["a host's own"]
    loop.run(function()
      local options = { wait = loop.wait }
      local conn = assert(dblink.connect(conninfo, options))
      assert.matches("^localhost", conn:info().host)
      assert.equal(1, conn:query "select 1"(1, 1))
      assert(conn:reset())
      assert.equal(2, conn:query "select 2"(1, 1))
      conn:close()
      local pool = dblink.pool { conninfo, wait = loop.wait }
      assert.equal(3, pool:query "select 3"(1, 1))
      pool:close()
      assert.equal(4, dblink.gather({ { conninfo, "select 4" } }, options)[1](1, 1))
      local _, err = dblink.connect("host=nosuch.invalid", { timeout = 60, wait = loop.wait })
      assert.matches("nosuch.invalid", err.message)
      assert.is_true(err.connection_lost)
    end)
  end)
end)
