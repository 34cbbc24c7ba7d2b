-- The test server, for specs: the one that DBLINK_CONNINFO names (as "keyword=value ..."), else the throwaway
-- one that spec/support/pg started and tells of in PGHOST and so on.

local dblink = require "dblink"

local server = {}

local function quote(value) return "'" .. value:gsub("[\\']", "\\%0") .. "'" end

server.conninfo = os.getenv "DBLINK_CONNINFO"
-- Whether the server is ours: clusters, other roles, certificates and the like are there only then.
server.own = not server.conninfo or server.conninfo == ""
if server.own then
  local words = {}
  for keyword, variable in pairs { host = "PGHOST", port = "PGPORT", user = "PGUSER", dbname = "PGDATABASE" } do
    local value = os.getenv(variable)
    if value then words[#words + 1] = keyword .. "=" .. quote(value) end
  end
  table.sort(words)
  server.conninfo = table.concat(words, " ")
end
assert(not server.conninfo:match "^postgres%w*://", "for the specs, DBLINK_CONNINFO is keyword=value, not a URI")

-- The folder of the throwaway servers (certificates in tls/), nil when the server is not ours.
server.root = os.getenv "DBLINK_PG_ROOT"

-- A connection to the server; extra: further words of conninfo, which win.
function server.connect(extra, options)
  return assert(dblink.connect(server.conninfo .. " " .. (extra or ""), options))
end

local names = 0
-- The time alone would be the same for two runs begun at once; addresses differ between processes.
local salt = ("%x_%s"):format(os.time() % 2 ^ 24, tostring({}):match "(%x%x%x%x%x?%x?)$" or "0")

-- A name that nothing else on this server has, for a table, a channel, an application_name.
function server.name(prefix)
  names = names + 1
  return ("%s_%s_%d"):format(prefix or "spec", salt, names)
end

-- A database of one's own, in which sql was run: its name, and the function that drops it.
function server.new_database(prefix, sql)
  local admin, name = server.connect(), server.name(prefix)
  assert(admin:query("create database " .. name))
  local conn = server.connect("dbname=" .. name)
  assert(conn:exec_all(sql))
  conn:close()
  return name, function()
    assert(admin:query(("drop database %s with (force)"):format(name)))
    admin:close()
  end
end

-- server.sh("new", "b"): a command of spec/support/pg; returns what it printed, raises what it says when it fails.
function server.sh(...)
  local pg = assert(os.getenv "DBLINK_PG", "no servers of our own here: run the specs by spec/support/pg run")
  local words = { pg, ... }
  for i, word in ipairs(words) do words[i] = "'" .. tostring(word):gsub("'", "'\\''") .. "'" end
  -- io.popen's close tells the status from 5.2 on only
  local pipe = assert(io.popen(table.concat(words, " ") .. " 2>&1; echo $?"))
  local output, status = pipe:read "*a":match "^(.-)%s*(%d+)%s*$"
  pipe:close()
  if status ~= "0" then error(("pg %s: %s"):format(table.concat({ ... }, " "), output), 2) end
  return output
end

-- The conninfo of another cluster of ours, e.g. after server.sh("new", "b").
function server.conninfo_of(cluster, extra)
  return ("host=%s port=%s user=postgres dbname=postgres %s"):format(
    quote(server.root .. "/s"), server.sh("port", cluster), extra or "")
end

local pacer -- a connection of this file's own

-- Asks f until it gives something true, which is returned; an error after about that many seconds (5). Between two
-- questions it lets the server sleep: that is where the thing waited for happens.
function server.until_true(f, seconds)
  local left = (seconds or 5) / 0.01
  while true do
    local value = f()
    if value then return value end
    left = left - 1
    if left < 0 then error(("not true within %g seconds"):format(seconds or 5), 2) end
    pacer = pacer or server.connect("application_name=spec_pacer", { wait = "poll" })
    local ok, err = pacer:query "select pg_sleep(0.01)"
    if not ok then
      pacer:close()
      pacer = nil
      error(err, 2)
    end
  end
end

-- Until the backend works on a query: a cancel sent earlier would be lost.
function server.wait_active(admin, pid)
  return server.until_true(function()
    return assert(admin:query(("select state = 'active' from pg_stat_activity where pid = %d"):format(pid)))(1, 1)
  end)
end

-- How many backends carry that application_name. A backend takes a moment to notice that its client has gone:
-- server.until_true(function() return server.backends(admin, name) == 0 end).
function server.backends(admin, application_name)
  local sql = "select count(*)::int from pg_stat_activity where application_name = '%s'"
  return assert(admin:query(sql:format((application_name:gsub("'", "''")))))(1, 1)
end

return server
