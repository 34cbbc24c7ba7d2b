-- The loops that coroutines may wait in, for specs: loops[name] and ipairs(loops).
--   loop.name     as options.wait knows it; loop.wait: what to give as options.wait
--   loop.missing  why it cannot be had under this Lua, or nil
--   loop.finds    whether dblink finds it by itself
--   loop.run(...) runs functions as coroutines of one loop until all are over, or one fails
--   loop.spawn(f) one more, from inside; nil where only one thing can be going on
-- loops.work(loop, f) runs f(conn) in it: how often another coroutine has had an answer meanwhile, or nil as above.

local core = require "dblink.core"

local loops = {}

local function add(loop)
  loops[#loops + 1] = loop
  loops[loop.name] = loop
end

-- Busted unloads modules after each file; but luv, loaded a second time, uses what
-- was freed with the first. So modules are kept where busted does not look.
local function have(module)
  local registry = debug.getregistry()
  local kept = registry["loops." .. module]
  if kept then
    package.loaded[module] = kept
    return kept
  end
  local ok, found = pcall(require, module)
  if not ok then return nil, tostring(found):match "[^\n]*" end
  registry["loops." .. module] = found
  return found
end

add {
  name = "poll", wait = "poll", finds = true,
  run = function(...)
    for _, f in ipairs { ... } do f() end
  end,
}

-- A host's own: coroutines yield what they wait for, and are asked in turn.
do
  local all
  local function add_thread(f) all[#all + 1] = { co = coroutine.create(f), last = 0 } end
  add {
    name = "a host's own",
    wait = {
      wait = function(fd, events, seconds)
        local thread = coroutine.yield(fd, events, seconds and core.now() + seconds)
        if thread == "timeout" then return nil, "timeout" end
        return true
      end,
      forget = function(fd)
        for _, t in ipairs(all or {}) do t.gone = t.gone or t.fd == fd end
      end,
    },
    spawn = add_thread,
    run = function(...)
      all = {}
      for _, f in ipairs { ... } do add_thread(f) end
      while #all > 0 do
        for i = #all, 1, -1 do
          local t = all[i]
          local late = t.last and core.now() >= t.last
          -- the last one standing is waited for; the others are only asked
          if t.gone or late or core.poll(t.fd, t.events, #all == 1 and 0.01 or 0) then
            local ok, fd, events, last = coroutine.resume(t.co, late and t.fd and "timeout" or nil)
            if not ok then error(fd, 0) end
            t.fd, t.events, t.last, t.gone = fd, events, last, nil
            if coroutine.status(t.co) == "dead" then table.remove(all, i) end
          end
        end
      end
    end,
  }
end

do
  local cqueues, missing = have "cqueues"
  local controller
  add {
    name = "cqueues", wait = "cqueues", missing = missing, finds = true,
    spawn = function(f) controller:wrap(f) end,
    run = function(...)
      controller = cqueues.new()
      for _, f in ipairs { ... } do controller:wrap(f) end
      local ok, err = controller:loop()
      if not ok then error(err, 0) end
    end,
  }
end

do
  -- Debian 12 has it for Lua 5.1 and 5.2; that for 5.2 runs on later ones, too
  local path = package.path
  package.path = path .. ";/usr/share/lua/5.2/?.lua"
  local copas, missing = have "copas"
  package.path = path
  local left, failure
  local function spawn(f)
    left = left + 1
    copas.addthread(function()
      copas.setErrorHandler(function(err)
        left = left - 1
        failure = failure or err
      end)
      f()
      left = left - 1
    end)
  end
  add {
    name = "copas", wait = "copas", missing = missing, finds = true,
    spawn = spawn,
    run = function(...)
      left, failure = 0, nil
      for _, f in ipairs { ... } do spawn(f) end
      while left > 0 and not failure do copas.step(1) end
      if failure then error(failure, 0) end
    end,
  }
end

do
  local uv, missing = have "luv"
  -- from inside the loop, where it can be seen that it runs
  local function spawn(f)
    local timer = uv.new_timer()
    timer:start(0, 0, function()
      timer:close()
      local ok, err = coroutine.resume(coroutine.create(f))
      if not ok then error(err, 0) end
    end)
  end
  add {
    name = "luv", wait = "luv", missing = missing, finds = true,
    spawn = spawn,
    run = function(...)
      for _, f in ipairs { ... } do spawn(f) end
      uv.run()
    end,
  }
end

function loops.work(loop, f)
  local server = require "support.server"
  local turns, over = 0, false
  loop.run(function()
    local conn = server.connect(nil, { wait = loop.wait })
    f(conn)
    conn:close()
    over = true
  end, loop.spawn and function()
    local conn = server.connect(nil, { wait = loop.wait })
    while not over do
      assert(conn:query "select pg_sleep(0.005)")
      turns = turns + 1
    end
    conn:close()
  end)
  assert(over)
  return loop.spawn and turns
end

return loops
