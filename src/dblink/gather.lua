-- Scatter and gather: one query here, another there, all at once.
--
-- A run is a list of jobs and a crew; each job has a hand that opens or borrows a
-- connection where it must, asks, and gives the answer to the run. Jobs upon the same
-- connection take turns. A job that is called off leaves nothing behind: what the run
-- opened is closed, what it borrowed from a pool is dropped there, and a connection
-- that the caller gave is brought to rest and stays his.
local core = require "dblink.core"
local await = require "dblink.await"
local checks = require "dblink.options"
local connection = require "dblink.connection"
local crew = require "dblink.crew"
local protect = require "dblink.protect"
local pool = require "dblink.pool"
local statement = require "dblink.statement"

local now, state = core.now, core.state
local go_on = statement.go_on

local gather = {}

local run = {}
run.__index = run

local function set(words)
  local names = {}
  for name in words:gmatch "%S+" do names[name] = true end
  return names
end

-- The options of gather, of as_completed and race, of hedge.
local OF_GATHER = set "timeout limit on_error on_progress wait connect grace"
local OF_MANY = set "timeout limit on_progress wait connect grace"
local OF_HEDGE = set "timeout on_progress wait connect after grace"

local function read_options(options, names)
  options = checks.check(options, names)
  for _, name in ipairs { "timeout", "limit", "after", "grace" } do
    local value, least = options[name], name == "limit" and 1 or 0
    if value ~= nil and not checks.is_least(value, least) then
      core.misuse(("option %s must be a number, at least %d"):format(name, least))
    end
  end
  if options.on_error ~= nil and options.on_error ~= "cancel" then
    core.misuse 'option on_error can only be "cancel"'
  end
  if options.on_progress ~= nil and type(options.on_progress) ~= "function" then
    core.misuse "option on_progress must be a function"
  end
  return options
end

-- The connection that an item names, if it does; raises where the item is wrong.
local function read_where(item, i)
  if type(item) ~= "table" then core.misuse(("item %d must be a table {where, sql, ...}"):format(i)) end
  local where, sql = item[1], item[2]
  if type(sql) ~= "string" then core.misuse(("item %d: [2] must be SQL"):format(i)) end
  if type(where) == "userdata" then return where end
  if pool.is_lease(where) then
    return where.conn or core.misuse(("item %d: the connection has been given back to the pool"):format(i))
  elseif type(where) ~= "string" and type(where) ~= "table" then
    core.misuse(("item %d: [1] must be a connection, a pool or a conninfo"):format(i))
  end
end

-- What it asks, as conn:query takes it.
local function question_of(item)
  local question = {}
  for key, value in pairs(item) do
    if type(key) == "number" then
      question[key - 1] = value
    else
      question[key] = key == "n" and value - 1 or value
    end
  end
  question[0] = nil
  return question
end

-- The wait of the whole: the one that is named, else that of the first connection
-- given, else whatever runs here.
local function find_wait(conn, options)
  local here = crew.here()
  if here then return here end
  if conn and options.wait == nil then return state(conn).wait end
  return connection.find_wait(options.wait)
end

-- each: Lua sees each result at once; else when something ends or fails.
local function new_run(list, options, each)
  if type(list) ~= "table" then core.misuse("bad argument 'list' (table expected, got " .. type(list) .. ")") end
  local lanes, results = core.lanes(list, each)
  local i = lanes.check(1)
  while i do
    local conn = read_where(list[i], i)
    if conn then
      if conn:status() == "closed" then core.misuse(("item %d: connection is closed"):format(i)) end
      lanes.add(i, conn)
    end
    i = lanes.check(i + 1)
  end
  local how = find_wait(lanes.first(), options)
  local hands, err = crew.new(how)
  if not hands then return nil, err end
  local self = setmetatable({
    list = list, n = results.n, options = options, crew = hands, how = how,
    deadline = options.timeout and now() + options.timeout, limit = options.limit or math.huge,
    swift = not (how.enter or options.on_progress),
    decided = false, -- nothing more is to begin
    lanes = lanes, active = 0, live = {}, jobs = {}, results = results, errors = {}, first = 1,
  }, run)
  hands.wait.grace = options.grace
  self.launch, hands.serve = lanes.server(hands.crowd, hands.by_fd, hands.watched, hands.wait)
  hands.alone = lanes.alone
  function hands.reap() return self:reap() end
  function hands.hand_of(lane, fd) return self:job_of(lane, fd).hand end
  return self
end

-- The answer to item i, once.
function run:finish(i, res, err)
  if self.results[i] or self.errors[i] then return end
  local done = self.lanes.finish(i)
  if err then
    self.errors[i] = err
    self.failed = self.failed or i
  else
    self.results[i] = res
    self.won = self.won or i
    self.decided = self.decided or self.first_wins
  end
  local report = self.options.on_progress
  if report then report(done, self.n, self.list[i], res, err) end
end

-- A connection of the run's own.
local function ask_there(self, job, item)
  local options = {}
  for name, value in pairs(self.options.connect or {}) do options[name] = value end
  options.wait = self.crew.wait
  local conn, err = connection.begin(item[1], options, function(own) job.own = own end)
  if not conn then return nil, err end
  local open, res
  open, err = connection.open(conn)
  if open then res, err = conn:query(question_of(item)) end
  conn:close()
  job.own = nil
  return res, err
end

local function ask_pool(job, item)
  job.note = {}
  return pool.ask(item[1], job.note, false, question_of(item))
end

-- The next item of those that wait for the same connection, if there is one to begin.
local function advance(self, job)
  job.i = job.lane and not self.decided and self.lanes.advance(job.lane)
  return job.i
end

local function release(self, job)
  self.live[job] = nil
  if job.lane then
    self.jobs[job.lane] = nil
    self.lanes.give_back(job.lane)
  end
  self.active = self.active - 1
end

local function leave(self, job)
  release(self, job)
  self:start()
end

-- A hand's work: its item, and then those that wait for the same connection. finish(conn,
-- item) ends the first one, where it was begun.
local function work(self, job, finish)
  local conn, unopened = job.conn, nil
  if conn and conn:status() == "connecting" then unopened = select(2, connection.open(conn)) end
  repeat
    local item = self.list[job.i]
    local res, err
    job.asking = true
    if finish then
      res, err = finish(conn, item)
      finish = nil
    elseif job.why or unopened then
      err = job.why or unopened
    elseif conn then
      res, err = await.still(conn)
      if res then res, err = conn:query(question_of(item)) end
    elseif pool.is_pool(item[1]) then
      res, err = ask_pool(job, item)
    else
      res, err = ask_there(self, job, item)
    end
    job.asking = false
    if err and job.why then
      job.why.connection_lost = err.connection_lost
      err = job.why
    end
    self:finish(job.i, res, err)
    unopened = nil
    if not advance(self, job) then return leave(self, job) end
  until self.swift and conn:status() == "ok"
  self:attend(job)
end

-- The same work on a connection that was given needs no coroutine as long as all goes
-- well, nor Lua: serve.c does it. From where it does not, a coroutine goes on.
local function hand_over(self, job, finish)
  self.crew:retire(job.hand)
  job.hand = self.crew:spawn(work, self, job, finish)
end

-- What has come of a lane that Lua has to see.
local function react(job, res, need, fd, seconds)
  local self, lanes = job.run, job.run.lanes
  if res == false and need then return self.crew:watch(job.hand, fd, need, seconds) end
  job.i = lanes.item(job.lane)
  while res do
    if res ~= true then self:finish(job.i, res) end
    if res == true or not advance(self, job) then
      self.crew:retire(job.hand)
      return leave(self, job)
    end
    res, need, fd, seconds = lanes.ask(job.lane)
    job.i = lanes.item(job.lane)
  end
  if res == false and need then
    self.crew:watch(job.hand, fd, need, seconds)
  elseif res == false then
    hand_over(self, job, await.give_up)
  else -- need: the error, if it is one
    hand_over(self, job, function(conn, item) return go_on(conn, nil, need, question_of(item)) end)
  end
end

-- Those lanes that were served to their end are left; nothing is to begin then.
function run:reap()
  for lane in self.lanes.over do
    local job = self.jobs[lane]
    self.crew:retire(job.hand)
    release(self, job)
  end
end

-- It was roused, or is late; or is asked again, after a coroutine.
local function begin(job)
  local self = job.run
  if job.asked then return react(job, self.lanes.arrived(job.lane)) end
  if job.why then return hand_over(self, job) end
  job.asked = true
  react(job, self.lanes.ask(job.lane))
end

-- The job of a lane that is under way; it is made when it is first asked for.
function run:job_of(lane, fd)
  local job = self.jobs[lane]
  if not job then
    local i, conn = self.lanes.take(lane)
    job = { i = i, lane = lane, conn = conn, run = self, hand = false, asked = true }
    self.jobs[lane], self.live[job] = job, true
    self.active = self.active + 1
    job.hand = self.crew:attend(lane, fd or conn:getfd(), begin, react, job)
  end
  return job
end

function run:attend(job)
  job.asked = false
  job.hand = self.crew:attend(job.lane, nil, begin, react, job)
  self.crew:rouse(job.hand)
end

-- The next job, which is no lane's alone; whether there was one.
local function start_one(self)
  local i, lane, conn = self.lanes.next()
  if not i then return false end
  local job = { i = i, lane = lane, conn = conn, run = self, hand = false, asked = false }
  self.active = self.active + 1
  self.live[job] = true
  if lane then self.jobs[lane] = job end
  job.hand = self.crew:spawn(work, self, job)
  return true
end

local function launched(self, lane, ...)
  if not lane then return false end
  react(self:job_of(lane), ...)
  return true
end

-- Starts as many as may run.
function run:start()
  if self.starting then return end
  self.starting = true
  repeat
    local more = self.swift and not self.decided and launched(self, self.launch(self.limit - self.active))
    if not more and self.active + self.lanes.alone() < self.limit and not self.decided then more = start_one(self) end
  until not more
  self.starting = false
end

-- Calls one off that runs. What is a hand's alone ends at once; on a connection that
-- was given the query is cancelled, for which the hand goes on.
function run:call_off(job, why)
  job.why = why
  if job.conn and job.hand then
    core.set_deadline(job.conn, now())
    if job.hand.over then -- by what it raised
      job.hand = self.crew:spawn(work, self, job, await.give_up)
    else
      self.crew:rouse(job.hand)
    end
    return
  end
  release(self, job)
  if job.hand then self.crew:dismiss(job.hand) end
  if job.own then job.own:close() end
  if job.note then pool.abandon(job.note) end
  self:finish(job.i, nil, why)
end

-- Calls off all that is not done, and waits until it is; or until the limit.
function run:stop(kind, message, limit)
  if self.stopped then return end
  self.stopped, self.decided = true, true
  if self.alarm then self.crew:dismiss(self.alarm) end
  local live = {}
  for lane in self.lanes.running, nil, 0 do self:job_of(lane) end
  for job in pairs(self.live) do live[#live + 1] = job end
  table.sort(live, function(a, b) return a.i < b.i end)
  for _, job in ipairs(live) do self:call_off(job, core.failure(kind, message)) end
  self.crew:run(limit)
  for i = 1, self.n do
    if not (self.results[i] or self.errors[i]) then self:finish(i, nil, core.failure(kind, message)) end
  end
end

function run:close()
  if self.closed then return end
  self.closed = true
  for lane in self.lanes.running, nil, 0 do self.lanes.give_back(lane) end
  self.crew:close()
end

-- Whether the error comes from an item that a hand has asked: there is nobody in a hand whose
-- line it could have.
local function is_misuse(self, err)
  if type(err) ~= "string" or err:find "^[^\n]-:%d+: " then return false end
  for job in pairs(self.live) do
    if job.asking and job.hand and job.hand.over then return true end
  end
end

-- Whatever goes wrong in our hands: nothing stays behind, and the error goes on.
function run:abort(err)
  local misuse = is_misuse(self, err)
  if not self.closed then
    self.options = {}
    pcall(self.stop, self, "cancelled", "the run was broken off", now() + await.grace)
    for job in pairs(self.live) do -- where memory ended, hands can be in disorder
      if job.hand then self.crew:dismiss(job.hand) end
      if job.conn then job.conn:close() end
    end
    self:close()
  end
  if misuse then core.misuse(err) end
  error(err, 0)
end

function run:is_over()
  return self.n == 0 or self.lanes.ended(self.n)
end

function run:go(enough)
  self:start()
  return self.crew:run(self.deadline, enough)
end

-- Ctrl-C, a misuse in some item, an error in on_progress: nothing goes on then.
function run:advance(enough)
  local ok, in_time = protect.pcall(self.go, self, enough)
  if not ok then self:abort(in_time) end
  if not in_time then
    self.late = true
    self:stop("timeout", "the run took longer than its timeout")
  end
end

--- Asks all at once: the results in the order of the list, and the errors beside them.
function gather.gather(list, options)
  options = read_options(options, OF_GATHER)
  local self, err = new_run(list, options)
  if not self then return nil, err end
  if options.on_error == "cancel" then
    self:advance(function() return self.failed end)
    if self.failed and not self:is_over() then self:stop("cancelled", "another query of the run failed") end
  else
    self:advance()
  end
  self:close()
  return self.results, self.errors
end

--- Iterates in the order of completion: for i, res, err in dblink.as_completed(list).
function gather.as_completed(list, options)
  options = read_options(options, OF_MANY)
  local self, err = new_run(list, options, true)
  if not self then error(err, 0) end
  local function another() return self.lanes.ended(self.first) end
  -- In Lua 5.1 a loop's iterator cannot yield: all the waiting is done before the loop
  if not (protect.native or self.how.plain) then self:advance() end
  local function each()
    if self.closed then return nil end
    if not another() and not self:is_over() then self:advance(another) end
    local i = another()
    if not i then
      self:close()
      return nil
    end
    self.first = self.first + 1
    if self.first > self.n then self:close() end
    return i, self.results[i], self.errors[i]
  end
  -- Leaving the loop early ends the run: by itself from Lua 5.4 on, else by each:close().
  local each_object = setmetatable({}, {
    __call = function() return each() end,
    __index = { close = function()
      if self.closed then return end
      self:stop("cancelled", "the run was left")
      self:close()
    end },
  })
  getmetatable(each_object).__close = each_object.close
  return each_object, nil, nil, each_object
end

local GRACE = 1 -- the winner waits no longer for the losers to be cancelled

-- The first good answer decides.
local function new_race(list, options)
  local self, err = new_run(list, options, true)
  if not self then return nil, err end
  self.first_wins, self.grace = true, options.grace or GRACE
  return self
end

local function best(self)
  self:advance(function() return self.won or self:is_over() end)
  if not self:is_over() then self:stop("cancelled", "another answer came first") end
  self:close()
  if self.won then return self.results[self.won], self.won end
  return nil, self.failed and self.errors[self.failed] or core.failure("usage", "there is nobody to ask"),
    self.errors
end

--- Asks all, and takes the first good answer; the others are cancelled: the result and
-- which it was, or nil, the first error, and all errors.
function gather.race(list, options)
  local self, err = new_race(list, read_options(options, OF_MANY))
  if not self then return nil, err end
  return best(self)
end

--- A race in which each begins only when the one before it is late, or has failed.
function gather.hedge(list, options)
  options = read_options(options, OF_HEDGE)
  local self, err = new_race(list, options)
  if not self then return nil, err end
  self.limit = 1
  local after = options.after or 0.05
  self.alarm = self.crew:spawn(function()
    local how = self.crew.wait
    for _ = 2, self.n do
      how.self()
      how.park(after)
      self.limit = self.limit + 1
      self:start()
    end
  end)
  return best(self)
end

-- The same in a loop: one descriptor stands for all.
local function wait_for_all(list, how, deadline)
  local crowd = core.crowd()
  local gate = crowd and crowd:getfd()
  local left = deadline < 1e300 and math.max(deadline - now(), 0) or nil
  if gate then
    for _, conn in ipairs(list) do
      local fd = conn:getfd()
      if fd then crowd:watch(fd, conn:events() or "r") end
    end
    how.wait(gate, "r", left)
    how.forget(gate)
  else
    how.wait(list[1]:getfd(), "r", math.min(left or 0.01, 0.01))
  end
  if crowd then crowd:close() end
end

--- Waits until some of the connections need somebody (a result, a notification, a
-- lost link, an attempt to connect that is over): a list of them, or nil and an error
-- when the seconds are over. Nothing is taken from them, and nothing cancelled.
function gather.wait_any(list, seconds)
  if type(list) ~= "table" or #list == 0 then
    core.misuse "bad argument 'list' (a list of connections expected)"
  end
  if seconds ~= nil and not checks.is_least(seconds, 0) then
    core.misuse "bad argument 'seconds' (a number of seconds expected)"
  end
  local deadline = seconds and now() + seconds
  local first = list[1]
  local how = crew.here() or state(pool.is_lease(first) and first.conn or first).wait
  while true do
    local found, wake = core.look(list, how.plain and deadline or not how.plain and 0 or nil)
    if found then return found end
    if deadline and now() >= deadline then
      return nil, core.failure("timeout", "no connection needed attention in time")
    end
    if not how.plain then wait_for_all(list, how, math.min(deadline or wake, wake)) end
  end
end

return gather
