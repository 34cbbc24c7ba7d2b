-- COPY: conn:copy_in gives a writer, conn:copy_out a reader.
--
-- Most calls of theirs find room in C, or a line that has arrived already; only
-- when the socket has to be waited for does the loop in here turn.
local core = require "dblink.core"
local await = require "dblink.await"
local options = require "dblink.options"

local methods, state = core.methods, core.state
local Writer, Reader = core.Writer.__index, core.Reader.__index

-- A COPY as the next verb of its connection finds it, unfinished or left to the collector.
local Occupant = {}
Occupant.__index = Occupant

function Occupant:close()
  local conn = self.conn
  core.drain(conn)
  conn:step() -- often all has arrived
  if core.is_active(conn) then await.stop(conn) end
end

-- Whether the SQL begins with the word COPY: what else it did could not be undone.
local function is_copy(sql)
  local before
  repeat
    before, sql = sql, sql:gsub("^%s+", ""):gsub("^%-%-[^\n]*", ""):gsub("^/%*.-%*/", "")
  until sql == before
  return sql:lower():find "^copy%f[^%w_]"
end

local OPTIONS = { true, timeout = true } -- [1]: the SQL

local function begin(conn, sql, out)
  local seconds
  if type(sql) == "table" then
    options.check(sql, OPTIONS)
    sql, seconds = sql[1], options.check_seconds(sql.timeout, "timeout")
  end
  if type(sql) == "string" and not is_copy(sql) then core.misuse "bad argument 'sql' (no COPY statement)" end
  local ok, err = methods.send_query(conn, sql)
  if not ok then return nil, err end
  if not core.copy_begin(conn, seconds) and not await.settle(conn) then return await.give_up(conn) end
  state(conn).occupant = setmetatable({ conn = conn }, Occupant)
  local copy, failure = core.copy_take(conn, out)
  if not copy then await.stop(conn) end
  return copy, failure
end

-- Waits for what the COPY wants of the socket: true, or nil and an error.
local function wait(copy)
  local conn = core.copy_conn(copy)
  if await.settle(conn) then return true end
  return await.give_up(conn)
end

--- Begins a COPY ... FROM STDIN: a writer.
function methods:copy_in(sql)
  return begin(self, sql, false)
end

-- Sees a write through: left is true when all was taken, else how much of s is left.
local function finish_write(writer, s, left, err)
  while left ~= true do
    if not left then return nil, err end
    local ok, failure = wait(writer)
    if not ok then return nil, failure end
    left, err = core.copy_write(writer, s, left)
  end
  return true
end

--- Writes bytes of the stream, as many as there are, wherever they begin and end.
function Writer:write(s)
  local left, err = core.copy_write(self, s)
  if left == true then return true end
  return finish_write(self, s, left, err)
end

--- Writes a row, an array of its values in COPY's text format.
function Writer:row(values)
  local left, err = core.copy_row(self, values)
  if left == true then return true end
  return finish_write(self, "", left, err)
end

local function finish(writer, res, err)
  if res ~= false then return res, err end
  local ok, failure = wait(writer)
  if not ok then return nil, failure end
  return core.take_last(core.copy_conn(writer))
end

--- Ends the COPY: its result (res.affected rows), or nil and why none of it was taken.
function Writer:finish()
  return finish(self, core.copy_finish(self))
end

--- Makes the COPY fail: true when it has left nothing behind.
function Writer:fail(why)
  local conn = core.copy_conn(self)
  local held = core.is_held(conn)
  local _, err = finish(self, core.copy_fail(self, tostring(why == nil and "the writer gave up" or why)))
  if err and (held or conn:status() ~= "ok") then return nil, err end
  return true
end

--- Begins a COPY ... TO STDOUT: a reader, which is an iterator of its lines.
function methods:copy_out(sql)
  local reader, err = begin(self, sql, true)
  if not reader then return nil, err end -- LuaJIT's assert throws the last value
  return reader, nil, nil, reader
end

local function read(reader, verb)
  local value, err = verb(reader)
  if value == false then
    local ok, failure = wait(reader)
    if not ok then return nil, failure end
    return read(reader, verb)
  end
  return value, err
end

-- What a for loop calls: it has no other way to tell an error from the end.
local function iterator(verb, name)
  return function(reader)
    local value, err = verb(reader)
    if value == false then
      await.check_loop(core.copy_conn(reader), name)
      value, err = read(reader, verb)
    end
    if err then error(err, 0) end
    return value
  end
end

--- The next line without its newline; nil at the end; nil and an error.
function Reader:line()
  return read(self, core.copy_line)
end

--- What has arrived, about 64 KiB or one longer line; nil at the end; nil and an error.
function Reader:read()
  return read(self, core.copy_read)
end

--- The next line as a row, {v1, v2, n = 2}; nil at the end; nil and an error.
function Reader:row()
  return read(self, core.copy_values)
end

core.Reader.__call = iterator(core.copy_line, "reader:line()")

local next_row = iterator(core.copy_values, "reader:row()")

--- Iterates over the rows; types: what to make of the columns, names or OIDs.
function Reader:rows(types)
  if types ~= nil then
    if type(types) ~= "table" then core.misuse "bad argument 'types' (table expected)" end
    core.copy_types(self, types)
  end
  return function() return next_row(self) end, nil, nil, self
end

-- Leaving off: a COPY to the server fails, what is still to come from it is cancelled.
local function close(copy)
  if core.copy_leave(copy) then await.stop(core.copy_conn(copy)) end
end

Writer.close, core.Writer.__close = close, close
Reader.close, core.Reader.__close = close, close
