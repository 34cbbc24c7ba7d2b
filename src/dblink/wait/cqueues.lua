-- The wait of a coroutine in a cqueues controller.
--
-- A controller keeps a descriptor registered after the poll; that one is closed
-- unannounced stops the whole loop ("Bad file descriptor"). Hence forget.
local cqueues = require "cqueues"

local poll, cancel = cqueues.poll, cqueues.cancel

local function wait(fd, events, seconds)
  local what = { pollfd = fd, events = events }
  if seconds == nil then
    poll(what)
  elseif poll(what, seconds) ~= what then
    return nil, "timeout"
  end
  return true
end

-- Also wakes whoever waits.
local function forget(fd)
  cancel(fd)
end

return { wait = wait, forget = forget }
