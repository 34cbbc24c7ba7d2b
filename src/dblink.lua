--- dblink: asynchronous PostgreSQL for Lua, on libpq.
-- The front door. docs/reference.md describes every function.
local core = require "dblink.core"
local connection = require "dblink.connection"

local dblink = {
  _VERSION = core.version,
  libpq_version = core.libpq_version,
  features = core.features,
  null = core.null,
  unescape_bytea = core.unescape_bytea,
}

-- What options.wait means: a name, a table {wait =, forget =}, or whatever loop
-- runs where this is called.
local function find_wait(given)
  if type(given) == "table" then
    if type(given.wait) ~= "function" or type(given.forget) ~= "function" then
      error("option wait must be a name or a table {wait = f, forget = f}", 4)
    end
    return given
  elseif given == nil or given == "poll" then
    return require "dblink.wait.poll"
  end
  error("option wait: no wait is named '" .. tostring(given) .. "'", 4)
end

local function start(conninfo, options)
  options = options or {}
  if type(options) ~= "table" then error("options must be a table", 3) end
  if options.timeout ~= nil and (type(options.timeout) ~= "number" or options.timeout < 0) then
    error("option timeout must be a number of seconds", 3)
  end
  local how = find_wait(options.wait)
  local conn, err = core.connect_start(conninfo)
  if not conn then return nil, err end
  connection.configure(conn, options, how)
  return conn
end

--- Begins to connect: a connecting connection; drive it with conn:step().
function dblink.connect_start(conninfo, options)
  return start(conninfo, options)
end

--- Connects, waiting through the connection's wait: a connection, or nil and an error.
function dblink.connect(conninfo, options)
  local conn, err = start(conninfo, options)
  if not conn then return nil, err end
  return connection.open(conn, options and options.timeout)
end

--- Asks whether a server would take a connection: "ok", "reject" (it is starting,
-- stopping or refuses), "no response", or "no attempt" (the conninfo is no good).
function dblink.ping(conninfo, seconds)
  local conn, err = start(conninfo, {})
  if not conn then return err.kind == "usage" and "no attempt" or "no response" end
  conn, err = connection.open(conn, seconds)
  if conn then
    conn:close()
    return "ok"
  end
  return core.ping_answer(err.message)
end

--- Like assert, on every Lua: raises the error object itself. (assert of Lua 5.1
-- and 5.2 takes strings only.)
function dblink.assert(value, err, ...)
  if value == nil or value == false then error(err or "assertion failed!", 0) end
  return value, err, ...
end

-- A parameter whose metatable tells C how to send it, see param.c.
local Bytea = { __name = "dblink.bytea", dblink_bytes = function(self) return self[1] end }

--- A parameter that is sent as the bytes of a bytea.
function dblink.bytea(s)
  if type(s) ~= "string" then error("bad argument #1 to 'bytea' (string expected)", 2) end
  return setmetatable({ s }, Bytea)
end

return dblink
