-- Which wait is meant, and whether it is a good one.
local core = require "dblink.core"

local wait = {}

local found = {} -- name -> wait

local NAMES = { poll = true, cqueues = true, copas = true, luv = true, openresty = true, ["openresty-direct"] = true }

local function in_coroutine()
  local co, main = coroutine.running()
  return co ~= nil and not main
end

-- The loop that runs here, if any. Only what somebody has loaded can be running.
-- Copas 1 does not tell whether it runs, and coroutines for luv are often begun
-- before uv.run: where one of these is loaded, a coroutine is taken for one of its.
local function running()
  if package.loaded.ngx then return "openresty" end
  local cqueues, copas, luv = package.loaded.cqueues, package.loaded.copas, package.loaded.luv
  if cqueues and cqueues.running() then return "cqueues" end
  if not in_coroutine() then return "poll" end
  if copas and copas.running then return "copas" end
  if luv and luv.loop_mode and luv.loop_mode() then return "luv" end
  if copas and copas.running == nil then return "copas" end
  return luv and "luv" or "poll"
end

local function is_wait(given)
  return type(given) == "table" and type(given.wait) == "function" and type(given.forget) == "function"
end

-- What options.wait means: a name, a table {wait =, forget =}, or nil for the
-- loop that runs where this is called. Where a host lends its wait there is no
-- other: a script must not stop its loop.
function wait.find(given)
  local host = core.host_wait()
  if host then return host end
  if is_wait(given) then return given end
  if type(given) == "table" then
    core.misuse "option wait must be a name or a table {wait = f, forget = f}"
  end
  local name = given or running()
  if not NAMES[name] then core.misuse("option wait: no wait is named '" .. tostring(name) .. "'") end
  if not found[name] then
    local ok, how = pcall(require, "dblink.wait." .. name)
    if not ok then core.misuse("option wait: '" .. name .. "' cannot be had: " .. tostring(how)) end
    found[name] = how
  end
  return found[name]
end

-- Examines a wait, inside its loop. See wait/selftest.lua.
function wait.selftest(given, options)
  return require "dblink.wait.selftest"(wait.find(given), options)
end

return wait
