-- Five queries at once in the copas loop. Copas 1 to 4.
--   DBLINK_CONNINFO="host=..." lua examples/copas.lua
local copas = require "copas"
local dblink = require "dblink"

local conninfo = os.getenv "DBLINK_CONNINFO" or "" -- nothing: as libpq's own variables say
local left = 5

for i = 1, left do
  copas.addthread(function()
    -- named, since a thread of copas 4 may be made before its loop runs
    local conn = assert(dblink.connect(conninfo, { wait = "copas" }))
    local res = assert(conn:query("select $1::int * 2 as doubled from pg_sleep(0.2)", i))
    print(i, "doubled is", res[1].doubled)
    conn:close()
    left = left - 1
  end)
end

while left > 0 do copas.step(1) end -- copas.loop() of copas 1 never ends
