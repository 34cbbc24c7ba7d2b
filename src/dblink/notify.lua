-- LISTEN and NOTIFY.
--
-- Notifications arrive whenever input is read and wait in a queue in C, so that
-- none is lost while a query runs. PostgreSQL sends them between transactions only.
local core = require "dblink.core"
local await = require "dblink.await"
local checks = require "dblink.options"

local methods, now = core.methods, core.now

-- PostgreSQL cuts longer names, and then nobody's NOTIFY would find them.
local LONGEST_NAME = 63

local function check_channel(conn, channel)
  core.state(conn)
  if type(channel) ~= "string" or channel == "" or #channel > LONGEST_NAME or channel:find "%z" then
    core.misuse(("bad argument 'channel' (a string of 1 to %d bytes, no NUL, expected)"):format(LONGEST_NAME))
  end
end

local function command(conn, word, channel, seconds)
  check_channel(conn, channel)
  local name, err = conn:escape_identifier(channel)
  if not name then return nil, err end
  local ok
  ok, err = conn:query { word .. " " .. name, timeout = checks.seconds(seconds) }
  if not ok then return nil, err end
  return true
end

--- Begins to listen: true, or nil and an error.
function methods:listen(channel, seconds)
  return command(self, "listen", channel, seconds)
end

--- Listens no more on the channel, or on any.
function methods:unlisten(channel, seconds)
  if channel ~= nil then return command(self, "unlisten", channel, seconds) end
  local ok, err = methods.query(self, { "unlisten *", timeout = checks.seconds(seconds) })
  if not ok then return nil, err end
  return true
end

--- Sends a notification, when the transaction commits if there is one.
function methods:notify(channel, payload, seconds)
  check_channel(self, channel)
  local ok, err = self:query { "select pg_notify($1, $2)", channel, payload or "", timeout = checks.seconds(seconds) }
  if not ok then return nil, err end
  return true
end

--- Waits for the next notification: it; nil when it has not come in that many seconds;
-- nil and an error.
function methods:next_notification(seconds)
  local notification, err = await.begin(core.notification, self, checks.deadline(seconds))
  if notification ~= false then return notification, err end
  await.settle(self)
  return core.take_notification(self)
end

local OPTIONS = { timeout = true, limit = true }

local function check_number(options, name)
  local value = options[name]
  if value ~= nil and not checks.is_least(value, 0) then
    core.misuse("option " .. name .. " must be a number")
  end
  return value
end

--- Iterates over notifications, waiting for them: until `timeout` seconds have passed,
-- or `limit` have come, or for ever. A lost connection raises.
function methods:notifications(options)
  core.state(self)
  options = checks.check(options or nil, OPTIONS)
  local seconds, left = check_number(options, "timeout"), check_number(options, "limit") or math.huge
  local deadline = seconds and now() + seconds
  return function()
    if left < 1 then return nil end
    left = left - 1
    local notification, err = self:get_notify(), nil
    if not notification then
      await.check_loop(self, "conn:next_notification()")
      notification, err = self:next_notification(deadline and math.max(deadline - now(), 0))
    end
    if err then error(err, 0) end
    return notification
  end
end
