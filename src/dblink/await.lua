-- Steps + wait = done: every loop that waits is here.
--
-- The C core never waits. A loop asks it for a step, waits for what the step
-- wants, and asks again. How to wait is the connection's own business: two
-- functions, wait(fd, events, seconds) and forget(fd). Where that is poll(2),
-- C runs the same loop in place (core.settle), which is what plain scripts pay for.
--
-- Below the verbs only deadlines travel: moments on the clock of core.now. The
-- deadline of what is under way is kept by the connection (conn:timeout()).
local core = require "dblink.core"
local protect = require "dblink.protect"

local now, state, turn, arrived = core.now, core.state, core.turn, core.arrived

core.home() -- this folder is the library's: misuse is told with the line of a caller outside of it

local await = {}

-- How long a query may take to end after its deadline before the connection is given up.
await.grace = 5

-- A cancel that reaches the server before it has begun with the query is lost,
-- so it is sent again after a pause as long as the query runs on.
local FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2

local function seconds_until(moment)
  if not moment then return nil end
  local left = moment - now()
  return left > 0 and left or 0
end

-- While a connection is being opened its socket may be another after each step,
-- under the same number even, so the wait forgets it before.
local function drive(conn, how, token)
  local need, fd, seconds, connecting = turn(conn)
  while need do
    if token then how.wait(fd, need, seconds, token) else how.wait(fd, need, seconds) end
    if connecting then how.forget(fd) end
    need, fd, seconds, connecting = turn(conn, true)
  end
  return need == nil
end

-- The same for a query that core.query has begun, which said what to wait for; and what it
-- gives: a result, nil and an error; or false.
local function see_through(conn, how, token, need, fd, seconds)
  local res
  repeat
    if token then how.wait(fd, need, seconds, token) else how.wait(fd, need, seconds) end
    res, need, fd, seconds = arrived(conn)
  until res ~= false or not need
  return res, need
end

-- drive(conn, how, token, ...), in which a coroutine waits: it keeps others off the
-- connection in all else.
local function waiting(s, drive_it, conn, ...)
  local how = s.wait
  if s.token or not how.enter then return drive_it(conn, how, s.token, ...) end
  local token = how.enter(conn.close, conn, true)
  s.token = token
  local done, err = drive_it(conn, how, token, ...)
  if token then
    s.token = nil
    how.leave(token)
  end
  return done, err
end

-- Waits until nothing is left to do: true, or false when the deadline has come,
-- or another coroutine has closed the connection.
function await.settle(conn)
  local s = state(conn)
  if s.plain then return core.settle(conn) end
  return waiting(s, drive, conn)
end

-- await.use(conn, how): from now on the connection waits so.
await.use = core.use

local function flush(conn, how, token)
  while conn:events() == "rw" do
    core.hold(conn, not how.plain)
    how.wait(conn:getfd(), "rw", nil, token)
    core.hold(conn, false)
    conn:step()
  end
end

core.loops(drive, see_through, flush) -- whoever holds a connection and is not within these waits no more

-- Waits until all of a query is sent, and reads nothing where it is already.
function await.flush(conn) return waiting(state(conn), flush, conn) end

-- Sends one cancel request and sees it through: true, or nil and an error. One that
-- is not through in time goes on without us, and bars the connection until it is. The
-- connection may bring it to its end before we do: so look at least each second.
function await.cancel(conn, deadline)
  local how = state(conn).wait
  local request, err = core.canceller(conn)
  if not request or request == true then return request, err end
  local need = request:step()
  while need do
    local fd = request:getfd()
    how.forget(fd) -- of another's, by chance of the same number
    how.wait(fd, need, math.min(seconds_until(deadline) or 1, 1))
    how.forget(fd)
    if deadline and now() >= deadline then
      request:close()
      return nil, core.failure("timeout", "the cancel request was not taken in time")
    end
    need = request:step()
  end
  err = request:error()
  request:close()
  if err then return nil, err end
  return true
end

-- Whether a connection is still there that somebody has waited on: true, or nil and
-- an error.
function await.still(conn)
  if conn:status() ~= "closed" then return true end
  local err = core.failure("connection", "the connection was closed meanwhile, by somebody else")
  err.connection_lost = true
  return nil, err
end

-- Stops whatever runs and leaves the connection idle, its results thrown away.
-- Where that does not succeed within the grace time the connection is given up:
-- nil and an error.
function await.stop(conn)
  local s = state(conn)
  local last, pause = now() + (s.grace or s.wait.grace or await.grace), FIRST_PAUSE
  local there, gone = await.still(conn)
  if not there then return nil, gone end
  local limit = core.set_limit(conn, nil)
  core.drain(conn)
  while core.is_active(conn) do
    await.cancel(conn, last)
    there, gone = await.still(conn)
    if not there then return nil, gone end
    core.set_deadline(conn, math.min(now() + pause, last))
    if not await.settle(conn) and now() >= last then
      local fd = conn:getfd()
      if fd then state(conn).wait.forget(fd) end
      core.sever(conn)
      conn:step() -- what libpq still says to it is nobody's
      return nil, core.failure("timeout", "the query could not be stopped in time; the connection is lost")
    end
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
  core.drain(conn)
  core.set_deadline(conn, nil)
  core.set_limit(conn, limit)
  return true
end

-- Stops what has come to its deadline, or over its max_bytes: nil and an error.
function await.give_up(conn)
  local _, why = core.stopped(conn)
  local ok, err = await.stop(conn)
  if ok then err = why end
  err.connection_lost = conn:status() ~= "ok"
  return nil, err
end

-- Ends a verb that was begun in C: waits, then take(conn) gives its results; or nil
-- and an error.
function await.finish(conn, take)
  if not await.settle(conn) then return await.give_up(conn) end
  return take(conn)
end

-- The same for what core.query has begun and said to wait for.
function await.result(conn, need, fd, seconds)
  local res, err = waiting(state(conn), see_through, conn, need, fd, seconds)
  if res == false then return await.give_up(conn) end
  return res, err
end

-- For what a for loop calls, before it waits: the iterator of a loop in Lua 5.1 cannot
-- yield. Said before anything is half done, with what serves instead.
function await.check_loop(conn, instead)
  if protect.native or state(conn).plain or not coroutine.running() then return end
  core.misuse("a for loop of this Lua cannot wait in a coroutine: call " .. instead)
end

-- Ends what a stream, a pipeline or a COPY left unfinished on the connection.
function await.vacate(conn)
  if core.is_occupied(conn) then state(conn).occupant:close(true) end
end

-- Begins a verb in C, after what was left unfinished: begin(conn, ...).
function await.begin(begin, conn, ...)
  await.vacate(conn)
  return begin(conn, ...)
end

local function seen_through(conn, take, res, ...)
  if res == false then return await.finish(conn, take) end
  return res, ...
end

-- The whole of a verb: begin(conn, ...) in C, the wait, take(conn).
function await.conclude(begin, take, conn, ...)
  return seen_through(conn, take, await.begin(begin, conn, ...))
end

-- Ctrl-C in a plain script: nothing is left running.
core.on_interrupt(await.stop)

return await
