-- Many coroutines in one: what lets a plain script have many things under way.
--
-- A crew runs coroutines (its hands) of its own, within whoever calls crew:run.
-- What they wait for is watched by one crowd; the crew as a whole waits as a
-- single connection would: in poll(2) in a plain script, else by the wait it was
-- given, for the one descriptor of the crowd. So it works wherever one connection
-- does, and no loop needs to know of it.
--
-- To its hands a crew is a wait like any other (crew.wait), with the hooks to park.
local core = require "dblink.core"
local protect = require "dblink.protect"

local now = core.now
local yield, resume_coroutine = coroutine.yield, coroutine.resume

local crew = {}
crew.__index = crew

local home = setmetatable({}, { __mode = "k" }) -- coroutine: its crew

local function wake(self, hand, value, why)
  if hand.queued or hand.over then return end
  self.ready[self.last + 1] = hand -- first: where that fails for want of memory, nothing has happened
  self.last = self.last + 1
  hand.queued = true
  local fd = hand.fd
  if fd then
    self.by_fd[fd] = nil
    hand.fd = nil
  end
  if hand.deadline then
    hand.deadline = nil
    self.timed[hand] = nil
  end
  hand.parked, hand.value, hand.why = false, value, why
end

-- Who waits for it. Lanes have a hand from when they need one.
local function hand_at(self, fd)
  local who = self.by_fd[fd]
  return type(who) == "number" and self.hand_of(who, fd) or who
end

local function set_deadline(self, hand, seconds)
  local deadline = now() + seconds
  hand.deadline = deadline
  self.timed[hand] = true
  if deadline < self.earliest then self.earliest = deadline end
end

-- Whether it can be: else its user will learn why.
local function watch(self, hand, fd, events, seconds)
  if self.watched[fd] ~= events then
    if not self.crowd:watch(fd, events) then return false end
    self.watched[fd] = events
  end
  hand.fd = fd
  self.by_fd[fd] = hand.lane or hand
  if seconds then set_deadline(self, hand, seconds) end
  return true
end

local function sleep(hand)
  yield()
  return hand.value, hand.why
end

local function forget(self, fd)
  self.watched[fd] = nil
  self.crowd:forget(fd)
end

-- Something was done for a hand: whoever did it may be outside of the crew, while that sleeps.
local function call_in(self)
  local gate = self.gate
  self.gate = nil
  if gate then self.outer.forget(gate) end
end

-- The wait of a crew's hands. Where they can vanish they do so all at once (abandon).
local function make_wait(self)
  local how = {}
  if self.outer.enter then
    function how.enter(gone, arg)
      local token = { gone = gone, arg = arg }
      self.entered[token] = true
      return token
    end
    function how.leave(token) self.entered[token] = nil end
  end
  function how.wait(fd, events, seconds)
    local hand = self.running
    if not hand then return self.outer.wait(fd, events, seconds) end
    if not watch(self, hand, fd, events, seconds) then return true end
    return sleep(hand)
  end
  function how.forget(fd)
    forget(self, fd)
    local hand = hand_at(self, fd)
    if not hand then return end
    wake(self, hand, true)
    call_in(self)
  end
  function how.self()
    self.running.permit = nil
    return self.running
  end
  function how.park(seconds)
    local hand = self.running
    if hand.permit then
      hand.permit = nil
      return true
    end
    hand.parked = true
    if seconds then set_deadline(self, hand, seconds) end
    return sleep(hand)
  end
  function how.unpark(hand)
    if not hand.parked then
      hand.permit = true
      return
    end
    wake(self, hand, true)
    call_in(self)
  end
  return how
end

local function pass(fd) return fd end -- where there are no lanes
local function none() return 0 end

function crew.new(outer)
  if outer.check then
    local possible, err = outer.check()
    if not possible then return nil, err end
  end
  local crowd, err = core.crowd()
  if not crowd then return nil, err end
  local self = setmetatable({
    outer = outer, crowd = crowd, by_fd = {}, watched = {}, timed = {}, earliest = math.huge,
    serve = pass, alone = none, reap = none, ready = {}, first = 1, last = 0, alive = 0, entered = {},
  }, crew)
  self.wait = make_wait(self)
  local gate = crowd:getfd()
  if gate and not outer.plain then outer.forget(gate) end -- of another's, by chance of the same number
  self.token = outer.enter and outer.enter(crew.abandon, self)
  return self
end

-- The crew whose hand is running here, as a wait; nil elsewhere.
function crew.here()
  local co = protect.running()
  local own = co and home[co]
  return own and own.wait
end

-- A new hand, which begins at the next turn.
function crew:spawn(f, ...)
  local hand = {}
  hand.co = coroutine.create(function(...)
    f(...)
    hand.over = true
  end)
  hand.args = { n = select("#", ...), ... }
  home[hand.co] = self
  self.alive = self.alive + 1
  wake(self, hand)
  return hand
end

-- A hand without a coroutine, for a lane (lane.c) that waits for fd, or for nothing: begin(job)
-- is called when it is roused, or late; react(job, ...) with what self.serve says of it. Lanes
-- need none as long as all goes well: self.serve serves them, self.alone() tells how many there
-- are, self.hand_of(lane, fd) gives one its hand, and self.reap() takes those away that were
-- served to their end.
function crew:attend(lane, fd, begin, react, job)
  self.alive = self.alive + 1
  return { lane = lane, begin = begin, react = react, job = job, fd = fd }
end

function crew:watch(hand, fd, events, seconds)
  if hand.fd == fd and self.watched[fd] == events and not seconds then return end
  if not watch(self, hand, fd, events, seconds) then wake(self, hand, true) end
end

-- It has done its work.
function crew:retire(hand)
  local fd = hand.fd
  if fd then self.by_fd[fd] = nil end
  self.timed[hand] = nil
  hand.fd, hand.over = nil, true
  self.alive = self.alive - 1
end

-- Wherever it is, it goes no further. What it was about is the caller's to end.
function crew:dismiss(hand)
  if hand.over then return end
  local fd = hand.fd
  if fd then
    self.by_fd[fd] = nil
    forget(self, fd)
  end
  self.timed[hand] = nil
  hand.fd, hand.over, hand.dismissed = nil, true, true
  self.alive = self.alive - 1
end

-- What it waits for is as if it had come.
function crew:rouse(hand)
  wake(self, hand, true)
end

local unpack = table.unpack or unpack

local function resume(self, hand)
  if hand.begin then return hand.begin(hand.job) end
  local args, ok, err = hand.args
  self.running = hand
  if args then
    hand.args = nil
    ok, err = resume_coroutine(hand.co, unpack(args, 1, args.n))
  else
    ok, err = resume_coroutine(hand.co)
  end
  self.running = nil
  if ok and not hand.over then return end
  if not hand.dismissed then self.alive = self.alive - 1 end
  hand.over = true
  if not ok then error(err, 0) end
end

local function run_ready(self)
  local ready = self.ready
  while self.first <= self.last do
    local hand = ready[self.first]
    ready[self.first] = nil
    self.first = self.first + 1
    hand.queued = false
    if not hand.over then resume(self, hand) end
  end
end

-- Wakes those whose time is over.
local function ring_alarms(self)
  local moment = now()
  if moment < self.earliest then return end
  local earliest = math.huge
  for hand in pairs(self.timed) do
    if hand.deadline > moment and hand.deadline < earliest then earliest = hand.deadline end
  end
  self.earliest = earliest
  local late = {}
  for hand in pairs(self.timed) do
    if hand.deadline <= moment then late[#late + 1] = hand end
  end
  table.sort(late, function(a, b) return a.deadline < b.deadline end)
  for _, hand in ipairs(late) do wake(self, hand, nil, "timeout") end
end

-- Where descriptors cannot be bundled, one is waited for, and the others are
-- looked at in turns.
local function wait_outside(self, seconds)
  local gate = self.crowd:getfd()
  if not gate then
    gate = next(self.by_fd)
    seconds = math.min(seconds or 0.01, 0.01)
    if not gate then
      self.bell = self.bell or assert(core.bell())
      gate = self.bell:getfd()
    end
  end
  self.gate = gate
  if self.token then
    self.outer.wait(gate, "r", seconds, self.token)
  else
    self.outer.wait(gate, "r", seconds)
  end
  self.gate = nil
end

local function look(self, deadline)
  local crowd, serve = self.crowd, self.serve
  if deadline > self.earliest then deadline = self.earliest end
  local fd
  if self.outer.plain then
    fd = crowd:ready(deadline < math.huge and deadline or nil)
  else
    fd = crowd:ready(0)
    if not fd then
      local left = deadline < math.huge and deadline - now() or nil
      if not left or left > 0 then wait_outside(self, left) end
      fd = crowd:ready(0)
    end
  end
  local res, need, where, seconds
  fd, res, need, where, seconds = serve(fd or nil, self.outer.plain and deadline or nil)
  self.reap()
  while fd do
    local hand = hand_at(self, fd)
    if not hand then
      forget(self, fd)
    elseif hand.react then
      hand.react(hand.job, res, need, where, seconds)
    else
      wake(self, hand, true)
    end
    fd, res, need, where, seconds = serve(crowd:more())
    self.reap()
  end
end

-- Runs the hands until none is left, or until `enough()` is true after a turn
-- (both: true), or the deadline has come (false). Raises what a hand raised.
function crew:run(deadline, enough)
  deadline = deadline or math.huge
  while true do
    run_ready(self)
    if (self.alive == 0 and self.alone() == 0) or (enough and enough()) then return true end
    if deadline < math.huge and now() >= deadline then return false end
    look(self, deadline)
    if self.earliest < math.huge then ring_alarms(self) end
  end
end

function crew:close()
  if self.token then self.outer.leave(self.token) end
  self.token = nil
  local gate = self.crowd:getfd()
  if gate and not self.outer.plain then self.outer.forget(gate) end
  self.crowd:close()
  if self.bell then self.bell:close() end
end

-- Its hands are gone, and who has run them.
function crew:abandon()
  local token = next(self.entered)
  while token do
    self.entered[token] = nil
    token.gone(token.arg)
    token = next(self.entered)
  end
  self:close()
end

return crew
