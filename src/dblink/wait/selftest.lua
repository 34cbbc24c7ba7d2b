-- An examination for whoever writes a wait: what dblink expects of wait and
-- forget, one expectation after the other, on sockets of its own. It runs inside
-- the loop, in a coroutine where the loop wants one, and takes a second or so.
local core = require "dblink.core"

local SOON, LATE = 0.02, 5 -- seconds: a timeout that is to come, and one that must not

local now = core.now

-- Each gives nothing when it is content, else what it has seen. t.wait is the wait, t:pair() makes sockets.
local expectations = {
  { "a byte has come: ready to be read", function(t)
    local p = t:pair()
    p:send()
    return t:ready(p, "r")
  end },
  { "and ready again while that byte is not taken", function(t)
    local p = t:pair()
    p:send()
    return t:ready(p, "r") or t:ready(p, "r") or t:ready(p, "rw")
  end },
  { "ready to be written", function(t) return t:ready(t:pair(), "w") end },
  { "\"rw\" where only writing is possible", function(t) return t:ready(t:pair(), "rw") end },
  { "\"rw\" where only reading is possible", function(t)
    local p = t:pair()
    p:fill()
    p:send()
    return t:ready(p, "rw")
  end },
  { "nothing to read: nil, \"timeout\"", function(t) return t:late(t:pair(), "r") end },
  { "no room to write: nil, \"timeout\"", function(t)
    local p = t:pair()
    p:fill()
    return t:late(p, "w") or t:late(p, "rw")
  end },
  { "no seconds at all: nil, \"timeout\"", function(t) return t:late(t:pair(), "r", 0) end },
  { "ready after a timeout", function(t)
    local p = t:pair()
    local why = t:late(p, "r")
    p:send()
    return why or t:ready(p, "r")
  end },
  { "other events at each call", function(t)
    local p = t:pair()
    return t:late(p, "r") or t:ready(p, "w") or t:late(p, "r") or t:ready(p, "rw") or t:late(p, "r")
  end },
  { "a hang-up is ready", function(t)
    local p = t:pair()
    p:hang_up()
    return t:ready(p, "r") or t:ready(p, "w") or t:ready(p, "rw")
  end },
  { "forget of what was never waited for, and twice", function(t)
    local p = t:pair()
    t.wait.forget(p:getfd())
    local why = t:late(p, "r")
    t.wait.forget(p:getfd())
    t.wait.forget(p:getfd())
    return why or t:late(p, "r")
  end },
  { "another socket under the same number, after forget", function(t)
    local p = t:pair()
    p:send()
    for _ = 1, 3 do
      local why = t:ready(p, "rw")
      if why then return why end
      t.wait.forget(p:getfd())
      p:swap()
      why = t:late(p, "r")
      if why then return why end
      p:send()
    end
    return t:ready(p, "r")
  end },
  { "a socket that is closed after forget disturbs no other", function(t)
    local gone, p = t:pair(), t:pair()
    local why = t:late(gone, "r")
    t:close(gone)
    return why or t:late(p, "r") or t:ready(p, "w")
  end },
  { "many sockets, one after the other", function(t)
    for i = 1, 200 do
      local p = t:pair()
      if i % 2 == 0 then p:send() end
      local why = t:ready(p, i % 2 == 0 and "r" or "w")
      t:close(p)
      if why then return why end
    end
  end },
  -- With other coroutines:
  { "what comes while somebody waits wakes him", function(t)
    local p = t:pair()
    t:spawn(function()
      t:late(t:pair(), "r")
      p:send()
    end)
    return t:ready(p, "r")
  end, spawn = true },
  { "each is woken for his own", function(t)
    local pairs_, order, why = {}, {}, nil
    for i = 1, 5 do pairs_[i] = t:pair() end
    for i = 1, 5 do
      t:spawn(function()
        why = t:ready(pairs_[i], "r") or why
        order[#order + 1] = i
        if i > 1 then pairs_[i - 1]:send() end
      end)
    end
    pairs_[5]:send()
    t:pause(function() return #order == 5 end)
    local seen = table.concat(order, " ")
    return why or seen ~= "5 4 3 2 1" and "in the order " .. seen or nil
  end, spawn = true },
  { "each has his own deadline", function(t)
    local order, why = {}, nil
    for i = 3, 1, -1 do
      t:spawn(function()
        why = t:late(t:pair(), "r", i * 4 * SOON) or why
        order[#order + 1] = i
      end)
    end
    t:pause(function() return #order == 3 end)
    local seen = table.concat(order, " ")
    return why or seen ~= "1 2 3" and "in the order " .. seen or nil
  end, spawn = true },
  { "forget wakes whoever waits", function(t)
    local woken, p = false, t:pair()
    t:spawn(function()
      t.wait.wait(p:getfd(), "r", LATE)
      woken = true
    end)
    t:late(t:pair(), "r") -- it waits now
    t:close(p)
    local began = now()
    t:pause(function() return woken end)
    return now() - began > LATE / 2 and "not before its own timeout" or nil
  end, spawn = true },
  -- The optional three:
  { "an unpark before the park is not lost", function(t)
    local token = t.wait.self()
    t.wait.unpark(token)
    return t.wait.park(LATE) ~= true and "park did not return true" or nil
  end, park = true },
  { "a park that nobody ends: nil, \"timeout\"", function(t)
    t.wait.self()
    local ok, what = t.wait.park(SOON)
    if ok or what ~= "timeout" then return ("gave %s, %s"):format(tostring(ok), tostring(what)) end
  end, park = true },
  { "unpark wakes, and does not run the other in place", function(t)
    local token, woken
    t:spawn(function()
      token = t.wait.self()
      woken = t.wait.park(LATE)
    end)
    t:pause(function() return token end)
    t:late(t:pair(), "r")
    t.wait.unpark(token)
    if woken then return "it ran in place" end
    t:pause(function() return woken end)
    return woken ~= true and "park did not return true" or nil
  end, park = true, spawn = true },
}

local Examination = {}
Examination.__index = Examination

function Examination:pair()
  local p = assert(core.pair())
  self.pairs[p] = true
  return p
end

function Examination:close(p)
  self.wait.forget(p:getfd())
  p:close()
  self.pairs[p] = nil
end

-- Waits for what must come at once, or soon.
function Examination:ready(p, events)
  local ok, what = self.wait.wait(p:getfd(), events, LATE)
  if ok ~= true then
    return ("wait(fd, %q, %g) gave %s, %s where the descriptor was ready"):format(
      events, LATE, tostring(ok), tostring(what))
  end
end

-- Waits for what does not come.
function Examination:late(p, events, seconds)
  seconds = seconds or SOON
  local began = now()
  local ok, what = self.wait.wait(p:getfd(), events, seconds)
  local took = now() - began
  if ok or what ~= "timeout" then
    return ("wait(fd, %q, %g) gave %s, %s where nothing was ready"):format(
      events, seconds, tostring(ok), tostring(what))
  elseif took < seconds * 0.9 or took > seconds + LATE then
    return ("wait(fd, %q, %g) took %.3f seconds"):format(events, seconds, took)
  end
end

-- Lets the loop turn until f gives something true, or too much time is over.
function Examination:pause(f)
  local p, last = self:pair(), now() + 2 * LATE
  while not f() and now() < last do self.wait.wait(p:getfd(), "r", SOON / 4) end
  self:close(p)
end

function Examination:finish()
  for p in pairs(self.pairs) do
    self.wait.forget(p:getfd())
    p:close()
  end
end

local Report = {}

function Report:__tostring()
  local lines = {}
  for i, entry in ipairs(self) do
    lines[i] = ("%s  %s%s"):format(entry.ok and "ok    " or entry.ok == nil and "skip  " or "FAILED", entry.name,
      entry.why and ": " .. entry.why or "")
  end
  return table.concat(lines, "\n")
end

-- true or false, and the list of what was examined: {name =, ok =, why =}; ok is nil
-- where it was left out. options.spawn = function(f): runs f in another coroutine of
-- the loop; without it what needs a second coroutine is left out.
return function(how, options)
  local spawn = options and options.spawn
  local report, good = setmetatable({}, Report), true
  for i, expectation in ipairs(expectations) do
    local entry = { name = expectation[1] }
    if expectation.spawn and not spawn then
      entry.why = "no options.spawn"
    elseif expectation.park and not how.park then
      entry.why = "this wait brings no park"
    else
      local examination = setmetatable({
        wait = how, pairs = {}, spawn = function(_, f) spawn(f) end,
      }, Examination)
      entry.why = expectation[2](examination)
      entry.ok = entry.why == nil
      good = good and entry.ok
      examination:finish()
    end
    report[i] = entry
  end
  return good, report
end
