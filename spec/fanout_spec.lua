-- examples/fanout.lua, as a person would use it.
local server = require "support.server"

local lua = arg and arg[-1] or "lua"
local i = -1
while arg and arg[i - 1] do -- the interpreter itself, behind its options
  i = i - 1
  lua = arg[i]
end

local function run(...)
  local words = { lua, "examples/fanout.lua", ... }
  for k, word in ipairs(words) do words[k] = "'" .. word:gsub("'", "'\\''") .. "'" end
  local pipe = assert(io.popen(table.concat(words, " ") .. " 2>&1; echo $?"))
  local output, status = pipe:read "*a":match "^(.-)(%d+)%s*$"
  pipe:close()
  return output, tonumber(status)
end

-- what is started does not have the sanitizer's runtime
local it = package.cpath:find "asan" and pending or it

describe("examples/fanout.lua", function()
  local one, two = "one: " .. server.conninfo, "two: " .. server.conninfo

  it("shows a table with the server as first column", function()
    local output, status = run("-s", one, "-s", two, "select 1 as a, 'x' as b")
    assert.equal("server  a  b\n------  -  -\none     1  x\ntwo     1  x\n", output)
    assert.equal(0, status)
  end)

  it("writes CSV and JSON", function()
    assert.equal('server,a,b\none,1,"x,""y"""\n', run("-s", one, "-f", "csv", [[select 1 as a, 'x,"y"' as b]]))
    assert.equal('[{"server":"one","a":1,"b":null,"c":true,"d":"\\"\\n"}]\n',
      run("-s", one, "-f", "json", [[select 1 as a, null as b, true as c, E'"\n' as d]]))
  end)

  it("shows what a terminal would obey, and counts the columns that a character takes", function()
    assert.equal("server  a          b\n------  ---------  -\none     x y\\x1B[J  z\none     漢字e\204\129      z\n",
      run("-s", one, [[select E'x\ny\x1b[J' as a, 'z' as b union all select E'漢字e\u0301', 'z']]))
  end)

  it("takes SQL that begins with a comment, and after -- whatever it is", function()
    assert.equal("server  a\n------  -\none     1\n", run("-s", one, "-- one\nselect 1 as a"))
    assert.equal("server  a\n------  -\none     1\n", run("-s", one, "--", "--one\nselect 1 as a"))
  end)

  it("tells by its status who has answered", function()
    assert.equal(1, select(2, run("-s", one, "-s", "host=/nowhere", "select 1")))
    assert.equal(3, select(2, run("-s", "host=/nowhere", "select 1")))
    local output, status = run("-s", one, "-t", "0.1", "select pg_sleep(60)")
    assert.matches("took longer than its timeout", output)
    assert.equal(3, status)
    assert.equal(2, select(2, run "select 1"))
    for wrong, why in pairs {
      ["-x"] = "unknown option -x", ["-t -1"] = "-t wants a number, at least 0", ["-t soon"] = "-t wants a number",
      ["-l 0"] = "-l wants a number, at least 1", ["-c /tmp"] = "/tmp cannot be read", ["-f xml"] = "unknown form xml",
    } do
      output, status = run("-s", one, "select 1", wrong:match "%S+", wrong:match " (.*)")
      assert.matches("fanout: " .. why, output, 1, true)
      assert.equal(2, status)
    end
  end)
end)
