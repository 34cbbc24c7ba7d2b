-- A bounded number of connections, lent in the order in which they were asked for.
--
-- The pool knows no loop, no thread and no timer: all it does happens inside the
-- calls of those who borrow and give back. Whoever must wait parks, by the hooks of
-- his wait or, where it has none, at a bell (a descriptor). A plain script never
-- parks: while it waits nobody could give anything back.
--
-- What is given back is handed to the first in the queue directly, a connection or
-- the place for one, so nobody can slip in between. A connection goes back only
-- clean: not in a transaction, nothing running, not listening, no cancel in flight.
-- One that is dead or too old is found when it is about to be lent, and replaced.
-- While the server is away one caller at a time tries to reach it, in growing
-- pauses; when it is back the number of those who try doubles with each success.
--
-- A place (entry) that is in use has a ticket, which its user alone holds, and is its own
-- where it is idle. A coroutine that is dropped, or an error that goes past us, takes the
-- ticket along: its collector tells that the place is free.
local core = require "dblink.core"
local await = require "dblink.await"
local codec = require "dblink.codec"
local connection = require "dblink.connection"
local checks = require "dblink.options"
local crew = require "dblink.crew"
local protect = require "dblink.protect"

local now, state, methods = core.now, core.state, core.methods
local is_at_rest, protected = core.is_at_rest, protect.pcall

local pool = {}

local Pool = { __name = "dblink.pool" }
Pool.__index = Pool

local FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.4
local CLEANING = 5 -- seconds that cleaning a connection may take

-- What a pool can be told, and what it does untold; other names are libpq's keywords.
local DEFAULTS = {
  max = 10, min = 0, acquire_timeout = 30, idle = 600, lifetime = 3600, check = 30,
  max_waiting = math.huge,
}
local OPTIONS = { reset = true, configure = true, conninfo = true }
local NUMBERS = { max = true, min = true, acquire_timeout = true, idle = true, lifetime = true, max_waiting = true }

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
    if NUMBERS[name] then
      check_number("option " .. name, value, name == "max" and 1 or 0)
      self[name] = value
    elseif name == "check" then
      if value ~= false then check_number("option check", value, 0) end
      self.check = value or math.huge
    elseif name == "reset" then
      if type(value) ~= "string" and type(value) ~= "function" then
        core.misuse "option reset must be SQL or a function"
      end
      self.reset = value
    elseif name == "configure" then
      if type(value) ~= "function" then core.misuse "option configure must be a function" end
      self.configure = value
    elseif connection.options[name] and name ~= "timeout" then
      habits[name] = value
    elseif name ~= 1 and not OPTIONS[name] then
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
  self.queue, self.first, self.last = {}, 1, 0
  self.size, self.opening, self.waiting, self.ramp = 0, 0, 0, self.max
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

-- Parking. A waiter is { how =, token = | bell =, entry = | err = }. One whose coroutine is no more
-- is passed over; where there is a token it keeps that.

local borrowers = setmetatable({}, { __mode = "kv" }) -- waiter with a bell: its coroutine, true in none

-- Gives a waiter what it is woken by: true, or nil and an error.
local function equip(waiter)
  local how = waiter.how
  if waiter.token or waiter.bell or how.plain then return true end
  waiter.token = how.self and how.self()
  if waiter.token ~= nil then return true end
  local err
  waiter.bell, err = core.bell()
  if not waiter.bell then return nil, err end
  how.forget(waiter.bell:getfd())
  return true
end

local function park(waiter, seconds)
  local how = waiter.how
  if waiter.bell then return how.wait(waiter.bell:getfd(), "r", seconds) end
  return how.park(seconds)
end

local function wake(waiter)
  if waiter.bell then
    waiter.bell:ring()
  elseif waiter.token then
    waiter.how.unpark(waiter.token)
  end
end

local function leave(waiter)
  if waiter.bell then
    waiter.how.forget(waiter.bell:getfd())
    waiter.bell:close()
    waiter.bell = nil
  end
end

local function unqueue(self, waiter)
  if not waiter.at then return end
  self.queue[waiter.at] = nil
  waiter.at = nil
  self.waiting = self.waiting - 1
end

local function head(self)
  while self.first <= self.last do
    local waiter = self.queue[self.first]
    if waiter and (not waiter.bell or borrowers[waiter]) then return waiter end
    if waiter then unqueue(self, waiter) end
    self.first = self.first + 1
  end
end

-- true, or nil and an error.
local function enqueue(self, waiter, in_front)
  local ok, err = equip(waiter)
  if not ok then return nil, err end
  if in_front then
    self.first = self.first - 1
    waiter.at = self.first
  else
    self.last = self.last + 1
    waiter.at = self.last
  end
  self.queue[waiter.at] = waiter
  self.waiting = self.waiting + 1
  if waiter.bell then borrowers[waiter] = coroutine.running() or true end
  return true
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

-- A connection for someone, or a place where he may open one: an entry without conn.
local function grant(self, waiter)
  local entry = table.remove(self.stack)
  if entry then
    entry.idle = false
  elseif may_open(self) then
    entry = { idle = false }
    entry.ticket = new_ticket(function() leak(self, entry) end)
    self.size, self.opening = self.size + 1, self.opening + 1
  else
    return false
  end
  waiter.entry = entry
  return true
end

-- Gives the first in the queue what there is. One who is first when there is a
-- pause before the next try sleeps no longer than that, and so must be told.
local function serve(self)
  local waiter = head(self)
  while waiter and grant(self, waiter) do
    unqueue(self, waiter)
    wake(waiter)
    waiter = head(self)
  end
  if waiter and now() < self.retry_at and not waiter.alarmed then wake(waiter) end
  if self.drainer and self.size == 0 then wake(self.drainer) end
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

-- Gives a connection the wait of whoever has it now.
local function adopt(entry, how, token)
  local s = entry.state
  s.token = token
  if s.wait ~= how then
    local fd = entry.conn:getfd()
    if fd then how.forget(fd) end
    await.use(entry.conn, how)
  end
end

-- Only what a server says of itself gives hope for the next try; a wrong password does not.
local function is_final(err)
  if err.kind == "usage" or err.kind == "memory" then return true end
  local message = err.message
  if message:find("the database system is", 1, true) or message:find "too many c" or
    message:find("remaining connection slots", 1, true) or message:find("is not accepting", 1, true) then
    return false
  end
  return message:find "failed: [^\n]-:  " ~= nil
end

-- A new connection, configured, or nil and an error; it may raise what the user's function does.
local function establish(self, entry, deadline, how, token)
  local options = { wait = how }
  for name, value in pairs(self.habits) do
    if name ~= "wait" then options[name] = value end
  end
  options.timeout = deadline and math.max(deadline - now(), 0)
  local function hold(attempt) entry.attempt = attempt end
  local conn, err = connection.begin(self.conninfo, options, hold, token)
  if not conn then return nil, err end
  entry.state = state(conn)
  entry.state.token = token
  local opened
  opened, err = connection.open(conn)
  if opened and self.configure then
    err = select(2, self.configure(conn))
    if err and getmetatable(err) ~= "dblink.error" then err = core.failure("usage", tostring(err)) end
  end
  if err then return nil, err end
  return conn
end

-- Opens the connection of an entry: true; nil and an error; false and what was raised.
local function open(self, entry, deadline, how, token)
  local fine, conn, err = protected(establish, self, entry, deadline, how, token)
  if fine and conn then
    entry.conn, entry.attempt, entry.codecs = conn, nil, entry.state.codecs
    entry.expires = now() + self.lifetime * (0.9 + 0.2 * math.random())
    self.opening = self.opening - 1
    self.failures, self.ramp = 0, math.min(self.ramp * 2, self.max)
    self.count.opened = self.count.opened + 1
    return true
  end
  forget_entry(self, entry)
  self.failures, self.ramp = self.failures + 1, 1
  self.count.failed = self.count.failed + 1
  local pause = math.min(FIRST_PAUSE * 2 ^ (self.failures - 1), LONGEST_PAUSE)
  self.retry_at = now() + pause * (0.5 + 0.5 * math.random())
  if fine then return nil, err end
  return false, conn
end

local function drop_notifications(conn)
  while conn:get_notify() do end
end

local function unlisten(conn)
  local ok = conn:query { "unlisten *", timeout = CLEANING }
  drop_notifications(conn)
  core.set_listening(conn, false)
  return ok
end

-- Whether an idle connection can be lent; else why not. One that keeps silent is not waited for
-- longer than the borrower waits.
local function is_good(self, entry, deadline)
  local conn, moment = entry.conn, now()
  if moment >= entry.expires then return false, "expired" end
  if moment - entry.since < self.check and core.is_at_rest(conn, true) then return true end
  -- what came while nobody looked: a good-bye of the server, perhaps
  local stirred = false
  while conn:status() == "ok" and core.poll(conn:getfd(), "r", 0) do
    stirred = true
    conn:step()
  end
  if conn:status() ~= "ok" or conn:transaction_status() ~= "idle" then return false, "lost" end
  if conn:get_notify() and not unlisten(conn) then return false, "lost" end
  if stirred or now() - entry.since >= self.check then
    state(conn).grace = 0 -- what is to be dropped need not be drained
    local ok = conn:query { "", timeout = math.max(math.min(CLEANING, deadline - now()), 0) }
    state(conn).grace = nil
    if not ok then return false, "lost" end
  end
  return true
end

-- Makes a connection fit to be lent on, if that can be; it may take a while.
local function clean(self, entry)
  local conn = entry.conn
  -- held: a coroutine still waits on it, and would take the next borrower's answer for its own
  if conn:status() ~= "ok" or core.is_held(conn) or core.in_pipeline(conn) then return false end
  core.set_limit(conn, nil)
  if entry.state.codecs ~= entry.codecs then entry.codecs = codec.restore(conn, entry.codecs) end
  state(conn).grace = CLEANING
  local stopped = not core.is_active(conn) or await.stop(conn)
  state(conn).grace = nil
  if not stopped then return false end
  if conn:transaction_status() ~= "idle" and not conn:query { "rollback", timeout = CLEANING } then return false end
  if core.is_listening(conn) and not unlisten(conn) then return false end
  local reset = self.reset
  if type(reset) == "string" then
    if not conn:query { reset, timeout = CLEANING } then return false end
  elseif reset and reset(conn) == false then
    return false
  end
  drop_notifications(conn)
  core.take_notices(conn)
  return conn:status() == "ok" and conn:transaction_status() == "idle"
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

-- Raises what the option reset does, when all is done.
local function give_back(self, entry, ticket)
  if not self.lent[entry] then return end
  self.lent[entry] = nil
  if self.closed or self.draining or self.leaving or self.size > self.max then return drop(self, entry) end
  if self.reset or not is_at_rest(entry.conn) or entry.state.codecs ~= entry.codecs then
    local fine, good = protected(clean, self, entry)
    if not (fine and good) then drop(self, entry, "lost") end
    if not fine then error(good, 0) end
    if not good then return end
  end
  if self.closed or now() >= entry.expires then
    drop(self, entry, not self.closed and "expired" or nil)
  else
    part(entry)
    entry.since, entry.idle, entry.ticket = now(), true, ticket
    self.stack[#self.stack + 1] = entry
    serve(self)
    reap(self)
  end
end

local function note_wait(self, begun)
  local count, took = self.count, now() - begun
  count.waits = count.waits + 1
  count.waited = count.waited + took
  if took > count.longest_wait then count.longest_wait = took end
end

local function no_time(self, err, seconds)
  self.count.timeouts = self.count.timeouts + 1
  if err then return nil, err end
  return nil, core.failure("timeout", ("no connection of the pool became free within %g seconds"):format(seconds))
end

-- Waits in the queue until something is granted: true, or nil and an error.
local function wait_for_grant(self, waiter, deadline, trouble, seconds)
  if waiter.life and waiter.how.secure then waiter.how.secure(waiter.life) end
  while not (waiter.entry or waiter.err) do
    local moment = now()
    if moment >= deadline then
      unqueue(self, waiter)
      serve(self)
      return no_time(self, trouble, seconds)
    end
    local till = deadline
    waiter.alarmed = self.retry_at > moment and head(self) == waiter
    if waiter.alarmed and self.retry_at < till then till = self.retry_at end
    if waiter.how.plain then
      if not waiter.alarmed then
        unqueue(self, waiter)
        return nil, core.failure("usage", "all connections of the pool are lent, and in a plain script "
          .. "nobody can give one back while this waits")
      end
      core.poll(-1, "r", till - moment)
    else
      park(waiter, till < math.huge and till - moment or nil)
    end
    waiter.alarmed = false
    if now() >= self.retry_at then serve(self) end
  end
  if waiter.err then return nil, waiter.err end
  return true
end

-- The heart: an entry that is good and lent, or nil and an error.
local function get(self, how, seconds, note)
  local begun = now()
  local deadline = begun + seconds
  local waiter, waited, trouble = { how = how, life = note.token }, false, nil
  note.pool, note.waiter = self, waiter
  reap(self)
  if head(self) or not grant(self, waiter) then
    if self.waiting >= self.max_waiting then
      return nil, core.failure("usage", ("%d are waiting for a connection of the pool already"):format(self.waiting))
    end
    local ok, err = enqueue(self, waiter)
    if not ok then return nil, err end
    waited = true
  end
  while true do
    if waiter.at then
      local ok, err = wait_for_grant(self, waiter, deadline, trouble, seconds)
      if not ok then
        leave(waiter)
        return nil, err
      end
    end
    local entry = waiter.entry
    if entry.conn then
      adopt(entry, how, note.token)
      local good, why = is_good(self, entry, deadline)
      if good then
        if not waited then self.count.hits = self.count.hits + 1 end
      else
        -- its place is ours; others like it may wait in the stack
        waiter.entry = nil
        forget_entry(self, entry)
        self.count[why] = self.count[why] + 1
        local ok, err
        if now() >= deadline then
          ok, err = no_time(self, trouble, seconds)
        elseif grant(self, waiter) then
          ok = true
        else
          ok, err = enqueue(self, waiter, true)
        end
        if not ok then
          leave(waiter)
          serve(self)
          return nil, err
        end
        entry = nil
      end
    else
      local opened, err = open(self, entry, deadline < math.huge and deadline or nil, how, note.token)
      if not opened then waiter.entry, entry = nil, nil end
      serve(self)
      if opened == false then
        leave(waiter)
        error(err, 0)
      elseif err then
        trouble = err
        if self.closed or is_final(err) or now() >= deadline or not enqueue(self, waiter, true) then
          leave(waiter)
          return nil, err
        end
      end
    end
    if entry then
      leave(waiter)
      if waited then note_wait(self, begun) end
      if self.closed then
        forget_entry(self, entry)
        return nil, core.failure("usage", "the pool is closed")
      end
      waiter.entry = nil
      self.lent[entry], note.entry = true, entry
      return entry
    end
  end
end

local function close_idle(self)
  while self.stack[1] do forget_entry(self, table.remove(self.stack)) end
end

-- This process ends.
local function go_away(self)
  self.leaving = true
  close_idle(self)
end

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
  note.token = token
  local entry, err = get(self, how, seconds, note)
  if entry then
    entry.token, entry.how = token, how
  elseif token then
    how.leave(token)
  end
  return entry, err
end

-- Calls a take, or what follows it, off: nothing of it stays behind. Its coroutine
-- must not go on.
function pool.abandon(note)
  local self, waiter = note.pool, note.waiter
  if not self then return end
  local entry = note.entry or waiter.entry
  waiter.entry = nil
  unqueue(self, waiter)
  leave(waiter)
  if entry and not entry.idle then forget_entry(self, entry) end
  serve(self)
end

-- What the user of an entry that was taken holds, until it is given back.
local function ticket_of(entry)
  local ticket = entry.ticket
  entry.ticket = nil
  return ticket
end

-- Leases: a connection as long as it is lent. After that it is nobody's.

local Lease = { __name = "dblink.lease" }

local function conn_of(lease)
  local conn = rawget(lease, "conn")
  if not conn then core.misuse "the connection has been given back to the pool" end
  return conn
end

-- Each verb of connections, on the lease's.
local forward = setmetatable({}, { __index = function(cache, name)
  if not methods[name] then return nil end
  local function verb(lease, ...)
    local conn = conn_of(lease)
    return conn[name](conn, ...)
  end
  cache[name] = verb
  return verb
end })

function forward:release()
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
  local entry, err = take(self, seconds or self.acquire_timeout, {})
  if not entry then return nil, err end
  return setmetatable({ conn = entry.conn, entry = entry, pool = self, ticket = ticket_of(entry) }, Lease)
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
  local entry, err = take(self, seconds, note, brief)
  if not entry then return nil, err end
  local ticket = ticket_of(entry)
  if limit then
    local options = {}
    for key, value in pairs(sql) do options[key] = value end
    if type(limit) == "number" then options.timeout = math.max(limit - (now() - begun), 0) end
    sql = options
  end
  local fine, res
  fine, res, err = protected(methods.query, entry.conn, sql, ...)
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
  local entries = {}
  for _ = 1, n - count_lent(self) do
    hands:spawn(function()
      local entry, failure = take(self, self.acquire_timeout, {}) -- its ticket stays its own
      entries[#entries + 1] = entry
      err = err or failure
    end)
  end
  hands:run()
  hands:close()
  for _, entry in ipairs(entries) do
    adopt(entry, how)
    give_back(self, entry, entry.ticket)
  end
  if err then return nil, err end
  return true
end

--- How things stand, and what has happened since the beginning.
function Pool:stats()
  local stats, lent = {}, count_lent(self)
  for name, value in pairs(self.count) do stats[name] = value end
  stats.size, stats.max, stats.min = self.size - self.opening, self.max, self.min
  stats.idle, stats.lent, stats.opening, stats.waiting = #self.stack, lent, self.opening, self.waiting
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
  local waiter = head(self)
  while waiter do
    unqueue(self, waiter)
    waiter.err = core.failure("usage", "the pool was closed")
    wake(waiter)
    waiter = head(self)
  end
end

--- Lends no more, waits until all that is lent has come back, and closes: true, or nil
-- and an error when that took longer (the pool is closed all the same).
function Pool:drain(seconds)
  if seconds ~= nil then check_number("argument 'seconds'", seconds, 0) end
  if self.closed then return true end
  local how, deadline = how_here(self), now() + (seconds or math.huge)
  self.draining = true
  close_idle(self)
  local done = true
  while head(self) or self.size > 0 do
    if how.plain or now() >= deadline then
      done = false
      break
    end
    self.drainer = self.drainer or { how = how }
    if not equip(self.drainer) then
      done = false
      break
    end
    park(self.drainer, deadline < math.huge and deadline - now() or nil)
  end
  if self.drainer then
    leave(self.drainer)
    self.drainer = nil
  end
  self:close()
  if done then return true end
  return nil, core.failure("timeout", "not every connection of the pool was given back in time")
end

Pool.__close = Pool.close

function Pool:__tostring()
  return ("dblink.pool (%d of %g, %d idle, %d waiting)"):format(self.size, self.max, #self.stack, self.waiting)
end

return pool
