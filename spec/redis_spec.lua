local server = require "support.server"
local host = require "support.host"

-- Debian's LuaJIT has no archive that a shared library can hold (docs/hosts.md), and Redis has an allocator of its own.
local possible = server.own and host.lua ~= "luajit" and not host.sanitized

describe("a module of Redis 7 #redis #heavy", function()
  if not possible then
    pending("runs Lua scripts that query (needs Lua 5.1 to 5.4, a server of ours, no sanitizers)")
    return
  end

  local socket, redis, name
  local function cli(...)
    local words = { "redis-cli -s " .. socket }
    for _, word in ipairs { ... } do words[#words + 1] = host.quote(word) end
    return (host.sh(table.concat(words, " ")):gsub("\n+$", ""))
  end
  local function eval(...) return cli("dblink.eval", ...) end
  local function blocked() return tonumber(cli("info", "clients"):match "blocked_clients:(%d+)") end

  setup(function()
    local version = host.lua:gsub("lua", "")
    host.sh(("make -s -C examples/redis LUA=%s BUILD=%s CFLAGS='-O2 -g %s'"):format(version,
      host.folder:match "^/" and host.folder or "../../" .. host.folder, host.flags))
    socket, name = server.root .. "/redis.sock", server.name "redis"
    -- redis-server is a name of redis-check-rdb, and that one's package starts no service
    redis = assert(io.popen(("exec setpriv --pdeathsig KILL bash -c 'exec -a redis-server redis-check-rdb " ..
      [[--port 0 --unixsocket "$0" --save "" --dir /tmp --loadmodule "$1" "$2" 50' %s %s %s >/dev/null 2>&1]]):format(
      socket, host.sh("realpath " .. host.folder .. "/dblink-redis.so"):gsub("\n", ""),
      host.quote(server.conninfo .. " application_name=" .. name))))
    server.until_true(function() return host.run("redis-cli -s " .. socket .. " ping") == "PONG\n" end)
  end)

  teardown(function()
    host.run("redis-cli -s " .. socket .. " shutdown nosave")
    redis:close()
  end)

  it("answers a script with what its query gave", function()
    assert.equal("42", eval("return db:query('select $1::int + 1', ...)(1, 1)", "41"))
    assert.equal("1\na\n2.5", eval "return {1, 'a', {2.5}}")
    assert.equal("ERR ERROR 22012: division by zero", eval "return db:query 'select 1/0'")
    assert.equal("timeout", eval "local _, err = db:query{'select pg_sleep(9)', timeout = 0.1} return err.kind")
  end)

  it("keeps scripts in a sandbox", function()
    assert.matches("no global os", eval "return os.time()")
    assert.matches("no global x", eval "x = 1")
    assert.matches("not enough memory", eval "local t = {} for i = 1, 1e9 do t[i] = i .. 'x' end")
    assert.matches("cannot wait in a script or a transaction",
      host.sh("printf 'multi\\ndblink.eval \"return 1\"\\nexec\\n' | redis-cli -s " .. socket))
    assert.equal("1", eval "return db:query('select 1')(1, 1)")
  end)

  it("leaves Redis fast while fifty clients wait for PostgreSQL", function()
    local waiting = assert(io.popen(("redis-benchmark -s %s -q -c 50 -n 50 dblink.eval %s 2>&1"):format(socket,
      host.quote "return db:query('select pg_sleep(3)') and 1")))
    server.until_true(function() return blocked() == 50 end)
    local text = host.sh(("redis-benchmark -s %s -q -c 1 -n 1000 -t ping_mbulk"):format(socket))
    assert.equal(50, blocked()) -- so they waited all the time
    local median = tonumber(text:match "p50=([%d.]+)")
    assert.is_true(median < 5, text) -- milliseconds; some 0.05 on a quiet machine
    waiting:read "*a"
    waiting:close()
    assert.equal(0, blocked())
  end)

  it("notices that a connection was lost, and opens another", function()
    local admin = server.connect()
    local kill = "select count(pg_terminate_backend(pid, 5000))::int from pg_stat_activity"
      .. " where application_name = '%s'"
    assert.is_true(assert(admin:query(kill:format(name)))(1, 1) > 0)
    admin:close()
    server.until_true(function() return eval "return db:query('select 7')(1, 1)" == "7" end)
  end)
end)
