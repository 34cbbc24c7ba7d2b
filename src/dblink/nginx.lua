-- Waiting in nginx's Lua code (OpenResty, or the Lua module alone).
--
-- Lua can wait there for cosockets only, so a thread of the worker watches our
-- descriptors (relay.c) and wakes a cosocket. One is borrowed from nginx's own pool
-- of idle ones for as long as something goes on. It is also the life token of its
-- request: nginx closes it when the request ends, however it ends. A timer of the
-- worker looks for such, and undoes what they were about.
--
-- Nothing starts before somebody waits: the master process, in init_by_lua, may
-- require this and make pools.
local core = require "dblink.core"
local ffi = require "ffi"
local log_level = require "ngx.errlog".get_sys_filter_level
local semaphore = require "ngx.semaphore"

local ngx = require "ngx"
local poll = core.poll
local tcp, get_phase, sleep = ngx.socket.tcp, ngx.get_phase, ngx.sleep

local nginx, how = {}, {}

local LOOK = 0.25           -- seconds between two looks for requests that are gone
local LONG = 2 ^ 31 - 1     -- milliseconds: a cosocket's time limit, never reached
local IDLE = 60000          -- milliseconds that nginx keeps a cosocket for the next
local LONGEST_PARK = 100000 -- seconds

local relay, address       -- of this worker
local timer = false        -- whether it looks
local leaving = false      -- whether it ends
local looks = 0            -- how often it has looked
local free, slots = {}, 0  -- tokens that nobody has, and how many there are
local tokens = {}          -- those that somebody has: set
local farewells = setmetatable({}, { __mode = "k" }) -- argument -> function

-- Where much goes on, the answer is there after a turn or two of nginx's loop, and
-- no thread need wake anybody. ngx.sleep(0) is the next turn; without OpenResty's
-- patches each writes a warning to the log, if that takes warnings.
nginx.NAPS = 2
ffi.cdef "extern int ngx_posted_delayed_events;"
local patched = pcall(function() return ffi.C.ngx_posted_delayed_events end)

function nginx.may_nap()
  return patched or log_level() < ngx.WARN
end

local CANNOT_WAIT = {
  init = true, init_worker = true, exit_worker = true, set = true, balancer = true, header_filter = true,
  body_filter = true, log = true, ssl_session_store = true,
}

-- Whether this is a phase that one can wait in: true, or nil and an error.
function nginx.can_wait()
  local phase = get_phase()
  if not CANNOT_WAIT[phase] then return true end
  return nil, core.failure("usage", ("nothing can be waited for in nginx's phase %s"):format(phase))
end

-- Whether one can wait here: true, or nil and an error. Asked before anything is sent.
function how.check()
  local ok, err = nginx.can_wait()
  if not ok or relay then return ok, err end
  relay, err = core.relay()
  if not relay then return nil, err end
  address = "unix:" .. relay:path()
  return true
end

local function undo(token)
  local gone = token.gone
  if not gone then return end
  local ok, err = pcall(gone, token.arg)
  if not ok then ngx.log(ngx.ERR, "dblink: ", err) end
end

-- One without a cosocket (or, of wait/openresty-direct, a mark) may only nap, which is over at the
-- loop's next turn: else it never will be.
local function is_lost(token)
  if token.mark then return token.mark:ended() end
  if token.sock then return relay:gone(token.slot) end
  return looks - token.seen >= 2
end

local function look(premature)
  local lost = {}
  looks = looks + 1
  for token in pairs(tokens) do
    if is_lost(token) then lost[#lost + 1] = token end
  end
  for _, token in ipairs(lost) do
    tokens[token] = nil
    if token.slot then
      relay:drop(token.slot)
      free[#free + 1] = { slot = token.slot, options = token.options }
    end
    undo(token)
  end
  if premature and not leaving then
    leaving = true
    for arg, farewell in pairs(farewells) do farewell(arg) end
  end
end

-- The token is about to nap.
function nginx.see(token) token.seen = looks end

-- Has gone(arg) called when the request is over before nginx.forget(token).
function nginx.remember(token)
  tokens[token] = true
  token.naps, token.seen = nginx.NAPS, looks
  if timer then return end
  local ok, err = ngx.timer.every(LOOK, look)
  timer, leaving = true, not ok
  if err and not ngx.worker.exiting() then ngx.log(ngx.ERR, "dblink: no timer: ", err) end
end

-- false where it was over.
function nginx.forget(token)
  if not tokens[token] then return false end
  tokens[token], token.gone, token.arg = nil, nil, nil
  return true
end

-- A token; without a cosocket yet.
local function take_token()
  assert(how.check())
  local token = table.remove(free)
  if not token then
    slots = slots + 1
    token = { slot = slots, options = { pool = "dblink:" .. slots, pool_size = 1 } }
  end
  nginx.remember(token)
  return token
end

local function give_back(token)
  if not nginx.forget(token) then return end
  local sock = token.sock
  token.sock = nil
  free[#free + 1] = token
  if sock and not sock:setkeepalive(IDLE, 1) then relay:drop(token.slot) end
end

-- Gives the token a cosocket: true, or false where none can be had.
local function secure(token)
  if token.sock then return true end
  local sock = tcp()
  local ok, err = sock:connect(address, token.options)
  if ok and sock:getreusedtimes() == 0 then ok, err = relay:accept(token.slot) end
  if not ok then
    sock:close()
    ngx.log(ngx.ERR, "dblink: no cosocket to wait with: ", err)
    return false
  end
  sock:settimeout(LONG)
  token.sock = sock
  return true
end

-- A turn of the loop.
local function nap(token)
  token.naps = token.naps - 1
  if nginx.may_nap() then
    nginx.see(token)
    sleep(0)
  elseif secure(token) then
    relay:ring(token.slot)
    token.sock:receive(1)
  end
end

-- By the relay: why it was woken.
local function receive(token, fd, events, seconds)
  if not secure(token) then
    sleep(0.005)
    return "f"
  end
  if not relay:arm(token.slot, fd, events, seconds) then return "r" end
  token.waiting = true
  local why, err = token.sock:receive(1)
  token.waiting = nil
  return why or error("dblink: " .. tostring(err), 0)
end

-- token: what enter gave, if anything.
function how.wait(fd, events, seconds, token)
  if seconds == 0 then return poll(fd, events, 0) end
  local why
  if token and not token.waiting then
    if token.naps > 0 and events == "r" then
      nap(token)
      return true
    end
    why = receive(token, fd, events, seconds)
    token.naps = nginx.NAPS
  else
    token = take_token()
    why = receive(token, fd, events, seconds)
    give_back(token)
  end
  if why == "t" then return nil, "timeout" end
  return true
end

function how.forget(fd)
  if relay then relay:forget(fd) end
end

-- Something begins that must be undone, by gone(arg), when the request ends before
-- leave(token). brief: until then nothing is waited for but with the token, or
-- after secure(token).
function how.enter(gone, arg, brief)
  local token = take_token()
  token.gone, token.arg = gone, arg
  if not brief then secure(token) end
  return token
end

how.secure = secure

how.leave = give_back

-- Has farewell(arg) called when the worker begins to end, if arg is still there.
function how.on_leaving(farewell, arg)
  if leaving then return farewell(arg) end
  farewells[arg] = farewell
end

local mine = setmetatable({}, { __mode = "k" }) -- coroutine: its semaphore

function how.self()
  local token = semaphore.new()
  mine[coroutine.running()] = token
  return token
end

function how.park(seconds)
  local ok = mine[coroutine.running()]:wait(seconds or LONGEST_PARK)
  if ok or not seconds then return true end
  return nil, "timeout"
end

function how.unpark(token)
  token:post(1)
end

nginx.relay = how

function nginx.is_leaving()
  return leaving
end

return nginx
