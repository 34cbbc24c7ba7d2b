local codecs = require "dblink.codecs"
local dblink = require "dblink"
local server = require "support.server"

local null = dblink.null

describe("codecs", function()
  local conn
  before_each(function()
    conn = server.connect "options='-c timezone=UTC'"
    assert(conn:query [[
      create schema if not exists codec_spec;
      set search_path = codec_spec, public;
      drop type if exists mood, point3 cascade; drop domain if exists small;
      create type mood as enum ('sad', 'ok', 'happy');
      create type point3 as (x float8, "y z" int4[], label text, good bool);
      create domain small as int4 check (value < 10)]])
  end)
  after_each(function() conn:close() end)
  teardown(function()
    local c = server.connect()
    c:query "set client_min_messages = error; drop schema if exists codec_spec cascade"
    c:close()
  end)

  local function upper() return { decode = string.upper, encode = string.lower } end

  it("decode by OID, in text and in binary", function()
    assert(conn:codec(25, upper()))
    assert(conn:codec(20, {
      decode = function(s) return "t" .. s end,
      decode_binary = function(s) return "b" .. #s end,
    }))
    local sql = "select 'abc'::text, null::text, array['x', null, 'y']::text[], 7::int8"
    assert.same({ "ABC", nil, { "X", null, "Y", n = 3 }, "t7", n = 4 }, conn:query(sql):rows "array"())
    assert.same({ "ABC", nil, { "X", null, "Y", n = 3 }, "b8", n = 4 },
      conn:query { sql, binary = true }:rows "array"())
  end)

  it("cannot take away what they read, and leave it as it was", function()
    local read, meddle
    assert(conn:codec(23, { decode = function(x)
      if meddle then meddle(read) end
      return x
    end }))
    local sql = "select g::int4 a, repeat('y', 1000) b, array[g::int4, g] c, g d from generate_series(1, 3000) g"
    for _, shape in ipairs { "row", "array", "values" } do
      read, meddle = conn:query(sql), function(res) res:clear() end
      for _, get in ipairs { function() return read[1] end, function() return read:rows(shape)() end,
        function() return read:column "c" end, function() return read(2, 1) end } do
        assert.error_matches(get, "a codec cannot clear the result that it reads")
      end
      meddle = nil
      assert.same({ "3000", "3000", n = 2 }, read(3000, "c"))
      read:clear()
      assert.error_matches(function() return read(1, 1) end, "cleared")

      read = assert(conn:rows { sql, rows = shape })
      for _, method in ipairs { "next", "close", "columns" } do
        meddle = function(stream) stream[method](stream) end
        assert.error_matches(function() read:next() end, "a codec cannot use the stream whose row it reads")
      end
      meddle = function() conn:close() end
      assert.is_truthy(read:next())
      meddle = nil
      assert.error_matches(function() read:next() end, "connection is closed")
      conn = server.connect()
      assert(conn:codec(23, { decode = function(x)
        if meddle then meddle(read) end
        return x
      end }))
    end
  end)

  it("decode by the name of a built-in type", function()
    assert(conn:codec("numeric", { decode = tonumber }))
    assert.same({ 1.5, 2 }, { conn:query "select 1.5"(1, 1), conn:query { "select 2.0", binary = true }(1, 1) })
    assert.same({ { 1, n = 1 }, { 2.5, n = 1 }, n = 2 }, conn:query "select '{{1},{2.5}}'::numeric[]"(1, 1))
  end)

  it("look a type up once, and read its arrays", function()
    assert.equal("{sad,ok}", conn:query "select '{sad,ok}'::mood[]"(1, 1))
    local asked = 0
    local query = conn.query
    local methods = require "dblink.core".methods
    methods.query = function(...)
      asked = asked + 1
      return query(...)
    end
    assert(conn:codec "mood")
    assert(conn:codec("mood", upper()))
    methods.query = query
    assert.equal(1, asked)
    assert.same({ "SAD", { "SAD", null, "OK", n = 3 }, n = 2 },
      conn:query "select 'sad'::mood, '{sad,NULL,ok}'::mood[]":rows "array"())
    assert.same({ "HAPPY", { { "OK", n = 1 }, n = 1 }, n = 2 },
      conn:query { "select 'happy'::mood, '{{ok}}'::mood[]", binary = true }:rows "array"())
  end)

  it("may be empty: arrays of the type become tables, enums can come in binary", function()
    assert(conn:codec "mood")
    local sql = "select '{sad,ok}'::mood[], 'ok'::mood"
    assert.same({ { "sad", "ok", n = 2 }, "ok", n = 2 }, conn:query(sql):rows "array"())
    assert.same({ { "sad", "ok", n = 2 }, "ok", n = 2 }, conn:query { sql, binary = true }:rows "array"())
  end)

  it("make parameters of a type", function()
    local mood = assert(conn:codec("mood", upper()))
    local sql = "select $1, pg_typeof($1)::text"
    assert.same({ "SAD", "mood", n = 2 }, conn:query(sql, mood "SAD"):rows "array"())
    assert.same({ nil, "mood", n = 2 }, conn:query(sql, mood(nil)):rows "array"())
    assert.same({ { "SAD", null, "OK", n = 3 }, "mood[]", n = 2 },
      conn:query(sql, dblink.array({ "SAD", null, "OK" }, mood)):rows "array"())
    assert.error_matches(function() conn:codec "mood" "x" end, "no encode")
  end)

  it("say what they cannot be", function()
    local _, err = conn:codec("nothing", {})
    assert.equal("usage", err.kind)
    assert.matches('"nothing" does not exist', err.message)
    _, err = conn:codec("small", {})
    assert.equal("unsupported", err.kind)
    assert.matches("those of integer", err.message)
    assert.error_matches(function() conn:codec({}, {}) end, "bad argument 'type'")
    assert.error_matches(function() conn:codec("text", { decode = 1 }) end, "codec.decode must be a function")
    assert.error_matches(function() conn:codec("text", "x") end, "codec must be a table")
  end)

  it("without decode_binary refuse a binary form that is not the text", function()
    conn:codec(23, { decode = tonumber })
    local res = conn:query { "select 1", binary = true }
    local ok, err = pcall(res, 1, 1)
    assert.is_false(ok)
    assert.equal("unsupported", err.kind)
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("let their errors through and leave all in order", function()
    conn:codec(25, { decode = function() error("no, thanks", 0) end })
    local res = conn:query "select 'x'::text"
    assert.same({ false, "no, thanks" }, { pcall(res, 1, 1) })
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("do not touch another query's `decode = false`", function()
    conn:codec(25, upper())
    assert.equal("x", conn:query { "select 'x'::text", decode = false }(1, 1))
  end)

  it("are given to dblink.connect too", function()
    local c = server.connect("", { codecs = { text = upper(), [20] = { decode = tostring } } })
    assert.same({ "X", "7", n = 2 }, c:query "select 'x'::text, 7::int8":rows "array"())
    c:close()
    assert.error_matches(function() server.connect("", { codecs = { nobody = {} } }) end, "use conn:codec")
  end)
end)

describe("an option of the connection", function()
  it("json: decodes by the module handed over", function()
    local c = server.connect("", { json = { decode = function(s) return { s } end } })
    local sql = "select '[1]'::json, '{\"a\": 2}'::jsonb, array['1'::jsonb]"
    for _, binary in ipairs { false, true } do
      assert.same({ { "[1]" }, { '{"a": 2}' }, { { "1" }, n = 1 }, n = 3 },
        c:query { sql, binary = binary, rows = "array" }[1])
    end
    c:close()
    assert.error_matches(function() server.connect("", { json = true }) end, "option json")
  end)

  it("numeric: gives numbers", function()
    local c = server.connect("", { numeric = "number" })
    local sql = "select 1.50, 'NaN'::numeric::text, array[1e3, -0.25], 123456789012345678901234567890.5"
    for _, binary in ipairs { false, true } do
      assert.same({ 1.5, "NaN", { 1000, -0.25, n = 2 }, 123456789012345678901234567890.5, n = 4 },
        c:query { sql, binary = binary, rows = "array" }[1])
    end
    for _, binary in ipairs { false, true } do -- however many digits
      assert.same({ 1 / 3, 1e300, math.huge, n = 3 }, c:query { [[select ('0.' || repeat('3', 500))::numeric,
        ('1' || repeat('0', 300) || '.' || repeat('0', 300))::numeric, 1e400]], binary = binary, rows = "array" }[1])
    end
    c:close()
    assert.error_matches(function() server.connect("", { numeric = true }) end, "option numeric")
  end)

  it("int8: gives int64_t on LuaJIT", function()
    if not rawget(_G, "jit") then
      assert.error_matches(function() server.connect("", { int8 = "cdata" }) end, "LuaJIT alone")
      return
    end
    local c = server.connect("", { int8 = "cdata" })
    local ffi = require "ffi"
    for _, digits in ipairs { "0", "-1", "9007199254740993", "9223372036854775807", "-9223372036854775808" } do
      for _, binary in ipairs { false, true } do
        local res = c:query { ("select '%s'::int8, array['%s'::int8]"):format(digits, digits), binary = binary }
        assert.is_true(ffi.istype("int64_t", res(1, 1)))
        assert.equal(digits .. "LL", tostring(res(1, 1)))
        assert.equal(digits .. "LL", tostring(res(1, 2)[1]))
        assert.equal(digits, c:query("select $1::text", res(1, 1))(1, 1))
        assert.equal("{" .. digits .. "}", c:query("select $1::text", dblink.array { res(1, 1) })(1, 1))
      end
    end
    assert.equal("18446744073709551615", c:query("select $1::text", ffi.cast("uint64_t", ffi.new("int64_t", -1)))(1, 1))
    assert.error_matches(function() c:query("select $1", ffi.new "int[2]") end, "cdata cannot be sent")
    c:close()
  end)
end)

describe("the codecs on offer", function()
  local conn
  setup(function() conn = server.connect "options='-c timezone=UTC'" end)
  teardown(function() conn:close() end)

  -- SQL, Lua value, in text and back.
  local function check(name, codec, cases)
    local c = server.connect "options='-c timezone=UTC'"
    local make = assert(c:codec(name, codec))
    for _, case in ipairs(cases) do
      local sql = ("select '%s'::%s"):format(case[1], name)
      assert.same(case[2], c:query(sql)(1, 1))
      assert.same(conn:query(sql)(1, 1), conn:query("select $1::" .. name, make(case[2]))(1, 1))
    end
    c:close()
  end

  it("date", function()
    check("date", codecs.date, {
      { "2024-02-29", { year = 2024, month = 2, day = 29 } },
      { "12345-01-02", { year = 12345, month = 1, day = 2 } },
      { "0001-03-04 BC", { year = 0, month = 3, day = 4 } },
      { "0044-03-15 BC", { year = -43, month = 3, day = 15 } },
      { "infinity", math.huge }, { "-infinity", -math.huge },
    })
  end)

  it("time, timetz", function()
    check("time", codecs.time, {
      { "01:02:03", { hour = 1, min = 2, sec = 3 } }, { "23:59:59.25", { hour = 23, min = 59, sec = 59.25 } },
    })
    check("timetz", codecs.timetz, {
      { "01:02:03+05:30", { hour = 1, min = 2, sec = 3, offset = 19800 } },
      { "01:02:03-08", { hour = 1, min = 2, sec = 3, offset = -28800 } },
    })
  end)

  it("timestamp, timestamptz", function()
    check("timestamp", codecs.timestamp, {
      { "2024-02-29 12:34:56.5", { year = 2024, month = 2, day = 29, hour = 12, min = 34, sec = 56.5 } },
      { "0002-01-01 00:00:00 BC", { year = -1, month = 1, day = 1, hour = 0, min = 0, sec = 0 } },
      { "infinity", math.huge },
    })
    check("timestamptz", codecs.timestamptz, {
      { "2024-02-29 12:34:56-02", { year = 2024, month = 2, day = 29, hour = 14, min = 34, sec = 56, offset = 0 } },
      { "0002-01-01 00:00:00+00 BC", { year = -1, month = 1, day = 1, hour = 0, min = 0, sec = 0, offset = 0 } },
    })
  end)

  it("epoch", function()
    check("timestamptz", codecs.epoch, {
      { "1970-01-01 00:00:00+00", 0 }, { "2024-02-29 12:00:00.5+00", 1709208000.5 }, { "1969-12-31 23:59:59+00", -1 },
      { "0001-01-01 00:00:00+00 BC", -62167219200 }, { "20000-03-01 00:00:00+00", 568977004800 },
      { "infinity", math.huge }, { "-infinity", -math.huge },
    })
    for _, zone in ipairs { "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns" } do
      local c = server.connect(("options='-c timezone=%s'"):format(zone))
      c:codec("timestamptz", codecs.epoch)
      for _, seconds in ipairs { 0, 951782399, -2e9, 4102444800.25 } do
        assert.equal(seconds, c:query("select to_timestamp($1::float8)", seconds)(1, 1))
      end
      c:close()
    end
  end)

  it("epoch, of all times and of any style, as the server counts", function()
    local c = server.connect ""
    c:codec("timestamp", codecs.epoch)
    c:codec("date", codecs.epoch)
    for _, binary in ipairs { false, true } do
      local res = assert(c:query { [[select t, extract(epoch from t)::float8, array[t, 'infinity'], t::date,
        extract(epoch from t::date)::float8
        from generate_series(timestamp '0044-03-15 BC', '2101-01-01', '377 days 5:07:08.25') t]], binary = binary })
      for _, t, seconds, list, date, midnight in res:rows "values" do
        assert.equal(seconds, t)
        assert.same({ t, math.huge, n = 2 }, list)
        assert.equal(midnight, date)
      end
    end
    for _, text in ipairs { "", "2024", "2024/", "2024-1-01",
      "2024-01-01x", "2024-01", "2024-01/01", "2024-01-0", "20240101", "2024-01-01 1",
      "2024-01-01T", "2024-01-01 10:00:00.", "2024-01-01 10:00:00:", "2024-01-01 10:00 x", "01.02.2024",
      "12345678-01-01", "2024-01-01 00:00:00+", "2024-01-01 00:00:00-1", "2024-01-01 00:00:00.1234567" } do
      local ok, err = pcall(codecs.epoch.decode, text)
      assert.is_false(ok)
      assert.equal("usage", err.kind)
      assert.equal("codecs.epoch cannot read '" .. text .. "'", err.message)
    end
    c:close()
  end)

  it("interval, of two styles", function()
    local cases = {
      { "0", { months = 0, days = 0, seconds = 0 } },
      { "1 year 2 mons -3 days 04:05:06.5", { months = 14, days = -3, seconds = 14706.5 } },
      { "-1 day -00:00:01", { months = 0, days = -1, seconds = -1 } },
    }
    check("interval", codecs.interval, cases)
    local c = server.connect "options='-c intervalstyle=iso_8601'"
    c:codec("interval", codecs.interval)
    for _, case in ipairs(cases) do
      assert.same(case[2], c:query(("select '%s'::interval"):format(case[1]))(1, 1))
    end
    c:query "set intervalstyle = 'sql_standard'"
    local ok, err = pcall(c:query "select '1 year 2 days'::interval", 1, 1)
    assert.is_false(ok)
    assert.matches("codecs.interval cannot read", err.message)
    c:close()
  end)

  it("seconds with a fraction, where the locale's numbers have a comma", function()
    local given = tonumber -- as 5.1's is then
    _G.tonumber = function(value, ...) return not tostring(value):find(".", 1, true) and given(value, ...) or nil end
    local fine, span, moment = pcall(function()
      return codecs.interval.decode "-00:00:01.25", codecs.timestamp.decode "2024-01-01 00:00:59.999999"
    end)
    _G.tonumber = given
    assert(fine, span)
    assert.equal(-1.25, span.seconds)
    assert.equal(59.999999, moment.sec)
  end)

  it("range", function()
    check("int4range", codecs.range "int4", {
      { "[1,5)", { lower = 1, upper = 5, lower_inc = true, upper_inc = false } },
      { "(,5)", { upper = 5, lower_inc = false, upper_inc = false } },
      { "empty", { empty = true } },
    })
    check("tsrange", codecs.range(codecs.timestamp), { { '["2024-01-01 00:00:00","2024-01-02 00:00:00"]', {
      lower = { year = 2024, month = 1, day = 1, hour = 0, min = 0, sec = 0 },
      upper = { year = 2024, month = 1, day = 2, hour = 0, min = 0, sec = 0 }, lower_inc = true, upper_inc = true,
    } } })
  end)

  it("composite", function()
    local c = server.connect()
    assert(c:query [[set client_min_messages = error; create schema if not exists codec_spec;
      set search_path = codec_spec, public; drop type if exists point3 cascade;
      create type point3 as (x float8, "y z" int4[], label text, good bool)]])
    local make = assert(c:codec("point3", codecs.composite {
      { "x", "float8" }, { "y z", "int4[]" }, "label", { "good", "bool" },
    }))
    for _, row in ipairs {
      { x = 1.5, ["y z"] = { 1, null, 3, n = 3 }, label = "a", good = false },
      { label = 'a "quoted", (odd) \\ [text]\n' }, { label = "", good = true }, { label = "[x]" }, {},
    } do
      assert.same(row, c:query("select $1", make(row))(1, 1))
      assert.same({ row, null, row, n = 3 }, c:query("select $1", dblink.array({ row, null, row }, make))(1, 1))
    end
    assert.same({ label = 'x,")', good = false }, c:query [[select row(null, null, 'x,")', false)::point3]](1, 1))
    c:close()
  end)
end)
