local server = require "support.server"

describe("a number as text", function()
  local conn
  before_each(function() conn = server.connect() end)
  after_each(function() conn:close() end)

  local function text(n) return assert(conn:query("select $1::text", n))(1, 1) end

  it("has no point when it is whole, since it may be meant for an int", function()
    assert.equal("0", text(0))
    assert.equal("-0", text(-1 / math.huge))
    assert.equal("42", text(42))
    assert.equal("-123456789012345", text(-123456789012345))
    assert.equal("3", text(6 / 2))
    assert.equal("9007199254740992", text(2 ^ 53))
    assert.equal("-9223372036854775808", text(-2 ^ 63))
    assert.equal(-2 ^ 62, tonumber((conn:query("select $1::int8", -2 ^ 62)(1, 1))))
  end)

  it("has the shortest digits that give it back", function()
    for _, digits in ipairs { "0.5", "0.1", "-0.1", "1234567.891", "99999999.25", "0.000001", "0.0000001", "1e-20",
                              "1e+22", "1.7976931348623157e+308", "0.30000000000000004", "123456.78901234567",
                              "7.58018860804238", "7.580188608042381", "1.2345678901234567e-20" } do
      local n = assert(tonumber(digits))
      assert.equal(n, tonumber(text(n)))
      assert.equal(digits, text(n))
    end
  end)

  it("can be any double", function()
    assert.equal("NaN", text(0 / 0))
    assert.equal("Infinity", text(math.huge))
    assert.equal("-Infinity", text(-math.huge))
    assert.equal(5e-324, tonumber(text(5e-324)))
    for _ = 1, 300 do
      local n = (math.random() - 0.5) * 10 ^ math.random(-300, 300)
      assert.equal(n, tonumber(text(n)))
    end
  end)

  it("can be any integer", function()
    if not math.type then return pending "integers came with Lua 5.3" end
    assert.equal("9223372036854775807", text(math.maxinteger))
    assert.equal("-9223372036854775808", text(math.mininteger))
  end)
end)
