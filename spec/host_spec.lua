local server = require "support.server"

-- Where the module of this run lies, and libdblink.a beside it: build/lua5.4
local folder = (os.getenv "LUA_CPATH" or ""):match "^(.-)/%?%.so"
local lua = folder and folder:match "[^/]+$"

local function run(command)
  local pipe = assert(io.popen("exec 2>&1; " .. command .. "; echo status $?"))
  local output, status = pipe:read "*a":match "^(.-)status (%d+)\n$"
  pipe:close()
  return output, tonumber(status)
end

-- Compiles a C program against the archive; gives its path.
local function compile(source)
  local program = folder .. "/" .. source:match "([^/]+)/[^/]+%.c$" .. "-host"
  local output, status = run(table.concat({
    "cc -g -Wall -Wextra -Werror -std=gnu99", folder:find "asan" and "-fsanitize=address,undefined" or "", source,
    "-Isrc $(pkg-config --cflags", lua, "libpq | sed 's/-I */-isystem /g')",
    folder .. "/libdblink.a $(pkg-config --libs", lua, "libpq) -lpthread -o", program,
  }, " "))
  assert.equal(0, status, output)
  return program
end

local function quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

describe("a C program", function()
  it("has its hooks, its PGconn, its allocator and its globals to itself", function()
    local output, status = run(compile "spec/support/host.c" .. " " .. quote(server.conninfo))
    assert.equal("all is well\n", output)
    assert.equal(0, status)
  end)

  it("of its own event loop runs a hundred scripts over ten connections in the time that they take", function()
    local program = compile "examples/host/host.c"
    local best, output = math.huge, nil
    for _ = 1, 5 do -- others use this machine too
      local status
      output, status = run(program .. " " .. quote(server.conninfo .. " application_name=" .. server.name "host"))
      assert.equal(0, status, output)
      assert.matches("failed 0, greedy stopped 1", output)
      assert.matches("left: 0 bytes, 0 descriptors", output)
      best = math.min(best, tonumber((output:match "ratio ([%d.]+)")))
      if best <= 1.1 then break end
    end
    assert.is_true(best <= 1.1, output)
  end)
end)
