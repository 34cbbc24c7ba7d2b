local floors = require "support.floors"
local rockspec = require "support.rockspec"

describe("the house", function()
  it("has files that only go to floors below their own", function()
    assert.same({}, floors.check(floors.here()))
  end)

  it("has a spec of the same name for each room", function()
    local rooms, files = floors.here()
    assert.same({}, floors.missing_specs(rooms, files, floors.files("spec", "_spec.lua")))
  end)

  it("ships every file: the rockspec lists them (make rockspec)", function()
    local should, is = rockspec.both()
    assert.equal(should, is)
  end)
end)

describe("the reference", function()
  local function text(path)
    local file = assert(io.open(path))
    local all = file:read "*a"
    file:close()
    return all
  end
  local reference, library = text "docs/reference.md", text "docs/library/dblink.lua"

  -- Names that one of the two pages does not have.
  local function missing(prefix, names, annotations)
    local list = {}
    for name, value in pairs(names) do
      local mark = prefix:gsub("%p", "%%%0") .. name .. "%f[^%w_]"
      local annotation = type(value) == "function" and "function " .. mark .. "%(" or "%-%-%-@field " .. name .. " "
      if not reference:find(mark) then list[#list + 1] = prefix .. name .. " (reference)" end
      if not (annotations or library):find(annotation) then list[#list + 1] = prefix .. name .. " (annotations)" end
    end
    table.sort(list)
    return list
  end

  it("and the annotations have every function of the module", function()
    assert.same({}, missing("dblink.", (require "dblink")))
  end)

  it("and the annotations have every function of named links", function()
    assert.same({}, missing("named.", (require "dblink.named"), text "docs/library/dblink/named.lua"))
  end)

  it("and the annotations have every verb of a connection", function()
    require "dblink"
    assert.same({}, missing("conn:", require "dblink.core".methods))
  end)
end)

describe("the floors' guard", function()
  local rooms = floors.picture [[
text
```floors
 Lua  6  dblink            -- the front door
      5  wait/*
 ---------
 C    4  core
      3  (conn) result
      2  type_*
```
]]
  local function wrong(files) return floors.check(rooms, files) end

  it("is content with a house that is in order", function()
    assert.same({}, wrong {
      ["src/core.c"] = '#include <stdio.h>\n#include "conn.h"\n',
      ["src/conn.c"] = '#include "conn.h"\n # include "type_text.h"\n',
      ["src/conn.h"] = "",
      ["src/type_text.h"] = "",
      ["src/dblink.lua"] = 'local w = require("dblink.wait." .. name)\nlocal core = require "dblink.core"',
      ["src/dblink/wait/poll.lua"] = "local core = require('dblink.core')",
    })
  end)

  it("sees a step up, a step aside, and a way from C into nowhere", function()
    assert.same({
      "src/conn.c (floor 3) goes to core (floor 4)",
      "src/dblink/wait/poll.lua (floor 5) goes to dblink (floor 6)",
      "src/result.c (floor 3) goes to conn (floor 3)",
      "src/type_text.c goes to nowhere, which has no floor",
    }, wrong {
      ["src/conn.c"] = '#include "core.h"\n',
      ["src/result.c"] = '#include "conn.h"\n',
      ["src/type_text.c"] = '#include "nowhere.h"\n',
      ["src/dblink/wait/poll.lua"] = 'require "dblink"',
    })
  end)

  it("sees a file without a floor", function()
    assert.same({ "src/shed.c has no floor in docs/house.md" }, wrong { ["src/shed.c"] = "" })
  end)

  it("asks for a spec, but not for a room in parentheses nor for a header alone", function()
    local files = { ["src/conn.c"] = "", ["src/type_a.h"] = "", ["src/core.c"] = "", ["src/result.c"] = "",
      ["src/dblink/wait/poll.lua"] = "" }
    assert.same({ "src/core.c has no spec/core_spec.lua" },
      floors.missing_specs(rooms, files, { ["spec/result_spec.lua"] = "", ["spec/wait_spec.lua"] = "" }))
  end)
end)
