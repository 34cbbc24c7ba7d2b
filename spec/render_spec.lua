local dblink = require "dblink"
local server = require "support.server"

local VALUES = [==[select 1 as i, 'a"b\c' || chr(10) || 'ü' as t, true as b, null::text as n, 'NaN'::float8 as f,
  0.1::float4 as g, -1.5e-300::float8 as h, 12.50 as num, '-Infinity'::float4 as inf, '{"a": [1]}'::json as j,
  '{"b": null}'::jsonb as jb, array[[1,2],[3,null]] as arr,
  array['a b', 'NULL', '', null, 'x"y', '\', '{', 'c,d', 'nope', 'nude', 'nuls'] as ta, E'\b\v\x1f\x7f' as ctl,
  13.5465975::float4 as g9, 'NaN'::float4 as g0,
  E'a\nb' as nl, E'a\rb' as cr, '\x00ff'::bytea as by, array['\x01'::bytea] as ba,
  date '2024-01-01' as d, ''::text as e, array[]::int[] as ea, array[true, false] as bo,
  9223372036854775807::int8 as big, array['{"c": 1}'::jsonb] as ja, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid as u,
  '[0:1][-2:-2]={{1},{2}}'::int[] as lb,
  1000000000000000::int8 as e15, array[0.5::float8, 'infinity'] as fa, false as "q""q"]==]

describe("a result", function()
  local conn
  setup(function() conn = server.connect "options='-c timezone=UTC'" end)
  teardown(function() conn:close() end)

  it("as JSON is what the server says of itself", function()
    local expected = conn:query(("select array_to_json(array[to_json(r)])::jsonb from (%s) r"):format(VALUES))(1, 1)
    for _, binary in ipairs { false, true } do
      local text = conn:query { VALUES, binary = binary }:json()
      assert.equal(expected, conn:query("select $1::jsonb::text", text)(1, 1))
    end
  end)

  it("as CSV is what COPY writes", function()
    local _, expected = conn:query("create temp table csv as " .. VALUES), {}
    local copy = conn:copy_out "copy csv to stdout (format csv, header)"
    for line in copy do expected[#expected + 1] = line .. "\n" end
    for _, binary in ipairs { false, true } do
      assert.equal(table.concat(expected), conn:query { VALUES, binary = binary }:csv())
    end
  end)

  it("as JSON is a list of rows, by name or as lists", function()
    local res = conn:query "select g as a, g * 0.5 as b from generate_series(1, 2) g"
    assert.equal('[{"a":1,"b":0.5},{"a":2,"b":1.0}]', res:json())
    assert.equal("[[1,0.5],[2,1.0]]", res:json "array")
    assert.equal("[[1]]", conn:query { "select 1", rows = "array" }:json())
    assert.equal('[{"y":2,"x":3}]', conn:query "select 1 as x, 2 as y, 3 as x":json())
    assert.equal('[{"x":2,"y":3}]', conn:query "select 1 as x, 2 as x, 3 as y":json())
    assert.equal("[[1,2,3]]", conn:query "select 1 as x, 2 as y, 3 as x":json "array")
    assert.equal("[]", conn:query "select 1 where false":json())
    assert.equal("[{},{}]", conn:query "select from generate_series(1, 2)":json())
    assert.equal("[]", conn:query "set search_path to default":json())
    assert.error_matches(function() res:json "values" end, "invalid option")
  end)

  it("of a large query is the same", function()
    local res = conn:query "select g as a, 'x' || g as b from generate_series(1, 3000) g"
    assert.equal(3000, select(2, res:json():gsub("{", "")))
    assert.matches('{"a":3000,"b":"x3000"}]$', res:json())
    assert.matches("\n3000,x3000\n$", res:csv())
  end)

  it("is had as JSON at once", function()
    assert.equal('[{"x":7}]', conn:json("select $1::int as x", 7))
    assert.equal("[[7]]", conn:json { "select $1::int as x", 7, rows = "array" })
    local text, err = conn:json "select nothing"
    assert.is_nil(text)
    assert.equal("42703", err.sqlstate)
  end)

  it("as CSV has a dialect", function()
    local res = conn:query "select 'a;b' as x, null as y, '' as z, '-' as w, 'c,d' as v, '\\.' as u"
    assert.equal('x,y,z,w,v,u\na;b,,"",-,"c,d","\\."\n', res:csv())
    assert.equal('"a;b";-;;"-";c,d;"\\."\n', res:csv { header = false, delimiter = ";", null = "-" })
    local dashes = conn:query "select '-' as a, null as b, '--' as c, 'xy' as d"
    assert.equal('-,--,"--",xy\n', dashes:csv { header = false, null = "--" })
    assert.equal("", conn:query "set search_path to default":csv())
    for _, delimiter in ipairs { "", ",,", '"', "\n", "\r", 1, false } do
      assert.error_matches(function() res:csv { delimiter = delimiter } end, "option delimiter")
    end
    assert.error_matches(function() res:csv { "," } end, "unknown option '%?'")
    assert.error_matches(function() res:csv { quote = "'" } end, "unknown option 'quote'")
    assert.error_matches(function() res:csv { null = 1 } end, "option null")
  end)

  it("in binary says which column cannot be written", function()
    local res = conn:query { "select 1 as a, point(1, 2) as p", binary = true }
    for _, verb in ipairs { "json", "csv" } do
      local ok, err = pcall(res[verb], res)
      assert.is_false(ok)
      assert.equal("unsupported", err.kind)
      assert.matches('column "p"', err.message)
    end
  end)

  it("may be large, and arrays of types that the user told us of", function()
    assert.equal(1e6 + 10, #conn:json "select repeat('x', 1000000) as a")
    assert(conn:query "drop type if exists rendered; create type rendered as enum ('a', 'b')")
    assert(conn:codec("rendered", {}))
    assert.equal('[{"r":["a",null,"b"]}]', conn:json "select '{a,null,b}'::rendered[] as r")
    assert(conn:query "drop type rendered")
  end)

  it("takes no notice of codecs and null", function()
    local c = server.connect("", { null = dblink.null, codecs = { int4 = { decode = function() return "no" end } } })
    assert.equal('[{"a":1,"b":null,"c":[1,null]}]', c:json "select 1 as a, null as b, array[1, null] as c")
    c:close()
  end)
end)
