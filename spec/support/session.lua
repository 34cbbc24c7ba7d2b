-- A session that uses all operations, in parts, for whoever makes something fail meanwhile (torture.lua).
--   session.begin(name, conninfo, ...) -> context   opens what the part needs
--   session.run(context)                            does it; raises where an answer is not there, or another
--   session.judge(context, ok, err, fault)          closes all; "right" or "error"; raises what may not be
local dblink = require "dblink"
local named = require "dblink.named"
local core = require "dblink.core"
local null = dblink.null

local session, parts, order = { order = {} }, {}, {}
session.order = order

-- An answer that is another than it should be, rather than none.
local function expect(value, wanted)
  if value ~= wanted then error(("WRONG: %s instead of %s"):format(tostring(value), tostring(wanted)), 2) end
end

local check = dblink.assert

-- alone: it opens its connections itself.
local function part(name, f, alone)
  order[#order + 1] = name
  parts[name] = { run = f, alone = alone == "alone" }
end

part("connect", function(ctx)
  local told
  local conn = check(dblink.connect(ctx.conninfo, {
    timeout = ctx.patience, on_notice = function(n) told = n.message end,
  }))
  ctx.conn = conn
  expect(check(conn:query { "select 1", timeout = ctx.patience })(1, 1), 1)
  check(conn:query { "do $$ begin raise notice 'hello'; end $$", timeout = ctx.patience })
  if not told then check(nil, select(3, conn:notices()) or "lost for want of memory") end
  check(conn:reset(ctx.patience))
  expect(check(conn:query { "select 2", timeout = ctx.patience })(1, 1), 2)
end, "alone")

part("query", function(ctx)
  local conn = ctx.conn
  local res = check(conn:query("select $1::int as a, $2::text as b, null as c, $3::bytea as d, $4::int[] as e",
    1, "x", dblink.bytea "\0\1", dblink.array({ 1, null, 3 }, "int4")))
  local row = res[1]
  expect(row.a, 1)
  expect(row.b, "x")
  expect(row.c, nil)
  expect(row.d, "\0\1")
  expect(row.e.n, 3)
  expect(row.e[3], 3)
  for a, b in pairs { res:columns()[2].name, res:column("b")[1] } do expect(b, a == 1 and "b" or "x") end
  expect(res:json(), '[{"a":1,"b":"x","c":null,"d":"\\\\x0001","e":[1,null,3]}]')
  expect(res:csv { header = false }, '1,x,,\\x0001,"{1,NULL,3}"\n')
  local none, err = conn:query "select 1 / 0"
  expect(none, nil)
  if err.sqlstate ~= "22012" then check(nil, err) end
  local all = check(conn:exec_all "select 1; select 2 where false; set local enable_seqscan = on")
  expect(#all, 3)
  check(conn:query "do $$ begin raise notice 'hello'; end $$")
  conn:notices()
end)

part("verbs", function(ctx)
  local conn = ctx.conn
  check(conn:send_query "select 'a' as x; select 'b' as x")
  while conn:is_busy() do core.poll(conn:getfd(), "r", 0.1) end
  expect(check(conn:get_result())(1, 1), "a")
  for i, res, err in conn:results() do
    if not res then check(nil, err) end
    expect(i, 1)
    expect(res(1, 1), "b")
  end
  expect(check(conn:escape_literal "a'b"), "'a''b'")
  expect(check(conn:escape_identifier 'a"b'), '"a""b"')
  expect(check(dblink.unescape_bytea(check(conn:escape_bytea "\0x"))), "\0x")
  check(conn:info())
  expect(check(conn:json "select 1 as a"), '[{"a":1}]')
end)

part("big", function(ctx)
  local res = check(ctx.conn:query "select g as n, repeat('x', g) as s, g * 0.5 as f from generate_series(1, 60) g")
  expect(#res, 60)
  expect(res[60].s, ("x"):rep(60))
  local n = 0
  for i, _, s in res:rows "values" do n = n + (#s == i and 1 or 0) end
  expect(n, 60)
  expect(#check(ctx.conn:query { "select g, repeat('x', g) from generate_series(1, 5) g", max_bytes = 1000 }), 5)
  local none, err = ctx.conn:query { "select repeat('x', 3000)", max_bytes = 1000 }
  expect(none, nil)
  if err.kind ~= "too_big" then check(nil, err) end
end)

part("prepared", function(ctx)
  local stmt = check(ctx.conn:prepare "select $1::int + $2::int as sum, now() as t")
  expect(check(stmt:query(1, 2))(1, 1), 3)
  expect(#check(stmt:describe()).columns, 2)
  local row = check(stmt:rows(3, 4):next())
  expect(row.sum, 7)
  check(stmt:close())
end)

part("stream", function(ctx)
  local conn = ctx.conn
  local stream, n = check(conn:rows { "select g, g::text from generate_series(1, 50) g", rows = "array" }), 0
  local row, err = stream:next()
  while row do
    n = n + 1
    expect(row[1], n)
    row, err = stream:next()
  end
  check(err == nil, err)
  expect(n, 50)
  stream = check(conn:rows "select g, repeat('x', 300) from generate_series(1, 20) g")
  check(stream:next())
  stream:close()
end)

part("copy", function(ctx)
  local conn = ctx.conn
  check(conn:query "create temporary table t (a int, b text)")
  local w = check(conn:copy_in "copy t from stdin")
  for i = 1, 20 do check(w:row { i, i % 2 == 0 and null or "a\tb" }) end
  check(w:write "21\tx\n")
  expect(check(w:finish()).affected, 21)
  w = check(conn:copy_in "copy t from stdin")
  check(w:write "22\ty\n")
  check(w:row { 23, ("z"):rep(60000) })
  check(w:fail "no more")
  local r, n = check(conn:copy_out "copy t to stdout"), 0
  local rows = r:rows { "int4" }
  for row in rows do
    n = n + 1
    expect(row[1], n)
    if n <= 20 then expect(row[2], n % 2 == 1 and "a\tb" or nil) end
  end
  expect(n, 21)
  r = check(conn:copy_out "copy (select generate_series(1, 30)) to stdout")
  expect(check(r:line()), "1")
  r:close()
end)

part("notify", function(ctx)
  local conn = ctx.conn
  check(conn:listen "torture")
  check(conn:notify("torture", "hello"))
  local n, err = conn:next_notification(ctx.patience)
  if not n then check(nil, err or "lost for want of memory") end
  expect(n.payload, "hello")
  check(conn:unlisten "torture")
end)

part("transaction", function(ctx)
  local conn = ctx.conn
  local ok, err = conn:transaction(function()
    check(conn:query "create temporary table t (a int primary key)")
    local _, twice = conn:transaction(function()
      check(conn:query "insert into t values (1)")
      return conn:query "insert into t values (1)"
    end)
    if not twice or twice.sqlstate ~= "23505" then check(nil, twice) end
    return check(conn:query "select count(*)::int from t")(1, 1)
  end, { isolation = "serializable" })
  if not ok then check(nil, err) end
  expect(ok, 0)
end)

part("cancel", function(ctx)
  local conn = ctx.conn
  check(conn:send_query "select pg_sleep(0.02)")
  local sent, why = conn:cancel(ctx.patience)
  local _, err = conn:get_result()
  if err and err.kind ~= "cancelled" then check(nil, err) end
  check(sent, why)
  conn:get_result()
  _, err = conn:query { "select pg_sleep(5)", timeout = 0.01 }
  if err.kind ~= "timeout" or err.connection_lost then check(nil, err) end
  expect(check(conn:query "select 2")(1, 1), 2)
end)

part("codec", function(ctx)
  local conn = ctx.conn
  check(conn:codec("float8", { decode = function(s) return "f" .. s end }))
  local range = check(conn:codec("pg_catalog.int4range", { encode = function(s) return s end }))
  expect(check(conn:query("select $1, 1.5::float8", range "[1,3)"))(1, 2), "f1.5")
  local res = check(conn:query { [[select array[int4range(1, 2)], interval '1 day', now()]], binary = false })
  expect(res(1, 2), "1 day")
end)

-- What waits in nginx, and what is for examining waits.
part("relay", function()
  local relay, pair = check(core.relay()), check(core.pair())
  check(pair:swap())
  relay:arm(1, pair:getfd(), "r", 0.01)
  relay:forget(pair:getfd())
  relay:close()
  pair:close()
end, "alone")

if core.methods.pipeline then
  part("pipeline", function(ctx)
    local p = check(ctx.conn:pipeline())
    local tickets = {}
    for i = 1, 5 do tickets[i] = check(p:query("select $1::int", i)) end
    check(p:sync())
    local bad = check(p:query "select 1 / 0")
    local after = check(p:query "select 1")
    check(p:sync())
    for i, ticket in ipairs(tickets) do expect(check(ticket:result())(1, 1), i) end
    local _, err = bad:result()
    if err.sqlstate ~= "22012" then check(nil, err) end
    _, err = after:result()
    if err.kind ~= "pipeline_aborted" then check(nil, err) end
    for i = 1, 4 do check(p:send_query("select $1::int, generate_series(1, $1)", i)) end
    check(p:sync())
    expect(check(p:get_result())(1, 1), 1)
    for last = 2, 4 do
      for i = 1, last do
        local n, v, row = p:next_values()
        check(n, v)
        expect(v, last)
        expect(row, i)
      end
    end
    expect(p:next_values(), nil)
    check(p:send_query "select 8")
    check(p:close())
    expect(check(p:get_result())(1, 1), 8)
  end)
end

part("gather", function(ctx)
  local results, errors = dblink.gather(
    { { ctx.conn, "select 1" }, { ctx.conninfo, "select 2" }, { ctx.conn, "select 3" } }, { timeout = ctx.patience })
  check(results, errors)
  for i = 1, 3 do
    if not results[i] then check(nil, errors[i]) end
    expect(results[i](1, 1), i)
  end
  local two = { { ctx.conn, "select 1" }, { ctx.conninfo, "select 1" } }
  expect(check(dblink.race(two, { timeout = ctx.patience }))(1, 1), 1)
end)

part("pool", function(ctx)
  ctx.pool = dblink.pool { ctx.conninfo, max = 2, acquire_timeout = ctx.patience }
  expect(check(ctx.pool:query "select 1")(1, 1), 1)
  local lease = check(ctx.pool:acquire())
  check(lease:query "begin")
  lease:release()
  expect(ctx.pool:stats().lent, 0)
end, "alone")

part("named", function(ctx)
  ctx.links = named.new()
  ctx.links.connect("a", ctx.conninfo)
  expect(ctx.links.dblink("a", "select 1 as x")(1, 1), 1)
  expect(ctx.links.send_query("a", "select 2"), 1)
  expect(ctx.links.get_result("a")(1, 1), 2)
  expect(ctx.links.get_result("a"), nil)
  ctx.links.disconnect "a"
end, "alone")

-- Under a wait that yields: two coroutines, and a pool that has a connection for one.
part("coroutines", function(ctx)
  local fds, all = {}, {}
  local waits = { wait = function(fd, events, seconds)
    if not fds[coroutine.running() or 0] then return core.poll(fd, events, seconds) end
    return coroutine.yield(fd, events, seconds)
  end, forget = function() end }
  local function add(f)
    local co = coroutine.create(f)
    fds[co], all[#all + 1] = true, co
  end
  -- by a name, where the server can be reached so
  local port = not ctx.conninfo:find "127.0.0.1" and os.getenv "PGPORT"
  local info = port and ctx.conninfo .. " host=localhost sslmode=disable password=secret port=" .. port or ctx.conninfo
  ctx.pool = dblink.pool { info, max = 1, acquire_timeout = ctx.patience, wait = waits }
  for i = 1, 2 do
    add(function()
      local lease = check(ctx.pool:acquire())
      expect(check(lease:query("select $1::int", i))(1, 1), i)
      local _, err = lease:query { "select pg_sleep(5)", timeout = 0.01 }
      if err.kind ~= "timeout" or err.connection_lost then check(nil, err) end
      lease:release()
    end)
  end
  repeat
    for i = #all, 1, -1 do
      local ok, fd, events, seconds = coroutine.resume(all[i])
      if not ok then error(fd, 0) end
      if fd then core.poll(fd, events, math.min(seconds or 1, 0.01)) end
      if coroutine.status(all[i]) == "dead" then table.remove(all, i) end
    end
  until #all == 0
end, "alone")

-- patience: seconds that what could wait for ever may take. late: it connects only when it runs.
function session.begin(name, conninfo, patience, late)
  local run, alone = parts[name].run, parts[name].alone
  local ctx = { conninfo = conninfo, patience = patience or 5, run = run, connects = late and not alone }
  if not alone and not late then ctx.conn = check(dblink.connect(conninfo)) end
  return ctx
end

function session.run(ctx)
  if ctx.connects then ctx.conn = check(dblink.connect(ctx.conninfo, { timeout = ctx.patience })) end
  return ctx.run(ctx)
end

-- Whether a connection is as one would have it, or says that it is lost.
local function examine(conn)
  if conn:status() == "closed" then return end
  local res, err
  for _ = 1, 10 do -- what was sent must be collected
    res, err = conn:get_result()
    if not res and not err then break end
  end
  conn:exec_all "rollback" -- ends, too, what was left behind
  res, err = conn:query "select 42"
  if res then
    expect(res(1, 1), 42)
  elseif not err.connection_lost and not err.message:find "^connection is in use" then -- or: by a dead coroutine
    error("the connection is not usable, nor lost: " .. err, 0)
  end
end

function session.judge(ctx, ok, err, fault)
  collectgarbage()
  local conn = ctx.conn
  if conn then
    if fault ~= "wire" then examine(conn) end
    conn:close()
  end
  ctx.conn = nil
  if ctx.pool then ctx.pool:close() end
  ctx.links = nil
  collectgarbage()
  collectgarbage()
  if ok then return "right" end
  local message = tostring(err)
  if message:find "WRONG" or #message == 0 then error(message, 0) end
  local clear = message:find "memory" or (type(err) == "table" and err.kind == "memory")
  if type(err) == "table" and fault ~= "lua" then clear = err.kind and not message:find "\n$" end
  if not clear then error("no clear error: " .. message, 0) end
  return "error"
end

return session
