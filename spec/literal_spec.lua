local core = require "dblink.core"
local dblink = require "dblink"
local server = require "support.server"

local null = dblink.null

describe("dblink.array", function()
  local conn
  setup(function() conn = server.connect() end)
  teardown(function() conn:close() end)

  it("goes to the server and back", function()
    for _, case in ipairs {
      { "int4", { 1, -2, null, n = 3 } },
      { "int8", { 9007199254740991, n = 1 } },
      { "float8", { 0.1, 1e300, math.huge, -math.huge, n = 4 } },
      { "bool", { true, false, null, n = 3 } },
      { "numeric", { "1.50", "-0.001", n = 2 } },
      { "text", { "", "NULL", "null", 'a"b\\c', "{x,y}", " z ", "ü\n", null, n = 8 } },
      { "text", { ("x"):rep(300) .. '"', n = 1 } },
      { "bytea", { "\0\1\255", "", "\\x", n = 3 } },
      { "jsonb", { '{"a": "b"}', "[1, 2]", n = 2 } },
      { "timestamptz", { "2024-01-01 00:00:00+00", n = 1 } },
      { "box", { "(1,1),(0,0)", "(2,2),(0,0)", n = 2 } },
      { "int4", { { 1, 2, n = 2 }, { 3, null, n = 2 }, n = 2 } },
      { "text", { { { "a", n = 1 }, n = 1 }, { { "b", n = 1 }, n = 1 }, n = 2 } },
      { "int4", { n = 0 } },
    } do
      local of, t = case[1], case[2]
      assert.same(t, conn:query("select $1", dblink.array(t, of))(1, 1))
      if of ~= "bytea" and of ~= "box" then
        assert.same(t, conn:query(("select $1::%s[]"):format(of), dblink.array(t))(1, 1))
      end
    end
  end)

  it("counts to n, or to #t, and takes nil for NULL", function()
    assert.same({ null, 2, null, n = 3 }, conn:query("select $1::int[]", dblink.array { nil, 2, nil, n = 3 })(1, 1))
    assert.same({ 1, 2, n = 2 }, conn:query("select $1::int[]", dblink.array { 1, 2 })(1, 1))
    assert.same({ n = 0 }, conn:query("select $1::int[]", dblink.array { {}, {} })(1, 1))
    for _, n in ipairs { 1.5, -1, 2 ^ 31, "1" } do
      assert.equal("{1,2}", core.array_text { 1, 2, n = n })
    end
    assert.equal("{<1>,NULL,NULL,<4>}", (core.array_text({ 1, nil, null, 4, n = 4 }, false,
      function(x) return "<" .. x .. ">" end):gsub('"', "")))
  end)

  it("knows types by name, by alias, by OID", function()
    for _, of in ipairs { "int8", "bigint", 20 } do
      assert.equal("bigint[]", conn:query("select pg_typeof($1)::text", dblink.array({ 1 }, of))(1, 1))
    end
    assert.error_matches(function() dblink.array({}, "mood") end, "%$1::mood%[%]")
    assert.error_matches(function() dblink.array({}, 1007) end, "array of unknown type")
    assert.error_matches(function() dblink.array({}, {}) end, "bad argument 'type' to array")
  end)

  it("holds what parameters can be", function()
    assert.same({ "\0x", n = 1 }, conn:query("select $1::bytea[]", dblink.array { dblink.bytea "\0x" })(1, 1))
    assert.same({ '{"a": [1]}', n = 1 },
      conn:query("select $1::jsonb[]", dblink.array { dblink.json { a = { 1 } } })(1, 1))
    assert.same({ { 1, n = 1 }, n = 1 }, conn:query("select $1::int[]", dblink.array { dblink.array { 1 } })(1, 1))
  end)

  it("says what it cannot hold", function()
    local function refused(pattern, t)
      assert.error_matches(function() conn:query("select $1", dblink.array(t)) end, pattern)
    end
    refused("array element 2: a function cannot be sent", { 1, print })
    refused("NUL byte", { "a\0b" })
    refused("more than 6 dimensions", { { { { { { { 1 } } } } } } })
    local endless = {}
    endless[1] = endless
    refused("more than 6 dimensions", endless)
    assert.error_matches(function() dblink.array "x" end, "table expected, got string")
    assert.equal(1, conn:query "select 1"(1, 1))
  end)

  it("of different lengths is the server's to refuse", function()
    local res, err = conn:query("select $1::int[]", dblink.array { { 1 }, { 1, 2 } })
    assert.is_nil(res)
    assert.equal("22P02", err.sqlstate)
  end)
end)

describe("dblink.json", function()
  local conn
  setup(function() conn = server.connect() end)
  teardown(function() conn:close() end)

  it("goes to the server as json and jsonb", function()
    local value = { a = { 1, 2.5, "x" }, b = { c = true, d = null }, ["e\"\\\n\1ü"] = "\"\\/\n\t\1ü" }
    local res = conn:query("select $1::jsonb = jsonb_build_object("
      .. "'a', array_to_json(array['1', '2.5', '\"x\"']::json[]),"
      .. "'b', '{\"c\": true, \"d\": null}'::json, E'e\"\\\\\\n\\001ü', E'\"\\\\/\\n\\t\\001ü')", dblink.json(value))
    assert.is_true(res(1, 1))
    assert.equal("[1]", conn:query("select $1::json", dblink.json { 1 })(1, 1))
  end)

  it("writes each value as what it is", function()
    for _, case in ipairs {
      { {}, "{}" }, { { n = 0 }, "[]" }, { dblink.array {}, "[]" }, { { {} }, "[{}]" }, { { n = 3 }, '{"n":3}' },
      { { 1, nil, 3, n = 3 }, "[1,null,3]" }, { { 1, null }, "[1,null]" },
      { "x", '"x"' }, { 1.5, "1.5" }, { 10, "10" },
      { true, "true" }, { false, "false" }, { null, "null" }, { 1e100, "1e+100" }, { dblink.json { 1 }, "[1]" },
      { { dblink.json {} }, "[{}]" },
      { { n = 1, a = 2 }, nil },
    } do
      if case[2] then
        assert.equal(case[2], core.json_text(case[1]))
      else
        assert.matches('^{"%l":%d,"%l":%d}$', core.json_text(case[1]))
      end
    end
    assert.equal("null", core.json_text(nil))
    assert.equal('"\\b\\u000b\\f"', core.json_text "\b\v\f")
    local file = io.tmpfile() -- a userdata that says itself what it is
    local metatable = debug.getmetatable(file)
    for _, field in ipairs { "dblink_text", "dblink_bytes" } do
      debug.setmetatable(file, { [field] = function() return "a" end })
      assert.equal('["a"]', core.json_text { file })
    end
    debug.setmetatable(file, metatable)
    file:close()
    if rawget(_G, "jit") then
      local ffi = require "ffi"
      assert.equal("[-9007199254740993]", core.json_text { ffi.new("int64_t", -9007199254740992) - 1 })
    end
  end)

  it("says what is no JSON", function()
    local function refused(pattern, value) assert.error_matches(function() core.json_text(value) end, pattern) end
    refused("neither a list", { 1, a = 2 })
    refused("neither a list", { [10] = 1 })
    refused("neither a list", { [1.5] = 1 })
    refused("neither a list", { [true] = 1 })
    refused("neither a list", { 1, 2, 3, n = 2 })
    refused("neither a list", { 1, 2, n = 1.5 })
    refused("neither a list", { 1, 2, [1.5] = 3 })
    refused("neither a list", { 1, 2, n = "2" })
    if rawget(_G, "jit") then refused("a cdata cannot be sent", { require "ffi".new "int[2]" }) end
    refused("no number for NaN", { 0 / 0 })
    refused("no number for NaN", math.huge)
    refused("a function cannot be sent", { print })
    local endless = {}
    endless.x = endless
    refused("contain itself", endless)
    local mark = dblink.json {}
    mark[1] = mark
    refused("contain itself", mark)
    local array = dblink.array {}
    array[1] = 5
    refused("array of no table", { array })
    refused("JSON has no bytes: a dblink.bytea in it", { a = { dblink.bytea "x" } })
    refused("JSON has no bytes", dblink.bytea "x")
    refused("JSON of a codec's value", { setmetatable({ 1 }, { dblink_text = tostring }) })
  end)
end)
