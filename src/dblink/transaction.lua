-- conn:transaction(fn [, options]): committed when fn returns, rolled back when it
-- fails. Inside of another one it is a savepoint.
--
-- Which transactions are open is a stack in the connection's state: each must be
-- the last when it ends, or some coroutines have used one connection for several.
local core = require "dblink.core"
local await = require "dblink.await"
local protect = require "dblink.protect"

local methods, state = core.methods, core.state

local ISOLATION = {
  ["serializable"] = true, ["repeatable read"] = true, ["read committed"] = true, ["read uncommitted"] = true,
}
local SWITCHES = { read_only = { "read only", "read write" }, deferrable = { "deferrable", "not deferrable" } }

-- The words of BEGIN, how often to try anew, and until when.
local function read_options(options)
  local words, retries, deadline = { "begin" }, 0, nil
  for name, value in pairs(options) do
    if name == "isolation" and ISOLATION[value] then
      words[#words + 1] = "isolation level " .. value
    elseif SWITCHES[name] and type(value) == "boolean" then
      words[#words + 1] = SWITCHES[name][value and 1 or 2]
    elseif name == "retries" and type(value) == "number" then
      retries = value
    elseif name == "timeout" and type(value) == "number" and value >= 0 then
      deadline = core.now() + value
    elseif name == "isolation" or SWITCHES[name] or name == "retries" or name == "timeout" then
      core.misuse(("option %s cannot be %s"):format(name, tostring(value)))
    else
      core.misuse("unknown option '" .. tostring(name) .. "'")
    end
  end
  return table.concat(words, " "), retries, deadline
end

local function in_failed_transaction()
  local err = core.failure("server",
    "the transaction was rolled back, since a statement in it had failed, or was cancelled")
  err.sqlstate = "25P02"
  return err
end

-- Rolls back whatever state the connection is in: what is wrong already is told by others.
-- Where another coroutine waits for a query in it, only the loss of the connection ends both.
local function roll_back(conn, sql)
  if conn:status() ~= "ok" then return end
  if core.is_held(conn) then
    state(conn).wait.forget(conn:getfd())
    return core.sever(conn)
  end
  if conn:transaction_status() == "active" then await.stop(conn) end
  local limit = core.set_limit(conn, nil)
  if conn:transaction_status() ~= "idle" then conn:exec_all(sql, await.grace) end
  core.set_limit(conn, limit)
end

-- true, or nil and why it could not be committed.
local function commit(conn, sql, undo)
  await.vacate(conn) -- to stop a stream fails the transaction
  local status = conn:transaction_status()
  if status == "idle" then
    core.set_limit(conn, nil)
    core.misuse "the transaction was ended by its own function"
  end
  local ok, err
  if status == "inerror" then
    err = in_failed_transaction()
  elseif core.overdue(conn) then
    err = core.failure("timeout", "the transaction took longer than its timeout")
  else
    ok, err = conn:query(sql)
    if not ok and err.connection_lost and sql == "commit" and status ~= "unknown" then
      err.message = err.message .. " (nobody knows whether the transaction was committed)"
    elseif not ok and err.kind == "timeout" then
      ok = core.done(conn) > 0 -- it was through before it could be stopped
    end
  end
  if ok then return true end
  roll_back(conn, undo)
  err.connection_lost = conn:status() ~= "ok"
  return nil, err
end

-- Takes a transaction off the stack, and those above with it; why that is out of order.
local function leave(stack, depth, me)
  if stack[depth] ~= me then return "this transaction, or the one around it, is over already" end
  local last = #stack
  for i = last, depth, -1 do stack[i] = nil end
  return last > depth and "a transaction inside of this one is not over yet"
end

local function pack(...)
  return { n = select("#", ...), ... }
end

local unpack = table.unpack or unpack

-- One try: what pcall(fn, conn) gave, packed; or nil and an error. What fn raised is
-- raised again, if it is no error object.
local function try(conn, fn, stack, begin, done, undo)
  local ok, err = conn:query(begin)
  if not ok then
    if #stack == 0 then roll_back(conn, undo) end -- it came to its deadline, and may have begun
    return nil, err
  end
  local me, depth = {}, #stack + 1
  stack[depth] = me
  local results = pack(protect.pcall(fn, conn))
  local returned, value, failure = results[1], results[2], results[3]
  local mine, disorder = stack[depth] == me, leave(stack, depth, me)
  if returned and not disorder and (value ~= nil or failure == nil) then
    ok, err = commit(conn, done, undo)
    return ok and results, err
  end
  if mine then roll_back(conn, undo) end
  if depth == 1 then core.set_limit(conn, nil) end
  if not returned and getmetatable(value) ~= "dblink.error" then error(value, 0) end
  if disorder then core.misuse(disorder) end
  return nil, returned and failure or value
end

local function may_retry(conn, err)
  local sqlstate = type(err) == "table" and err.sqlstate
  return (sqlstate == "40001" or sqlstate == "40P01") and conn:status() == "ok"
end

local function outermost(conn, fn, options)
  local begin, retries, deadline = read_options(options)
  local stack = {}
  state(conn).transactions = stack
  local results, err
  repeat
    core.set_limit(conn, deadline)
    results, err = try(conn, fn, stack, begin, "commit", "rollback")
    core.set_limit(conn, nil)
    retries = retries - 1
  until results or retries < 0 or not may_retry(conn, err)
  return results, err
end

local function savepoint(conn, fn, options)
  if next(options) ~= nil then core.misuse "a transaction inside of another one takes no options" end
  local stack = state(conn).transactions or {}
  state(conn).transactions = stack
  local name = "dblink_" .. #stack + 1
  return try(conn, fn, stack, "savepoint " .. name, "release savepoint " .. name,
    ("rollback to savepoint %s; release savepoint %s"):format(name, name))
end

--- Runs fn(conn) in a transaction and gives back what it returns. It is rolled back
-- where fn returns nil and something, or raises: an error object then comes back as
-- nil and the error, anything else is raised again.
function methods:transaction(fn, options)
  state(self)
  if type(fn) ~= "function" then core.misuse "bad argument 'fn' to transaction (function expected)" end
  if options ~= nil and type(options) ~= "table" then core.misuse "options must be a table" end
  if self:transaction_status() == "active" then -- a stream that was left, or results not taken
    local ok, err = self:query ""
    if not ok then return nil, err end
  end
  local status = self:transaction_status()
  local run = (status == "intrans" or status == "inerror") and savepoint or outermost
  local results, err = run(self, fn, options or {})
  if not results then return nil, err end
  return unpack(results, 2, results.n)
end
