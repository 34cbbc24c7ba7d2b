-- make bench-nginx: what a query costs a worker of nginx, as a multiple of a page that says hello.
--
-- One worker for each way to wait, each hammered by wrk in turns; what is compared is
-- the worker's CPU time for each request, its helper threads included. The hello page is
-- measured beside each in the same round. The least of each is compared: the rest is the
-- other load of the machine.
--
--   ROUNDS=5 SECONDS=2   turns, and how long each lasts
--   BENCH=name           only workloads with that in their names
local nginx = require "support.nginx"

local rounds, seconds = tonumber(os.getenv "ROUNDS") or 5, tonumber(os.getenv "SECONDS") or 2

-- How it waits, and the level of the log: where that takes warnings, nginx without OpenResty's
-- patches is spared the two ngx.sleep(0) of the relay.
local WAYS = {
  { "relay", wait = "openresty", level = "warn" },
  { "relay, two sleeps", wait = "openresty", level = "error" },
  { "direct", wait = "openresty-direct", level = "error" },
}

-- The page, how many connections, and the ratio to reach for each way.
local WORKLOADS = {
  { "select 1", page = "one", connections = 50, goals = { 5, 3.2, 3.1 } },
  { "1,000 rows by name", page = "rows", connections = 10, goals = { 30, 30, 30 } },
  { "1,000 rows, their values", page = "values", connections = 10, goals = { 30, 30, 30 } },
  { "1,000 rows, an array a column", page = "columns", connections = 10, goals = { 30, 30, 30 } },
  { "1,000 rows as JSON", page = "json", connections = 10, goals = { 30, 30, 30 } },
}

local HTTP = [[
  init_by_lua_block {
    pool = require "dblink".pool { os.getenv "DBLINK_CONNINFO", max = 50, wait = "%s" }
    sql = "select i as id, i * 2 as twice, 'row ' || i as name from generate_series(1, 1000) i"
  }
]]

local PAGES = [[
  location /one { content_by_lua_block { ngx.print(assert(pool:query "select 1")(1, 1)) } }
  location /rows { content_by_lua_block {
    local sum = 0
    for row in assert(pool:query(sql)):rows() do sum = sum + row.id + #row.name end
    ngx.print(sum)
  } }
  location /values { content_by_lua_block {
    local sum = 0
    for _, id, _, name in assert(pool:query(sql)):rows "values" do sum = sum + id + #name end
    ngx.print(sum)
  } }
  location /columns { content_by_lua_block {
    local res, sum = assert(pool:query(sql)), 0
    local ids, names = res:column "id", res:column "name", res:column "twice"
    for i = 1, #res do sum = sum + ids[i] + #names[i] end
    ngx.print(sum)
  } }
  location /json { content_by_lua_block { ngx.print(assert(pool:query(sql)):json()) } }
]]

-- Ticks of a process, all its threads, user and system.
local function ticks(pid)
  local file = assert(io.open("/proc/" .. pid .. "/stat"))
  local user, system = file:read "*a":match("^.*%)" .. (" %S+"):rep(11) .. " (%d+) (%d+)")
  file:close()
  return user + system
end

-- Microseconds of the worker's CPU for each request.
local function measure(n, page, connections)
  local pid = n:workers()[1]
  local before = ticks(pid)
  local good, bad, output = n:hammer(page, connections, seconds)
  assert(bad == 0, output)
  return (ticks(pid) - before) * 1e4 / good
end

for i = #WORKLOADS, 1, -1 do
  if not WORKLOADS[i][1]:find(os.getenv "BENCH" or "", 1, true) then table.remove(WORKLOADS, i) end
end

local missing = nginx.missing()
if missing then
  print("bench-nginx: " .. missing)
  os.exit(77)
end

local all = {}
for i, way in ipairs(WAYS) do
  all[i] = nginx.start { http = HTTP:format(way.wait), server = PAGES, level = way.level }
  for _, workload in ipairs(WORKLOADS) do all[i]:hammer(workload.page, workload.connections, 1) end
end
print(("%-30s %-20s %8s %8s %8s %8s"):format("", "", "hello", "page", "ratio", "goal"))
for _, workload in ipairs(WORKLOADS) do
  local figures = {}
  for i in ipairs(WAYS) do figures[i] = { hello = math.huge, page = math.huge } end
  for _ = 1, rounds do
    for i in ipairs(WAYS) do
      local f = figures[i]
      f.hello = math.min(f.hello, measure(all[i], "hello", workload.connections))
      f.page = math.min(f.page, measure(all[i], workload.page, workload.connections))
    end
  end
  for i, way in ipairs(WAYS) do
    local f = figures[i]
    print(("%-30s %-20s %5.1f us %5.1f us %8.2f %8.2f"):format(workload[1], way[1], f.hello, f.page, f.page / f.hello,
      workload.goals[i]))
  end
end
for _, n in ipairs(all) do n:stop() end
