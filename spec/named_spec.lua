local dblink = require "dblink"
local named = require "dblink.named"
local server = require "support.server"

-- What a function raises: an error object, or the text of a misuse.
local function raised(f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok)
  return err
end

local function raises(sqlstate, message, f, ...)
  local err = raised(f, ...)
  assert.same({ sqlstate, message }, { err.sqlstate, err.message })
  return err
end

describe("named links", function()
  local set, notices, remote_notices, admin
  before_each(function()
    notices, remote_notices = {}, {}
    set = named.new {
      decode = false,
      on_notice = function(err) table.insert(notices, err) end,
      on_remote_notice = function(err) table.insert(remote_notices, err) end,
    }
    admin = server.connect()
  end)
  after_each(function()
    for _, name in ipairs(set.get_connections() or {}) do set.disconnect(name) end
    pcall(set.disconnect)
    admin:close()
  end)

  local function connect(name, extra)
    local conninfo = server.conninfo .. " " .. (extra or "")
    if name then return set.connect(name, conninfo) end
    return set.connect(conninfo)
  end
  local function one(...) return set.dblink(...)(1, 1) end
  local function pid(name) return tonumber(one(name, "select pg_backend_pid()")) end
  local function state(name_or_pid)
    local number = type(name_or_pid) == "number" and name_or_pid or pid(name_or_pid)
    return assert(admin:query("select state from pg_stat_activity where pid = $1", number))(1, 1)
  end

  it("do the documentation's main job", function()
    assert.equal("OK", connect "a")
    assert.equal(1, set.send_query("a", "select 1; select 2"))
    assert.equal("1", set.get_result "a"(1, 1))
    assert.equal("2", set.get_result("a", false)(1, 1))
    assert.is_nil(set.get_result "a")
    assert.equal("OK", set.disconnect "a")
  end)
end)
