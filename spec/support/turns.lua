-- A loop for specs, in full view: coroutines that wait through it are resumed when their descriptor is ready, and what
-- is registered twice, or closed while it is registered, is an error, as in epoll's and libuv's loops.
local core = require "dblink.core"

local turns = {}

function turns.new()
  local loop = { waiting = {}, now = core.now }

  loop.options = { wait = {
    wait = function(fd, events, seconds)
      assert(type(fd) == "number", "a wait for no descriptor")
      for _, w in pairs(loop.waiting) do
        assert(w.fd ~= fd, "two coroutines wait for one descriptor")
      end
      loop.waiting[coroutine.running()] =
        { fd = fd, events = events, till = seconds and core.now() + seconds }
      return coroutine.yield()
    end,
    forget = function() end,
  } }

  -- Runs f until it waits or ends; returns its coroutine. An error in it is raised here.
  function loop.spawn(f, ...)
    local co = coroutine.create(f)
    local ok, err = coroutine.resume(co, ...)
    if not ok then error(err, 0) end
    return co
  end

  -- Looks once at all that wait, and resumes who is ready.
  function loop.turn(seconds)
    for co, w in pairs(loop.waiting) do
      local ready = core.poll(w.fd, w.events, 0)
      if ready or (w.till and core.now() >= w.till) then
        loop.waiting[co] = nil
        local ok, err = coroutine.resume(co, ready, not ready and "timeout" or nil)
        if not ok then error(err, 0) end
        return
      end
    end
    local _, any = next(loop.waiting)
    if any then core.poll(any.fd, any.events, seconds or 0.002) end
  end

  -- Until f() is true, or everything is over.
  function loop.run(f, seconds)
    local till = core.now() + (seconds or 10)
    while next(loop.waiting) and not (f and f()) do
      if core.now() > till then error("the loop still runs", 2) end
      loop.turn()
    end
  end

  -- f in a coroutine, to its end: what it returns.
  function loop.call(f, ...)
    local result, n
    local function keep(...) result, n = { ... }, select("#", ...) end
    local co = loop.spawn(function(...) keep(f(...)) end, ...)
    loop.run(function() return coroutine.status(co) == "dead" end)
    return (unpack or table.unpack)(result, 1, n)
  end

  -- As a host does that has lost its patience with it.
  function loop.kill(co)
    loop.waiting[co] = nil
  end

  return loop
end

return turns
