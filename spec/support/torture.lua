-- make torture: a session that uses all operations (session.lua), again and again, each time with one thing failing:
--   lua      the nth allocation of Lua: once, twice in a row, or all from then on
--   libpq    the nth allocation of libpq: once, or all from then on
--   system   the nth block, descriptor or thread that our own module asks the system for: likewise
--   wire     the stream is cut after byte n from the server, or from the client; is reset; falls silent there
-- Each run must end right or in a clear error, and leave no block, no descriptor, nothing hung. At last the whole
-- session is run over a wire that is slow, and over one that brings a byte at a time: it must go right.
-- Run by faults.c:
--   torture.lua [STRIDE [KIND [PART [FIRST]]]]      each STRIDEth n only; one kind, one part, from some n on
local faults = require "faults"
local session = require "support.session"
local server = require "support.server"
local wire = require "support.wire"
local core = require "dblink.core"

local stride, only_kind, only_part, first = tonumber(arg[1]) or 1, arg[2], arg[3], tonumber(arg[4]) or 1
local verbose = os.getenv "DBLINK_VERBOSE"
local runs, bad, began = 0, 0, core.now()
io.stdout:setvbuf "line"

local CODE = [[
local session = require "support.session"
local fault = %q
if fault == "system" then require "dblink.await".grace = 0.2 end -- where no cancel can be sent
return session.begin, session.run, function(ctx, ok, err)
  local connected = ctx.conn ~= nil
  return session.judge(ctx, ok, err, fault) .. (connected and "" or " connecting")
end]]

local function say(format, ...) io.write("torture: ", format:format(...), "\n") end

-- One run: whether the fault was met, and "right" or "error", nil for what may not be; and whether a connection of
-- the run's own had been opened.
local function try(kind, n, mode, part, ...)
  local ok, reached, outcome = pcall(faults.try, CODE:format(kind), kind, n, mode, part, ...)
  runs = runs + 1
  if verbose then say("%s, %s %d in %s: %s", kind, mode, n, part, tostring(outcome or reached)) end
  if ok then return reached, outcome:match "^%a+", not outcome:find "connecting" end
  bad = bad + 1
  say("%s", tostring(reached))
  assert(bad < 20, "that is enough")
  return true
end

local function parts()
  local i = 0
  return function()
    repeat i = i + 1 until not session.order[i] or not only_part or session.order[i] == only_part
    return session.order[i]
  end
end

local function tell(kind, mode, places, count)
  say("%s, %s: %d places, %d runs: %d ended in a clear error, %d well", kind, mode, places,
    count.right + count.error, count.error, count.right)
end

local function torture_memory(kind, mode)
  local places, count = 0, { right = 0, error = 0 }
  for part in parts() do
    local n = first
    while true do
      local reached, outcome = try(kind, n, mode, part, server.conninfo)
      if outcome then count[outcome] = count[outcome] + 1 end
      if not reached then break end
      n = n + stride
    end
    places = places + n - 1
  end
  tell(kind, mode, places, count)
end

-- Each connection begins in the same way: only one part is cut off while it is being opened.
local function torture_wire(relay, mode, step, only)
  local places, count, opening = 0, { right = 0, error = 0 }, 1
  for part in parts() do
    if not only or only[part] then
      local n, rights = first > 1 and first or opening, 0
      while rights < 3 do
        relay(mode .. " " .. n)
        local _, outcome, connected = try("wire", n, mode, part, relay.conninfo, 0.3, true)
        if outcome then count[outcome] = count[outcome] + 1 end
        rights = outcome == "right" and rights + 1 or 0
        if connected and opening == 1 then opening = n end
        n = n + step * stride
      end
      places = places + n - 1
    end
  end
  tell("wire", mode, places, count)
end

-- It is late, but all comes.
local function must_go_well(relay, order)
  local count = 0
  relay(order)
  for part in parts() do
    local _, outcome = try("wire", 0, order, part, relay.conninfo, 5, true)
    if outcome == "error" then
      bad = bad + 1
      say("%s: %s failed", order, part)
    end
    count = count + 1
  end
  say("wire, %s: %d parts went well", order, count)
end

if not only_kind or only_kind == "lua" then
  for _, mode in ipairs { "once", "twice", "on" } do torture_memory("lua", mode) end
end
for _, kind in ipairs { "libpq", "system" } do
  if not only_kind or only_kind == kind then
    for _, mode in ipairs { "once", "on" } do torture_memory(kind, mode) end
  end
end
if not only_kind or only_kind == "wire" then
  local relay = wire.open()
  torture_wire(relay, "cut", 1)
  torture_wire(relay, "upcut", 1)
  torture_wire(relay, "reset", 7)
  torture_wire(relay, "stall", 23, { connect = true, gather = true })
  must_go_well(relay, "chunk 1")
  must_go_well(relay, "delay 1")
  relay:close()
end
say("%d runs in %d s, %d bad", runs, math.floor(core.now() - began), bad)
os.exit(bad == 0 and 0 or 1)
