-- A bounded number of connections, lent in the order in which they were asked for.
--
-- The pool knows no loop, no thread and no timer: all it does happens inside the
-- calls of those who borrow and give back. A plain script never parks: while it waits
-- nobody could give anything back.
--
-- What is given back is handed to the first in the line directly, a connection or
-- the place for one. What is dead or too old when it is about to be lent is replaced.
-- While the server is away one caller at a time tries to reach it, in growing
-- pauses; when it is back the number of those who try doubles with each success.
--
-- A place (entry) that is in use has a ticket, which its user alone holds, and is its own
-- where it is idle. A coroutine that is dropped, or an error that goes past us, takes the
-- ticket along: its collector tells that the place is free.
local core = require "dblink.core"
local connection = require "dblink.connection"
local checks = require "dblink.options"
local crew = require "dblink.crew"
local protect = require "dblink.protect"
local upkeep = require "dblink.upkeep"
local waiters = require "dblink.waiters"

local now, methods, protected = core.now, core.methods, protect.pcall

local pool = {}

local Pool = { __name = "dblink.pool" }
Pool.__index = Pool

local FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.4

-- What a pool can be told, and what it does untold; other names are libpq's keywords.
local DEFAULTS = {
  max = 10, min = 0, acquire_timeout = 30, idle = 600, lifetime = 3600, check = 30,
  max_waiting = math.huge,
}

local function check_number(name, value, least)
  if not checks.is_least(value, least) then
    core.misuse(("%s must be a number, at least %d"):format(name, least))
  end
end

local function read_options(options)
  if type(options) ~= "table" then core.misuse "a pool's options must be a table" end
  local self, keywords, habits = {}, nil, {}
  for name, value in pairs(DEFAULTS) do self[name] = value end
  for name, value in pairs(options) do
    if name == "check" and value == false then
      self.check = math.huge
    elseif DEFAULTS[name] then
      check_number("option " .. name, value, name == "max" and 1 or 0)
      self[name] = value
    elseif name == "reset" and type(value) ~= "string" and type(value) ~= "function" then
      core.misuse "option reset must be SQL or a function"
    elseif name == "configure" and type(value) ~= "function" then
      core.misuse "option configure must be a function"
    elseif name == "reset" or name == "configure" then
      self[name] = value
    elseif connection.options[name] and name ~= "timeout" then
      habits[name] = value
    elseif name ~= 1 and name ~= "conninfo" then
      keywords = keywords or {}
      keywords[name] = value
    end
  end
  local conninfo = options[1] or options.conninfo
  if conninfo and keywords then
    core.misuse(("unknown option '%s' (beside a conninfo, libpq's keywords belong into it)"):format(next(keywords)))
  end
  self.conninfo, self.habits = conninfo or keywords or "", habits
  return self
end

-- A pool; nothing is opened before it is needed.
function pool.new(options)
  local self = read_options(options)
  connection.check(self.habits)
  connection.find_wait(self.habits.wait)
  self.stack = {}                   -- idle connections, the last one given back on top
  self.lent = {}                    -- entries that somebody has
  self.line, self.drainers = waiters.line(), {}
  self.size, self.opening, self.ramp = 0, 0, self.max
  self.failures, self.retry_at = 0, 0
  self.count = {
    opened = 0, hits = 0, waits = 0, waited = 0, longest_wait = 0,
    lost = 0, expired = 0, failed = 0, timeouts = 0, leaked = 0,
  }
  return setmetatable(self, Pool)
end

function pool.is_pool(value)
  return getmetatable(value) == Pool
end

local function how_here(self)
  return crew.here() or connection.find_wait(self.habits.wait)
end

local function may_open(self)
  return self.size < self.max and self.opening < self.ramp and now() >= self.retry_at
end

local newproxy = newproxy -- Lua 5.1: tables have no __gc, this has

local function new_ticket(gone)
  if not newproxy then return setmetatable({}, { __gc = gone }) end
  local ticket = newproxy(true)
  getmetatable(ticket).__gc = gone
  return ticket
end

local leak

-- A connection that can be lent, or a place where one may be opened: an entry without conn; or nil.
local function grant(self)
  local entry = table.remove(self.stack)
  if entry then
    entry.idle = false
  elseif may_open(self) then
    entry = { idle = false }
    entry.ticket = new_ticket(function() leak(self, entry) end)
    self.size, self.opening = self.size + 1, self.opening + 1
  end
  return entry
end

-- Gives the first in the line what there is. One who is first when there is a
-- pause before the next try sleeps no longer than that, and so must be told.
local function serve(self)
  local line = self.line
  local waiter = line:head()
  while waiter do
    waiter.entry = grant(self)
    if not waiter.entry then break end
    line:quit(waiter)
    waiter:wake()
    waiter = line:head()
  end
  if waiter and now() < self.retry_at and not waiter.alarmed then waiter:wake() end
  if self.size == 0 then
    for drainer in pairs(self.drainers) do drainer:wake() end
  end
end

-- Where a borrower can vanish, his wait tells of it, until then.
local function part(entry)
  local token = entry.token
  if not token then return end
  entry.token, entry.state.token = nil, nil
  entry.how.leave(token)
end

local function forget_entry(self, entry)
  if entry.gone then return end
  entry.gone = true
  part(entry)
  self.lent[entry] = nil
  self.size = self.size - 1
  if not entry.conn then self.opening = self.opening - 1 end
  local conn = entry.conn or entry.attempt
  if conn then conn:close() end
end

local function drop(self, entry, why)
  forget_entry(self, entry)
  if why then self.count[why] = self.count[why] + 1 end
  serve(self)
end

-- Nobody gave it back and nobody has it any more: its state is anyone's guess.
function leak(self, entry)
  if not (entry.idle or entry.gone) then drop(self, entry, "leaked") end
end

-- Opens the connection of an entry: true; nil and an error; false and what was raised.
local function open(self, entry, deadline, how, token)
  local fine, opened, err = protected(upkeep.open, entry, self, deadline, how, token)
  if fine and opened then
    self.opening = self.opening - 1
    self.failures, self.ramp, self.trouble = 0, math.min(self.ramp * 2, self.max), nil
    self.count.opened = self.count.opened + 1
  else
    forget_entry(self, entry)
    self.failures, self.ramp, self.trouble = self.failures + 1, 1, tostring(err or opened)
    self.count.failed = self.count.failed + 1
    local pause = math.min(FIRST_PAUSE * 2 ^ (self.failures - 1), LONGEST_PAUSE)
    self.retry_at = now() + pause * (0.5 + 0.5 * math.random())
  end
  serve(self)
  if not fine then return false, opened end
  return opened, err
end

-- Closes those that have been idle too long, the coldest first.
local function reap(self)
  local stack, moment = self.stack, now()
  while stack[1] and self.size > self.min and moment - stack[1].since >= self.idle do
    local entry = table.remove(stack, 1)
    self.count.expired = self.count.expired + 1
    forget_entry(self, entry)
  end
end

local function is_wanted(self)
  return not (self.closed or self.draining or self.leaving or self.size > self.max)
end

-- Raises what the option reset does, when all is done.
local function give_back(self, entry, ticket)
  if not self.lent[entry] then return end
  self.lent[entry] = nil
  local wanted = is_wanted(self)
  if wanted and (self.reset or not upkeep.is_clean(entry)) then
    local fine, good = protected(upkeep.clean, entry, self.reset)
    if not (fine and good) then drop(self, entry, "lost") end
    if not fine then error(good, 0) end
    if not good then return end
    wanted = is_wanted(self) -- that took a while
  end
  if not wanted or now() >= entry.expires then return drop(self, entry, wanted and "expired" or nil) end
  part(entry)
  entry.since, entry.idle, entry.ticket = now(), true, ticket
  self.stack[#self.stack + 1] = entry
  serve(self)
  reap(self)
end

local function note_wait(self, begun)
  local count, took = self.count, now() - begun
  count.waits = count.waits + 1
  count.waited = count.waited + took
  if took > count.longest_wait then count.longest_wait = took end
end

local function closed()
  return nil, core.failure("usage", "the pool was closed")
end

local function no_time(self, err, seconds)
  self.count.timeouts = self.count.timeouts + 1
  if err then return nil, err end
  local message = ("no connection of the pool became free within %g seconds"):format(seconds)
  if self.trouble then message = message .. ", since none could be opened: " .. self.trouble end
  return nil, core.failure("timeout", message)
end

-- Waits in the line until something is granted: an entry, or nil and an error.
local function wait_for_grant(self, waiter, life, deadline, trouble, seconds)
  local how, line = waiter.how, self.line
  if life and how.secure then how.secure(life) end
  while not waiter.entry do
    if self.closed then return closed() end
    local moment = now()
    if moment >= deadline then return no_time(self, trouble, seconds) end
    local till = deadline
    waiter.alarmed = self.retry_at > moment and line:head() == waiter
    if waiter.alarmed and self.retry_at < till then till = self.retry_at end
    if not how.plain then
      waiter:park(till < math.huge and till - moment or nil)
    elseif waiter.alarmed then
      core.poll(-1, "r", till - moment)
    else
      return nil, core.failure("usage", "all connections of the pool are lent, and in a plain script "
        .. "nobody can give one back while this waits")
    end
    waiter.alarmed = false
    if now() >= self.retry_at then serve(self) end
  end
  return waiter.entry
end

-- Whether what was granted can be lent. Else its place is given up: nil and an error, if that
-- is why; false and what was raised.
local function try(self, entry, deadline, how, token)
  if not entry.conn then return open(self, entry, deadline < math.huge and deadline or nil, how, token) end
  upkeep.adopt(entry, how, token)
  local good, why = upkeep.is_good(entry, self.check, deadline)
  if good then return true end
  forget_entry(self, entry)
  self.count[why] = self.count[why] + 1
end

-- The heart: an entry that is good and lent; nil and an error; false and what was raised.
local function get(self, how, seconds, note)
  local begun, line, deadline = now(), self.line, now() + seconds
  local tried, was_open, ok, err, trouble = false
  reap(self)
  local entry = not line:head() and grant(self)
  if not entry and line.length >= self.max_waiting then
    return nil, core.failure("usage", ("%d are waiting for a connection of the pool already"):format(line.length))
  end
  repeat
    if not entry then
      local waiter = note.waiter or waiters.new(how)
      note.waiter = waiter
      ok, err = line:join(waiter, tried)
      if ok then entry, err = wait_for_grant(self, waiter, note.token, deadline, trouble, seconds) end
      if not entry then return nil, err end
      waiter.entry = nil
    end
    note.entry, was_open = entry, entry.conn
    ok, err = try(self, entry, deadline, how, note.token)
    if not ok then
      note.entry, tried, trouble = nil, true, err or trouble
      if ok == false or err and (self.closed or upkeep.is_final(err) or now() >= deadline) then return ok, err end
      if now() >= deadline then return no_time(self, trouble, seconds) end
      entry = grant(self) -- its place was ours; others like it may wait in the stack
    end
  until ok
  if note.waiter then
    note_wait(self, begun)
  elseif was_open then
    self.count.hits = self.count.hits + 1
  end
  if not self.closed then
    self.lent[entry] = true
    return entry
  end
  note.entry = nil
  forget_entry(self, entry)
  return closed()
end

local function close_idle(self)
  while self.stack[1] do forget_entry(self, table.remove(self.stack)) end
end

-- This process ends.
local function go_away(self)
  self.leaving = true
  close_idle(self)
end

-- An entry, and the ticket that its user holds until it is given back; or nil and an error.
-- note tells whoever may want to call it off what there is to be undone (pool.abandon).
local function take(self, seconds, note, brief)
  if self.closed then core.misuse "the pool is closed" end
  if self.draining then return nil, core.failure("usage", "the pool is being drained") end
  local how = how_here(self)
  if how.check then
    local possible, err = how.check()
    if not possible then return nil, err end
  end
  if how.on_leaving and not self.told then
    self.told = true
    how.on_leaving(go_away, self)
  end
  local token = how.enter and how.enter(pool.abandon, note, brief)
  note.pool, note.token = self, token
  local entry, err = get(self, how, seconds, note)
  if note.waiter then self.line:dismiss(note.waiter) end
  if entry then
    local ticket = entry.ticket
    entry.token, entry.how, entry.ticket = token, how, nil
    return entry, ticket
  end
  if token then how.leave(token) end
  serve(self)
  if entry == false then error(err, 0) end
  return nil, err
end

-- Calls a take, or what follows it, off: nothing of it stays behind. Its coroutine
-- must not go on.
function pool.abandon(note)
  local self, waiter, entry = note.pool, note.waiter, note.entry
  if not self then return end
  if waiter then
    entry = entry or waiter.entry
    waiter.entry = nil
    self.line:dismiss(waiter)
  end
  if entry and not entry.idle then forget_entry(self, entry) end
  serve(self)
end

-- Leases: a connection as long as it is lent. After that it is nobody's.

local Lease = { __name = "dblink.lease" }

local function check_lease(lease)
  if getmetatable(lease) ~= Lease then core.bad_self(lease, Lease.__name) end
end

-- Each verb of connections, on the lease's.
local forward = setmetatable({}, { __index = function(cache, name)
  if not methods[name] then return nil end
  local function verb(lease, ...)
    check_lease(lease)
    local conn = rawget(lease, "conn")
    if not conn then core.misuse "the connection has been given back to the pool" end
    return conn[name](conn, ...)
  end
  cache[name] = verb
  return verb
end })

function forward:release()
  check_lease(self)
  local entry, ticket = self.entry, self.ticket
  self.conn, self.entry, self.ticket = nil, nil, nil
  if entry then give_back(self.pool, entry, ticket) end
end

Lease.__index = forward
Lease.__close = forward.release

function Lease:__tostring()
  return "dblink.lease (" .. tostring(self.conn or "given back") .. ")"
end

function pool.is_lease(value)
  return getmetatable(value) == Lease
end

--- Borrows a connection: a lease, used like a connection, or nil and an error.
function Pool:acquire(seconds)
  if seconds ~= nil then check_number("argument 'seconds'", seconds, 0) end
  local entry, ticket = take(self, seconds or self.acquire_timeout, {})
  if not entry then return nil, ticket end
  return setmetatable({ conn = entry.conn, entry = entry, pool = self, ticket = ticket }, Lease)
end

function Pool:release(lease)
  if not pool.is_lease(lease) or lease.pool ~= self then core.misuse "bad argument 'lease' (not one of this pool's)" end
  lease:release()
end

-- One query on whatever connection is free. A timeout covers the wait for it too.
function pool.ask(self, note, brief, sql, ...)
  local seconds, begun = self.acquire_timeout, now()
  local limit = type(sql) == "table" and sql.timeout
  if type(limit) == "number" and limit < seconds then seconds = limit end
  local entry, ticket = take(self, seconds, note, brief)
  if not entry then return nil, ticket end
  if limit then
    local options = {}
    for key, value in pairs(sql) do options[key] = value end
    if type(limit) == "number" then options.timeout = math.max(limit - (now() - begun), 0) end
    sql = options
  end
  local fine, res, err = protected(methods.query, entry.conn, sql, ...)
  if fine then
    give_back(self, entry, ticket)
    return res, err
  end
  protected(give_back, self, entry, ticket)
  if not protect.native and type(res) == "string" and not res:find "^[^\n]*:%d+: " then
    core.misuse(res) -- Lua 5.1 could not see whose line it is from within the protected call
  end
  error(res, 0)
end

--- One query on whatever connection is free.
function Pool:query(...)
  return pool.ask(self, {}, true, ...)
end

local function finish(lease, ok, ...)
  if ok then
    lease:release()
    return ...
  end
  protected(lease.release, lease)
  error((...), 0)
end

--- Calls f(conn, ...) with a borrowed connection and gives back what f returns. The
-- connection goes back whatever happens.
function Pool:with(f, ...)
  if type(f) ~= "function" then core.misuse "bad argument 'f' to with (function expected)" end
  local lease, err = self:acquire()
  if not lease then return nil, err end
  return finish(lease, protected(f, lease, ...))
end

--- conn:transaction(f, options) on a borrowed connection.
function Pool:transaction(f, options)
  return self:with(function(lease) return lease:transaction(f, options) end)
end

local function count_lent(self)
  local lent = 0
  for _ in pairs(self.lent) do lent = lent + 1 end
  return lent
end

--- Opens connections until there are n (`min` if left out), all at once: true, or nil
-- and the first error.
function Pool:fill(n)
  if n ~= nil then check_number("argument 'n'", n, 0) end
  n = math.min(n or self.min, self.max)
  local how = how_here(self)
  local hands, err = crew.new(how)
  if not hands then return nil, err end
  local entries, raised = {}, nil
  for _ = 1, n - count_lent(self) do
    hands:spawn(function()
      local fine, entry, ticket = protected(take, self, self.acquire_timeout, {})
      if not fine then
        raised = entry
      elseif entry then
        entries[entry] = ticket
      else
        err = err or ticket
      end
    end)
  end
  hands:run()
  hands:close()
  for entry, ticket in pairs(entries) do
    upkeep.adopt(entry, how)
    give_back(self, entry, ticket)
  end
  if raised ~= nil then error(raised, 0) end
  if err then return nil, err end
  return true
end

--- How things stand, and what has happened since the beginning.
function Pool:stats()
  local stats, lent = {}, count_lent(self)
  for name, value in pairs(self.count) do stats[name] = value end
  stats.size, stats.max, stats.min = self.size - self.opening, self.max, self.min
  stats.idle, stats.lent, stats.opening, stats.waiting = #self.stack, lent, self.opening, self.line.length
  stats.mean_wait = stats.waits > 0 and stats.waited / stats.waits or 0
  stats.waited = nil
  return stats
end

--- From now on at most max; what is too many goes as it becomes free.
function Pool:resize(max, min)
  check_number("argument 'max'", max, 1)
  if min ~= nil then check_number("argument 'min'", min, 0) end
  self.max, self.min, self.ramp = max, min or math.min(self.min, max), math.max(self.ramp, 1)
  if self.failures == 0 then self.ramp = max end
  while self.size > max and self.stack[1] do forget_entry(self, table.remove(self.stack, 1)) end
  serve(self)
end

--- Closes the pool. Who waits is told; what is lent is closed when it comes back.
function Pool:close()
  if self.closed then return end
  self.closed = true
  close_idle(self)
  local waiter = self.line:head()
  while waiter do
    self.line:quit(waiter)
    waiter:wake()
    waiter = self.line:head()
  end
end

local function is_drained(self)
  return self.size == 0 and not self.line:head()
end

--- Lends no more, waits until all that is lent has come back, and closes: true, or nil
-- and an error when that took longer (the pool is closed all the same).
function Pool:drain(seconds)
  if seconds ~= nil then check_number("argument 'seconds'", seconds, 0) end
  if self.closed then return true end
  local how, deadline = how_here(self), now() + (seconds or math.huge)
  local drainer = waiters.new(how)
  self.draining, self.drainers[drainer] = true, true
  close_idle(self)
  while not is_drained(self) and not how.plain and now() < deadline and drainer:equip() do
    drainer:park(deadline < math.huge and deadline - now() or nil)
  end
  self.line:dismiss(drainer)
  self.drainers[drainer] = nil
  local done = is_drained(self)
  self:close()
  if done then return true end
  return nil, core.failure("timeout", "not every connection of the pool was given back in time")
end

for name, verb in pairs(Pool) do
  if type(verb) == "function" then
    Pool[name] = function(self, ...)
      if not pool.is_pool(self) then core.bad_self(self, Pool.__name) end
      return verb(self, ...)
    end
  end
end

Pool.__close = Pool.close

function Pool:__tostring()
  return ("dblink.pool (%d of %g, %d idle, %d waiting)"):format(self.size, self.max, #self.stack, self.line.length)
end

return pool
