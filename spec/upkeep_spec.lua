local core = require "dblink.core"
local poll = require "dblink.wait.poll"
local server = require "support.server"
local upkeep = require "dblink.upkeep"

describe("a pool's connection", function()
  local entry
  local function open(terms)
    entry = {}
    terms.conninfo, terms.habits = terms.conninfo or server.conninfo, terms.habits or {}
    terms.lifetime = terms.lifetime or 60
    local ok, err = upkeep.open(entry, terms, nil, poll)
    entry.since = core.now()
    return ok, err
  end
  after_each(function()
    local conn = entry.conn or entry.attempt
    if conn then conn:close() end
  end)

  it("is opened with the pool's options, and configured", function()
    local function configure(conn) assert(conn:query "set work_mem = '77kB'") end
    assert.is_true(open { habits = { rows = "array" }, configure = configure })
    assert.equal("77kB", entry.conn:query "show work_mem"[1][1])
  end)

  it("is not there when it is refused, but what is to be closed is known", function()
    local ok, err = open { configure = function() return nil, "no" end }
    assert.is_nil(ok)
    assert.equal("usage", err.kind)
    assert.equal("no", err.message)
    assert.is_nil(entry.conn)
    assert.equal("ok", entry.attempt:status())
  end)

  it("is clean until somebody does something to it, and can be cleaned", function()
    assert(open {})
    assert.is_true(upkeep.is_clean(entry))
    for _, spoil in ipairs { "begin", "listen upkeep_spec" } do
      assert(entry.conn:query(spoil))
      assert.is_false(upkeep.is_clean(entry))
      assert.is_true(upkeep.clean(entry, "reset all"))
      assert.is_true(upkeep.is_clean(entry))
    end
    assert.is_false(upkeep.clean(entry, "no such statement"))
    assert.is_false(upkeep.clean(entry, function() return false end))
    entry.conn:close()
    assert.is_false(upkeep.clean(entry))
  end)

  it("is good until it is too old, or lost", function()
    assert(open {})
    assert.is_true(upkeep.is_good(entry, 60, math.huge))
    assert.is_true(upkeep.is_good(entry, 0, math.huge)) -- asks the server
    entry.expires = 0
    assert.same({ false, "expired" }, { upkeep.is_good(entry, 60, math.huge) })
    entry.expires = math.huge
    entry.conn:close()
    assert.same({ false, "lost" }, { upkeep.is_good(entry, 60, math.huge) })
  end)
end)

describe("an attempt to connect", function()
  local function is_final(message, kind)
    return upkeep.is_final { message = 'connection to server at "h", port 1 failed: ' .. message, kind = kind }
  end

  it("is worth another where the server is away, or says that it cannot now", function()
    for _, message in ipairs { "Connection refused", "FATAL:  the database system is starting up",
      "FATAL:  sorry, too many clients already", "FATAL:  too many connections for role \"r\"",
      "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute" } do
      assert.is_false(is_final(message, "connection"), message)
    end
  end)

  it("is the last where no waiting helps", function()
    assert.is_true(is_final("FATAL:  password authentication failed for user \"u\"", "connection"))
    assert.is_true(is_final("FATAL:  database \"d\" does not exist", "connection"))
    assert.is_true(is_final("", "usage"))
  end)
end)
