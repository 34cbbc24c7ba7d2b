-- What PostgreSQL's own dblink did (spec/cases/dblink.json: 15.20, 17.11, 18.6), step by step, and a fresh
-- database for each case.
local dblink = require "dblink"
local json = require "support.json"
local named = require "dblink.named"
local server = require "support.server"

local unpack = table.unpack or unpack -- luacheck: ignore
local recorded = json.read_file "spec/cases/dblink.json"
if package.cpath:find "asan" then -- the collector goes through it all again at each step: a tenth has to do
  local some = {}
  for i = 10, #recorded.cases, 10 do some[#some + 1] = recorded.cases[i] end
  recorded.cases = some
end

local function describe_value(value)
  if value == nil or value == json.null then return "NULL" end
  if type(value) ~= "table" then return tostring(value) end
  local list = {}
  for i = 1, value.n or #value do list[i] = describe_value(value[i]) end
  return "{" .. table.concat(list, ", ") .. "}"
end

-- How an error or a notice reads, all of it that was recorded; loose: as far as its first line.
local FIELDS = { "severity", "sqlstate", "message", "detail", "hint", "context" }
local function describe_error(err, loose)
  local list = {}
  for i, name in ipairs(FIELDS) do
    local text = err[name] or (name == "severity" and "ERROR" or "-")
    list[i] = name .. "=" .. (loose and name == "message" and text:match "^[^\n]*" or text)
  end
  return table.concat(list, " | ")
end

-- What a step gave, as one text that both sides are turned into.
local function expected_text(step, fill)
  local lines = {}
  for _, notice in ipairs(step.notices or {}) do lines[#lines + 1] = describe_error(fill(notice), step.loose) end
  if step.error then
    lines[#lines + 1] = describe_error(fill(step.error), step.loose)
  elseif step["end"] then
    lines[#lines + 1] = "nil"
  elseif step.rows then
    for _, row in ipairs(step.rows) do lines[#lines + 1] = describe_value(fill(row)) end
    if step.no_rows then lines[#lines + 1] = "a result" end
    if step.command then lines[#lines + 1] = "status" end
  else
    lines[#lines + 1] = describe_value(fill(step.returns))
  end
  return table.concat(lines, "\n")
end

local function rows_of(value, step)
  local lines = {}
  if step.columns then
    for _, row in ipairs(value or {}) do
      local list = { n = step.columns.n }
      for i, column in ipairs(step.columns) do list[i] = row[column] end
      lines[#lines + 1] = describe_value(list)
    end
  elseif step.summary == "count" then
    lines[1] = describe_value { #value }
  elseif value then
    for row in value:rows "array" do lines[#lines + 1] = describe_value(row) end
  end
  return lines
end

local function actual_text(step, notices, ok, value)
  local lines = {}
  for _, notice in ipairs(notices) do lines[#lines + 1] = describe_error(notice, step.loose) end
  if not ok then
    lines[#lines + 1] = type(value) == "table" and describe_error(value, step.loose) or "raised " .. tostring(value)
  elseif step["end"] then
    lines[#lines + 1] = value == nil and "nil" or "not the end"
  elseif step.rows then
    for _, line in ipairs(rows_of(value, step)) do lines[#lines + 1] = line end
    if step.no_rows then lines[#lines + 1] = type(value) == "userdata" and "a result" or "no result" end
    if step.command then lines[#lines + 1] = value and value:columns()[1].name or "nothing" end
    if notices[1] and value.error ~= notices[1] then lines[#lines + 1] = "another error" end
  else
    lines[#lines + 1] = describe_value(value)
  end
  return table.concat(lines, "\n")
end

-- One case: what its steps call and ask, in a database of its own.
local Case = {}
Case.__index = Case

local function open_case(database)
  local self = setmetatable({ database = database, notices = {} }, Case)
  self.local_conn = server.connect("dbname=" .. database, { decode = false })
  self.set = named.new {
    decode = false,
    on_notice = function(err) table.insert(self.notices, err) end,
  }
  return self
end

function Case:pid(name)
  if name == "local" then return self.local_conn:backend_pid() end
  return tonumber(assert(self.local_conn:query(
    "select pid from pg_stat_activity where application_name = $1", name))(1, 1))
end

-- Fills the placeholders of a recorded value.
function Case:fill(value)
  if type(value) == "table" and value ~= json.null then
    local filled = {}
    for key, item in pairs(value) do filled[key] = self:fill(item) end
    return filled
  elseif type(value) ~= "string" then
    return value
  end
  local info = self.local_conn:info()
  local words = { SOCKDIR = info.host, PORT = info.port, DB = self.database }
  words.CONN = ("host=%s port=%s dbname=%s user=postgres"):format(info.host, info.port, self.database)
  return (value:gsub("{(%u+):?(%w*)}", function(word, name)
    return word == "PID" and ("%d"):format(self:pid(name)) or words[word]
  end))
end

local function unpack_arguments(args)
  local values, n = {}, args and args.n or 0
  for i = 1, n do
    local value = args[i]
    if type(value) == "table" and value ~= json.null then
      for j = 1, value.n do if value[j] == json.null then value[j] = dblink.null end end
    end
    if value ~= json.null then values[i] = value end
  end
  return values, n
end

local NEEDS_LINK = { get_pkey = true, build_sql_insert = true, build_sql_delete = true, build_sql_update = true }

function Case:call(step, user)
  local name = step.call:gsub("^dblink_", "")
  local values, n = unpack_arguments(self:fill(step.args))
  if NEEDS_LINK[name] then
    if not self.catalog then
      local filled = self:fill "{CONN}"
      self.set.connect("catalog", (filled:gsub("user=postgres", "user=" .. (user or "postgres"))))
      self.catalog = true
    end
    table.insert(values, 1, "catalog")
    n = n + 1
  end
  self.notices = {}
  local ok, value = pcall(function() return self.set[name](unpack(values, 1, n)) end)
  local text = actual_text(step, self.notices, ok, value)
  local fill = function(recorded_value) return self:fill(recorded_value) end
  if step.loose and step.returns then
    return type(value) == "string" and value ~= "OK" and text or "any text but OK", text
  end
  for _, other in pairs(step.alt or {}) do
    if text == expected_text(other, fill) then return text, text end
  end
  return expected_text(step, fill), text
end

local WAITING = [[
select count(*) > 0 from pg_stat_activity
 where application_name = $1 and state = 'active' and wait_event_type in ('Timeout', 'Lock')]]

function Case:run_step(step, user)
  if step.call then
    return self:call(step, user)
  elseif step.sql then
    local res = assert(self.local_conn:query(self:fill(step.sql)))
    if not step.rows then return "", "" end
    local lines = {}
    for _, row in ipairs(step.rows) do lines[#lines + 1] = describe_value(self:fill(row)) end
    return table.concat(lines, "\n"), table.concat(rows_of(res, step), "\n")
  elseif step.wait_idle then
    local busy = server.until_true(function()
      local answer = self.set.is_busy(step.wait_idle)
      return answer == 0 and "0"
    end, 20)
    return describe_value(step.returns), busy
  elseif step.wait_active then
    server.until_true(function() return self.local_conn:query(WAITING, step.wait_active)(1, 1) == "t" end, 20)
  elseif step.sleep then
    assert(self.local_conn:query(("select pg_sleep(%g)"):format(step.sleep)))
  else
    error "a step of an unknown kind"
  end
  return "", ""
end

function Case:close()
  for _, name in ipairs(self.set.get_connections() or {}) do self.set.disconnect(name) end
  pcall(self.set.disconnect)
  self.local_conn:close()
end

local function version()
  local number = server.connect():server_version()
  return ("%d.%d"):format(math.floor(number / 10000), number % 10000)
end

describe("the recorded case", function()
  if not server.own then return pending "needs a server of our own: sockets, roles, databases" end
  local admin, template, quick
  local count = 0

  setup(function()
    admin, template = server.connect(), server.name "template"
    quick = admin:server_version() >= 150000 and "strategy file_copy" or ""
    assert(admin:query("create database " .. template))
    local conn = server.connect("dbname=" .. template)
    assert(conn:exec_all(recorded.fixture))
    conn:close()
  end)
  teardown(function()
    admin:query("drop database if exists " .. template .. " with (force)")
    admin:close()
  end)

  local case, database
  before_each(function()
    count = count + 1
    database = template .. "_" .. count
    assert(admin:query(("create database %s template %s %s"):format(database, template, quick)))
    case = open_case(database)
  end)
  after_each(function()
    case:close()
    assert(admin:query(("drop database %s with (force)"):format(database)))
  end)

  -- Recorded where no password was asked for.
  local only_by_socket = {
    ["connect-wrong-password"] = " #socket", ["connect-role-limit"] = " #socket", ["pkey-no-privilege"] = " #socket",
  }

  for _, one in ipairs(recorded.cases) do
    local only = one.only_on and table.concat(one.only_on, " ")
    it(one.id .. (only_by_socket[one.id] or ""), function()
      if only and not only:find(version(), 1, true) then return pending("recorded on " .. only) end
      for _, sql in ipairs(one.setup_sql or {}) do assert(case.local_conn:exec_all(sql)) end
      for i, step in ipairs(one.steps) do
        local should, is = case:run_step(step, one.session_user)
        local what = (step.call or "step") .. " " .. describe_value(step.args)
        assert.equal(("%d %s\n%s"):format(i, what, should), ("%d %s\n%s"):format(i, what, is))
      end
    end)
  end
end)
