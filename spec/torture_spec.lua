local server = require "support.server"
local host = require "support.host"

if not server.own or os.getenv "DBLINK_TLS" then return end

-- The short form of make torture: some of its runs.
describe("whatever fails #socket", function()
  local function torture(...)
    local output, status = host.run(host.faults() .. " spec/support/torture.lua " .. table.concat({ ... }, " "))
    assert(status == 0, output)
    assert.matches(", 0 bad\n$", output)
  end

  it("is told by a clear error, and nothing is left, hung or wrong", function()
    torture(host.sanitized and 997 or 149)
  end)

  -- Where it was once otherwise: a pipeline of our own half sent, a sync that libpq had no memory for, an answer that
  -- it had none for, at the end of what had arrived, or before an error of the server.
  for _, part in ipairs { "prepared", "notify", "copy", "pipeline" } do
    it("is told where libpq has no memory: " .. part .. " #heavy", function() torture(1, "libpq", part) end)
  end

  it("is told where a COPY has no memory to begin #heavy", function() torture(1, "lua", "copy") end)

  it("is told by the hands of gather #heavy", function() torture(1, "lua", "gather", 90) end)
end)
