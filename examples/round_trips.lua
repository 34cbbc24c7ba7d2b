-- A thousand questions one after the other, and the same in a pipeline: there they are all under way at once,
-- and an error costs its own group of them alone.
--
--   DBLINK_CONNINFO="host=..." lua examples/round_trips.lua
local dblink = require "dblink"
local must = dblink.assert

local conn = must(dblink.connect(os.getenv "DBLINK_CONNINFO" or "")) -- nothing: as libpq's own variables say
local SQL, MANY = "select $1::int * $1::int as square", 1000

local function timed(what, f)
  local began = dblink.now()
  local sum = f()
  print(("%s: the sum is %d, after %.1f ms"):format(what, sum, (dblink.now() - began) * 1000))
end

timed("one by one", function()
  local sum = 0
  for i = 1, MANY do sum = sum + must(conn:query(SQL, i))[1].square end
  return sum
end)

timed("in a pipeline", function()
  local pipeline, tickets, sum = must(conn:pipeline()), {}, 0
  for i = 1, MANY do tickets[i] = must(pipeline:query(SQL, i)) end
  must(pipeline:close())
  for i = 1, MANY do sum = sum + must(tickets[i]:result())[1].square end
  return sum
end)

-- What is between two syncs is one transaction.
local pipeline, tickets = must(conn:pipeline()), {}
for group = 1, 3 do
  tickets[group] = must(pipeline:query("select 6 / ($1::int - 2) as n", group))
  must(pipeline:sync())
end
must(pipeline:close())
for group, ticket in ipairs(tickets) do
  local res, err = ticket:result()
  print(("group %d: %s"):format(group, res and res[1].n or err.message))
end
conn:close()
