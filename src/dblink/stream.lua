-- Streams: conn:rows, whose rows come as they arrive.
--
-- A stream is called by the for loop. In a plain script that is a C function,
-- which comes here only when its query has to be stopped; under another wait it
-- is ours, and waits.
local core = require "dblink.core"
local await = require "dblink.await"

local state, methods = core.state, core.methods

local Stream = {}

local function arrived() return true end

-- Sees through what core.stream_next or core.stream_columns has begun.
local function go_on(stream, step, row, ...)
  if row ~= false then return row, ... end
  local ok, err = await.finish(core.stream_conn(stream), arrived)
  if ok then return go_on(stream, step, step(stream)) end
  core.stream_end(stream)
  return nil, err
end

--- The next row; nil alone at the end, nil and an error where it failed.
function Stream:next()
  return go_on(self, core.stream_next, core.stream_next(self))
end

--- The columns, as those of a result; waits until they are known.
function Stream:columns()
  local result, err = go_on(self, core.stream_columns, core.stream_columns(self))
  if not result then return nil, err end
  return result:columns()
end

--- Ends it, whatever is left: a query that still runs is cancelled. by_verb: another
-- verb wants the connection, which the user of the stream will be told.
function Stream:close(by_verb)
  local conn = core.stream_end(self, by_verb == true)
  if not conn then return end
  conn:step() -- often all has arrived
  if core.is_active(conn) then await.stop(conn) end
end

local function raise(row, err, ...)
  if row == nil and err ~= nil then error(err, 0) end
  return row, err, ...
end

local function give(stream, row, ...)
  if row ~= false then return raise(row, ...) end
  await.check_loop(core.stream_conn(stream), "stream:next()")
  return raise(go_on(stream, core.stream_next, false))
end

local function call(stream)
  return give(stream, core.stream_next(stream))
end

core.define_stream(Stream, call)

-- A stream of the rows of one statement. The values after the first are for 5.4's
-- for loop, which closes the stream however it is left.
function methods:rows(...)
  local stream, err = await.begin(core.rows, self, ...)
  if stream then
    state(self).occupant = stream
  else
    stream = core.stream_of_error(self, err)
  end
  return stream, nil, nil, stream
end

return Stream
