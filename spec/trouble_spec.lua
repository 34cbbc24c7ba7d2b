-- Trouble in the middle of each operation: the connection is usable afterwards, or says that it is lost.
local core = require "dblink.core"
local dblink = require "dblink"
local program = require "support.program"
local server = require "support.server"
local wire = require "support.wire"

local FEW = os.getenv "DBLINK_UNDER"

-- Fails at its 500th row, or when told so; f: what happens then.
local function rows(f) return ("select case when i = 500 then %s else i end as i, 'x' || i as t "
  .. "from generate_series(1, 1000) i"):format(f) end

-- Each takes the expression in whose middle the trouble is, an int.
local operations = {
  query = function(conn, f) return conn:query(rows(f)) end,
  ["a query in binary"] = function(conn, f) return conn:query { rows(f), binary = true } end,
  ["a query with parameters"] = function(conn, f) return conn:query(rows(f) .. " where i > $1", 1) end,
  ["a query under max_bytes"] = function(conn, f) return conn:query { rows(f), max_bytes = 1e9 } end,
  ["a query of several statements"] = function(conn, f) return conn:query("select 1; " .. rows(f) .. "; select 2") end,
  exec_all = function(conn, f) return conn:exec_all("select 1; " .. rows(f) .. "; select 2") end,
  json = function(conn, f) return conn:json(rows(f)) end,
  send_query = function(conn, f)
    assert(conn:send_query(rows(f)))
    local failure
    for _, _, err in conn:results() do failure = failure or err end
    return not failure, failure
  end,
  prepare = function(conn, f)
    local stmt, err = conn:prepare(rows(f))
    if not stmt then return nil, err end
    return stmt:query()
  end,
  rows = function(conn, f)
    local n = 0
    for row in conn:rows(rows(f)) do n = n + row.i end
    return n
  end,
  ["the rows of a statement"] = function(conn, f)
    local stmt = assert(conn:prepare(rows(f)))
    for _ in stmt:rows() do end -- luacheck: ignore
    return true
  end,
  pipeline = function(conn, f)
    local p = assert(conn:pipeline())
    p:query "select 1"
    local ticket = p:query(rows(f))
    p:sync()
    p:query "select 2"
    local closed, lost = p:close()
    if not closed then return nil, lost end
    return ticket:result()
  end,
  copy_in = function(conn, f)
    assert(conn:query("create temporary table t (i int default " .. f .. ", t text)"))
    local writer = assert(conn:copy_in "copy t (t) from stdin")
    for i = 1, 1000 do
      local ok, err = writer:row { i .. "x" }
      if not ok then return nil, err end
    end
    return writer:finish()
  end,
  copy_out = function(conn, f)
    local reader, err = conn:copy_out("copy (" .. rows(f) .. ") to stdout")
    if not reader then return nil, err end
    for _ in reader do end -- luacheck: ignore
    return true
  end,
  transaction = function(conn, f)
    return conn:transaction(function()
      assert(conn:query "select 1")
      local res, err = conn:query(rows(f))
      if not res then error(err, 0) end
      return res
    end)
  end,
}

-- What came of it: true, or false and the error, returned or raised.
local function outcome(operation, ...)
  local done, res, err = pcall(operation, ...)
  if done and res then return true end
  return false, done and err or res
end

local function usable(conn)
  assert.equal("idle", conn:transaction_status())
  assert.equal(1, assert(conn:query("select $1::int", 1))(1, 1))
end

local waits = { ["a plain script"] = "poll", ["a wait of its own"] = { wait = core.poll, forget = function() end } }

for where, wait in pairs(waits) do
  describe("in " .. where .. ", in the middle of", function()
    local conn
    before_each(function() conn = server.connect(nil, { wait = wait }) end)
    after_each(function() conn:close() end)

    for name, operation in pairs(operations) do
      it(name .. ", nothing happens", function()
        assert.is_true(outcome(operation, conn, "7"))
        usable(conn)
      end)

      it(name .. ", an error does not cost the connection", function()
        local ok, err = outcome(operation, conn, "1 / (random() * 0)::int")
        assert.is_false(ok)
        assert.equal("22012", err.sqlstate)
        assert.is_false(err.connection_lost)
        usable(conn)
      end)

      it(name .. ", the connection is lost and says so", function()
        local ok, err = outcome(operation, conn, "pg_terminate_backend(pg_backend_pid())::int")
        assert.is_false(ok)
        assert.is_true(err.connection_lost)
        assert.equal("bad", conn:status())
        assert.is_truthy(conn:reset())
        usable(conn)
      end)
    end
  end)
end

-- One bit of what the server says is another. What it means then is nobody's guess: a value, an error, or a
-- connection that is lost; but nothing hangs, and nothing breaks.
describe("a bit that fell over", function()
  if not server.own then return end
  local relay
  setup(function() relay = wire.open() end)
  teardown(function() relay:close() end)

  for name, operation in pairs(operations) do
    it("in the middle of " .. name .. " does no harm", function()
      for _ = 1, FEW and 2 or 3 do
        relay("flip " .. math.random(3000, 12000))
        local conn = dblink.connect(relay.conninfo, { timeout = 10 })
        if conn then
          local ok, err = outcome(operation, conn, "7")
          assert.is_true(ok or err ~= nil)
          local one, why = conn:query { "select 1", timeout = 10 }
          assert.is_true(one ~= nil or why ~= nil)
          conn:close()
        end
      end
    end)
  end
end)

describe("a value of 1 GB minus a little #heavy", function()
  local SQL, SIZE = "select repeat(repeat('x', 1024), 1024 * 1024 - 1)", 2 ^ 30 - 1024

  -- The server and we need it several times.
  local function has_room()
    local file = io.open "/proc/meminfo"
    local kb = file and file:read "*a":match "MemAvailable:%s*(%d+)"
    if file then file:close() end
    return kb and tonumber(kb) > 6e6
  end

  it("is a value", function()
    if not has_room() then return pending "needs 6 GB of memory" end
    local conn = server.connect()
    assert.equal(SIZE, #conn:query(SQL)(1, 1))
    usable(conn)
    conn:close()
  end)

  it("is an honest error where memory ends", function()
    if not has_room() then return pending "needs 6 GB of memory" end
    assert.equal("nil\tbad\ttrue\t7\n", (program.run_text(([[
      local conn = assert(require "dblink".connect(%q))
      local res, err = conn:query %q
      print(res, conn:status(), err.connection_lost, conn:reset() and conn:query "select 7"(1, 1))
    ]]):format(server.conninfo, SQL), "ulimit -v 500000;")))
  end)
end)
