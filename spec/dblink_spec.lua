local dblink = require "dblink"
local server = require "support.server"

describe("require \"dblink\"", function()
  it("writes no globals", function()
    for name in pairs(_G) do assert.are_not.equal("dblink", name) end
    assert.equal(dblink, require "dblink")
  end)

  it("is all that a script needs", function()
    local conn = assert(dblink.connect(server.conninfo))
    assert.equal("hello", conn:query("select $1::text", "hello")(1, 1))
    conn:close()
  end)
end)
