-- The verbs of a connection that wait.
--
-- Each begins in C (which checks its arguments and sends), waits through await,
-- and ends in C (which takes what has arrived). In a plain script C has waited by
-- itself when it returns; `false` from it means that the waiting is left to us,
-- or that the deadline has come.
local core = require "dblink.core"
local await = require "dblink.await"
local checks = require "dblink.options"
local codec = require "dblink.codec"
local crew = require "dblink.crew"
local wait = require "dblink.wait"

local state, now = core.state, core.now

local connection = {}

local methods = core.methods

function methods:send_query(...)
  return await.begin(core.send_query, self, ...)
end

function methods:get_result(seconds)
  return await.conclude(core.get_result, core.take_next, self, seconds)
end

--- A query's result as JSON, or nil and an error.
function methods:json(...)
  local res, err = methods.query(self, ...)
  if not res then return nil, err end
  local text = res:json()
  res:clear()
  return text
end

methods.try_result = core.try_result

local function next_result(conn, i, deadline)
  local res, err = methods.get_result(conn, deadline and math.max(deadline - now(), 0))
  if res == nil and err == nil then return nil end
  return i + 1, res, err
end

function methods:results()
  return next_result, self, 0
end

function methods:exec_all(sql, seconds)
  local deadline = checks.deadline(seconds)
  local ok, err = methods.send_query(self, sql)
  if not ok then return nil, err end
  local list = {}
  local i, res, failure = next_result(self, 0, deadline) -- no for: its iterator could not yield on Lua 5.1
  while i do
    list[i] = res
    err = err or failure
    i, res, failure = next_result(self, i, deadline)
  end
  if err then return nil, err end
  return list
end

function methods:cancel(seconds)
  return await.cancel(self, checks.deadline(seconds))
end

function methods:reset(seconds)
  local none = {} -- made before: what raised in between would leave it half open
  local ok, err = core.reset_start(self, seconds)
  if not ok then return nil, err end
  state(self).statements, state(self).cached = none, 0
  return connection.open(self)
end

--- The notices that came since the last call, as error objects; how many had to be
-- dropped; and what the option on_notice raised, if it did.
methods.notices = core.take_notices

connection.options = {
  wait = true, timeout = true, null = true, decode = true, rows = true, on_notice = true,
  int8 = true, numeric = true, json = true, codecs = true,
  max_bytes = true, statement_cache = true,
}

local function check_number(options, name)
  local value = options[name]
  if value and not checks.is_least(value, 0) then
    core.misuse(("option %s must be a number, or false"):format(name))
  end
end

-- Raises where options cannot be.
function connection.check(options)
  checks.check(options, connection.options)
  if options.rows ~= nil and options.rows ~= "row" and options.rows ~= "array" then
    core.misuse("option rows must be \"row\" or \"array\"")
  end
  if options.on_notice ~= nil and type(options.on_notice) ~= "function" then
    core.misuse("option on_notice must be a function")
  end
  check_number(options, "max_bytes")
  check_number(options, "statement_cache")
  codec.check(options)
end

-- Gives a new connection its wait and its habits.
function connection.configure(conn, options, how)
  local s = state(conn)
  connection.check(options)
  await.use(conn, how)
  s.statements, s.cached = {}, 0
  s.statement_cache = options.statement_cache == nil and 100 or options.statement_cache or 0
  s.null, s.on_notice = options.null, options.on_notice
  codec.configure(conn, options)
  core.configure(conn, {
    tells = options.on_notice ~= nil,
    raw = options.decode == false,
    null = options.null ~= nil,
    array = options.rows == "array",
    number = options.numeric == "number",
    codecs = s.codecs ~= nil,
    max_bytes = options.max_bytes or nil,
    caching = s.statement_cache > 0,
  })
end

-- What options.wait means; but a hand of a crew waits as the crew wants it.
function connection.find_wait(given)
  return crew.here() or wait.find(given)
end

-- Options, and the wait that they mean; or nil and an error.
local function read_options(options)
  options = options or {}
  if type(options) ~= "table" then core.misuse("options must be a table") end
  checks.check_seconds(options.timeout, "timeout")
  local how = connection.find_wait(options.wait)
  if how.check then
    local possible, err = how.check()
    if not possible then return nil, err end
  end
  return options, how
end

local function start(options, how, deadline, ...)
  local conn, err = core.connect_start(...)
  if not conn then return nil, err end
  connection.configure(conn, options, how)
  core.set_deadline(conn, deadline)
  return conn
end

-- Begins to connect: a connecting connection, or nil and an error.
function connection.start(conninfo, options)
  local how
  options, how = read_options(options)
  if not options then return nil, how end
  return start(options, how, options.timeout and now() + options.timeout, conninfo)
end

local function too_late()
  local err = core.failure("timeout", "connecting took longer than its timeout")
  err.connection_lost = true
  return nil, err
end

-- The names of hosts are looked up in a thread, where a wait for a name server would stop
-- others: host, hostaddr and port; nil where libpq may do that, false and an error.
local function look_up(conninfo, how, deadline, hold, token)
  local host, port = core.hosts(conninfo)
  local lookup = host and core.lookup(host, port)
  if not lookup then return nil end
  local fd = lookup:getfd()
  how.forget(fd) -- of another's, by chance of the same number
  local function close()
    how.forget(fd)
    lookup:close()
  end
  hold { close = close }
  local own = not token and how.enter and how.enter(close, nil, true)
  local late = false
  while lookup:result() == false and not late do
    how.wait(fd, "r", deadline and math.max(deadline - now(), 0), token or own)
    late = deadline ~= nil and now() >= deadline
  end
  if own then how.leave(own) end
  hold(nil)
  local hosts, addresses, ports = lookup:result()
  close()
  if hosts then return hosts, addresses, ports end
  if hosts == false then return false, select(2, too_late()) end
  addresses.connection_lost = true
  return false, addresses
end

-- As connection.start, but nobody's time is spent in it: it may wait. Meanwhile hold(thing)
-- is told what to close when it is called off, and hold(conn) at the end. token: of the wait.
function connection.begin(conninfo, options, hold, token)
  local how
  options, how = read_options(options)
  if not options then return nil, how end
  local deadline = options.timeout and now() + options.timeout
  local host, address, port
  if not how.plain then
    host, address, port = look_up(conninfo, how, deadline, hold, token)
    if host == false then return nil, address end
  end
  local conn, err = start(options, how, deadline, conninfo, host, address, port)
  if conn then hold(conn) end
  return conn, err
end

-- Waits until a connecting connection is open: the connection, or nil and an error.
function connection.open(conn)
  if not await.settle(conn) then
    local ok, err = await.still(conn)
    if not ok then return nil, err end
    core.sever(conn)
    return too_late()
  end
  local ok, err = core.opened(conn)
  if not ok then return nil, err end
  return conn
end

-- Opens a connection, waiting until it is there: the connection, or nil and an error.
function connection.connect(conninfo, options)
  local conn, err = connection.begin(conninfo, options, function() end)
  if not conn then return nil, err end
  local opened, why = connection.open(conn)
  if not opened then conn:close() end -- its socket need not wait for the collector
  return opened, why
end

-- A connection that a host hands over (dblink_push): nothing is left behind in its session.
function connection.adopt(conn)
  connection.configure(conn, { statement_cache = false }, connection.find_wait())
end

return connection
