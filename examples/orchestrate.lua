-- Four queries at once over four links, from one plain script: progress while they
-- run, a deadline for the straggler, all results, and a picture of who ran when.
--
--   make demo                                      with a throwaway server
--   DBLINK_CONNINFO="host=..." lua examples/orchestrate.lua [timeline.svg]
local dblink = require "dblink"

local conninfo = os.getenv "DBLINK_CONNINFO" or "" -- nothing: as libpq's own variables say
local DEADLINE = 1.5 -- seconds for each query
local WIDTH = 50 -- of the timeline, in characters

local jobs = {
  { name = "quick", sql = "select 'first home' as answer, pg_sleep(0.2)" },
  { name = "count", sql = "select count(*) as answer from generate_series(1, 300000)" },
  { name = "steady", sql = "select 'in good time' as answer, pg_sleep(1.0)" },
  { name = "straggler", sql = "select 'never seen' as answer, pg_sleep(3600)" },
}

local ok, _, status = os.execute "test -t 1"
local terminal = ok == 0 or (ok == true and status == 0) -- Lua 5.1, and later ones

local started = dblink.now()
local function elapsed() return dblink.now() - started end

-- Send everything; nobody waits for anybody.
for _, job in ipairs(jobs) do
  job.conn = assert(dblink.connect(conninfo))
  job.from = elapsed()
  assert(job.conn:send_query(job.sql))
end

-- A job is over when its results are collected until nil.
local function collect(job)
  job.to = elapsed()
  for _, res, err in job.conn:results() do
    job.outcome = res and tostring(res(1, "answer")) or tostring(err)
    job.failed = err ~= nil
  end
  if not terminal then print(("%5.2f s  %-9s %s"):format(job.to, job.name, job.outcome)) end
end

local function bar(job, now, width, scale)
  local from = math.floor(job.from / scale * width)
  local to = math.max(from + 1, math.floor((job.to or now) / scale * width))
  return (" "):rep(from) .. (job.failed and "x" or job.to and "=" or "-"):rep(to - from)
end

local function draw(now, scale)
  for _, job in ipairs(jobs) do
    print(("%-9s |%-" .. WIDTH .. "s| %5.2f s"):format(
      job.name, bar(job, now, WIDTH, scale), (job.to or now) - job.from))
  end
end

local drawn = false
local function show_progress()
  if not terminal then return end
  if drawn then io.write(("\27[%dA"):format(#jobs)) end
  draw(elapsed(), DEADLINE * 1.2)
  drawn = true
end

local function running()
  local list = {}
  for _, job in ipairs(jobs) do
    if not job.to then
      list[#list + 1] = job.conn
      list[job.conn] = job
    end
  end
  return list
end

local busy = running()
while #busy > 0 do
  for _, conn in ipairs(dblink.wait_any(busy, 0.05) or {}) do
    if not conn:is_busy() then collect(busy[conn]) end
  end
  for _, conn in ipairs(busy) do
    local job = busy[conn]
    if not job.to and not job.cancelled and elapsed() - job.from > DEADLINE then
      assert(conn:cancel(1)) -- asked to stop; the results are collected as ever
      job.cancelled = true
    end
  end
  show_progress()
  busy = running()
end
local total = elapsed()

-- The results, and the picture: as text, and as an SVG file.
if terminal then
  print()
  for _, job in ipairs(jobs) do print(("%-9s %s"):format(job.name, job.outcome)) end
end
print()
if not terminal then draw(total, total) end

local sum = 0
local SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 %d" font-family="sans-serif" font-size="12">'
local RECT = '<rect x="%.1f" y="%d" width="%.1f" height="20" rx="3" fill="%s"><title>%.2f s</title></rect>'
local svg = { SVG:format(#jobs * 28 + 34) }
for i, job in ipairs(jobs) do
  sum = sum + job.to - job.from
  local y = i * 28 - 16
  svg[#svg + 1] = ('<text x="8" y="%d">%s</text>'):format(y + 14, job.name)
  svg[#svg + 1] = RECT:format(90 + job.from / total * 530, y,
    math.max(1, (job.to - job.from) / total * 530), job.failed and "#c0504d" or "#4f81bd", job.to - job.from)
end
svg[#svg + 1] = ('<text x="90" y="%d">0 s</text><text x="620" y="%d" text-anchor="end">%.2f s</text></svg>'):format(
  #jobs * 28 + 24, #jobs * 28 + 24, total)
local path = arg and arg[1] or "timeline.svg"
local file = assert(io.open(path, "w"))
file:write(table.concat(svg, "\n"), "\n")
file:close()

print(("\n%d queries of %.2f s together took %.2f s. The timeline is in %s"):format(#jobs, sum, total, path))
for _, job in ipairs(jobs) do job.conn:close() end
