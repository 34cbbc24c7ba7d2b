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

  it("refuse what is not their kind of object", function()
    assert.is_false((pcall(conn.query, "x", "select 1")))
    assert.is_false((pcall(conn.query, io.stdout, "select 1")))
    assert.is_false((pcall(conn.close, {})))
  end)
end)
