local core = require "dblink.core"
local dblink = require "dblink"
local server = require "support.server"

local null = dblink.null
local whole = math.type ~= nil -- whether Lua has integers

-- One row for each value: SQL and what it is in Lua, in text and in binary. A third entry: binary is refused.
local TEXT_ONLY = true
local huge = whole and math.mininteger or "-9223372036854775808"
local values = {
  { "true", true },
  { "false", false },
  { "0::int2", 0 },
  { "'-32768'::int2", -32768 },
  { "32767::int2", 32767 },
  { "'-2147483648'::int4", -2147483648 },
  { "2147483647", 2147483647 },
  { "4294967295::oid", 4294967295 },
  { "9007199254740992::int8", 9007199254740992 },
  { "'-9007199254740992'::int8", -9007199254740992 },
  { "9223372036854775807::int8", whole and math.maxinteger or "9223372036854775807" },
  { "'-9223372036854775808'::int8", huge },
  { "0::float8", 0 },
  { "1.5::float4", 1.5 },
  { "0.1::float8", 0.1 },
  { "0.1::float4", 0.10000000149011612 },
  { "'3.4028235e38'::float4", 3.4028234663852886e38 },
  { "'-1e-45'::float4", -1.401298464324817e-45 },
  { "'1.7976931348623157e308'::float8", 1.7976931348623157e308 },
  { "'5e-324'::float8", 5e-324 },
  { "'123456789012345680000'::float8", 123456789012345680000 },
  { "'Infinity'::float8", math.huge },
  { "'-Infinity'::float4", -math.huge },
  { "'0'::numeric", "0" },
  { "1.50::numeric", "1.50" },
  { "'-0.000120'::numeric", "-0.000120" },
  { "'12345678901234567890.123456789'::numeric", "12345678901234567890.123456789" },
  { "1e40::numeric", "1" .. ("0"):rep(40) },
  { "1e-20::numeric", "0." .. ("0"):rep(19) .. "1" },
  { "10000::numeric", "10000" },
  { "'NaN'::numeric", "NaN" },
  { "''::text", "" },
  { "'grüß dich'::text", "grüß dich" },
  { "'ab'::char(4)", "ab  " },
  { "'x'::\"char\"", "x" },
  { "''::\"char\"", "" },
  { "'\\303'::\"char\"", "\\303" },
  { "'n'::name", "n" },
  { "''::bytea", "" },
  { "'\\x00ff5c27'::bytea", "\0\255\\'" },
  { "'[1, 2]'::json", "[1, 2]" },
  { "'{\"a\":1}'::jsonb", '{"a": 1}' },
  { "'$.a'::jsonpath", '$."a"' },
  { "xmlparse(document '<?xml version=\"1.0\" encoding=\"UTF-8\"?><a>ü</a>')", "<a>ü</a>" },
  { "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" },
  { "'192.168.0.1'::inet", "192.168.0.1" },
  { "'192.168.0.1/24'::inet", "192.168.0.1/24" },
  { "'10.1/16'::cidr", "10.1.0.0/16" },
  { "'10.1.2.3'::cidr", "10.1.2.3/32" },
  { "'::'::inet", "::" },
  { "'::1'::inet", "::1" },
  { "'1::'::inet", "1::" },
  { "'2001:db8::1:0:0:1/64'::inet", "2001:db8::1:0:0:1/64" },
  { "'1:0:0:2:0:0:0:3'::inet", "1:0:0:2::3" },
  { "'1:2:3:4:5:6:7:8'::inet", "1:2:3:4:5:6:7:8" },
  { "'::ffff:1.2.3.4'::inet", "::ffff:1.2.3.4" },
  { "'::1.2.3.4'::inet", "::1.2.3.4" },
  { "'2001:db8::/32'::cidr", "2001:db8::/32" },
  { "'08:00:2b:01:02:03'::macaddr", "08:00:2b:01:02:03" },
  { "'08:00:2b:01:02:03:04:05'::macaddr8", "08:00:2b:01:02:03:04:05" },
  { "B'101100111000'", "101100111000" },
  { "B'00000001'::varbit", "00000001" },
  { "''::varbit", "" },
  { "'2024-02-29'::date", "2024-02-29" },
  { "'1999-12-31'::date", "1999-12-31" },
  { "'0001-01-01'::date", "0001-01-01" },
  { "'0001-12-31 BC'::date", "0001-12-31 BC" },
  { "'4714-11-24 BC'::date", "4714-11-24 BC" },
  { "'5874897-12-31'::date", "5874897-12-31" },
  { "'infinity'::date", "infinity" },
  { "'-infinity'::date", "-infinity" },
  { "'00:00'::time", "00:00:00" },
  { "'24:00'::time", "24:00:00" },
  { "'01:02:03.450'::time", "01:02:03.45" },
  { "'23:59:59.999999'::time", "23:59:59.999999" },
  { "'01:02:03+05:30'::timetz", "01:02:03+05:30" },
  { "'01:02:03-15:59:59'::timetz", "01:02:03-15:59:59" },
  { "'01:02:03+00'::timetz", "01:02:03+00" },
  { "'2024-01-01 12:34:56.789'::timestamp", "2024-01-01 12:34:56.789" },
  { "'4714-11-24 00:00:00 BC'::timestamp", "4714-11-24 00:00:00 BC" },
  { "'294276-12-31 23:59:59.999999'::timestamp", "294276-12-31 23:59:59.999999" },
  { "'infinity'::timestamp", "infinity" },
  { "'1969-07-20 22:17:40+02'::timestamptz", "1969-07-20 20:17:40+00" },
  { "'0044-03-15 12:00 BC'::timestamptz", "0044-03-15 12:00:00+00 BC" },
  { "'-infinity'::timestamptz", "-infinity" },
  { "'0'::interval", "00:00:00" },
  { "'1 year 2 mons 3 days 04:05:06.7'::interval", "1 year 2 mons 3 days 04:05:06.7" },
  { "'-1 year -2 mons +3 days -04:05:06.000001'::interval", "-1 years -2 mons +3 days -04:05:06.000001" },
  { "'1 mon -1 day'::interval", "1 mon -1 days" },
  { "'-1 day +1 sec'::interval", "-1 days +00:00:01" },
  { "'178000000 years'::interval", "178000000 years" },
  { "'-178000000 years'::interval", "-178000000 years" },
  { "'2562047788:00:54.775807'::interval", "2562047788:00:54.775807" },
  { "pg_sleep(0)", "" },
  { "row(1, 'x y')", '(1,"x y")', TEXT_ONLY },
  { "int4range(1, 5)", "[1,5)", TEXT_ONLY },
  { "'{[1,3),[5,7)}'::int4multirange", "{[1,3),[5,7)}", TEXT_ONLY },
  { "point(1, 2)", "(1,2)", TEXT_ONLY },
  { "box(point(0, 0), point(1, 1))", "(1,1),(0,0)", TEXT_ONLY },
  { "'pg_class'::regclass", "pg_class", TEXT_ONLY },
  { "'16/B374D848'::pg_lsn", "16/B374D848", TEXT_ONLY },
  { "'a & b'::tsquery", "'a' & 'b'", TEXT_ONLY },
}

local arrays = {
  { "'{}'::int4[]", { n = 0 } },
  { "'{1,NULL,3}'::int4[]", { 1, null, 3, n = 3 } },
  { "'[5:6]={7,8}'::int4[]", { 7, 8, n = 2 } },
  { "'[-1:0][2:2]={{7},{8}}'::int4[]", { { 7, n = 1 }, { 8, n = 1 }, n = 2 } },
  { "'{{1,2},{3,NULL}}'::int8[]", { { 1, 2, n = 2 }, { 3, null, n = 2 }, n = 2 } },
  { "'{{{{{{t}}}}}}'::bool[]",
    { { { { { { true, n = 1 }, n = 1 }, n = 1 }, n = 1 }, n = 1 }, n = 1 } },
  { [[array['a,b', 'c"d', 'e\f', '', 'NULL', 'null', null, '{}', ' x ', E'\n']::text[] ]],
    { "a,b", 'c"d', "e\\f", "", "NULL", "null", null, "{}", " x ", "\n", n = 10 } },
  { "array['\\x00'::bytea, '\\x5c22'::bytea]", { "\0", '\\"', n = 2 } },
  { "array['{\"a\": [1, \"b\"]}'::jsonb]", { '{"a": [1, "b"]}', n = 1 } },
  { "array[null]::text[]", { null, n = 1 } },
  { "array[array[]::text[], array[]::text[]]", { n = 0 } },
}

describe("values", function()
  local conn
  setup(function() conn = server.connect "options='-c timezone=UTC'" end)
  teardown(function() conn:close() end)

  local function value(expression, binary)
    return assert(conn:query { "select " .. expression, binary = binary })(1, 1)
  end

  local function check(expression, expected, text_only)
    assert.same(expected, value(expression))
    if text_only then
      local err = select(2, pcall(value, expression, true))
      assert.equal("unsupported", err.kind)
      assert.matches("cannot be read in binary", err.message)
    else
      assert.same(expected, value(expression, true))
    end
  end

  for _, row in ipairs(values) do
    local expression, expected, text_only = row[1], row[2], row[3]
    it("are right: " .. expression, function()
      check(expression, expected, text_only)
      if not expression:match "sleep" and not expression:match "^row" then
        check(("array[%s, null, %s]"):format(expression, expression), { expected, null, expected, n = 3 }, text_only)
      end
    end)
  end

  for _, row in ipairs(arrays) do
    it("are right: " .. row[1], function() check(row[1], row[2]) end)
  end

  it("know NaN and the sign of zero", function()
    for _, binary in ipairs { false, true } do
      for _, type in ipairs { "float4", "float8" } do
        local nan = value("'NaN'::" .. type, binary)
        assert.is_true(nan ~= nan)
        assert.equal(-math.huge, 1 / value("'-0'::" .. type, binary))
      end
    end
  end)

  it("of numeric know infinity, where the server does", function()
    if conn:server_version() < 140000 then return pending "PostgreSQL 14" end
    check("'Infinity'::numeric", "Infinity")
    check("'-Infinity'::numeric", "-Infinity")
  end)

  it("of interval know infinity, where the server does", function()
    if conn:server_version() < 170000 then return pending "PostgreSQL 17" end
    check("'infinity'::interval", "infinity")
    check("'-infinity'::interval", "-infinity")
  end)

  it("are the same in either format whatever the settings are", function()
    local c = server.connect()
    local sql = [[select timestamptz '2024-07-01 12:00:00.5+00' as a, date '2024-02-03' as b, 0.1::float4 as c,
      interval '1 year -1 day' as d, timestamp '2024-07-01 12:00' as e, array[date '2024-01-02'] as f]]
    for _, setting in ipairs {
      "timezone = 'UTC'", "timezone = 'Europe/Berlin'", "timezone = '+05:30'", "datestyle = 'SQL, DMY'",
      "timezone = 'UTC+3'", "datestyle = 'German'", "datestyle = 'Postgres'", "intervalstyle = 'iso_8601'",
      "intervalstyle = 'sql_standard'", "intervalstyle = 'postgres_verbose'", "bytea_output = 'escape'",
    } do
      assert(c:exec_all("reset all; set timezone = 'UTC'; set " .. setting))
      assert.same(assert(c:query(sql))[1], assert(c:query { sql, binary = true })[1])
      assert.equal("a\\\0\255", c:query "select '\\x615c00ff'::bytea"(1, 1))
    end
    c:close()
  end)

  it("can be had as the server sent them", function()
    assert.equal("t", conn:query { "select true", decode = false }(1, 1))
    assert.equal("{1,2}", conn:query { "select '{1,2}'::int[]", decode = false }(1, 1))
    assert.equal("\0\0\0\7", conn:query { "select 7", decode = false, binary = true }(1, 1))
  end)
end)

describe("the table of types", function()
  it("agrees with the server's", function()
    local conn = server.connect()
    local res = assert(conn:query [[select oid, typname::text as name, typarray as array from pg_type
      where typtype in ('b', 'r', 'm') and typelem = 0 and oid < 10000]])
    for row in res:rows() do
      local known = core.type(row.oid)
      if known then
        assert.equal(row.name, known.name)
        assert.equal(row.array, known.array)
        if row.array ~= 0 then
          assert.same({ row.name, true }, { core.type(row.array).name, core.type(row.array).is_array })
        end
      elseif row.array ~= 0 and not row.name:match "^pg_" then
        error("the server's type " .. row.name .. " is not known")
      end
    end
    assert.is_nil(core.type(0))
    assert.is_nil(core.type(4294967295))
    for _, name in ipairs { "", "x", "[]", "int44" } do assert.is_nil(core.type(name)) end
    conn:close()
  end)
end)

describe("bytes of a hostile server", function()
  local samples = {} -- { oid, format, bytes }
  setup(function()
    local conn = server.connect()
    for _, list in ipairs { values, arrays } do
      for _, row in ipairs(list) do
        for _, format in ipairs { "text", row[3] and "text" or "binary" } do
          local element = list == values and not row[1]:match "sleep" and row[1] or "1"
          local sql = ("select %s, array[%s]"):format(row[1], element)
          local res = assert(conn:query { sql, decode = false, binary = format == "binary" })
          for j, column in ipairs(res:columns()) do
            samples[#samples + 1] = { column.oid, format, res(1, j) }
          end
        end
      end
    end
    conn:close()
  end)

  local function try(oid, format, bytes)
    local value, err = core.decode(oid, format, bytes)
    if value == nil then
      assert.matches("^malformed ", err.message)
      assert.equal("connection", err.kind)
    end
    return value
  end

  it("are decoded where they are good", function()
    for _, s in ipairs(samples) do assert.is_not_nil(try(s[1], s[2], s[3])) end
  end)

  -- Tens of thousands of values: fewer where each takes a whole collection (make asan).
  local rounds, step = 40, 1
  if os.getenv "DBLINK_UNDER" then rounds, step = 1, 7 end

  it("are values or refused, cut at any length", function()
    for _, s in ipairs(samples) do
      for n = 0, #s[3] - 1, step do try(s[1], s[2], s[3]:sub(1, n)) end
      try(s[1], s[2], s[3] .. "\0")
      try(s[1], s[2], s[3] .. s[3])
    end
  end)

  it("are values or refused, with bytes changed", function()
    local seed = 42
    local function random(n) -- 0 to n - 1, the same on every Lua
      seed = (seed * 16807) % 2147483647
      return seed % n
    end
    for _, s in ipairs(samples) do
      for _ = 1, rounds do
        local bytes = s[3]
        for _ = 1, 1 + random(3) do
          local i = random(#bytes + 1)
          bytes = bytes:sub(1, i) .. string.char(random(4) == 0 and 255 or random(256)) .. bytes:sub(i + 2)
        end
        try(s[1], s[2], bytes)
      end
    end
  end)

  -- dimensions, flag, OID, then what is given: big-endian words
  local function array(...)
    local bytes = {}
    for i, word in ipairs { ... } do
      bytes[i] = string.char(math.floor(word / 2 ^ 24), math.floor(word / 2 ^ 16) % 256, math.floor(word / 2 ^ 8) % 256,
        word % 256)
    end
    return table.concat(bytes)
  end

  it("are infinite where they are", function()
    local most = "\127" .. ("\255"):rep(7) .. "\127" .. ("\255"):rep(3) .. "\127" .. ("\255"):rep(3)
    local least = "\128" .. ("\0"):rep(7) .. "\128" .. ("\0"):rep(3) .. "\128" .. ("\0"):rep(3)
    assert.equal("infinity", core.decode(1186, "binary", most))
    assert.equal("-infinity", core.decode(1186, "binary", least))
    assert.is_nil(core.decode(1700, "binary", "\0\0\0\0"))
    assert.equal(math.huge, core.decode(701, "text", ("1"):rep(400)))
    assert.is_nil(core.decode(701, "text", ""))
  end)

  it("make no tables of lengths that lie", function()
    for _, bytes in ipairs {
      array(1, 0, 23), array(7, 0, 23), array(1, 0, 23, 2 ^ 31 - 1, 1), array(2, 0, 23, 2 ^ 31 - 1, 1, 0, 1),
      array(2, 0, 23, 65536, 1, 65536, 1), array(2, 0, 23, 3, 1, 3, 1),
      array(6, 0, 23, 2 ^ 30, 1, 2 ^ 30, 1, 4, 1, 4, 1, 4, 1, 4, 1),
      array(1, 0, 23, 1, 1, 4), array(1, 0, 23, 1, 1, 2 ^ 31, 0), array(1, 0, 23, 1, 1, 4, 5, 6),
      array(2 ^ 32 - 1, 0, 23), array(1, 0, 23, 0, 1),
    } do
      assert.is_nil(core.decode(1007, "binary", bytes))
    end
    assert.same({ 5, null, n = 2 }, core.decode(1007, "binary", array(1, 1, 23, 2, 1, 4, 5, 2 ^ 32 - 1)))
  end)

  it("are no arrays unless the braces are right", function()
    for _, text in ipairs {
      "", "{", "}", "1", "{1", "1}", "{1,}", "{,1}", "{1,,2}", "{{1}", "{1}}", "{1}x", '{"1}', '{"1\\', '{"1"',
      '{"1"2}', "{1 2}", "{1;2}", "[1:2]", "[1:2]=", "{a\\b}", "{{{{{{{1}}}}}}}", "{{1},2", ("{"):rep(100000),
      "{9223372036854775808}", "{x}",
    } do
      assert.is_nil(core.decode(1016, "text", text))
    end
    assert.same({ 1, null, n = 2 }, core.decode(1016, "text", "[3:4]={1,NULL}"))
  end)

  it("are no numbers, dates, bits unless they are", function()
    for _, case in ipairs {
      { 20, "" }, { 20, "-" }, { 20, "1x" }, { 20, "9223372036854775808" }, { 20, "-9223372036854775809" },
      { 16, "true" }, { 20, "99999999999999999999999" }, { 701, "" }, { 701, "." }, { 701, "0x10" }, { 701, "1e" },
      { 701, ("1"):rep(500) .. "x" }, { 16, "x" },
      { 17, "\\x0" }, { 17, "\\x0g" }, { 17, "\\x@0" }, { 17, "\\" }, { 17, "\\400" }, { 17, "\\12" },
      { 17, "\\12a" }, { 17, "\\1/1" }, { 17, "\\x000" }, { 17, "\\x" .. ("0"):rep(600) .. "g0" },
    } do
      assert.is_nil(core.decode(case[1], "text", case[2]))
    end
    for _, case in ipairs {
      { 1082, "\127\255\255\254" }, { 1083, ("\255"):rep(8) }, { 1083, "\127" .. ("\255"):rep(7) },
      { 16, "" }, { 1114, "\127" .. ("\255"):rep(6) .. "\254" }, { 1560, "\0\0\0\9\255" },
      { 1560, "\255\255\255\255\255" },
      { 869, "\2\33\0\4\1\2\3\4" }, { 869, "\3\32\0\4\1\2\3\4" }, { 3802, "" },
      { 3802, "\2{}" },
      { 1700, "\0\1\0\0\0\0\0\0\39\16" }, { 1700, "\0\1\0\0\1\0\0\0\0\1" },
      { 1700, "\255\255\0\0\0\0\0\0" },
    } do
      assert.is_nil(core.decode(case[1], "binary", case[2]))
    end
    assert.equal("unsupported", select(2, core.decode(3904, "binary", "x")).kind)
    for _, text in ipairs { "\\xABcd", "\\253\\315" } do assert.equal("\171\205", core.decode(17, "text", text)) end
    assert.equal(("x"):rep(2000), core.decode(17, "text", "\\x" .. ("78"):rep(2000)))
  end)
end)

describe("random values of every type", function()
  local conn
  setup(function()
    conn = server.connect "options='-c timezone=UTC'"
    math.randomseed(20240229)
    assert(conn:query "select setseed(0.5)")
  end)
  teardown(function() conn:close() end)

  local ROWS = os.getenv "DBLINK_UNDER" and 20 or 1000

  -- An expression of random(), evaluated for each row.
  local made_by_server = {
    bool = "random() < 0.5",
    int2 = "(random() * 65535 - 32768)::int2",
    int4 = "(random() * 4294967295 - 2147483648)::int4",
    int8 = "((random() * 4294967295 - 2147483648)::int8 << 32) + (random() * 4294967295)::int8",
    oid = "(random() * 4294967295)::int8::oid",
    float4 = "((random() - 0.5) * 10 ^ (random() * 60 - 30))::float4",
    float8 = "(random() - 0.5) * 10 ^ (random() * 300 - 150)",
    numeric = "round((random() - 0.5)::numeric * 10::numeric ^ (random() * 60 - 20)::int, (random() * 30)::int)",
    text = "repeat(chr((random() * 500)::int + 1), (random() * 5)::int) || chr((random() * 90)::int + 33)",
    bytea = "decode(left(md5(random()::text), 2 * (random() * 16)::int), 'hex')",
    uuid = "md5(random()::text)::uuid",
    json = "json_build_array(random(), chr((random() * 500)::int + 1), null)",
    jsonb = "jsonb_build_object(chr((random() * 500)::int + 1), random())",
    inet = "'0.0.0.0'::inet + (random() * 4294967295)::int8",
    cidr = "set_masklen(('::'::inet + (random() * 9e18)::int8) | '1234:5678::'::inet, 128)::cidr",
    macaddr = "left(md5(random()::text), 12)::macaddr",
    macaddr8 = "left(md5(random()::text), 16)::macaddr8",
    varbit = "substring((random() * 4294967295)::int8::bit(48) from 1 for (random() * 48)::int)",
    date = "'4714-11-24 BC'::date + (random() * 2147000000)::int",
    time = "'00:00'::time + random() * interval '24 hours'",
    timetz = "('00:00'::time + random() * interval '24 hours')::text::time at time zone"
      .. " ((random() * 50000 - 25000)::int * interval '1 s')",
    timestamp = "'4714-11-24 BC'::timestamp + random() * interval '298000 years' + random() * interval '1 day'",
    timestamptz = "'4714-11-24 BC'::timestamptz + random() * interval '9000 years' + random() * interval '1 day'",
    interval = "make_interval((random() * 20 - 10)::int, (random() * 30 - 15)::int, 0, (random() * 9 - 4)::int,"
      .. " (random() * 9 - 4)::int, (random() * 100 - 50)::int, round((random() * 100 - 50)::numeric, 6)::float8)",
  }

  local function number(text) return tonumber((text:gsub("Infinity", "1e999"))) end

  for type, expression in pairs(made_by_server) do
    it("are as the server prints them: " .. type, function()
      local sql = ([[select x, x::text, array[x, null, x] from
        (select (%s)::%s as x from generate_series(1, %d)) as values]]):format(expression, type, ROWS)
      local from_text = type == "bool" and function(s) return s == "true" end
        or type:match "^int%d" and function(s) return core.decode(20, "text", s) end
        or (type == "oid" or type == "float8") and number
        or type == "bytea" and dblink.unescape_bytea
        or type == "inet" and function(s) return (s:gsub("/32$", "")) end -- which a cast to text adds
        or function(s) return s end
      for _, binary in ipairs { false, true } do
        for i, x, text, list in assert(conn:query { sql, binary = binary }):rows "values" do
          local expected = from_text(text)
          if type == "float4" then -- text has as many digits as tell it from its neighbours
            assert.is_true(math.abs(x - number(text)) <= math.abs(x) * 6e-8, text)
          elseif x ~= expected then
            error(("row %d, binary %s: %s is not %s"):format(i, tostring(binary), tostring(x), text))
          end
          assert.same({ x, null, x, n = 3 }, list)
        end
      end
    end)
  end

  local random = math.random
  local function bytes(n, first)
    local t = {}
    for i = 1, n do t[i] = string.char(random(first or 0, first and 126 or 255)) end
    return table.concat(t)
  end

  -- What Lua sends comes back the same, in text and in binary, alone and in an array.
  local made_here = {
    bool = function() return random() < 0.5 end,
    int2 = function() return random(-32768, 32767) end,
    int4 = function() return random(-2147483647, 2147483647) end,
    int8 = function() return random(-2147483647, 2147483647) * 2097152 + random(0, 2097151) end,
    float8 = function() return (random() - 0.5) * 10 ^ random(-300, 300) end,
    text = function() return bytes(random(0, 20), 1) end,
    bytea = function() return bytes(random(0, 40)) end,
    numeric = function() return ("%d.%04d"):format(random(-99999, -1), random(0, 9999)) end,
  }

  for type, make in pairs(made_here) do
    it("come back as they went: " .. type, function()
      local sql = ("select $1::%s as x, $2::%s[] as list"):format(type, type)
      for _ = 1, ROWS / 10 do
        local x, list = make(), { n = random(0, 5) }
        for i = 1, list.n do list[i] = random() < 0.2 and null or make() end
        local single = type == "bytea" and dblink.bytea(x) or x
        for _, binary in ipairs { false, true } do
          local res = assert(conn:query { sql, single, dblink.array(list, type), binary = binary })
          assert.equal(x, res(1, 1))
          assert.same(list, res(1, 2))
        end
      end
    end)
  end
end)
