--- dblink: asynchronous PostgreSQL for Lua, on libpq.
-- The front door. docs/reference.md describes every function.
local core = require "dblink.core"
local connection = require "dblink.connection"
local checks = require "dblink.options"
local gather = require "dblink.gather"
local pool = require "dblink.pool"
local values = require "dblink.values"

require "dblink.copy"
require "dblink.notify"
require "dblink.transaction"
require "dblink.stream"
require "dblink.statement"
require "dblink.pipeline"
require "dblink.rows"

local dblink = {
  _VERSION = core.version,
  libpq_version = core.libpq_version,
  features = core.features,
  null = core.null,
  array = values.array,
  json = values.json,
  bytea = values.bytea,
  --- Seconds on a clock that no one sets.
  now = core.now,
  unescape_bytea = core.unescape_bytea,
  wait_any = gather.wait_any,
  gather = gather.gather,
  as_completed = gather.as_completed,
  race = gather.race,
  hedge = gather.hedge,
  pool = pool.new,
}

--- Begins to connect: a connecting connection; drive it with conn:step().
function dblink.connect_start(conninfo, options)
  return connection.start(conninfo, options)
end

--- Connects, waiting through the connection's wait: a connection, or nil and an error.
function dblink.connect(conninfo, options)
  return connection.connect(conninfo, options)
end

-- What the server itself says is written "SEVERITY:  message"; an answer is an
-- answer, and only a server that starts, stops or recovers rejects everybody.
local function ping_answer(message)
  if message:find("the database system is", 1, true) then return "reject" end
  if message:find "failed: [^\n]-:  " or message:find("password", 1, true) then return "ok" end
  return "no response"
end

--- Asks whether a server takes connections: "ok" (though perhaps not ours: a wrong
-- password is an answer too), "reject" (it starts or stops), "no response", or
-- "no attempt" (the conninfo is no good).
function dblink.ping(conninfo, seconds)
  local conn, err = connection.connect(conninfo, { timeout = checks.seconds(seconds) })
  if conn then
    conn:close()
    return "ok"
  end
  return err.kind == "usage" and "no attempt" or ping_answer(err.message)
end

--- Like assert, on every Lua: raises the error object itself. (assert of Lua 5.1
-- and 5.2 takes strings only.)
function dblink.assert(value, err, ...)
  if value == nil or value == false then error(err or "assertion failed!", 0) end
  return value, err, ...
end

return dblink
