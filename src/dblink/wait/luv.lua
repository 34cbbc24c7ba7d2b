-- The wait of a coroutine under uv.run (luv).
--
-- One poll handle for each descriptor, kept until it is forgotten: libuv wants
-- it closed before the descriptor is. A refused connect comes as an error of the
-- handle; that counts as ready, and whoever uses the socket meets it. (The line "EBADF" on
-- stderr is luv's own: it writes it for each such error, before it calls anybody.)
local protect = require "dblink.protect"
local uv = require "luv"

local LONGEST = 2 ^ 31 -- seconds

local watches = {} -- fd -> watch

-- An error of the coroutine becomes one of the loop's callback, as if it had run there.
local function wake(watch, how)
  local co = watch.co
  if not co then return end
  watch.co = nil
  if not watch.poll:is_closing() then watch.poll:stop() end
  watch.timer:stop()
  if coroutine.status(co) == "dead" then return end -- somebody has closed it
  local ok, err = coroutine.resume(co, how)
  if not ok then error(type(err) == "string" and debug.traceback(co, err) or err, 0) end
end

local function new_watch(fd)
  local watch = { poll = assert(uv.new_poll(fd)), timer = assert(uv.new_timer()) }
  watch.ready = function() wake(watch, "ready") end
  watch.late = function() wake(watch, "timeout") end
  return watch
end

local function wait(fd, events, seconds)
  local watch = watches[fd]
  if not watch then
    watch = new_watch(fd)
    watches[fd] = watch
  end
  watch.co = protect.running()
  watch.poll:start(events, watch.ready)
  if seconds then
    uv.update_time()
    watch.timer:start(math.ceil(math.min(seconds, LONGEST) * 1000), 0, watch.late)
  end
  if coroutine.yield() == "timeout" then return nil, "timeout" end
  return true
end

-- luv crashes at the end of a program that closes a handle after uv.run has returned: what
-- is but stopped then is luv's to close. At the very end it has been, and the loop is no more.
local function put_away(handle)
  if handle:is_closing() then return end
  if uv.loop_mode and not uv.loop_mode() then handle:stop() else handle:close() end
end

-- Whoever waits is woken at the loop's next turn, when the socket is gone.
local function forget(fd)
  local watch = watches[fd]
  if not watch then return end
  watches[fd] = nil
  put_away(watch.poll)
  if not watch.co then return put_away(watch.timer) end
  watch.timer:start(0, 0, function()
    wake(watch, "forgotten")
    watch.timer:close()
  end)
end

return { wait = wait, forget = forget }
