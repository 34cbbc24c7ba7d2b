-- Five queries at once under uv.run, while a timer ticks.
--   DBLINK_CONNINFO="host=..." lua examples/luv.lua
local uv = require "luv"
local dblink = require "dblink"

local conninfo = os.getenv "DBLINK_CONNINFO" or "" -- nothing: as libpq's own variables say
local left, ticks, timer = 5, 0, uv.new_timer()

for i = 1, left do
  coroutine.wrap(function()
    local conn = assert(dblink.connect(conninfo)) -- in a program with luv, a coroutine is luv's
    local res = assert(conn:query("select $1::int * 2 as doubled from pg_sleep(0.2)", i))
    print(i, "doubled is", res[1].doubled)
    conn:close()
    left = left - 1
  end)()
end

timer:start(50, 50, function()
  ticks = ticks + 1
  if left == 0 then
    timer:close()
    print(ticks .. " ticks of the timer meanwhile")
  end
end)

uv.run()
