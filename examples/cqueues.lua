-- Five queries at once in a cqueues controller, while another coroutine goes on.
--   DBLINK_CONNINFO="host=..." lua examples/cqueues.lua
local cqueues = require "cqueues"
local dblink = require "dblink"

local conninfo = os.getenv "DBLINK_CONNINFO" or "" -- nothing: as libpq's own variables say
local loop, left = cqueues.new(), 5

for i = 1, left do
  loop:wrap(function()
    local conn = assert(dblink.connect(conninfo)) -- finds the controller by itself
    local res = assert(conn:query("select $1::int * 2 as doubled from pg_sleep(0.2)", i))
    print(i, "doubled is", res[1].doubled)
    conn:close()
    left = left - 1
  end)
end

loop:wrap(function()
  local ticks = 0
  while left > 0 do
    cqueues.sleep(0.05)
    ticks = ticks + 1
  end
  print(ticks .. " ticks of the clock meanwhile")
end)

assert(loop:loop())
