-- The work of limit.c with our module, and with the other clients that Lua has.
--   lua bench.lua CLIENT WORKLOAD N
-- prints what limit does, or "not there". os.clock is the process's CPU time, user and system.
local client, workload, n = arg[1], arg[2], tonumber(arg[3])

local ROWS, CONNECTIONS = "select * from bench_rows limit " .. n, 100

-- The rows that go into COPY, as limit.c has them.
local function copy_rows()
  local rows = {}
  for i = 0, 999 do
    rows[i + 1] = { i * 1234567, i * 1.25 + 0.01, ("a text of twenty %03d"):format(i),
      ("2024-01-01 00:%02d:%02d+00"):format(math.floor(i / 60), i % 60), i % 2 == 1 }
  end
  return rows
end

local clients = {}

-- Each workload prepares and gives a function that does the work.
clients.ours = function()
  local dblink, core = require "dblink", require "dblink.core"
  local conn = assert(dblink.connect "")

  local function query()
    return function()
      for _ = 1, n do local _ = conn:query "select 1" (1, 1) end
    end
  end

  -- A loop of events, of one coroutine.
  local function run(f)
    local co = coroutine.create(f)
    local _, fd, events, seconds = coroutine.resume(co)
    while coroutine.status(co) == "suspended" do
      _, fd, events, seconds = coroutine.resume(co, core.poll(fd, events, seconds))
    end
  end

  -- As limit.c has them, times are numbers; without a codec they are strings.
  local function numbers(prepare)
    return function()
      conn:codec("timestamptz", require "dblink.codecs".epoch)
      return prepare()
    end
  end
  local function whole(use, options)
    options[1] = ROWS
    return function()
      return function() return use(assert(conn:query(options))) end
    end
  end
  local function walk(res)
    return res:all()
  end
  local function columns(res)
    local list = {}
    for j = 1, 5 do list[j] = res:column(j) end
    return list
  end

  local function stream(shape, binary)
    return function()
      return function()
        for _ in conn:rows { ROWS, rows = shape, binary = binary } do end -- luacheck: ignore
      end
    end
  end

  return {
    query = query,
    params = function()
      local stmt = assert(conn:prepare "select $1::int4 + $2::int4")
      return function()
        for i = 1, n do local _ = stmt:query(i, 2)(1, 1) end
      end
    end,
    cached = function()
      return function()
        for i = 1, n do local _ = conn:query("select $1::int4 + $2::int4", i, 2)(1, 1) end
      end
    end,
    coroutine = function()
      local wait = { wait = function(...) return coroutine.yield(...) end, forget = function() end }
      run(function() conn = assert(dblink.connect("", { wait = wait })) end)
      return function() run(query()) end
    end,
    array_binary = numbers(whole(walk, { rows = "array", binary = true })),
    array_text = numbers(whole(walk, { rows = "array" })),
    named_binary = numbers(whole(walk, { binary = true })),
    named_text = numbers(whole(walk, {})),
    columns_binary = numbers(whole(columns, { binary = true })),
    columns_text = numbers(whole(columns, {})),
    values_binary = numbers(stream("values", true)),
    values_text = numbers(stream "values"),
    stream_binary = numbers(stream("row", true)),
    stream_text = numbers(stream "row"),
    array_strings = whole(walk, { rows = "array", binary = true }),
    values_strings = stream("values", true),
    pipeline = function()
      return function()
        local p = assert(conn:pipeline())
        for first = 0, n - 1, 1000 do
          for i = first, math.min(first + 999, n - 1) do p:send_query("select $1::int4", i) end
          p:sync()
          for _, _ in p:values() do end -- luacheck: ignore
        end
        p:close()
      end
    end,
    tickets = function()
      return function()
        local p, tickets = assert(conn:pipeline()), {}
        for first = 0, n - 1, 1000 do
          local last = math.min(first + 999, n - 1)
          for i = first, last do tickets[i - first] = p:query("select $1::int4", i) end
          p:sync()
          for i = 0, last - first do local _ = tickets[i]:result()(1, 1) end
        end
        p:close()
      end
    end,
    copy_bytes = function()
      local writer, list, piece = nil, {}, 65536
      for i, row in ipairs(copy_rows()) do
        row[5] = row[5] and "t" or "f"
        list[i] = table.concat(row, "\t") .. "\n"
      end
      local text, pieces = table.concat(list):rep(n / 1000), {}
      for at = 1, #text, piece do pieces[#pieces + 1] = text:sub(at, at + piece - 1) end
      assert(conn:query "truncate bench_copy")
      return function()
        writer = assert(conn:copy_in "copy bench_copy from stdin")
        for _, s in ipairs(pieces) do assert(writer:write(s)) end
        assert(assert(writer:finish()).affected == n)
      end
    end,
    copy_rows = function()
      local rows = copy_rows()
      assert(conn:query "truncate bench_copy")
      return function()
        local writer = assert(conn:copy_in "copy bench_copy from stdin")
        for i = 0, n - 1 do writer:row(rows[i % 1000 + 1]) end
        assert(assert(writer:finish()).affected == n)
      end
    end,
    copy_out = function()
      return function()
        for _ in conn:copy_out("copy (" .. ROWS .. ") to stdout") do end -- luacheck: ignore
      end
    end,
    fanout = function()
      local conns, list = {}, {}
      for i = 1, CONNECTIONS do conns[i] = assert(dblink.connect "") end
      for i = 1, n do list[i] = { conns[i % CONNECTIONS + 1], "select pg_sleep(0.01)" } end
      return function()
        local _, errors = dblink.gather(list)
        assert(next(errors) == nil)
      end
    end,
  }
end

clients.luasql = function()
  local conn = assert(require "luasql.postgres".postgres():connect(""))
  local function whole(mode)
    return function()
      local cursor, rows = assert(conn:execute(ROWS)), {}
      local row = cursor:fetch({}, mode)
      while row do
        rows[#rows + 1] = row
        row = cursor:fetch({}, mode)
      end
      cursor:close()
      return rows
    end
  end
  return {
    query = function()
      return function()
        for _ = 1, n do
          local cursor = conn:execute "select 1"
          local _ = tonumber((cursor:fetch()))
          cursor:close()
        end
      end
    end,
    array_text = function() return whole "n" end,
    named_text = function() return whole "a" end,
  }
end

clients.luadbi = function()
  local conn = assert(require "DBI".Connect("PostgreSQL", os.getenv "PGDATABASE", os.getenv "PGUSER", nil,
    os.getenv "PGHOST", os.getenv "PGPORT"))
  local function whole(named)
    return function()
      local statement, rows = assert(conn:prepare(ROWS)), {}
      assert(statement:execute())
      for row in statement:rows(named) do rows[#rows + 1] = row end
      return rows
    end
  end
  return {
    params = function()
      local statement = assert(conn:prepare "select $1::int4 + $2::int4")
      return function()
        for i = 1, n do
          statement:execute(i, 2)
          local _ = statement:fetch()[1]
        end
      end
    end,
    array_text = function() return whole(false) end,
    named_text = function() return whole(true) end,
  }
end

local there, workloads = pcall(clients[client])
local prepare = there and workloads[workload]
local prepared, work = pcall(prepare)
if not prepared then
  if there and prepare then io.stderr:write("bench: ", tostring(work), "\n") end
  print "not there"
  os.exit(0)
end
local wall = client == "ours" and require "dblink.core".now or os.time
local cpu_before, before = os.clock(), wall()
local ok, err = pcall(work)
local cpu, seconds = os.clock() - cpu_before, wall() - before
if ok then
  print(("%.4f %.4f %.0f"):format(cpu / n * 1e6, seconds / n * 1e6, require("support.memory").peak()))
else
  io.stderr:write("bench: ", tostring(err), "\n")
  print "not there"
end
