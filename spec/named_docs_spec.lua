-- The examples of docs/dblink.md, each run: what print() says is what stands behind its "-->".
local server = require "support.server"

local loadstring = loadstring or load -- luacheck: ignore

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

describe("docs/dblink.md", function()
  if not server.own then return pending "needs a server of our own: a database" end
  local page = read "docs/dblink.md"
  local database, drop

  setup(function()
    database, drop = server.new_database("page", [[
      create table foo(f1 int, f2 text, f3 text[], primary key (f1, f2));
      insert into foo select g, chr(97 + g), array['a' || g, 'b' || g, 'c' || g] from generate_series(0, 10) g]])
  end)
  teardown(function() drop() end)

  it("tells what its examples print", function()
    local conninfo = server.conninfo .. " dbname=" .. database
    local printed, source, expected = {}, {}, {}
    for block in page:gmatch "```lua\n(.-)```" do
      source[#source + 1] = block:gsub("dbname=[%w_]+", (conninfo:gsub("%%", "%%%%")))
      for line in block:gmatch "%-%-> ?([^\n]*)" do expected[#expected + 1] = line end
    end
    -- one program: what a block declares is there in the next
    local run = assert(loadstring("local print = ...\n" .. table.concat(source), "=docs/dblink.md"))
    run(function(...)
      local words = { ... }
      for i = 1, select("#", ...) do words[i] = tostring(words[i]) end
      for line in (table.concat(words, " ") .. "\n"):gmatch "([^\n]*)\n" do printed[#printed + 1] = line end
    end)
    assert.same(expected, printed)
  end)

  it("names every function", function()
    for name in pairs(require "dblink.named") do
      if name ~= "new" then
        assert.truthy(page:find("| `named." .. name .. "(", 1, true), name)
      end
    end
  end)
end)
