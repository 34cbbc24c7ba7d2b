-- Those who wait for what another will give, in the order in which they came.
--
-- A waiter parks by the hooks of its wait or, where it has none, at a bell (a descriptor). What
-- it waits for is put down with it before it is woken, so that nobody can slip in between. One
-- whose coroutine is no more is passed over; where there is a token it keeps that.
local core = require "dblink.core"

local waiters = {}

local borrowers = setmetatable({}, { __mode = "kv" }) -- waiter with a bell: its coroutine, true in none

local Waiter = {}
Waiter.__index = Waiter

-- One who will wait so.
function waiters.new(how)
  return setmetatable({ how = how }, Waiter)
end

-- Gives it what it is woken by: true, or nil and an error.
function Waiter:equip()
  local how = self.how
  if self.token or self.bell or how.plain then return true end
  self.token = how.self and how.self()
  if self.token ~= nil then return true end
  local err
  self.bell, err = core.bell()
  if not self.bell then return nil, err end
  how.forget(self.bell:getfd()) -- of another's, by chance of the same number
  borrowers[self] = coroutine.running() or true
  return true
end

-- Waits until it is woken, or for that many seconds; it may come back for nothing.
function Waiter:park(seconds)
  if self.bell then return self.how.wait(self.bell:getfd(), "r", seconds) end
  return self.how.park(seconds)
end

function Waiter:wake()
  if self.bell then
    self.bell:ring()
  elseif self.token then
    self.how.unpark(self.token)
  end
end

local Line = {}
Line.__index = Line

-- An empty line; length: how many are in it.
function waiters.line()
  return setmetatable({ first = 1, last = 0, length = 0 }, Line)
end

-- true, or nil and an error.
function Line:join(waiter, in_front)
  local ok, err = waiter:equip()
  if not ok then return nil, err end
  local at = in_front and self.first - 1 or self.last + 1
  if in_front then self.first = at else self.last = at end
  self[at], waiter.at = waiter, at
  self.length = self.length + 1
  return true
end

function Line:quit(waiter)
  if not waiter.at then return end
  self[waiter.at] = nil
  waiter.at = nil
  self.length = self.length - 1
end

-- It waits no more, wherever it is.
function Line:dismiss(waiter)
  self:quit(waiter)
  if not waiter.bell then return end
  waiter.how.forget(waiter.bell:getfd())
  waiter.bell:close()
  waiter.bell = nil
end

-- Whose turn it is, or nil.
function Line:head()
  while self.first <= self.last do
    local waiter = self[self.first]
    if waiter and (not waiter.bell or borrowers[waiter]) then return waiter end
    if waiter then self:quit(waiter) end
    self.first = self.first + 1
  end
end

return waiters
