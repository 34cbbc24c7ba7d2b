-- pcall for functions that yield, on Lua 5.1 too.
--
-- There nothing can yield inside of pcall. So the function runs in a coroutine of
-- its own, whose yields are passed on to whoever resumes ours, and what they resume
-- us with is passed back in. To the loop outside nothing has changed, but that
-- coroutine.running() is not what it will resume: that is protect.running().
local protect = { pcall = pcall, running = coroutine.running }

local probe = coroutine.create(function() pcall(coroutine.yield) end)
coroutine.resume(probe)

-- Whether pcall, and the iterator of a for loop, can yield by themselves.
protect.native = coroutine.status(probe) == "suspended"

if not protect.native then
  local outer = setmetatable({}, { __mode = "kv" }) -- coroutine: the one that resumes it

  local function go_on(co, ok, ...)
    if coroutine.status(co) ~= "suspended" then return ok, ... end
    return go_on(co, coroutine.resume(co, coroutine.yield(...)))
  end

  local function raised(_, err) return err end

  function protect.pcall(f, ...)
    local running = coroutine.running()
    if not running then return pcall(f, ...) end
    local coxpcall = package.loaded.coxpcall -- copas lives by it, and asks it who is running
    if coxpcall then return coxpcall.xpcall(f, raised, ...) end -- its pcall makes a traceback of what is a string
    local co = coroutine.create(function(...) return f(...) end) -- f may be a C function
    outer[co] = running
    return go_on(co, coroutine.resume(co, ...))
  end

  function protect.running()
    local co, coxpcall = coroutine.running(), package.loaded.coxpcall
    local around = co
    while around do
      co, around = around, outer[around] or coxpcall and coxpcall.running(around)
      if around == co then break end
    end
    return co
  end
end

return protect
