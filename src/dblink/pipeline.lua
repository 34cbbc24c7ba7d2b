-- Pipelines: conn:pipeline(), many queries under way at once.
--
-- In a plain script its methods are C functions. Under another wait, or a deadline, those
-- that may have to wait are ours.
local core = require "dblink.core"
local await = require "dblink.await"
local options = require "dblink.options"
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

  -- For a loop: the values of all rows that are to be collected, behind the number of their query.
  local give_values = Pipeline.give_values
  Pipeline.give_values = nil
  function Pipeline:values() return give_values, self end

  function class:__close() Pipeline.close(self) end
end

local waiting = core.pipeline_class(false)
do
  local Pipeline = waiting.__index
  local room, conn_of, give_values = Pipeline.room, Pipeline.conn, Pipeline.next_values

  -- What sends, and waits where there is no room.
  local function sending(send)
    return function(self, ...)
      local sent, err = send(self, ...)
      if err ~= false then return sent, err end
      local conn = conn_of(self)
      repeat
        if not await.settle(conn) then -- the time of the whole is up
          local ok
          ok, err = self:close()
          if not ok then return nil, err end
        end
      until room(self)
      return sent
    end
  end

  -- What gives an answer, and waits for it.
  local function collecting(collect)
    local function go_on(self, deadline, answer, ...)
      if answer ~= false then return answer, ... end
      local late = not await.settle(conn_of(self))
      return go_on(self, deadline, collect(self, deadline and math.max(deadline - core.now(), 0), late))
    end
    return function(self, seconds)
      return go_on(self, type(seconds) == "number" and core.now() + seconds or nil, collect(self, seconds))
    end
  end

  Pipeline.query, Pipeline.send_query = sending(Pipeline.query), sending(Pipeline.send_query)
  Pipeline.get_result, Pipeline.next_values = collecting(Pipeline.get_result), collecting(Pipeline.next_values)
  Pipeline.room = nil

  local function raise(n, err, ...)
    if n == nil and err ~= nil then error(err, 0) end
    return n, err, ...
  end

  local function go_on(self, n, ...)
    if n ~= false then return raise(n, ...) end
    await.check_loop(conn_of(self), "p:next_values()")
    return raise(Pipeline.next_values(self))
  end

  function Pipeline:give_values() return go_on(self, give_values(self)) end
end

local plain = core.pipeline_class(true)
plain.__index.room = nil

for _, class in ipairs { waiting, plain } do complete(class) end

local OPTIONS = { timeout = true }

function methods:pipeline(given)
  local timeout = options.check_seconds(options.check(given, OPTIONS).timeout, "timeout")
  local function wrap(result)
    return function(ticket, seconds)
      local res, err = result(ticket, seconds)
      while res == false do res, err = result(ticket, nil, not await.settle(self)) end
      return res, err
    end
  end
  -- Each query names its statement, so the name is short.
  local name = statement.new_name "d"
  local p, err = await.begin(core.pipeline, self, name, not state(self).plain and wrap or nil, timeout)
  if p then state(self).occupant = p end
  return p, err
end
