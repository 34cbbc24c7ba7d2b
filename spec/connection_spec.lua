local dblink = require "dblink"
local server = require "support.server"

describe("the verbs of a connection", function()
  local conn
  before_each(function() conn = server.connect() end)
  after_each(function() conn:close() end)

  it("take their options in a table, and the connection's as they were given", function()
    local other = server.connect("", { rows = "array", null = dblink.null })
    assert.same({ 1, dblink.null, n = 2 }, other:query "select 1, null"[1])
    assert.same({ a = 1, b = dblink.null }, other:query { "select 1 as a, null as b", rows = "row" }[1])
    other:close()
  end)

  it("iterate all results, a failed one as nil and its error", function()
    assert(conn:send_query "select 1; select 1/0")
    local seen = {}
    for i, res, err in conn:results() do seen[i] = res and res(1, 1) or err.sqlstate end
    assert.same({ 1, "22012" }, seen)
  end)

  it("find the connection closed, with the caller's line", function()
    conn:close()
    local verbs = { "send_query", "get_result", "try_result", "is_busy", "step", "cancel" }
    for _, verb in ipairs(verbs) do
      local ok, err = pcall(conn[verb], conn, verb:find "query" and "select 1" or nil)
      assert.is_false(ok, verb)
      assert.matches("connection is closed", err, verb)
    end
  end)

  it("tell the caller's line also to a program in a folder named dblink", function()
    local load = loadstring or load
    local ok, err = pcall(load("local conn = ... conn:query()", "@/home/me/dblink/mine.lua"), conn)
    assert.is_false(ok)
    assert.matches("^/home/me/dblink/mine.lua:1: bad argument 'sql'", err)
  end)

  local function told(expected, f, ...)
    local args, n = { ... }, select("#", ...)
    local ok, err = pcall(function() return f((table.unpack or unpack)(args, 1, n)), nil end)
    assert.is_false(ok, expected)
    assert.matches("^spec/connection_spec.lua:%d+: " .. expected, err)
  end

  it("and those of all else, say who called them with a dot", function()
    local pool = dblink.pool { server.conninfo }
    local lease = assert(pool:acquire())
    local objects = {
      connection = conn, statement = assert(conn:prepare "select 1"), result = conn:query "select 1",
      stream = conn:rows "select 1",
      pipeline = assert(conn:pipeline()), pool = pool, lease = lease, writer = require "dblink.core".Writer,
      reader = require "dblink.core".Reader,
    }
    for class, object in pairs(objects) do
      local verbs = { "query", "json", "send_query", "get_result", "close", "rows", "prepare", "pipeline", "exec_all",
        "codec", "transaction", "listen", "unlisten", "notify", "notifications", "next_notification", "copy_in",
        "cancel", "reset", "status", "next", "columns", "describe", "acquire", "release", "with", "stats", "fill",
        "resize", "drain", "write", "row", "finish", "fail", "line", "read", "all", "csv" }
      for _, verb in ipairs(verbs) do
        local f = object[verb]
        if type(f) == "function" and not (class == "reader" and verb == "rows") then
          for _, self in ipairs { "select 1", {}, io.stdout } do
            told("bad self %(dblink%.%w+ expected, got " .. type(self), f, self)
          end
        end
      end
    end
    lease:release()
    pool:close()
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("say which argument is wrong, and go on", function()
    told("bad argument 'sql' %(a NUL byte at 9%)", conn.query, conn, "select 1\0$1", 5)
    told("bad argument 'seconds' %(number expected, got table%)", conn.cancel, conn, {})
    told("bad argument 'seconds' %(must not be negative%)", conn.exec_all, conn, "select 1", -1)
    told("bad argument 'seconds' %(must not be negative%)", conn.next_notification, conn, 0 / 0)
    told("bad argument 'seconds' %(number expected, got string%)", conn.listen, conn, "channel", "soon")
    told("bad argument 'seconds' %(number expected, got boolean%)", dblink.ping, server.conninfo, true)
    told("bad argument 'type' %(OID or name expected, got %-?nan%)", conn.codec, conn, 0 / 0)
    told("bad argument 'type' %(OID or name expected, got %-1%)", conn.codec, conn, -1)
    told("codec has none of decode, decode_binary and encode", conn.codec, conn, "int4", { decoder = tostring })
    assert.equal(1, conn:query "select 1"(1, 1))
  end)
end)
