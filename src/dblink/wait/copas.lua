-- The wait of a coroutine in the copas loop, of copas 1 to 4.
--
-- Copas waits for sockets inside its own receive and send: a stand-in says
-- "timeout" once, is parked, and is content when it comes back. Copas 1 has no
-- timers, so the deadlines of stand-ins are kept here, and copas.step does not
-- sleep beyond the next of them. A stand-in whose time has come, or whose socket
-- goes, shows the select a descriptor that is always ready: the bell.
--
-- A socket is in one queue of copas at a time. To wait for both readiness to read
-- and to write is to wait for the second, and to look for the first in turns.
local core = require "dblink.core"
local copas = require "copas"
local socket = require "socket"

local now, poll = core.now, core.poll

local TURN = 0.01 -- seconds
local MOST = 1023 -- select(2) takes no descriptor above

local bell = assert((socket.udp4 or socket.udp)()) -- not bound to anything: always writable

local standins = {} -- fd -> stand-in
local timed = {}    -- stand-in -> deadline

local Standin = {}
Standin.__index = Standin

function Standin:getfd() return self.rung and bell:getfd() or self.fd end
function Standin:dirty() return self.rung ~= nil end -- select asks this of readers
function Standin:close() end

function Standin:receive()
  if self.parked then return true end
  self.parked = true
  return nil, "timeout", 0
end
Standin.send = Standin.receive

local step = copas.step
function copas.step(timeout)
  for standin, deadline in pairs(timed) do
    local left = deadline - now()
    if left <= 0 then
      left, standin.rung = 0, standin.rung or "late"
    end
    if not timeout or left < timeout then timeout = left end
  end
  return step(timeout)
end

local function park(fd, events, deadline)
  local standin = standins[fd]
  if not standin then
    standin = setmetatable({ fd = fd }, Standin)
    standins[fd] = standin
  end
  standin.parked, timed[standin] = nil, deadline
  if events == "w" then copas.send(standin, "") else copas.receive(standin) end
  local rung = standin.rung
  standin.rung, timed[standin] = nil, nil
  return rung
end

local function wait(fd, events, seconds)
  if fd > MOST then core.misuse("copas cannot wait for descriptor " .. fd .. ": select takes none above " .. MOST) end
  local deadline = seconds and now() + seconds
  local rung
  if events ~= "rw" then
    rung = park(fd, events, deadline)
  else
    repeat
      local turn = now() + TURN
      if deadline and deadline < turn then turn = deadline end
      rung = park(fd, poll(fd, "r", 0) and "r" or "w", turn)
    until rung ~= "late" or deadline and now() >= deadline
  end
  if rung == "late" then return nil, "timeout" end
  return true
end

-- Whoever waits is woken at the loop's next turn, when the socket is gone.
local function forget(fd)
  local standin = standins[fd]
  if not standin then return end
  standins[fd] = nil
  standin.rung = "forgotten"
end

return { wait = wait, forget = forget }
