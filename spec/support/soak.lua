-- make soak: many queries on one connection, with cancels and deadlines at random moments. Each query carries its
-- number; a cancel hits its own query or none. What may not be is counted:
--   collateral   a query that nobody cancelled, and whose time was not over, ended by a cancel (57014)
--   hung         a call that took longer than it may
--   lost         the connection gone
--   wrong        another answer than that of the query asked
-- and memory and descriptors are looked at, early and at the end.
--   soak.lua [QUERIES [SEED]]        through the server that PG* names, or DBLINK_CONNINFO
local dblink = require "dblink"
local server = require "support.server"
local turns = require "support.turns"
local core = require "dblink.core"

local queries, seed = tonumber(arg[1]) or 100000, tonumber(arg[2]) or os.time()
math.randomseed(seed)
local random = math.random
local conninfo = os.getenv "DBLINK_SOAK" or server.conninfo

local count = { plain = 0, cancelled = 0, timeout = 0, missed = 0, collateral = 0, hung = 0, lost = 0, wrong = 0 }
local MOST = 10 -- seconds that a call may take: none needs more than 12 ms on the server

-- Moments that matter: before the query is there, while it runs, while it ends, after.
local function moment() return random() ^ 3 * 0.006 end
-- How long the query takes by itself; often just about as long as we leave it.
local function length() return random(3) == 1 and 0 or random() ^ 2 * 0.012 end

local function memory()
  collectgarbage()
  collectgarbage()
  local file, rss = assert(io.open "/proc/self/status"), nil
  for line in file:lines() do rss = rss or tonumber(line:match "^VmRSS:%s*(%d+)") end
  file:close()
  local pipe = assert(io.popen "ls /proc/$PPID/fd | wc -l")
  local descriptors = pipe:read "*n"
  pipe:close()
  return rss, collectgarbage "count", descriptors
end

local function judge(i, mode, began, res, err)
  if core.now() - began > MOST then count.hung = count.hung + 1 end
  if res then
    if res(1, 1) ~= i then
      count.wrong = count.wrong + 1
    elseif mode == "plain" then
      count.plain = count.plain + 1
    else
      count.missed = count.missed + 1 -- the query was faster
    end
  elseif err.connection_lost then
    count.lost = count.lost + 1
    error("lost at query " .. i .. ": " .. err)
  elseif err.kind == "timeout" and mode == "timeout" then
    count.timeout = count.timeout + 1
  elseif err.sqlstate == "57014" and mode == "cancel" then
    count.cancelled = count.cancelled + 1
  elseif err.sqlstate == "57014" then
    count.collateral = count.collateral + 1
  else
    error("query " .. i .. " (" .. mode .. "): " .. err)
  end
end

local loop = turns.new()
local function open(options) return loop.call(dblink.connect, conninfo, options) end
-- The same session cannot have two waits; two connections take turns, each a session of half the queries.
local plain, yielding = open(), open(loop.options)

local SQL = "select $1::int, pg_sleep($2)"
local modes = {}

function modes.plain(i)
  local began = core.now()
  judge(i, "plain", began, plain:query(SQL, i, 0))
end

function modes.deadline(i)
  local began, timeout = core.now(), moment()
  judge(i, "timeout", began, plain:query { SQL, i, length(), timeout = timeout })
end

-- As a script does it that looks after several things.
function modes.cancel(i)
  local began = core.now()
  assert(plain:send_query(SQL, i, length()))
  local till = core.now() + moment()
  while core.now() < till and plain:is_busy() do core.poll(plain:getfd(), "r", math.max(till - core.now(), 0)) end
  local ok, why = plain:cancel(random(4) == 1 and moment() or nil) -- some are given up on the way
  if not ok and why.kind ~= "timeout" then error(why, 0) end
  local res, err = plain:get_result()
  local last, more = plain:get_result()
  if last or more then count.wrong = count.wrong + 1 end
  judge(i, "cancel", began, res, err)
end

function modes.get_result(i)
  local began = core.now()
  assert(plain:send_query(SQL, i, length()))
  local res, err = plain:get_result(moment())
  judge(i, "timeout", began, res, err)
  if res then plain:get_result() end
end

-- Under a wait that yields: one coroutine queries, another cancels, and the first goes on to query at once.
function modes.coroutines(i)
  local began = core.now()
  local done = loop.spawn(function()
    judge(i, "cancel", began, yielding:query(SQL, i, length()))
    judge(-i, "plain", core.now(), yielding:query(SQL, -i, 0))
  end)
  local till = core.now() + moment()
  loop.run(function() return core.now() >= till end)
  local killer = loop.spawn(function() yielding:cancel(random(4) == 1 and moment() or nil) end)
  if random(50) == 1 then loop.kill(killer) end
  loop.run(function() return coroutine.status(done) == "dead" end, 60)
  if random(2) == 1 then loop.run() end -- else the cancel may outlive its query
end

function modes.coroutine_deadline(i)
  loop.spawn(function()
    local began, timeout = core.now(), moment()
    judge(i, "timeout", began, yielding:query { SQL, i, length(), timeout = timeout })
  end)
  loop.run()
end

local names = { "plain", "plain", "deadline", "cancel", "get_result", "coroutines", "coroutine_deadline" }
local early_rss, early_lua, early_descriptors
local began = core.now()
for i = 1, queries do
  modes[names[random(#names)]](i)
  if i == math.floor(queries / 10) then early_rss, early_lua, early_descriptors = memory() end
  if i % 10000 == 0 then
    io.stderr:write(("%d queries, %.0f s\n"):format(i, core.now() - began))
  end
end
loop.run()
local rss, lua, descriptors = memory()

local function write(format, ...)
  local t = { ... }
  for i, v in ipairs(t) do t[i] = type(v) == "number" and math.floor(v) or v end
  io.write("soak: ", format:format((unpack or table.unpack)(t)), "\n")
end

write("libpq %d, server %d, %s, seed %d: %d queries in %d s", dblink.libpq_version, plain:server_version(),
  rawget(_G, "jit") and jit.version or _VERSION, seed, queries, core.now() - began) -- luacheck: globals jit
write("%d undisturbed, %d cancelled, %d ended by their deadline, %d faster than that",
  count.plain, count.cancelled, count.timeout, count.missed)
write("collateral 57014: %d, hung: %d, connections lost: %d, wrong answers: %d",
  count.collateral, count.hung, count.lost, count.wrong)
write("resident %d -> %d KiB, Lua %d -> %d KiB, descriptors %d -> %d (at a tenth, at the end)",
  early_rss, rss, early_lua, lua, early_descriptors, descriptors)

local bad = count.collateral + count.hung + count.lost + count.wrong
if rss > early_rss + 2048 or descriptors > early_descriptors then bad = bad + 1 end
os.exit(bad == 0 and 0 or 1)
