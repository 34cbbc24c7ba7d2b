-- Two things that dblink is used for, by its own names: one query in three parts at
-- once, and a test that a session waits for another's lock.
--
--   DBLINK_CONNINFO="host=..." lua examples/named.lua
local links = require "dblink.named".new {
  on_notice = function(notice) print("NOTICE: " .. notice.message) end,
}

local conninfo = os.getenv "DBLINK_CONNINFO" or "" -- nothing: as libpq's own variables say

-- A third of the numbers for each link; the union of what they find.
local part = [[
select n from generate_series(%d, %d) as n
 where not exists (select from generate_series(2, floor(sqrt(n))::int) as d where n %% d = 0)]]
for i = 1, 3 do
  links.connect("part" .. i, conninfo)
  links.send_query("part" .. i, part:format(i * 1000 - 998, i * 1000 + 1))
end
local primes = {}
for i = 1, 3 do
  for row in links.get_result("part" .. i):rows() do primes[#primes + 1] = row.n end
  assert(links.get_result("part" .. i) == nil) -- the end; only then is the link free again
  links.disconnect("part" .. i)
end
print(("%d primes, the last is %d"):format(#primes, primes[#primes]))

-- One session holds a lock, another wants it.
local KEY = 20020802
links.connect("holder", conninfo)
links.connect("waiter", conninfo)
links.exec("holder", "begin")
links.dblink("holder", ("select pg_advisory_xact_lock(%d)"):format(KEY))
links.send_query("waiter", ("select pg_advisory_xact_lock(%d), 'mine'"):format(KEY))

local waits = "select count(*) = 1 from pg_locks where not granted and objid = %d and locktype = 'advisory'"
repeat until links.dblink("holder", waits:format(KEY))(1, 1)
print("the waiter is busy:", links.is_busy "waiter")
print("and takes nothing else:", links.send_query("waiter", "select 1"))
links.exec("holder", "commit")
print("now the lock is", links.get_result "waiter"(1, 2))
assert(links.get_result "waiter" == nil)

links.disconnect "holder"
links.disconnect "waiter"
