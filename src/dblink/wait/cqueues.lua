-- The wait of a coroutine in a cqueues controller.
--
-- A controller keeps a descriptor registered after the poll; that one is closed
-- unannounced stops the whole loop ("Bad file descriptor"). libpq does so where a
-- connection is lost, so what was waited for is cancelled at once.
local cqueues = require "cqueues"

local poll, cancel = cqueues.poll, cqueues.cancel

local function wait(fd, events, seconds)
  local what = { pollfd = fd, events = events }
  local woken
  if seconds then woken = poll(what, seconds) else woken = poll(what) end
  cancel(fd)
  if seconds and woken ~= what then return nil, "timeout" end
  return true
end

-- Also wakes whoever waits.
local function forget(fd)
  cancel(fd)
end

return { wait = wait, forget = forget }
