--- dblink: asynchronous PostgreSQL for Lua, on libpq.
-- The front door. docs/reference.md describes every function.
local core = require "dblink.core"
local connection = require "dblink.connection"

local dblink = {
  _VERSION = core.version,
  libpq_version = core.libpq_version,
  features = core.features,
  null = core.null,
  --- Seconds on a clock that no one sets.
  now = core.now,
  unescape_bytea = core.unescape_bytea,
}

-- What options.wait means: a name, a table {wait =, forget =}, or whatever loop
-- runs where this is called.
local function find_wait(given)
  if type(given) == "table" then
    if type(given.wait) ~= "function" or type(given.forget) ~= "function" then
      core.misuse("option wait must be a name or a table {wait = f, forget = f}")
    end
    return given
  elseif given == nil or given == "poll" then
    return require "dblink.wait.poll"
  end
  core.misuse("option wait: no wait is named '" .. tostring(given) .. "'")
end

local function start(conninfo, options)
  options = options or {}
  if type(options) ~= "table" then core.misuse("options must be a table") end
  if options.timeout ~= nil and (type(options.timeout) ~= "number" or options.timeout < 0) then
    core.misuse("option timeout must be a number of seconds")
  end
  local how = find_wait(options.wait)
  local conn, err = core.connect_start(conninfo)
  if not conn then return nil, err end
  connection.configure(conn, options, how)
  core.set_deadline(conn, options.timeout and core.now() + options.timeout)
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
  return connection.open(conn)
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
  local conn, err = start(conninfo, { timeout = seconds })
  if not conn then return err.kind == "usage" and "no attempt" or "no response" end
  conn, err = connection.open(conn)
  if conn then
    conn:close()
    return "ok"
  end
  return ping_answer(err.message)
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
  if type(s) ~= "string" then core.misuse("bad argument 's' to bytea (string expected, got " .. type(s) .. ")") end
  return setmetatable({ s }, Bytea)
end

return dblink
