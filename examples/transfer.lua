-- A table from one database into another, however large, in little memory: COPY out of
-- the one and into the other, in a transaction, of whose commit others are notified.
--
--   DBLINK_CONNINFO="host=..." lua examples/transfer.lua
local dblink = require "dblink"
local must = dblink.assert

local conninfo = os.getenv "DBLINK_CONNINFO" or "" -- nothing: as libpq's own variables say
local source, target = must(dblink.connect(conninfo)), must(dblink.connect(conninfo))
must(target:query "create temporary table roots (i int, root float8, check (root < 400))")

local watcher = must(dblink.connect(conninfo))
must(watcher:listen "transferred")

-- An error that must() meets rolls all of it back, and comes back as nil and the error.
local function transfer(sql)
  return target:transaction(function()
    local reader = must(source:copy_out("copy (" .. sql .. ") to stdout (format binary)"))
    local writer = must(target:copy_in "copy roots from stdin (format binary)")
    local piece, err = reader:read()
    while piece do
      must(writer:write(piece))
      piece, err = reader:read()
    end
    if err then return nil, err end
    local rows = must(writer:finish()).affected
    must(target:notify("transferred", rows .. " rows"))
    return rows
  end)
end

print("transferred:", must(transfer "select i, sqrt(i) from generate_series(1, 100000) i"))
print("too much:", select(2, transfer "select i, sqrt(i) from generate_series(1, 200000) i"))
print("in the middle:", select(2, transfer "select i, sqrt(5000 - i) from generate_series(1, 10000) i"))
print("there are:", must(target:query "select count(*)::int from roots")(1, 1))
for n in watcher:notifications { timeout = 0.5 } do print("notified:", n.payload) end
