local dblink = require "dblink"
local server = require "support.server"

describe("rows", function()
  local conn
  setup(function() conn = server.connect() end)
  teardown(function() conn:close() end)

  -- The same of a result that is small and copied, and of one that libpq holds.
  for _, rows in ipairs { 3, 3000 } do
    describe(("of a result of %d"):format(rows), function()
      local res
      before_each(function()
        res = conn:query(([[select g as id, 'v' || g as name, case when g > 1 then g * 0.5::float8 end as half
          from generate_series(1, %d) g]]):format(rows))
      end)

      it("are tables by name", function()
        assert.equal(rows, #res)
        assert.same({ id = 1, name = "v1" }, res[1])
        assert.same({ id = 3, name = "v3", half = 1.5 }, res[3])
        assert.same(res[2], res[2])
      end)

      it("are values by position and by name", function()
        assert.equal(2, res(2, 1))
        assert.equal("v2", res(2, 2))
        assert.equal(1.0, res(2, "half"))
        assert.is_nil(res(1, 3))
        assert.equal(3, res(3))
      end)

      it("end where they end", function()
        assert.is_nil(res[0])
        assert.is_nil(res[rows + 1])
        assert.is_nil(res[-1])
        assert.is_nil(res(rows + 1, 1))
        assert.is_nil(res(1, 4))
        assert.is_nil(res(1, 0))
        assert.is_nil(res(1, "nobody"))
      end)

      it("are iterated, in three shapes", function()
        local count = 0
        for row in res:rows() do
          count = count + 1
          assert.equal(count, row.id)
        end
        assert.equal(rows, count)
        assert.same({ 1, "v1", n = 3 }, res:rows "array"())
        local sum = 0
        for i, id, name, half in res:rows "values" do
          sum = sum + id
          assert.equal(i, id)
          assert.equal("v" .. i, name)
          assert.equal(i > 1 and i / 2 or nil, half)
        end
        assert.equal(rows * (rows + 1) / 2, sum)
        assert.error_matches(function() res:rows "nonsense" end, "nonsense")
      end)

      it("are all had in a list", function()
        for shape, first in pairs { row = { id = 1, name = "v1" }, array = { 1, "v1", n = 3 } } do
          local list = res:all(shape)
          assert.equal(rows, #list)
          assert.same(first, list[1])
          assert.equal(res[rows].name, list[rows].name or list[rows][2])
        end
        assert.same(res[3], res:all()[3])
        assert.error_matches(function() res:all "values" end, "array")
        assert.error_matches(function() res:all "nonsense" end, "nonsense")
      end)

      it("give a column as an array", function()
        local ids = res:column(1)
        assert.equal(rows, ids.n)
        assert.equal(rows, #ids)
        assert.equal(rows, ids[rows])
        assert.equal("v2", res:column "name"[2])
        assert.is_nil(res:column "half"[1])
        assert.is_nil(res:column "nobody")
      end)

      it("outlive the result", function()
        local row, next_row = res[3], res:rows()
        res = nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        assert.equal("v3", row.name)
        assert.equal("v1", next_row().name)
      end)
    end)
  end

  it("give the last of the columns that share a name", function()
    local res = conn:query "select 1 as a, 2 as b, 3 as a"
    assert.same({ a = 3, b = 2 }, res[1])
    assert.equal(3, res(1, "a"))
    assert.equal(1, res(1, 1))
    assert.same({ 1, 2, 3, n = 3 }, conn:query { "select 1 as a, 2 as b, 3 as a", rows = "array" }[1])
    -- also where the last one is NULL
    assert.same({}, conn:query "select 1 as a, null as a"[1])
    assert.same({}, conn:query "select 1 as a, null as a from generate_series(1, 1000)"[1000])
  end)

  it("have a sentinel for NULL if that is wished", function()
    for _, sql in ipairs { "select null as a", "select null as a from generate_series(1, 1000)" } do
      local res = conn:query { sql, null = dblink.null }
      assert.equal(dblink.null, res(1, 1))
      assert.equal(dblink.null, res[1].a)
      assert.equal(dblink.null, res:column(1)[1])
      local marker = {}
      assert.equal(marker, conn:query { sql, null = marker }(1, 1))
      assert.is_nil(conn:query(sql)(1, 1))
    end
    local other = server.connect("", { null = false, rows = "array" })
    assert.same({ 1, false, n = 2 }, other:query "select 1, null"[1])
    other:close()
  end)

  it("may have no columns", function()
    for _, rows in ipairs { 2, 5000 } do
      local res, n = conn:query("select from generate_series(1, $1::int)", rows), 0
      for row in res:rows() do n = n + (next(row) == nil and 1 or 0) end
      assert.equal(rows, n)
      assert.is_nil(res(1))
    end
  end)

  it("are iterated by an iterator of ours alone", function()
    local call = (debug.getmetatable(conn:query "select 1":rows()) or {}).__call
    if not call then return end -- there it is a function
    for _, other in ipairs { false, {}, io.stdout, newproxy(false) } do assert.has_error(function() call(other) end) end
  end)

  it("go through functions of codecs in lists too", function()
    local c = server.connect("", { codecs = { int4 = { decode = function(text) return "<" .. text .. ">" end } } })
    for _, count in ipairs { 2, 2000 } do
      local res = c:query("select g as a from generate_series(1, $1::int) g", count)
      assert.same({ a = "<2>" }, res:all()[2])
      assert.equal("<2>", res:column(1)[2])
    end
    c:close()
  end)

  it("leave the collector as it was, also where they cannot be read", function()
    local function collects()
      for _ = 1, 100 do
        local before = collectgarbage "count"
        for _ = 1, 10000 do local _ = {} end
        if collectgarbage "count" < before + 100 then return true end
      end
      return false
    end
    collectgarbage() -- it rests where more is made than there is
    local many = math.ceil(collectgarbage "count" * 1024 / 40) + 1000
    local sql = "select g as a, g::text::xid as b from generate_series(1, " .. many .. ") g"
    local res = conn:query { sql, binary = true }
    assert.has_error(function() res:all() end)
    assert.has_error(function() res:column "b" end)
    assert.equal(many, #res:column "a")
    assert.is_true(collects())
    collectgarbage "stop"
    res:column "a"
    local may_ask, is_running = pcall(collectgarbage, "isrunning")
    collectgarbage "restart"
    assert.is_false(may_ask and is_running)
  end)

  it("are the same in a loop as one by one, whatever they have in them", function()
    local sql = [[select g as "id""$row", case when g %% 3 > 0 then 'x' || g end as "a]=]b", g %% 2 = 0 as even,
      g * 4611686018427387::int8 as big, g / 4.0::float8 as quarter, g as twin, -g as twin%s
      from generate_series(1, 300) g]]
    local marker = {}
    for _, more in ipairs { "", ", array[g] as list", ", repeat('y', g) as long" } do
      for _, options in ipairs { {}, { binary = true }, { null = marker }, { rows = "array" } } do
        options[1] = sql:format(more)
        local res = assert(conn:query(options))
        for _ = 1, 3 do -- the compiler of LuaJIT comes into it
          local i = 0
          for row in res:rows() do
            i = i + 1
            assert.same(res[i], row)
          end
          assert.equal(300, i)
        end
        for row_number, a, b, c, d in res:rows "values" do
          local e, f, g, h = res(row_number, 1), res(row_number, 2), res(row_number, 3), res(row_number, 4)
          if a ~= e or b ~= f or c ~= g or d ~= h then error("row " .. row_number) end
        end
      end
    end
  end)

  it("of whole numbers are the same in a loop, in binary too", function()
    local res = assert(conn:query { [[select g::int2 as a, g as b, g * 61489146912365::int8 as c, 'x' || g as d
      from generate_series(-150, 150) g]], binary = true })
    local i = 0
    for row in res:rows() do
      i = i + 1
      assert.same({ a = res(i, 1), b = res(i, 2), c = res(i, 3), d = res(i, 4) }, row)
      assert.equal(i - 151, row.a)
    end
    assert.equal(301, i)
  end)

  it("are not made where a loop only reads them, if the compiler sees to it", function()
    local jit = rawget(_G, "jit")
    if not (jit and jit.status()) then return end
    local res = conn:query "select g as id, g * 2 as twice, 'n' || g % 9 as name from generate_series(1, 3000) g"
    local least = math.huge
    for _ = 1, 20 do
      collectgarbage()
      collectgarbage "stop"
      local before, sum = collectgarbage "count", 0
      for row in res:rows() do sum = sum + row.id + #row.name end
      least = math.min(least, collectgarbage "count" - before)
      collectgarbage "restart"
      assert.equal(4507500, sum)
    end
    assert.is_true(least < 100) -- of 480 that they all would take
  end)

  it("of floats and booleans too, of which a NaN may have any bits", function()
    local binary = "PGCOPY\n\255\r\n\0\0\0\0\0\0\0\0\0"
    local nan4, nan8 = "\255\255\18\52", "\255\255\18\52\86\120\1\2"
    assert(conn:query "create temp table floats (a float4, b float8, c bool)")
    local writer = assert(conn:copy_in "copy floats from stdin (format binary)")
    writer:write(binary)
    for i = 1, 200 do
      writer:write("\0\3\0\0\0\4" .. (i % 9 == 0 and nan4 or "\63\192\0\0"))
      writer:write("\0\0\0\8" .. (i % 7 == 0 and nan8 or "\192\4\0\0\0\0\0\0"))
      writer:write("\0\0\0\1" .. (i % 5 == 0 and "\1" or "\0"))
    end
    writer:write "\255\255"
    assert(writer:finish())
    local res = assert(conn:query { "select * from floats", binary = true })
    for _ = 1, 3 do
      local i = 0
      for row in res:rows() do
        i = i + 1
        if i % 9 == 0 then assert.is_true(row.a ~= row.a) else assert.equal(1.5, row.a) end
        if i % 7 == 0 then assert.is_true(row.b ~= row.b) else assert.equal(-2.5, row.b) end
        assert.equal(i % 5 == 0, row.c)
      end
      assert.equal(200, i)
    end
  end)

  it("end, where the result is cleared in the loop", function()
    local res = conn:query "select g as a, 'b' || g as b from generate_series(1, 300) g"
    local next_row, row = res:rows()
    for _ = 1, 100 do row = next_row() end
    assert.same({ a = 100, b = "b100" }, row)
    collectgarbage()
    res:clear()
    assert.has_error(function() next_row() end, "result was cleared")
    assert.has_error(function() next_row() end)
    res = conn:query "select g as a from generate_series(1, 128) g"
    local rows = res:rows()
    for _ = 1, 128 do assert.is_table(rows()) end
    assert.is_nil(rows())
    assert.is_nil(rows())
    res:clear()
    assert.has_error(function() rows() end)
  end)

  it("are collected as others are, when lists of them are made again and again", function()
    local res = conn:query "select g as a from generate_series(1, 60) g"
    res:all()
    collectgarbage()
    local before = collectgarbage "count"
    for _ = 1, 20000 do res:all() end -- some 120 MB
    assert.is_true(collectgarbage "count" < 2.5 * before + 8000)
  end)

  it("may have 1,600 columns", function()
    local list = {}
    for i = 1, 1600 do list[i] = i .. " as c" .. i end
    local res = conn:query("select " .. table.concat(list, ", "))
    assert.equal(1600, res[1].c1600)
    assert.equal(1600, res(1, "c1600"))
    for _, first in res:rows "values" do assert.equal(1, first) end
    assert.equal(1600, #res:columns())
  end)
end)

describe("values", function()
  local conn
  setup(function() conn = server.connect() end)
  teardown(function() conn:close() end)

  -- What int8 beyond 2^53 is on this Lua.
  local function int8(digits) return math.type and math.tointeger(digits) or digits end

  local rows = {
    { "true", true }, { "false", false },
    { "32767::int2", 32767 }, { "(-32768)::int2", -32768 },
    { "2147483647", 2147483647 }, { "-2147483648", -2147483648 },
    { "9007199254740992", 9007199254740992 }, { "-9007199254740992", -9007199254740992 },
    { "9223372036854775807", int8 "9223372036854775807" }, { "9007199254740993", int8 "9007199254740993" },
    { "4294967295::oid", 4294967295 },
    { "0::float8", 0 }, { "0.1::float8", 0.1 }, { "(-1.5e300)::float8", -1.5e300 }, { "5e-324::float8", 5e-324 },
    { "1.7976931348623157e308::float8", 1.7976931348623157e308 }, { "123456.789::float8", 123456.789 },
    { "'infinity'::float8", 1 / 0 }, { "'-infinity'::float8", -1 / 0 }, { "0.5::float4", 0.5 },
    { "'infinity'::float4", 1 / 0 },
    { "0::numeric", "0" }, { "0.00::numeric", "0.00" }, { "12.340", "12.340" }, { "-0.000123", "-0.000123" },
    { "10000::numeric", "10000" }, { "123456789012345678901234567890.5", "123456789012345678901234567890.5" },
    { "1e20::numeric", "100000000000000000000" }, { "1e-10::numeric", "0.0000000001" },
    { "'NaN'::numeric", "NaN" }, { "'-Infinity'::numeric", "-Infinity" }, { "99990000::numeric", "99990000" },
    { "''::text", "" }, { "'ä€😀'::text", "ä€😀" }, { "'x'::varchar(3)", "x" }, { "'x'::char(3)", "x  " },
    { "'n'::name", "n" }, { "'c'::\"char\"", "c" },
    { "'\\x'::bytea", "" }, { "'\\x00ff10'::bytea", "\0\255\16" }, { "null::int", nil },
  }

  for _, binary in ipairs { false, true } do
    it("are what the table of types says, in " .. (binary and "binary" or "text"), function()
      for _, row in ipairs(rows) do
        local res = assert(conn:query { "select " .. row[1], binary = binary })
        local value = res(1, 1)
        assert.equal(row[2], value, row[1])
        if math.type and type(value) == "number" then
          assert.equal(row[1]:find "float" and "float" or "integer", math.type(value), row[1])
        end
      end
      local nan = conn:query { "select 'NaN'::float8", binary = binary }(1, 1)
      assert.is_true(nan ~= nan)
      local min = conn:query { "select -9223372036854775808", binary = binary }(1, 1)
      assert.equal("-9223372036854775808", tostring(min))
    end)
  end

  it("are the same whatever bytea_output is", function()
    assert(conn:query "set bytea_output = 'escape'")
    assert.equal("\0a\\'\255", conn:query "select '\\x00615c27ff'::bytea"(1, 1))
    assert(conn:query "reset bytea_output")
  end)

  it("are the server's text without decoding", function()
    local other = server.connect("", { decode = false })
    assert.same({ a = "t", b = "1", c = "\\x00" }, other:query "select true a, 1 b, '\\x00'::bytea c"[1])
    other:close()
    assert.equal("t", conn:query { "select true", decode = false }(1, 1))
  end)
end)
