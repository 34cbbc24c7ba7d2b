-- The wait of nginx's Lua code that is part of nginx's own loop (direct.c), where the
-- worker's nginx is as it should be; else the relay.
local core = require "dblink.core"
local ffi = require "ffi"
local nginx = require "dblink.nginx"
local semaphore = require "ngx.semaphore"

local ngx = require "ngx"
local relay, sleep = nginx.relay, ngx.sleep

local LONGEST = 100000 -- seconds
local AT_ONCE = 16     -- waits that may find something ready before others have their turn

local works   -- whether it can be used in this worker; nil: nobody has asked
local watches = {} -- fd -> { watch =, semaphore =, at_once = }
local marks = {}   -- request -> mark
local free = {}    -- tokens that nobody has

local how = {}
for name, hook in pairs(relay) do how[name] = hook end
-- The worker ends: nginx complains of what it still watches.
local function close_idle()
  for fd, w in pairs(watches) do
    if not w.waits then
      watches[fd] = nil
      w.watch:close()
    end
  end
end

local function can_be_used()
  local ok, err = core.direct()
  works = ok or false
  if ok then how.on_leaving(close_idle, watches) end
  if err then ngx.log(ngx.WARN, "dblink: openresty-direct cannot be used, the relay waits instead: ", err) end
  return works
end

function how.check()
  local ok, err = nginx.can_wait()
  if not ok then return nil, err end
  if works == nil then can_be_used() end
  return works or relay.check()
end

local function new_watch(fd)
  local sema = assert(semaphore.new())
  local watch = core.watch(fd, tonumber(ffi.cast("uintptr_t", sema.sem)))
  if not watch then return nil end
  watches[fd] = { watch = watch, semaphore = sema, at_once = 0 }
  return watches[fd]
end

function how.forget(fd)
  relay.forget(fd)
  local w = watches[fd]
  watches[fd] = nil
  if w then w.watch:close() end
end

-- Gives the token the mark of its request: true, or false where there is no memory for one.
function how.secure(token)
  if token.mark then return true end
  if token.slot then return relay.secure(token) end
  local request = core.request()
  local mark = marks[request]
  if not mark or mark:ended() then
    mark = core.mark()
    marks[request] = mark
  end
  token.mark = mark
  return mark ~= nil
end

function how.wait(fd, events, seconds, token)
  if works == nil then can_be_used() end
  if works and token then
    if token.naps > 0 and events == "r" and nginx.may_nap() then
      token.naps = token.naps - 1
      nginx.see(token)
      sleep(0)
      return true
    elseif not how.secure(token) then
      nginx.see(token)
      sleep(0.005)
      return true
    end
  end
  local w = works and (watches[fd] or new_watch(fd))
  local armed
  if w then armed = w.watch:arm(events) end
  if armed == false and w.at_once < AT_ONCE then
    w.at_once = w.at_once + 1
    return true
  elseif not armed then
    if w then w.at_once = 0 end
    return relay.wait(fd, events, seconds, token and token.slot and token)
  end
  w.at_once, w.waits = 0, true
  if token then token.naps = nginx.NAPS end
  local woken = w.semaphore:wait(seconds or LONGEST)
  w.waits = false
  if not woken then w.watch:disarm() end
  if nginx.is_leaving() then how.forget(fd) end
  if not woken and seconds then return nil, "timeout" end
  return true
end

function how.enter(gone, arg, brief)
  if works == nil then can_be_used() end
  if not works then return relay.enter(gone, arg, brief) end
  local token = table.remove(free) or {}
  token.gone, token.arg = gone, arg
  nginx.remember(token)
  if not brief then how.secure(token) end
  return token
end

function how.leave(token)
  if token.slot then return relay.leave(token) end
  if not nginx.forget(token) then return end
  token.mark = nil
  free[#free + 1] = token
end

return how
