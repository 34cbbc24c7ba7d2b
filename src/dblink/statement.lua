-- Prepared statements: those that the user prepares, and those that conn:query
-- keeps by itself for SQL with parameters.
--
-- A statement is a table that C reads too (query.h). A cached one is prepared
-- along with its first query, in the same round trip.
--
-- A statement is renewed where the server has lost it (DISCARD ALL; a pooler that
-- gave us another server), or where its result would be of another type now
-- (somebody altered a table). The server says both before it runs anything of the
-- query, so that it can be run again, unless a transaction was aborted by it.
local core = require "dblink.core"
local await = require "dblink.await"

local state, methods, query = core.state, core.methods, core.query

local NAME, SQL, BINARY, OLD, USED = 1, 2, 3, 4, 5 -- as DBL_STATEMENT_... of query.h

local Statement = {}
local class = { __index = Statement, __name = "dblink.statement", dblink_statement = true }
class.__metatable = class.__name

function class:__tostring()
  return ("dblink.statement (%s)"):format(self.conn and self[NAME] or "closed")
end

local names = 0
local salt = ("%x"):format(math.floor(core.now() * 1e6) % 2 ^ 31)

-- A name that others on the same session, or behind the same pooler, do not have.
local function new_name(prefix)
  names = names + 1
  return (prefix or "dblink_") .. salt .. "_" .. names
end

local function new(conn, sql, name)
  return setmetatable({ name or new_name(), sql, conn = conn }, class)
end

-- What core closes a statement by: its name, or SQL where libpq cannot send a Close.
local function closing(name)
  if core.features.close_prepared then return name end
  return 'DEALLOCATE "' .. name:gsub('"', '""') .. '"'
end

-- Whether this error asks for the statement to be renewed, and the query can then
-- be run again. The message may be in any language, the name in it is not.
local function is_stale(stmt, err)
  if err.sqlstate == "26000" and err.message:find(stmt[NAME], 1, true) then
    stmt[BINARY] = nil
  elseif err.sqlstate == "0A000" and err.routine == "RevalidateCachedQuery" then
    stmt[BINARY], stmt[OLD] = nil, closing(stmt[NAME])
  else
    return false
  end
  return stmt.conn:transaction_status() == "idle"
end

-- The arguments of a query, with the statement in place of its SQL.
local function instead(stmt, sql, ...)
  if type(sql) ~= "table" then return stmt, ... end
  local copy = {}
  for k, v in pairs(sql) do copy[k] = v end
  copy[1] = stmt
  return copy
end

-- The SQL's statement in the cache, a new one perhaps; nil where it cannot be kept.
-- (The least recently used one has to go for it, which a transaction that has
-- failed forbids; and SQL could make one fail that had not.)
local function cached(conn, sql)
  if sql:find "%z" then return nil end -- refused there
  local s = state(conn)
  local stmt, status = s.statements[sql], conn:transaction_status()
  if stmt then return stmt end
  local victim
  if s.cached >= s.statement_cache then
    if not core.features.close_prepared and status ~= "idle" then return nil end
    for _, other in pairs(s.statements) do
      if not victim or other[USED] < victim[USED] then victim = other end
    end
    s.statements[victim[SQL]] = nil
    s.cached = s.cached - 1
  end
  stmt = new(conn, sql)
  stmt[OLD] = victim and (victim[BINARY] == nil and victim[OLD] or closing(victim[NAME])) or nil
  s.statements[sql] = stmt
  s.cached = s.cached + 1
  return stmt
end

-- The statement was prepared along with a query: what came of it, the result and
-- its format from now on, or nil and an error.
local function learn(stmt, res, binary)
  if res then
    stmt[BINARY], stmt[OLD] = binary, nil
    return res
  end
  local err, conn = binary, stmt.conn
  if core.done(conn) > 0 then -- prepared, but it failed
    stmt[BINARY], stmt[OLD] = false, nil
  elseif err.kind ~= "usage" then -- something was sent
    local s = state(conn)
    s.statements[stmt[SQL]] = nil
    s.cached = s.cached - 1
  end
  return nil, err
end

-- What core.query gave, after the wait for it where it said what to wait for.
local function arrived(conn, res, err, fd, seconds)
  if res ~= false then return res, err end
  if err then return await.result(conn, err, fd, seconds) end
  return await.finish(conn, core.take_last)
end

-- Goes on with a query where core.query has not given a result.
local function go_on(conn, res, err, sql, ...)
  if res == nil and core.is_occupied(conn) then
    state(conn).occupant:close(true)
    return conn:query(sql, ...)
  elseif res == false then
    res, err = arrived(conn, res)
  end
  local text = type(sql) == "table" and sql[1] or sql
  local stmt = state(conn).statements[text]
  if res or err and not (stmt and is_stale(stmt, err)) then return res, err end
  if err then core.again(conn) end
  if core.was_discarded(conn) then
    state(conn).statements, state(conn).cached, stmt = {}, 0, nil
  end
  stmt = stmt or cached(conn, text) -- neither result nor error: it is to be cached
  if not stmt then return await.conclude(core.query_uncached, core.take_last, conn, sql, ...) end
  return learn(stmt, await.conclude(core.query_along, core.take_along, conn, instead(stmt, sql, ...)))
end

function methods:query(...)
  local res, err, fd, seconds = query(self, ...)
  if res then return res end
  if err then -- what to wait for, or why not
    res, err = arrived(self, res, err, fd, seconds)
    if res then return res end
  end
  return go_on(self, res, err, ...)
end

-- The server's part of a statement: true, or nil and an error.
local function prepare(stmt, seconds)
  local conn = stmt.conn
  local res, binary, parameters = await.conclude(core.prepare, core.take_description, conn, stmt, seconds)
  if not res then return nil, binary end
  stmt[BINARY], stmt[OLD] = binary, nil
  stmt.description = { parameters = parameters, columns = res:columns() }
  return true
end

function methods:prepare(sql, name, seconds)
  state(self)
  if name ~= nil and (type(name) ~= "string" or name == "" or name:find "%z") then
    core.misuse "bad argument 'name' (a string without NUL expected)"
  end
  local stmt = new(self, sql, name)
  local ok, err = prepare(stmt, seconds)
  if not ok then return nil, err end
  return stmt
end

local function conn_of(stmt)
  if getmetatable(stmt) ~= class.__name then core.bad_self(stmt, class.__name) end
  return stmt.conn
end

local function open(stmt)
  return conn_of(stmt) or core.misuse "statement is closed"
end

-- Prepares it again where it must be, which the query's timeout covers: true, or nil and an error.
local function ready(stmt, options)
  if stmt[BINARY] ~= nil then return true end
  local seconds = type(options) == "table" and getmetatable(options) == nil and options.timeout
  local ok, err = prepare(stmt, type(seconds) == "number" and seconds or nil)
  if ok then core.again(stmt.conn) end
  return ok, err
end

local function run_ready(stmt, ...)
  local ok, err = ready(stmt, ...)
  if not ok then return nil, err end
  return await.conclude(core.query_uncached, core.take_last, stmt.conn, stmt, ...)
end

function Statement:query(...)
  local conn = open(self)
  if self[BINARY] ~= nil then -- the quick way
    local res, err, fd, seconds = query(conn, self, ...)
    if res then return res end
    res, err = arrived(conn, res, err, fd, seconds)
    if res then return res end
    if not core.is_occupied(conn) then
      if not is_stale(self, err) then return nil, err end
      core.again(conn)
    end
  end
  local res, err = run_ready(self, ...)
  if res ~= nil or not is_stale(self, err) then return res, err end
  core.again(conn)
  return run_ready(self, ...)
end

function Statement:send_query(...)
  local conn = open(self)
  local ok, err = ready(self, ...)
  if not ok then return nil, err end
  return conn:send_query(self, ...)
end

-- Waits until the rows come or do not, while the statement can still be renewed.
local function rows(stmt, renewed, ...)
  local conn = open(stmt)
  local ok, err = ready(stmt, ...)
  if not ok then return core.stream_of_error(conn, err) end
  local stream = conn:rows(stmt, ...)
  ok, err = stream:columns()
  if ok or not err then return stream end
  if not renewed and is_stale(stmt, err) then
    core.again(conn)
    return rows(stmt, true, ...)
  end
  return core.stream_of_error(conn, err)
end

function Statement:rows(...)
  local stream = rows(self, false, ...)
  return stream, nil, nil, stream
end

-- What it takes and gives, as it was prepared: OIDs of parameters, and columns.
function Statement:describe()
  open(self)
  return self.description
end

function Statement:close()
  local conn = conn_of(self)
  if not conn then return true end
  self.conn = nil
  local res, err = await.conclude(core.close_statement, core.take_last, conn, closing(self[NAME]))
  if not res then return nil, err end
  return true
end

return { new_name = new_name, go_on = go_on }
