-- Pipelines: conn:pipeline(), many queries under way at once.
--
-- In a plain script its methods are C functions. Under another wait, or a deadline, those
-- that may have to wait are ours.
local core = require "dblink.core"
local await = require "dblink.await"
local check_options = require("dblink.options").check
local statement = require "dblink.statement"

local state, methods = core.state, core.methods

local function complete(class)
  local Pipeline = class.__index
  local finish, conn_of = Pipeline.finish, Pipeline.conn
  Pipeline.finish, Pipeline.conn = nil, nil

  -- Sees all to its end: true, or nil and an error where the connection was lost, or
  -- the time was up and the rest cancelled. (`true`: another verb wants the connection.)
  function Pipeline:close(seconds)
    local conn = conn_of(self)
    local ok, err = finish(self, seconds ~= true and seconds or nil)
    while ok == false do
      if not await.settle(conn) then return await.give_up(conn) end
      ok, err = finish(self)
    end
    return ok, err
  end

  function class:__close() Pipeline.close(self) end
end

local waiting = core.pipeline_class(false)
do
  local Pipeline = waiting.__index
  local query, room, conn_of = Pipeline.query, Pipeline.room, Pipeline.conn

  function Pipeline:query(...)
    local ticket, err = query(self, ...)
    if err ~= false then return ticket, err end
    local conn = conn_of(self)
    repeat
      if not await.settle(conn) then -- the time of the whole is up
        local ok
        ok, err = self:close()
        if not ok then return nil, err end
      end
    until room(self)
    return ticket
  end
  Pipeline.room = nil
end

local plain = core.pipeline_class(true)
plain.__index.room = nil

complete(waiting)
complete(plain)

local OPTIONS = { timeout = true }

-- The seconds for the whole of a pipeline, nil: no end.
local function read_timeout(options)
  local timeout = check_options(options, OPTIONS).timeout
  if timeout ~= nil and (type(timeout) ~= "number" or timeout ~= timeout or timeout < 0) then
    core.misuse "option timeout must be a number of seconds"
  end
  return timeout
end

function methods:pipeline(options)
  local timeout = read_timeout(options)
  local function wrap(result)
    return function(ticket, seconds)
      local res, err = result(ticket, seconds)
      while res == false do res, err = result(ticket, nil, not await.settle(self)) end
      return res, err
    end
  end
  local p, err = await.begin(core.pipeline, self, statement.new_name(), not state(self).plain and wrap or nil, timeout)
  if p then state(self).occupant = p end
  return p, err
end
