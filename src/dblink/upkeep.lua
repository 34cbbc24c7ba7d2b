-- What a connection of a pool goes through: it is opened, looked at before it is lent, and
-- cleaned when it comes back.
--
-- It goes back only clean: not in a transaction, nothing running, not listening, no cancel in
-- flight. One that is dead or too old is found when it is about to be lent. All that is known
-- here is one place (entry) and its connection, not who else waits for one.
local core = require "dblink.core"
local await = require "dblink.await"
local codec = require "dblink.codec"
local connection = require "dblink.connection"

local now, state = core.now, core.state

local upkeep = {}

local CLEANING = 5 -- seconds that cleaning a connection may take

-- Only what a server says of itself gives hope for the next try; a wrong password does not.
function upkeep.is_final(err)
  if err.kind == "usage" or err.kind == "memory" then return true end
  local message = err.message
  if message:find("the database system is", 1, true) or message:find "too many c" or
    message:find("remaining connection slots", 1, true) or message:find("is not accepting", 1, true) then
    return false
  end
  return message:find "failed: [^\n]-:  " ~= nil
end

-- A new connection for an entry, as the pool's options (terms) have it: true, or nil and an
-- error; it may raise what the option configure does. Meanwhile entry.attempt is what to close.
function upkeep.open(entry, terms, deadline, how, token)
  local options = { wait = how }
  for name, value in pairs(terms.habits) do
    if name ~= "wait" then options[name] = value end
  end
  options.timeout = deadline and math.max(deadline - now(), 0)
  local function hold(attempt) entry.attempt = attempt end
  local conn, err = connection.begin(terms.conninfo, options, hold, token)
  if not conn then return nil, err end
  entry.state = state(conn)
  entry.state.token = token
  local opened
  opened, err = connection.open(conn)
  if opened and terms.configure then
    core.set_limit(conn, deadline)
    err = select(2, terms.configure(conn))
    core.set_limit(conn, nil)
    if err and getmetatable(err) ~= "dblink.error" then err = core.failure("usage", tostring(err)) end
  end
  if err then return nil, err end
  entry.conn, entry.attempt, entry.codecs = conn, nil, entry.state.codecs
  entry.expires = now() + terms.lifetime * (0.9 + 0.2 * math.random())
  return true
end

-- Gives it the wait of whoever has it now.
function upkeep.adopt(entry, how, token)
  local s = entry.state
  s.token = token
  if s.wait ~= how then
    local fd = entry.conn:getfd()
    if fd then how.forget(fd) end
    await.use(entry.conn, how)
  end
end

local function drop_notifications(conn)
  while conn:get_notify() do end
end

local function unlisten(conn)
  local ok = conn:query { "unlisten *", timeout = CLEANING }
  drop_notifications(conn)
  core.set_listening(conn, false)
  return ok
end

-- Whether it can be lent; else why not. One that keeps silent is not waited for longer than
-- the borrower waits.
function upkeep.is_good(entry, check, deadline)
  local conn, moment = entry.conn, now()
  if moment >= entry.expires then return false, "expired" end
  if moment - entry.since < check and core.is_at_rest(conn, true) then return true end
  -- what came while nobody looked: a good-bye of the server, perhaps
  local stirred = false
  while conn:status() == "ok" and core.poll(conn:getfd(), "r", 0) do
    stirred = true
    conn:step()
  end
  if conn:status() ~= "ok" or conn:transaction_status() ~= "idle" then return false, "lost" end
  if conn:get_notify() and not unlisten(conn) then return false, "lost" end
  if stirred or now() - entry.since >= check then
    state(conn).grace = 0 -- what is to be dropped need not be drained
    local ok = conn:query { "", timeout = math.max(math.min(CLEANING, deadline - now()), 0) }
    state(conn).grace = nil
    if not ok then return false, "lost" end
  end
  return true
end

-- Whether it is as it was when it was lent.
function upkeep.is_clean(entry)
  return core.is_at_rest(entry.conn) and entry.state.codecs == entry.codecs
end

-- Makes it fit to be lent on, if that can be; it may take a while.
function upkeep.clean(entry, reset)
  local conn = entry.conn
  -- held: a coroutine still waits on it, and would take the next borrower's answer for its own
  if conn:status() ~= "ok" or core.is_held(conn) or core.in_pipeline(conn) then return false end
  core.set_limit(conn, nil)
  if entry.state.codecs ~= entry.codecs then entry.codecs = codec.restore(conn, entry.codecs) end
  state(conn).grace = CLEANING
  local stopped = not core.is_active(conn) or await.stop(conn)
  state(conn).grace = nil
  if not stopped then return false end
  if conn:transaction_status() ~= "idle" and not conn:query { "rollback", timeout = CLEANING } then return false end
  if core.is_listening(conn) and not unlisten(conn) then return false end
  if type(reset) == "string" then
    if not conn:query { reset, timeout = CLEANING } then return false end
  elseif reset then
    local ok, err = reset(conn)
    if ok == false or err then return false end
  end
  drop_notifications(conn)
  core.take_notices(conn)
  return conn:status() == "ok" and conn:transaction_status() == "idle"
end

return upkeep
