local dblink = require "dblink"
local server = require "support.server"

describe("parameters", function()
  local conn
  setup(function() conn = server.connect() end)
  teardown(function() conn:close() end)

  it("take the type that the server infers", function()
    local res = conn:query("select $1::int, $2::text, $3::bool, $4::float8, $5::numeric, $6::date",
      7, "x", true, 0.1, "1.50", "2024-02-29")
    assert.same({ 7, "x", true, 0.1, "1.50", "2024-02-29", n = 6 }, res:rows "array"())
    assert.equal("2024-03-01", conn:query("select ($1::date + 1)::text", "2024-02-29")(1, 1))
    assert.equal(8, conn:query("select $1 + 1", 7)(1, 1))
  end)

  it("keep nil as NULL wherever it stands", function()
    local res = conn:query("select $1::int is null, $2::int, $3::int is null", nil, 2, nil)
    assert.same({ true, 2, true, n = 3 }, res:rows "array"())
    assert.is_true(conn:query("select $1::int is null", dblink.null)(1, 1))
    assert.is_true(conn:query { "select $1::int is null and $2::int = 3", nil, 3 }(1, 1))
    assert.is_true(conn:query { "select $1::int is null", nil, n = 2 }(1, 1))
  end)

  it("give every double back", function()
    for _, x in ipairs { 0.1, 1 / 3, 1e15 + 0.5, 123456789.123, 5e-324, 1.7976931348623157e308, -2.5, 1e21, 2 ^ 53 } do
      assert.equal(x, conn:query("select $1::float8", x)(1, 1))
    end
    assert.equal(1 / 0, conn:query("select $1::float8", 1 / 0)(1, 1))
    local nan = conn:query("select $1::float8", 0 / 0)(1, 1)
    assert.is_true(nan ~= nan)
  end)

  it("send whole numbers as an int can take them", function()
    assert.equal(3, conn:query("select $1::int", 3.0)(1, 1))
    assert.equal(-2147483648, conn:query("select $1::int", -2147483648)(1, 1))
    if math.type then
      assert.equal(math.mininteger, conn:query("select $1::int8", math.mininteger)(1, 1))
      assert.equal(math.maxinteger, conn:query("select $1::int8", math.maxinteger)(1, 1))
    end
  end)

  it("are never part of the SQL", function()
    local evil = "'); drop table x; -- \\ $1 $$"
    assert.equal(evil, conn:query("select $1::text", evil)(1, 1))
  end)

  it("carry bytes as a bytea", function()
    local bytes = "\0\1\255\\'"
    assert.equal(bytes, conn:query("select $1::bytea", dblink.bytea(bytes))(1, 1))
    assert.error_matches(function() dblink.bytea(1) end, "string expected")
  end)

  it("are refused by their position before anything is sent", function()
    local function refused(pattern, ...)
      local args = { n = select("#", ...), ... }
      assert.error_matches(function() conn:query((unpack or table.unpack)(args, 1, args.n)) end, pattern)
      assert.equal("idle", conn:transaction_status())
    end
    refused("parameter %$2: a table; write dblink%.array", "select $1, $2", 1, {})
    refused("parameter %$1: a function cannot be sent", "select $1", print)
    refused("parameter %$1: a string with a NUL byte; write dblink%.bytea", "select $1", "a\0b")
    refused("parameter %$1: a userdata; write", "select $1", io.stdout)
    refused("parameter %$1: a thread cannot be sent", "select $1", coroutine.create(function() end))
    for _, what in ipairs { {}, print } do
      refused("parameter %$1: its conversion gave no string", "select $1",
        setmetatable({}, { dblink_text = function() return what end }))
    end
    refused("parameter %$1: its conversion gave no string", "select $1",
      setmetatable({}, { dblink_bytes = function() return 1 end }))
    if rawget(_G, "jit") then
      local ffi = require "ffi"
      refused("a cdata cannot be sent", "select $1", ffi.new("complex", 1, 2))
      refused("a cdata cannot be sent", "select $1", ffi.new "int[1]")
    end
    if debug.upvalueid then -- a light userdata
      refused("parameter %$1: a userdata cannot be sent", "select $1", debug.upvalueid(refused, 1))
    end
    refused("bad argument 'sql' %(string expected, got nil%)", nil)
    refused("bad argument 'sql' %(string expected, got boolean%)", true)
    refused("bad argument 'sql' %(a NUL byte at 7%)", "select\0 1")
    refused("no SQL at %[1%]", {})
    refused("unknown option 'tmeout'", { "select 1", tmeout = 1 })
    refused("option timeout must be a number", { "select 1", timeout = "soon" })
    refused("option rows must be", { "select 1", rows = "nonsense" })
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("number up to 65,535", function()
    local most = 65535
    local args, marks = { n = most }, {}
    for i = 1, most do
      args[i] = i
      marks[i] = "$" .. i
    end
    local sql = "select array_length(array[" .. table.concat(marks, ",") .. "]::int[], 1)"
    table.insert(args, 1, sql)
    args.n = nil
    args[60001] = dblink.bytea "6"
    args[1] = args[1]:gsub("%$60000,", "length($60000),")
    assert.equal(most, conn:query(args)(1, 1))
    local p = conn:pipeline()
    local ticket = p:query(args)
    p:close()
    assert.equal(most, ticket:result()(1, 1))
    args[60001] = print
    assert.error_matches(function() conn:query(args) end, "parameter %$60000: a function")
    args[60001] = 1
    args[65537] = 1
    assert.error_matches(function() conn:query(args) end, "more parameters than PostgreSQL takes")
    local _, err = conn:query("select $1, $2", 1)
    assert.equal("server", err.kind)
    if _VERSION > "Lua 5.1" then -- whose stack takes so many
      args[65537] = nil
      args[60001], args[65536 + 1] = 1, 1
      assert.error_matches(function() conn:query(table.unpack(args, 1, 65537)) end, "65536 parameters; PostgreSQL")
    end
  end)
end)
