local dblink = require "dblink"
local server = require "support.server"

describe("escaping", function()
  local conn
  setup(function() conn = server.connect() end)
  teardown(function() conn:close() end)

  it("makes literals and identifiers that mean the text itself", function()
    for _, text in ipairs { "", "plain", "o'brien", 'say "so"', "back\\slash", "ä€", "; drop table x" } do
      assert.equal(text, conn:query("select " .. conn:escape_literal(text))(1, 1))
      if text ~= "" then
        assert.equal(text, conn:query("select 1 as " .. conn:escape_identifier(text)):columns()[1].name)
      end
    end
  end)

  it("carries bytes to a bytea and back", function()
    local bytes = "\0\1\254\255'\\x"
    assert.equal(bytes, conn:query("select '" .. conn:escape_bytea(bytes) .. "'::bytea")(1, 1))
    assert.equal(bytes, dblink.unescape_bytea "\\x0001feff275c78")
  end)

  it("refuses what no text can hold", function()
    assert.error_matches(function() conn:escape_literal "a\0b" end, "NUL byte")
    local _, misuse = pcall(function() conn:listen "a\0b" end)
    assert.matches("escape_spec.lua:%d+: bad argument 'channel' %(.*no NUL", misuse)
    assert.error_matches(function() conn:escape_identifier(nil) end, "string expected")
    local literal, err = conn:escape_literal "\255"
    assert.is_nil(literal)
    assert.matches("invalid multibyte character", err.message)
    assert.equal(1, conn:query "select 1"(1, 1))
  end)
end)
