-- Every example runs. One that has a spec of its own, of the same name, is examined there.
local program = require "support.program"
local server = require "support.server"

-- Runs the file as a program with these arguments: the lines that it printed.
local function run(path, ...)
  local lines = {}
  local function say(...)
    local words = { ... }
    for i = 1, select("#", ...) do words[i] = tostring(words[i]) end
    lines[#lines + 1] = table.concat(words, " ")
  end
  local env = setmetatable({
    print = say,
    io = setmetatable({ write = say }, { __index = io }),
    os = setmetatable({ getenv = function(name)
      return name == "DBLINK_CONNINFO" and server.conninfo or os.getenv(name)
    end }, { __index = os }),
    arg = { [0] = path, ... },
  }, { __index = _G })
  local example = assert(loadfile(path, "t", env))
  if setfenv then setfenv(example, env) end -- luacheck: ignore
  example(...)
  return lines
end

-- Those of a loop are programs of their own, which end with it.
local loops = { cqueues = true, copas = true, luv = true }

-- What such a program prints; nil and what is missing, where its loop cannot be had.
local function run_loop(path)
  local conninfo = server.conninfo:gsub("'", "'\\''")
  local under = os.getenv "DBLINK_UNDER" or "" -- the sanitizers' runner
  local lua_path = (os.getenv "LUA_PATH" or ";;") .. ";/usr/share/lua/5.2/?.lua" -- see support/loops.lua
  local output, status = program.run(path, ("DBLINK_CONNINFO='%s' LUA_PATH='%s' %s"):format(conninfo, lua_path, under))
  local missing = output:match "module '[^\n]*' not found"
  if missing then return nil, missing end
  assert.equal(0, status, output)
  return output
end

local function exists(path)
  local file = io.open(path)
  return file and file:close()
end

describe("the example", function()
  local drawing = os.tmpname()
  teardown(function() os.remove(drawing) end)

  local list = assert(io.popen "ls examples/*.lua")
  for path in list:lines() do
    local name = path:match "([%w_]+)%.lua$"
    if loops[name] then
      it(path .. " asks five questions at once", function()
        local output, missing = run_loop(path)
        if not output then return pending(missing) end
        for i = 1, 5 do assert.matches(("%d\tdoubled is\t%d\n"):format(i, 2 * i), output) end
      end)
    elseif not exists("spec/" .. name .. "_spec.lua") or name == "named" then
      it(path .. " runs to its end", function()
        assert.is_true(#run(path, drawing) > 0)
      end)
    end
  end
  list:close()

  it("named.lua tells who waits for whom", function()
    assert.same({
      "431 primes, the last is 3001",
      "the waiter is busy: 1",
      "NOTICE: could not send query: another command is already in progress",
      "and takes nothing else: 0",
      "now the lock is mine",
    }, run "examples/named.lua")
  end)
end)
