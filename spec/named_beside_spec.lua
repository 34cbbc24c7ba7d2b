-- Ours beside PostgreSQL's own dblink: both are asked the same, in every state that a link can be in, and must
-- answer alike. Two databases, so that neither sees what the other did.
local dblink = require "dblink"
local named = require "dblink.named"
local server = require "support.server"

local unpack = table.unpack or unpack -- luacheck: ignore
local NULL = dblink.null
local SETS = { dblink = true, get_result = true, fetch = true }
local TABLES = { get_notify = { "notify_name", "extra" }, get_pkey = { "position", "colname" } }
local FIELDS = { "severity", "sqlstate", "message", "detail", "hint", "context" }

-- How libpq tells of a lost connection depends on how one waits for it: its first line has to do.
local function describe_error(err)
  local list = {}
  for i, name in ipairs(FIELDS) do
    local text = tostring(err[name])
    if name == "message" and text:find("server closed the connection", 1, true) then text = text:match "^[^\n]*" end
    list[i] = text
  end
  return table.concat(list, " | ")
end

local function describe_text(text)
  if type(text) == "string" and text:find("server closed the connection", 1, true) then
    return "... server closed the connection"
  end
  return tostring(text)
end

local function describe_rows(res)
  local lines = { "rows:" }
  for row in res:rows "array" do
    for i = 1, row.n do row[i] = tostring(row[i]) end
    lines[#lines + 1] = table.concat(row, ",")
  end
  return table.concat(lines, " ")
end

-- The real thing: SQL functions of a session.
local Real = {}
Real.__index = Real

local function quote(value)
  if value == NULL then return "NULL" end
  if type(value) == "table" then -- attribute numbers or keys
    local list = {}
    for i, item in ipairs(value) do list[i] = type(item) == "number" and tostring(item) or quote(item) end
    return type(value[1]) == "number" and quote(table.concat(list, " ")) or ("array[%s]::text[]"):format(
      table.concat(list, ","))
  end
  return type(value) == "string" and "'" .. value:gsub("'", "''") .. "'" or tostring(value)
end

function Real:call(step)
  local list = {}
  for i = 2, #step do list[i - 1] = quote(step[i]) end
  local call = ("dblink_%s(%s)"):format(step[1], table.concat(list, ", ")):gsub("^dblink_dblink", "dblink")
  local columns = {}
  for i = 1, step.columns or 1 do columns[i] = "c" .. i .. " text" end
  local sql = SETS[step[1]] and ("select * from %s as t(%s)"):format(call, table.concat(columns, ", "))
    or step[1] == "get_notify" and ("select notify_name, extra from %s"):format(call)
    or step[1] == "get_pkey" and ("select position, colname from %s"):format(call)
    or "select " .. call
  local res, err = self.session:query { sql, decode = false }
  local lines = {}
  for _, notice in ipairs(self.session:notices()) do lines[#lines + 1] = describe_error(notice) end
  lines[#lines + 1] = err and describe_error(err)
    or (SETS[step[1]] or TABLES[step[1]]) and describe_rows(res)
    or describe_text(res(1, 1))
  return table.concat(lines, "\n")
end

-- The session stays; its links go.
function Real:close()
  assert(self.session:query
    "select count(dblink_disconnect(name)) from unnest(dblink_get_connections()) as t(name)")
  self.session:query "select dblink_disconnect()"
end

-- Ours, which tells its end and its answers otherwise.
local Ours = {}
Ours.__index = Ours

local function describe_ours(name, value)
  if TABLES[name] then
    local list = { "rows:" }
    for _, row in ipairs(value or {}) do list[#list + 1] = row[TABLES[name][1]] .. "," .. row[TABLES[name][2]] end
    return table.concat(list, " ")
  elseif SETS[name] then
    return value and describe_rows(value) or "rows:"
  end
  return describe_text(value)
end

function Ours:call(step)
  local values, n = {}, 0
  if step[1] == "get_pkey" or step[1]:find "^build" then values[1], n = "catalog", 1 end
  for i = 2, #step do
    n = n + 1
    if step[i] ~= NULL then values[n] = step[i] end
  end
  self.notices = {}
  local ok, value = pcall(self.set[step[1]], unpack(values, 1, n))
  local lines = {}
  for _, notice in ipairs(self.notices) do lines[#lines + 1] = describe_error(notice) end
  lines[#lines + 1] = ok and describe_ours(step[1], value) or describe_error(value)
  return table.concat(lines, "\n")
end

function Ours:close()
  for _, name in ipairs(self.set.get_connections() or {}) do self.set.disconnect(name) end
  pcall(self.set.disconnect)
end

local FIXTURE = [[
create table nums(id int primary key, v text);
insert into nums select g, 'v' || g from generate_series(1, 5) g;
create table par(id int primary key);
create table chi(pid int references par deferrable initially deferred)]]

describe("beside the real dblink #socket,", function()
  if not server.own then return pending "needs a server of our own: databases, an extension" end
  local admin, session
  local databases = {}

  setup(function()
    admin = server.connect()
    local template = server.name "beside"
    for _, side in ipairs { "real", "ours" } do
      databases[side] = template .. "_" .. side
      assert(admin:query("create database " .. databases[side]))
      local conn = server.connect("dbname=" .. databases[side])
      assert(conn:exec_all(FIXTURE))
      if side == "real" then assert(conn:exec_all "create extension dblink") end
      conn:close()
    end
    session = server.connect("dbname=" .. databases.real)
  end)
  teardown(function()
    session:close()
    for _, database in pairs(databases) do assert(admin:query(("drop database %s with (force)"):format(database))) end
    admin:close()
  end)

  local sides
  before_each(function()
    local ours = setmetatable({}, Ours)
    ours.set = named.new { decode = false, on_notice = function(err) table.insert(ours.notices, err) end }
    sides = {
      real = setmetatable({ session = session }, Real),
      ours = ours,
    }
  end)
  after_each(function()
    for _, side in pairs(sides) do side:close() end
    assert(admin:query("select count(pg_terminate_backend(pid)) from pg_stat_activity"
      .. " where application_name like 'beside_%' and state = 'active'"))
    -- One that is on its way out would be taken for the next test's.
    server.until_true(function()
      return admin:query "select count(*)::int from pg_stat_activity where application_name like 'beside_%'" (1, 1) == 0
    end, 20)
  end)

  local function where(side, name)
    return ("datname = '%s' and application_name = 'beside_%s'"):format(databases[side], name)
  end

  -- What is no call of dblink's.
  local others = {}
  function others.link(side, name)
    local words = { server.conninfo, "dbname=" .. databases[side], "application_name=beside_" .. (name or "unnamed") }
    local conninfo = table.concat(words, " ")
    return sides[side]:call(name and { "connect", name, conninfo } or { "connect", conninfo })
  end
  function others.idle(side, name)
    server.until_true(function() return sides[side]:call { "is_busy", name } == "0" end, 20)
  end
  local function until_shown(side, name, condition, count)
    local sql = ("select count(*) from pg_stat_activity where %s and "):format(condition) .. where(side, name)
    return server.until_true(function() return assert(admin:query(sql))(1, 1) == (count or 1) end, 20)
  end
  function others.gone(side, name)
    until_shown(side, name, "true", 0)
  end
  function others.active(side, name)
    until_shown(side, name, "state = 'active' and wait_event_type in ('Timeout', 'Lock')")
  end
  function others.finished(side, name)
    until_shown(side, name, "wait_event = 'ClientRead' and query <> ''")
  end
  function others.state(side, name)
    return tostring(assert(admin:query("select state from pg_stat_activity where " .. where(side, name)))(1, 1))
  end
  -- pg_terminate_backend's own way of waiting takes 100 ms; and the socket is closed only with the process.
  function others.kill(side, name)
    local res = assert(admin:query("select pid, pg_terminate_backend(pid) from pg_stat_activity where "
      .. where(side, name)))
    server.until_true(function()
      local file = #res == 1 and io.open("/proc/" .. res(1, 1) .. "/stat")
      if file then file:close() end
      return not file
    end)
    return tostring(#res)
  end
  function others.sql(side, sql)
    local conn = server.connect("dbname=" .. databases[side])
    local res = assert(conn:query { sql, decode = false })
    conn:close()
    return describe_rows(res)
  end

  local function transcript(side, steps)
    local lines = {}
    for i, step in ipairs(steps) do
      local other, call = others[step[1]], { columns = step.columns }
      for k, value in ipairs(step) do
        call[k] = type(value) == "string" and value:gsub("DATABASE", databases[side]) or value
      end
      local answer = other and (other(side, step[2]) or "") or not other and sides[side]:call(call)
      lines[i] = ("%d %s %s %s -> %s"):format(i, tostring(step[1]), tostring(step[2]), tostring(step[3]),
        (answer:gsub(databases[side], "DATABASE")))
    end
    return table.concat(lines, "\n")
  end

  local function compare(steps)
    assert.equal(transcript("real", steps), transcript("ours", steps))
  end

  local LINK = { "link", "c" }

  -- Ways into a state; the link is called c.
  local states = {
    ["not connected"] = {},
    ["fresh"] = { LINK },
    ["running"] = { LINK, { "send_query", "c", "select pg_sleep(30)" }, { "active", "c" }, endless = true },
    ["finished, unread"] = { LINK, { "send_query", "c", "select 1" }, { "finished", "c" } },
    ["finished, seen"] = { LINK, { "send_query", "c", "select 1" }, { "idle", "c" } },
    ["last result fetched"] = { LINK, { "send_query", "c", "select 1" }, { "get_result", "c" } },
    ["last result fetched, then asked"] =
      { LINK, { "send_query", "c", "select 1" }, { "get_result", "c" }, { "idle", "c" } },
    ["drained"] =
      { LINK, { "send_query", "c", "select 1" }, { "get_result", "c" }, { "get_result", "c" } },
    ["between results"] =
      { LINK, { "send_query", "c", "select 1; select 2; select 3" }, { "get_result", "c" } },
    ["failed, unread"] = { LINK, { "send_query", "c", "select 1/0" }, { "finished", "c" } },
    ["failed, seen"] = { LINK, { "send_query", "c", "select 1/0" }, { "idle", "c" } },
    ["error fetched"] =
      { LINK, { "send_query", "c", "select 1/0" }, { "finished", "c" }, { "get_result", "c", false } },
    ["error drained"] =
      { LINK, { "send_query", "c", "select 1/0" }, { "get_result", "c", false }, { "get_result", "c" } },
    ["empty query, unread"] = { LINK, { "send_query", "c", "-- nothing" }, { "finished", "c" } },
    ["refused twice"] =
      { LINK, { "send_query", "c", "select 1" }, { "idle", "c" }, { "send_query", "c", "select 2" },
        { "send_query", "c", "select 3" } },
    ["cancelled"] =
      { LINK, { "send_query", "c", "select pg_sleep(30)" }, { "active", "c" }, { "cancel_query", "c" },
        { "finished", "c" } },
    ["in a transaction"] = { LINK, { "exec", "c", "begin" } },
    ["in a failed transaction"] = { LINK, { "exec", "c", "begin" }, { "exec", "c", "select 1/0", false } },
    ["with a cursor"] = { LINK, { "open", "c", "cur", "select id from nums order by id" } },
    ["killed idle"] = { LINK, { "kill", "c" } },
    ["killed idle, asked once"] = { LINK, { "kill", "c" }, { "is_busy", "c" } },
    ["killed idle, asked twice"] = { LINK, { "kill", "c" }, { "is_busy", "c" }, { "is_busy", "c" } },
    ["killed running"] =
      { LINK, { "send_query", "c", "select pg_sleep(30)" }, { "active", "c" }, { "kill", "c" } },
    ["killed running, seen"] =
      { LINK, { "send_query", "c", "select pg_sleep(30)" }, { "active", "c" }, { "kill", "c" },
        { "is_busy", "c" } },
    ["killed running, error fetched"] =
      { LINK, { "send_query", "c", "select pg_sleep(30)" }, { "active", "c" }, { "kill", "c" },
        { "get_result", "c", false } },
    ["killed running, loss fetched"] =
      { LINK, { "send_query", "c", "select pg_sleep(30)" }, { "active", "c" }, { "kill", "c" },
        { "get_result", "c", false }, { "get_result", "c", false } },
    ["killed finished, unread"] =
      { LINK, { "send_query", "c", "select 1" }, { "finished", "c" }, { "kill", "c" } },
    ["killed finished, seen"] =
      { LINK, { "send_query", "c", "select 1" }, { "idle", "c" }, { "kill", "c" } },
    ["killed in a transaction"] = { LINK, { "exec", "c", "begin" }, { "kill", "c" } },
    ["killed with a cursor"] = { LINK, { "open", "c", "cur", "select id from nums" }, { "kill", "c" } },
    ["killed after a send"] = { LINK, { "kill", "c" }, { "send_query", "c", "select 1" } },
    ["known dead"] = { LINK, { "kill", "c" }, { "exec", "c", "select 1", false } },
    ["disconnected"] = { LINK, { "disconnect", "c" } },
  }

  -- What is asked first in each state. dblink() with results pending is otherwise on purpose.
  local questions = {
    { "send_query", "c", "select 7", races = true },
    { "is_busy", "c" },
    { "get_result", "c", waits = true },
    { "get_result", "c", false, waits = true },
    { "cancel_query", "c", races = true },
    { "exec", "c", "set work_mem = '1MB'" },
    { "exec", "c", "set work_mem = '1MB'", false },
    { "open", "c", "other", "select 1", false },
    { "fetch", "c", "cur", 2 },
    { "close", "c", "cur", false },
    { "get_notify", "c" },
    { "disconnect", "c" },
  }
  local afterwards = {
    { "error_message", "c" },
    { "is_busy", "c", reads = true },
    { "error_message", "c" },
    { "get_result", "c", false, waits = true },
    { "get_result", "c", false, waits = true },
    { "get_result", "c", false, waits = true },
    { "error_message", "c" },
    { "send_query", "c", "select 8" },
    { "error_message", "c" },
  }

  -- endless: get_result would wait for ever; racing: what has arrived is up to chance.
  local function append(steps, more, endless, racing)
    for _, step in ipairs(more) do
      if not (endless and step.waits or racing and step.reads) then steps[#steps + 1] = step end
    end
    return steps
  end

  -- The answers are libpq's, whatever Lua asks: one asks all the questions, the others every fifth, and fewer
  -- with the sanitizers' collector.
  local slow = package.cpath:find "asan"
  local every, turn = slow and 50 or _VERSION == "Lua 5.4" and 1 or 5, 0
  local names = {}
  for name in pairs(states) do names[#names + 1] = name end
  table.sort(names)

  for _, name in ipairs(names) do
    local way = states[name]
    describe("a link " .. name, function()
      for _, question in ipairs(questions) do
        turn = turn + 1
        if turn % every == 0 and not (way.endless and question.waits) then
          local last = question[#question]
          it("answers to " .. question[1] .. (last == false and " without fail" or ""), function()
            compare(append(append(append({}, way), { question }), afterwards, way.endless, question.races))
          end)
        end
      end
    end)
  end

  local function get(n, name)
    local steps = {}
    for i = 1, n do steps[i] = { "get_result", name or "c", false } end
    return steps
  end

  local stories = {
    ["several statements"] = append({ LINK,
      { "send_query", "c", "select 1; insert into nums values (10, 'x'); select 'two' where false; select 3" },
    }, get(6)),
    ["several statements, one of them wrong"] = append({ LINK,
      { "send_query", "c", "insert into nums values (11, 'x'); select 1/0; insert into nums values (12, 'x')" },
    }, append(get(4), { { "sql", "select count(*) from nums where id in (11, 12)" } })),
    ["several statements with a transaction of their own"] = append({ LINK,
      { "send_query", "c", "begin; insert into nums values (13, 'x'); commit; select 1/0" },
    }, append(get(6), { { "sql", "select count(*) from nums where id = 13" }, { "error_message", "c" } })),
    ["a syntax error in one of several statements"] = append({ LINK,
      { "send_query", "c", "select 1; selekt 2" },
    }, append(get(3), { { "error_message", "c" } })),
    ["empty queries"] = append(append(append({ LINK, { "send_query", "c", "" } }, get(2)),
      { { "send_query", "c", " ; ; " } }), append(get(2), {
      { "send_query", "c", "/* nothing */" }, { "get_result", "c" }, { "get_result", "c" }, { "error_message", "c" },
      { "exec", "c", "" }, { "exec", "c", ";", false }, { "dblink", "c", "" }, { "dblink", "c", "--", false },
      { "exec", "c", "select 1;;" }, { "error_message", "c" },
    })),
    ["an empty query after a refusal"] = append({ LINK,
      { "send_query", "c", "-- nothing" }, { "finished", "c" }, { "send_query", "c", "select 2" },
    }, append(get(2), { { "error_message", "c" } })),
    ["all that an error has"] = { LINK,
      { "exec", "c", "do $$ begin raise exception 'boom' using errcode = 'P0099', detail = 'the detail', "
        .. "hint = 'the hint', column = 'c', constraint = 'k', table = 't', schema = 's'; end $$" },
      { "error_message", "c" },
      { "exec", "c", "do $$ begin raise exception E'two\nlines' using errcode = '00000'; end $$", false },
      { "exec", "c", "do $$ begin raise exception ''; end $$", false },
      { "dblink", "c", "select nowhere from nums" }, { "error_message", "c" },
      { "dblink", "c", "select * from nums where id = 'x'", false },
      { "exec", "c", "insert into nums values (1, 'x')" }, { "error_message", "c" },
      { "exec", "c", "create function f() returns int language sql as 'select 1/0'" },
      { "dblink", "c", "select f()" },
      { "exec", "c", "drop function f()" },
    },
    ["links with odd names"] = {
      { "link", "" }, { "link", "two words" }, { "link", "qu'ote" }, { "link", 'double "quote"' },
      { "link", "a=b" }, { "link", "\195\164\226\130\172" }, { "link", "100%s" }, { "link", "back\\slash" },
      { "exec", "", "bad" }, { "exec", "two words", "bad" }, { "exec", "qu'ote", "bad", false },
      { "exec", 'double "quote"', "bad" }, { "exec", "a=b", "bad" }, { "exec", "\195\164\226\130\172", "bad" },
      { "exec", "100%s", "bad" }, { "exec", "back\\slash", "bad" }, { "is_busy", "A=B" }, { "is_busy", " " },
      { "disconnect", "" }, { "disconnect", "" }, { "is_busy", "100%" },
      { "send_query", "100%s", "select 1" }, { "send_query", "100%s", "select '%d'" },
    },
    ["a duplicate name"] = { LINK, { "connect", "c", "host=/nowhere" }, { "dblink", "c", "select 1" } },
    ["conninfos that are none"] = {
      { "connect", "x", "nosuch" }, { "connect", "x", "hots=1" }, { "connect", "x", "port=abc" },
      { "connect", "x", "host='x" }, { "connect", "host=/nowhere port=1" }, { "connect", "x", "host=/nowhere port=1" },
      { "connect", "x", "postgresql://[::1" }, { "connect", "x", "sslmode=maybe" },
      { "dblink", "nosuch", "select 1" }, { "dblink", "two words", "select 1", false },
      { "exec", "nosuch", "select 1", false }, { "exec", "hots=1", "select 1" },
      { "open", "nosuch", "cur", "select 1", false }, { "fetch", "nosuch", "cur", 1, false },
      { "close", "nosuch", "cur", false }, { "get_notify", "nosuch" }, { "disconnect", "nosuch" },
    },
    ["the unnamed link"] = {
      { "dblink", "select 1" }, { "dblink", "select 1", false }, { "exec", "select 1", false }, { "open", "cur", "x" },
      { "fetch", "cur", 1 }, { "fetch", "cur", 1, false }, { "close", "cur" }, { "close", "cur", false },
      { "get_notify" }, { "disconnect" },
      { "link" }, { "dblink", "select 1" }, { "dblink", "bad", false }, { "exec", "bad" }, { "exec", "bad", false },
      { "exec", "listen x" }, { "exec", "notify x, 'there'" }, { "get_notify" },
      { "open", "cur", "select id from nums order by id", true }, { "fetch", "cur", 2 }, { "fetch", "cur", 1, false },
      { "fetch", "none", 1, false }, { "close", "cur", false },
      { "exec", "create temp table own(a int)" }, { "link" }, { "exec", "drop table own" }, { "disconnect" },
      { "disconnect" },
    },
    ["dblink()"] = { LINK,
      { "dblink", "c", "select 1; select 2; select 3" }, { "dblink", "c", "select 1; set work_mem = '1MB'" },
      { "dblink", "c", "set work_mem = '1MB'; select 'x'" }, { "dblink", "c", "select 1/0; select 1", false },
      { "dblink", "c", "select id, v from nums where id < 3 order by id", columns = 2 },
      { "dblink", "c", "select 1 where false" }, { "dblink", "c", "begin; select 1/0", false },
      { "dblink", "c", "select 1", false }, { "dblink", "c", "rollback" },
      { "dblink", "c", "select null::text, '', 't'::bool, 1.50, '{1,2}'::int[], '\\xde'::bytea", columns = 6 },
      { "dblink", "c", "insert into nums values (20, 'x') returning id" },
      { "dblink", "c", "delete from nums where id = 20" },
      { "get_result", "c" }, { "error_message", "c" },
      { "dblink", "c", "select repeat('x', 100) from generate_series(1, 3)" },
    },
    ["exec"] = { LINK,
      { "exec", "c", "select 1" }, { "exec", "c", "select 1", false }, { "error_message", "c" },
      { "exec", "c", "insert into nums values (21, 'x') returning id", false },
      { "sql", "select count(*) from nums where id = 21" }, { "exec", "c", "delete from nums where id = 21" },
      { "exec", "c", "select 1; create temp table e(a int)" }, { "exec", "c", "create temp table f(a int); select 1" },
      { "exec", "c", "begin" }, { "exec", "c", "begin" }, { "exec", "c", "savepoint s" },
      { "exec", "c", "bad", false }, { "exec", "c", "select 1", false }, { "exec", "c", "rollback to s" },
      { "exec", "c", "commit" }, { "exec", "c", "commit" }, { "exec", "c", "begin; select 1/0", false },
      { "exec", "c", "commit" }, { "exec", "c", "listen x; unlisten x" }, { "error_message", "c" },
      { "exec", "c", "do $$ begin raise warning 'w'; end $$" }, { "error_message", "c" },
      { "exec", "c", "prepare p as select 1" }, { "exec", "c", "execute p" }, { "exec", "c", "values (1)" },
      { "exec", "c", "explain select 1" }, { "exec", "c", "show work_mem" },
    },
    ["cursors"] = { LINK,
      { "open", "c", "cur", "select id from nums order by id" }, { "state", "c" },
      { "fetch", "c", "cur", 2 }, { "fetch", "c", "cur", 0 }, { "fetch", "c", "cur", 2 }, { "fetch", "c", "cur", 100 },
      { "fetch", "c", "cur", 1 }, { "fetch", "c", "cur", -2 }, { "error_message", "c" },
      { "open", "c", "Other", "select 1" }, { "close", "c", "cur" }, { "state", "c" }, { "close", "c", "OTHER" },
      { "state", "c" }, { "fetch", "c", "cur", 1, false }, { "close", "c", "cur", false },
    },
    ["cursors that cannot be opened"] = { LINK,
      { "open", "c", "cur", "selekt", false }, { "state", "c" }, { "open", "c", "cur", "select 1", false },
      { "exec", "c", "abort" }, { "open", "c", "cur", "select 1" }, { "open", "c", "cur", "select 2" },
      { "state", "c" },
      { "close", "c", "cur", false }, { "exec", "c", "abort" }, { "open", "c", "", "select 1" },
      { "exec", "c", "abort" },
      { "open", "c", "cur", "select 1; select 2", false }, { "state", "c" }, { "close", "c", "cur" }, { "state", "c" },
      { "open", "c", "cur", "" }, { "exec", "c", "abort" }, { "open", "c", "cur", "insert into nums values (30, 'x')" },
      { "exec", "c", "abort" }, { "open", "c", "a b", "select 1" }, { "exec", "c", "abort" },
      { "open", "c", ("x"):rep(600), "selekt" }, { "exec", "c", "abort" },
      { "open", "c", "x" .. ("\195\164"):rep(300), "selekt", false }, { "exec", "c", "abort" },
    },
    ["cursors in the client's transaction"] = { LINK,
      { "exec", "c", "begin" }, { "open", "c", "cur", "select 1" }, { "close", "c", "cur" }, { "state", "c" },
      { "exec", "c", "declare own cursor for select 2" }, { "fetch", "c", "own", 1 }, { "close", "c", "own" },
      { "state", "c" }, { "exec", "c", "declare held cursor with hold for select id from nums order by id" },
      { "exec", "c", "commit" }, { "fetch", "c", "held", 2 }, { "close", "c", "held" }, { "state", "c" },
    },
    ["a client's cursor in open's transaction"] = { LINK,
      { "open", "c", "cur", "select 1" }, { "exec", "c", "declare own cursor for select 2" }, { "close", "c", "cur" },
      { "state", "c" }, { "fetch", "c", "own", 1, false },
    },
    ["cursor names of every kind"] = { LINK,
      { "open", "c", '"My ""Cur"""', "select 1" }, { "fetch", "c", '"My ""Cur"""', 1 },
      { "open", "c", "b", "select 1" },
      { "close", "c", '"My ""Cur"""' }, { "state", "c" }, { "close", "c", "b" }, { "state", "c" },
      { "open", "c", "cur scroll", "select id from nums order by id" }, { "open", "c", "b", "select 1" },
      { "close", "c", "b" }, { "state", "c" }, { "close", "c", "CUR" }, { "state", "c" },
      { "open", "c", ("y"):rep(70), "select 1" }, { "open", "c", "b", "select 1" }, { "close", "c", "b" },
      { "state", "c" },
      { "close", "c", ("y"):rep(65) }, { "state", "c" },
      { "open", "c", ("\195\164"):rep(40), "select 1" }, { "open", "c", "b", "select 1" }, { "close", "c", "b" },
      { "state", "c" }, { "close", "c", ("\195\164"):rep(40) }, { "state", "c" },
      { "fetch", "c", "x; select 5", 1, false }, { "fetch", "c", "", 1 }, { "close", "c", "", false },
      { "close", "c", "all" }, { "state", "c" },
    },
    ["a commit that fails"] = { LINK,
      { "open", "c", "cur", "select 1" }, { "exec", "c", "insert into par values (1)" },
      { "exec", "c", "insert into chi values (2)" }, { "close", "c", "cur", false }, { "state", "c" },
      { "error_message", "c" },
      { "open", "c", "cur", "select 1" }, { "close", "c", "cur" }, { "state", "c" },
    },
    ["changes lost with the link"] = { LINK,
      { "open", "c", "cur", "select 1" }, { "exec", "c", "insert into nums values (31, 'x')" }, { "disconnect", "c" },
      { "sql", "select count(*) from nums where id = 31" },
    },
    ["a fetch that fails"] = { LINK,
      { "open", "c", "cur", "select 1/(2-id) from nums order by id" }, { "fetch", "c", "cur", 1 },
      { "fetch", "c", "cur", 1 }, { "fetch", "c", "cur", 1, false }, { "close", "c", "cur" }, { "exec", "c", "abort" },
      { "fetch", "c", "cur", 1, false }, { "error_message", "c" },
    },
    ["notifications"] = { LINK,
      { "exec", "c", "listen ch" }, { "exec", "c", "begin; notify ch, 'a'; notify ch, 'b'; notify ch, 'a'; commit" },
      { "get_notify", "c" }, { "get_notify", "c" }, { "exec", "c", "notify ch" }, { "get_notify", "c" },
      { "exec", "c", "begin" }, { "exec", "c", "notify ch, 'late'" },
      { "get_notify", "c" }, { "exec", "c", "commit" }, { "get_notify", "c" },
      { "send_query", "c", "notify ch, 'kept'" }, { "get_result", "c" }, { "get_result", "c" }, { "get_notify", "c" },
    },
    ["a cancelled query"] = append({ LINK,
      { "exec", "c", "begin" }, { "exec", "c", "insert into nums values (40, 'x')" },
      { "send_query", "c", "select pg_sleep(30)" }, { "active", "c" }, { "cancel_query", "c" }, { "cancel_query", "c" },
    }, append(get(2), { { "exec", "c", "select 1", false }, { "exec", "c", "rollback" }, { "error_message", "c" },
      { "cancel_query", "c" }, { "dblink", "c", "select 1" } })),
    ["a cancel that is trapped"] = append({ LINK,
      { "send_query", "c", "do $$ begin perform pg_sleep(30); exception when query_canceled then end $$" },
      { "active", "c" }, { "cancel_query", "c" } }, get(2)),
    ["timeouts of the server"] = { LINK,
      { "exec", "c", "set statement_timeout = '50ms'" }, { "send_query", "c", "select pg_sleep(30)" },
      { "get_result", "c", false }, { "get_result", "c" }, { "exec", "c", "select pg_sleep(30)" },
      { "dblink", "c", "select pg_sleep(30)", false }, { "exec", "c", "set statement_timeout = 0" },
      { "exec", "c", "set idle_in_transaction_session_timeout = '20ms'" }, { "exec", "c", "begin" }, { "gone", "c" },
      { "send_query", "c", "select 1" }, { "get_result", "c", false }, { "get_result", "c", false },
      { "get_result", "c", false },
    },
    ["a dead link"] = { LINK, { "kill", "c" },
      { "dblink", "c", "select 1" }, { "dblink", "c", "select 1" }, { "dblink", "c", "select 1", false },
      { "exec", "c", "select 1" }, { "exec", "c", "select 1", false }, { "error_message", "c" },
      { "open", "c", "cur", "select 1", false }, { "fetch", "c", "cur", 1, false }, { "close", "c", "cur", false },
      { "get_notify", "c" }, { "cancel_query", "c" }, { "is_busy", "c" }, { "get_result", "c" },
      { "error_message", "c" },
      { "disconnect", "c" }, { "is_busy", "c" }, LINK, { "dblink", "c", "select 1" },
    },
    ["a dead link, quietly"] = { LINK, { "kill", "c" },
      { "dblink", "c", "select 1", false }, { "error_message", "c" }, { "dblink", "c", "select 1", false },
      { "disconnect", "c" }, LINK, { "open", "c", "cur", "select 1" }, { "kill", "c" },
      { "fetch", "c", "cur", 1, false },
      { "close", "c", "cur", false }, { "open", "c", "cur", "select 1", false }, { "open", "c", "cur", "select 1" },
      { "disconnect", "c" }, LINK, { "kill", "c" }, { "get_result", "c" }, { "get_result", "c" },
      { "error_message", "c" },
      { "send_query", "c", "select 1" }, { "is_busy", "c" }, { "error_message", "c" }, { "get_result", "c", false },
      { "get_result", "c", false }, { "get_result", "c", false },
    },
    ["a query that runs on"] = { LINK,
      { "send_query", "c", "select pg_sleep(0.2); insert into nums values (50, 'x')" }, { "active", "c" },
      { "disconnect", "c" }, { "gone", "c" }, { "sql", "select count(*) from nums where id = 50" },
      { "exec", "c", "select 1", false },
    },
    ["NULL"] = { LINK,
      { "connect", "x", NULL }, { "connect", NULL, "host=/nowhere" }, { "connect", NULL }, { "disconnect", NULL },
      { "dblink", "c", NULL }, { "dblink", NULL, "select 1" }, { "exec", "c", NULL }, { "exec", NULL, "select 1" },
      { "exec", "nosuch", NULL }, { "exec", "c", NULL, false }, { "open", "c", NULL, "select 1" },
      { "open", NULL, "cur", "x" },
      { "open", "c", "cur", NULL }, { "state", "c" }, { "fetch", "c", NULL, 1 }, { "fetch", NULL, "cur", 1 },
      { "close", NULL, "cur" }, { "send_query", "c", NULL }, { "send_query", NULL, "x" },
      { "is_busy", NULL }, { "get_result", NULL }, { "get_result", NULL, false }, { "cancel_query", NULL },
      { "error_message", NULL }, { "get_notify", NULL }, { "get_pkey", NULL }, { "send_query", "nosuch", NULL },
      { "build_sql_delete", "nums", { 1 }, NULL, { "1" } }, { "build_sql_delete", NULL, { 1 }, 1, { "1" } },
    },
  }

  -- What dblink reads in its own database, and we on a link.
  local TABLES_SQL = [=[
create table pk0(a int, b text); insert into pk0 values (1, 'a'), (1, 'b');
create table pk1(a int primary key, b text);
insert into pk1 values (1, 'o''brien'), (2, null), (3, E'back\\slash'), (4, 'é'), (5, ''), (6, 'NULL'), (7, E'\n');
create table pk2(a int, b text, c int, primary key (c, a)); insert into pk2 values (1, 'x', 10), (2, null, 20);
create table pkinc(a int, b text, primary key (a) include (b));
create table "Mixed Case"("Id" int primary key, "na""me" text); insert into "Mixed Case" values (1, 'q');
create schema s1; create table s1.pk4(x int, y int, primary key (y, x)); insert into s1.pk4 values (1, 2);
create schema "S 2"; create table "S 2".nums(a int primary key); insert into "S 2".nums values (1);
create view vw as select 1 as a, 'v' as b; create materialized view mv as select 1 as a; create sequence sq;
create type ct as (a int, b int); create table none();
create table pkd(z int, a int, y int, b int, primary key (a, b)); alter table pkd drop column z, drop column y;
insert into pkd values (1, 2);
create table uq(a int unique not null);
create table part(a int, b int, primary key (a)) partition by range (a);
create table "123"(a int primary key); create table "select"("from" int primary key, plain text, "1x" text, _u text,
  a$b text, "ü" text); insert into "select" values (1, 'p', 'q', 'r', 's', 'u');
create table typ(id int primary key, n numeric, t timestamptz, b bool, arr int[], j jsonb, by bytea, c char(5),
f float8,
  i interval, js json);
insert into typ values (1, 1.50, '2020-01-02 03:04:05+00', true, '{1,NULL,3}', '{"k": "v"}', '\xdead', 'ab', 0.1,
'1 day',
  '{}');
create table gen(a int primary key, b int generated always as (a * 2) stored); insert into gen values (1);
create table closed(a int primary key); create view closed_view as select 1 as a; create sequence closed_sequence;
revoke all on closed, closed_view, closed_sequence from public]=]

  local relations = { "pk0", "pk1", "pk2", "pkinc", '"Mixed Case"', "Mixed Case", "PK1", "s1.pk4", " s1 . pk4 ",
  '"S 2".nums',
    "S 2.nums", "vw", "mv", "sq", "ct", "none", "pkd", "uq", "part", "part_pkey", "pk1_pkey", "123", ' "123"', "-", "",
    " ", "a..b", "a.", ".a", '"', '""', "nosuch", "nos.x", "s1.nosuch", "other.s1.pk4", "a.b.c.d", "pg_class",
    "pg_catalog.pg_class", "information_schema.tables", "pg_toast.x", '"select"', "select", "typ", "x'y", "é", "1259",
    ("y"):rep(70), "public.pk1", "DATABASE.public.pk1", "DATABASE.public.nosuch", "closed", "closed_view",
    "closed_sequence" }

  local builds = {
    { "pk1", { 1 }, 1, { "1" }, { "100" } }, { "pk1", { 1 }, 1, { "2" }, { "100" } }, { "pk1", { 1 }, 1, { "3" },
    { "1\\2'3" } },
    { "pk1", { 1 }, 1, { "4" }, { NULL } }, { "pk1", { 1 }, 1, { "5" }, { "" } }, { "pk1", { 1 }, 1, { "6" },
    { "NULL" } },
    { "pk1", { 1 }, 1, { "7" }, { "\n" } }, { "pk1", { 2 }, 1, { NULL }, { "zz" } }, { "pk1", { 1 }, 1, { NULL },
    { "1" } },
    { "pk1", { 1 }, 1, { "77" }, { "1" } }, { "pk1", { 1 }, 1, { "abc" }, { "1" } }, { "pk0", { 1 }, 1, { "1" },
    { "1" } },
    { "pk2", { 3, 1 }, 2, { "10", "1" }, { "11", "5" } }, { "pk2", { 1, 3 }, 1, { "1" }, { "5" } },
    { "pk2", { 1, 3 }, 5, { "1", "10" }, { "5", "11" } }, { "pk2", { 1, 3 }, 2, { "1" }, { "5", "11" } },
    { "pk2", { 1, 3 }, 2, { "1", "10" }, { "5" } }, { "pk2", { 1, 3 }, 2, { "1" }, { "5" } },
    { "pk2", { 1, 3 }, 0, { "1" }, { "5" } }, { "pk2", { 1, 3 }, -1, { "1" }, { "5" } },
    { "pk2", { 0 }, 1, { "1" }, { "1" } }, { "pk2", { -1 }, 1, { "1" }, { "1" } }, { "pk2", { 4 }, 1, { "1" },
    { "1" } },
    { "pk2", { 1, 4 }, 2, { "1" }, { "1" } }, { "pk2", { 1, 4 }, 1, { "1" }, { "1" } },
    { "pk2", { 1, 1 }, 2, { "1", "1" }, { "5", "6" } }, { "pkd", { 1, 2 }, 2, { "1", "2" }, { "3", "4" } },
    { "pkd", { 3 }, 1, { "1" }, { "3" } }, { "pkd", { 2 }, 1, { "2" }, { "3" } }, { "none", { 1 }, 1, { "1" },
    { "3" } },
    { '"Mixed Case"', { 1 }, 1, { "1" }, { "2" } }, { '"select"', { 1, 3 }, 2, { "1", "q" }, { "2", "z" } },
    { "s1.pk4", { 2, 1 }, 2, { "2", "1" }, { "8", "9" } }, { '"S 2".nums', { 1 }, 1, { "1" }, { "8" } },
    { "typ", { 1 }, 1, { "1" }, { "2" } }, { "typ", { 11 }, 1, { "{}" }, { "2" } }, { "typ", { 8 }, 1, { "ab" },
    { "2" } },
    { "gen", { 1 }, 1, { "1" }, { "2" } }, { "vw", { 1 }, 1, { "1" }, { "2" } }, { "sq", { 1 }, 1, { "1" }, { "2" } },
    { "nosuch", { 9 }, 0, { "1" }, { "2", "3" } }, { "pk1_pkey", { 1 }, 1, { "1" }, { "2" } },
    { "closed", { 1 }, 1, { "1" }, { "2" } }, { "closed_view", { 1 }, 1, { "1" }, { "2" } },
    { "closed_sequence", { 1 }, 1, { "1" }, { "2" } },
  }

  local function tell_tables(extra)
    local steps = {}
    for _, name in ipairs(relations) do steps[#steps + 1] = { "get_pkey", name } end
    for _, b in ipairs(builds) do
      steps[#steps + 1] = { "build_sql_insert", b[1], b[2], b[3], b[4], b[5] }
      steps[#steps + 1] = { "build_sql_update", b[1], b[2], b[3], b[4], b[5] }
      steps[#steps + 1] = { "build_sql_delete", b[1], b[2], b[3], b[5] }
    end
    return append(extra or {}, steps)
  end
  stories["tables"] = tell_tables { { "tables" } }
  stories["tables with another search_path"] = tell_tables {
    { "tables" }, { "set", "set search_path = s1, public" } }
  stories["tables, to someone without rights"] = tell_tables { { "tables" }, { "set", "set role plain" } }

  function others.tables(side)
    local conn = server.connect("dbname=" .. databases[side])
    assert(conn:exec_all "drop schema if exists s1, \"S 2\", public cascade; create schema public;")
    assert(conn:exec_all(FIXTURE .. ";" .. TABLES_SQL))
    assert(conn:exec_all "grant usage on schema public, s1, \"S 2\" to plain")
    if side == "real" then assert(conn:exec_all "create extension dblink") end
    conn:close()
  end
  function others.set(side, sql)
    if side == "real" then
      assert(session:query(sql))
    else
      sides.ours.set.exec("catalog", sql)
    end
  end

  local more, titles = dofile "spec/cases/stories.lua", {}
  for title, steps in pairs(more) do stories[title] = steps end
  for title in pairs(stories) do titles[#titles + 1] = title end
  table.sort(titles)
  describe("the story of", function()
    before_each(function()
      sides.ours.set.connect("catalog", server.conninfo .. " dbname=" .. databases.ours)
    end)
    after_each(function() assert(session:exec_all "reset role; reset search_path") end)
    for i, title in ipairs(titles) do
      if i % (slow and 5 or more[title] and math.min(every, 5) or 1) == 0 then
        it(title, function() compare(stories[title]) end)
      end
    end
  end)
end)
