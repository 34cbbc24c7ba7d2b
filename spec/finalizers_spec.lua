-- What Lua's collector calls while C makes a value: a finalizer can close, clear or use the very thing that is read.
local server = require "support.server"

local MOMENTS = os.getenv "DBLINK_UNDER" and 30 or 4

-- As good as a whole collection at each check that Lua makes; false: as it comes.
local function hurry(yes)
  if _VERSION == "Lua 5.4" then
    collectgarbage("incremental", yes and 1 or 200, yes and 1000 or 100, yes and 30 or 13)
  elseif _VERSION == "Lua 5.5" then
    collectgarbage("param", "pause", yes and 0 or 200)
    collectgarbage("param", "stepmul", yes and 0 or 200)
  else
    collectgarbage("setpause", yes and 0 or 200)
    collectgarbage("setstepmul", yes and 1000000 or 200)
  end
  collectgarbage()
end

-- Calls action in the n-th collection from now on, unless disarmed before: returns what disarms, and tells whether
-- it was too late.
local function arm(n, action)
  local armed = true
  local function litter()
    local function finalizer()
      if not armed then return end
      n = n - 1
      if n > 0 then return litter() end
      armed = false
      pcall(action)
    end
    if newproxy then
      getmetatable(newproxy(true)).__gc = finalizer
    else
      setmetatable({}, { __gc = finalizer })
    end
  end
  litter()
  return function()
    local late = not armed
    armed = false
    return late
  end
end

local LONG = ("x"):rep(200)

-- SQL whose rows are of that text, thrice: with more behind it, as an array, and with a letter.
local function sql_of(text, from)
  local sql = ("select $ || '%s' a, array[$ || 'q', $ || 'r'] b, $ || 'd' c %s"):format(LONG, from)
  return (sql:gsub("%$", text))
end
local ONE, MANY = sql_of("$1::text", ""), sql_of("i", "from generate_series(1, 3) g(n), text(n) i")

local function check(a, b, c)
  local i = a:match "^%d+"
  assert(a == i .. LONG and b[1] == i .. "q" and b[2] == i .. "r" and c == i .. "d", "wrong values")
end

-- Each begins something: what that is, and a function that reads it.
local THINGS = {
  ["a pipeline"] = function(conn)
    local p = assert(conn:pipeline())
    for i = 1, 3 do assert(p:send_query(ONE, tostring(i))) end
    p:sync()
    return p, function() for _, a, b, c in p:values() do check(a, b, c) end end
  end,
  ["a stream"] = function(conn)
    local stream = conn:rows { MANY, rows = "values" }
    return stream, function() for _, a, b, c in stream do check(a, b, c) end end
  end,
  ["a stream of rows by name"] = function(conn)
    local stream = conn:rows(MANY)
    return stream, function() for row in stream do check(row.a, row.b, row.c) end end
  end,
  ["rows of a COPY"] = function(conn)
    local reader = assert(conn:copy_out("copy (" .. MANY .. ") to stdout"))
    return reader, function() for row in reader:rows { "text", "text[]" } do check(row[1], row[2], row[3]) end end
  end,
  ["lines of a COPY"] = function(conn)
    local reader = assert(conn:copy_out("copy (" .. MANY .. ") to stdout"))
    return reader, function()
      for line in reader do assert(line:match(LONG .. "\t{%dq,%dr}\t%dd$"), "wrong values") end
    end
  end,
  ["bytes of a COPY"] = function(conn)
    local reader = assert(conn:copy_out("copy (" .. MANY .. ") to stdout"))
    return reader, function()
      local bytes = reader:read()
      assert(not bytes or bytes:match("^%d" .. LONG .. "\t{%dq,%dr}\t%dd\n"), "wrong values")
    end
  end,
  ["a result"] = function(conn)
    local res = assert(conn:query(sql_of("i", "from generate_series(1, 30) g(n), text(n) i"))) -- not a small one
    return res, function()
      for row in res:rows() do
        check(row.a, row.b, row.c)
        if row.c == "3d" then break end
      end
      assert(#res:columns() == 3 and res:csv():match "1q" and #res:column "c" == 30)
    end
  end,
  ["what a connection says of itself"] = function(conn)
    conn:exec_all "listen news; notify news, 'it'; do $$ begin raise notice 'so'; end $$"
    return conn, function()
      assert(conn:parameter "DateStyle":match "ISO" and tostring(conn):match "dblink" and conn:error_message())
      local note, notices = conn:get_notify(), conn:notices()
      assert(not note or note.payload == "it")
      assert(not notices[1] or notices[1].message == "so")
    end
  end,
}

-- What the finalizer does. A pipeline's next answer, say, can be the finalizer's then: no row of it is missed.
local ACTIONS = {
  ["ends it"] = function(_, thing) (thing.close or thing.clear)(thing) end,
  ["closes its connection"] = function(conn) conn:close() end,
  ["uses its connection"] = function(conn)
    conn:get_notify()
    conn:notices()
    conn:query "select 1"
  end,
  ["uses it"] = function(_, thing) (thing.next or thing.next_values or thing.line)(thing) end,
}

-- What is told then, but for the result of no C function: 5.1's assert says of an error object no more than this.
local TOLD = {
  "a finalizer has used the connection", "connection is closed", "was cleared", "ended by another verb",
  "was ended before", "out of memory for the answer", "^bad argument #2 to 'assert'",
}

local function is_told(err)
  for _, text in ipairs(TOLD) do
    if tostring(err):match(text) then return true end
  end
end

for thing_name, begin in pairs(THINGS) do
  for action_name, action in pairs(ACTIONS) do
    it(("a finalizer that %s leaves %s in order"):format(action_name, thing_name), function()
      for n = 1, MOMENTS do
        local conn = server.connect()
        local thing, read = begin(conn)
        hurry(true)
        local disarm = arm(n, function() action(conn, thing) end)
        local ok, err = pcall(read)
        local late = disarm()
        hurry(false)
        conn:close()
        assert(ok or is_told(err), err)
        if not late then break end
      end
    end)
  end
end
