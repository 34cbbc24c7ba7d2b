-- What gather costs beside C: 100 connections, 20 short queries on each, all at once; the client's CPU time
-- against that of bench/fanout.c (libpq and epoll), which is compiled and run here, in turns with ours.
--   spec/support/pg run lua bench/fanout.lua [CONNECTIONS [QUERIES [ROUNDS]]]
local dblink = require "dblink"

local connections, queries, rounds = tonumber(arg[1]) or 100, tonumber(arg[2]) or 20, tonumber(arg[3]) or 7
local SQL = "select pg_sleep(0.01)"

local program = os.tmpname()
assert(os.execute("cc -O2 -I$(pg_config --includedir) bench/fanout.c -o " .. program .. " -lpq"))

local function in_c()
  local pipe = io.popen(("%s '' %d %d '%s'"):format(program, connections, queries, SQL))
  local cpu, wall = pipe:read("*n", "*n")
  pipe:close()
  return cpu, wall
end

local function in_lua(conns)
  collectgarbage()
  local cpu, wall = os.clock(), dblink.now()
  local list = {}
  for _ = 1, queries do
    for i = 1, connections do list[#list + 1] = { conns[i], SQL } end
  end
  local _, errors = dblink.gather(list)
  assert(next(errors) == nil)
  return os.clock() - cpu, dblink.now() - wall
end

-- Ours are opened anew for each round: the server has no room for both.
local function in_lua_once()
  local opened, conns = {}, {}
  for i = 1, connections do opened[i] = dblink.connect_start "" end
  for i, conn in ipairs(opened) do
    while conn:status() == "connecting" do dblink.wait_any { conn } end
    conns[i] = conn
  end
  local cpu, wall = in_lua(conns)
  for _, conn in ipairs(conns) do conn:close() end
  return cpu, wall
end

local best = { math.huge, math.huge }
local n = connections * queries
print("us of CPU a query:     C    Lua")
for _ = 1, rounds do
  local c, l = in_c(), in_lua_once()
  best[1], best[2] = math.min(best[1], c), math.min(best[2], l)
  print(("                   %5.1f  %5.1f  %.2f"):format(c / n * 1e6, l / n * 1e6, l / c))
end
print(("best:              %5.1f  %5.1f  %.2f"):format(best[1] / n * 1e6, best[2] / n * 1e6, best[2] / best[1]))
os.remove(program)
