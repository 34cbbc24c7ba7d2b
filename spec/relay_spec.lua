local core = require "dblink.core"
local host = require "support.host"

-- Without nginx: the cosocket is one of libpq's, which takes the relay's socket for a server.
describe("a relay", function()
  local relay, cosocket, pair

  local function knock()
    local folder = relay:path():match "^(.*)/w$"
    os.execute(("ln -s w %s/.s.PGSQL.1"):format(folder))
    local conn = assert(core.connect_start(("host=%s port=1 sslmode=disable gssencmode=disable"):format(folder)))
    conn:step()
    os.remove(folder .. "/.s.PGSQL.1")
    return conn
  end

  local function woken(seconds) return (core.poll(cosocket:getfd(), "r", seconds or 0)) end

  before_each(function()
    relay = assert(core.relay())
    cosocket = knock()
    assert.is_true(relay:accept(1))
    pair = assert(core.pair())
  end)
  after_each(function()
    pair:close()
    cosocket:close()
    relay:close()
  end)

  it("wakes its cosocket when a descriptor is ready", function()
    assert.is_true(relay:arm(1, pair:getfd(), "r"))
    assert.is_falsy(woken())
    pair:send()
    assert.is_true(woken(10))
  end)

  it("wakes it when the time is over", function()
    assert.is_true(relay:arm(1, pair:getfd(), "r", 3600))
    assert.is_true(relay:arm(1, pair:getfd(), "r", 0.01))
    assert.is_true(woken(10))
  end)

  it("wakes it when the descriptor goes, or when it is told to", function()
    assert.is_true(relay:arm(1, pair:getfd(), "rw", 1e10))
    relay:forget(pair:getfd())
    assert.is_true(woken(10))
    relay:ring(1)
    relay:ring(1)
  end)

  it("says what it cannot watch", function()
    assert.is_false(relay:arm(1, 9999, "r"))
    assert.is_false(relay:arm(1, -1, "w"))
  end)

  it("sees that a cosocket is gone", function()
    assert.is_false(relay:gone(1))
    cosocket:close()
    assert.is_true(relay:gone(1))
    relay:drop(1)
    assert.is_true(relay:gone(1))
    relay:drop(1)
    relay:ring(1)
  end)

  it("takes nobody for a cosocket but this process's own", function()
    local _, err = relay:accept(2)
    assert.equal("connection", err.kind)
    assert.matches("^the cosocket did not come: ", err.message)
    os.execute(("curl -s -m 1 --unix-socket %s http://x/ 2>/dev/null"):format(relay:path()))
    assert.is_nil(relay:accept(2))
    assert.is_true(relay:gone(2))
    os.execute(("curl -s -m 1 --unix-socket %s http://x/ 2>/dev/null"):format(relay:path()))
    knock():close() -- given up before anybody took it
    local own = knock()
    assert.is_true(relay:accept(2))
    relay:ring(2)
    assert.is_true((core.poll(own:getfd(), "r", 10)))
    assert.is_false(relay:gone(2))
    own:close()
  end)

  it("has 65,536 slots, and none when it is closed", function()
    for _, slot in ipairs { 0, 65537 } do
      assert.error_matches(function() relay:drop(slot) end, "no such slot")
    end
    relay:drop(65536)
    relay:close()
    relay:close()
    assert.error_matches(function() relay:path() end, "relay is closed")
  end)

  it("needs a folder that takes a Unix socket", function()
    if host.sanitized then return pending "what is started does not have the sanitizer's runtime" end
    local code = "local r = assert(require 'dblink.core'.relay()) io.write(r:path()) r:close()"
    local function place(environment) return host.sh(("env %s %s -e %q"):format(environment, host.lua, code)) end
    assert.matches("^/tmp/dblink%-%w+/w$", place "-u TMPDIR")
    assert.matches("^/tmp/dblink%-%w+/w$", place "TMPDIR=/nowhere")
    assert.matches("^/tmp/dblink%-%w+/w$", place("TMPDIR=/" .. ("x"):rep(100)))
    local own = host.sh "mktemp -d":gsub("%s+$", "")
    assert.equal(own, place("TMPDIR=" .. own):match "^(.*)/dblink%-%w+/w$")
    host.sh("rmdir " .. own) -- nothing is left in it
  end)
end)
