-- The examples of docs/reference.md and README.md are run as they stand there, one page one program, in a world that
-- has what they speak of. Only servers' names, and what would take long, are others.
local server = require "support.server"

local loadstring = loadstring or load -- luacheck: ignore

local WORLD = [[
create type mood as enum ('sad', 'happy'); create table diary(mood mood, past mood[]);
create table t(a int); insert into t values (5); create table big(a int, b text); insert into big values (6, 'x');
create table product(id int, name text, price numeric, shop int);
insert into product values (1, 'pen', 1.50, 7), (2, 'ink', 2.25, 7);
create table account(id int, balance int); insert into account values (1, 30), (2, 0);
create table point(x float8, y float8); create table orders(id int)]]

local OTHERWISE = {
  { "/var/run/postgresql dbname=postgres", "a" }, { '{ host = "a,b"[^}]*}', '"host=a"' },
  { "1e6", "2" }, { "timeout = 60", "timeout = 0" }, { "pg_sleep%(1%)", "pg_sleep(0)" },
  { 'io.write "." io.flush%(%)', "" },
  { "do %.%.%. end", "do busy = {} end" }, -- what a reader puts there
}
-- Run by another spec, in a loop or a server of its own; or no code.
local ELSEWHERE = { "my_loop", "ngx%.var", "^wait%(fd" }

describe("an example of", function()
  if not server.own then return pending "needs a server of our own: a database" end
  local database, drop

  setup(function() database, drop = server.new_database("examples", WORLD) end)
  teardown(function() drop() end)

  -- What a page's examples print.
  local function run(path, env)
    local file = assert(io.open(path))
    local page = file:read "*a"
    file:close()
    local source, printed = {}, {}
    for block in page:gmatch "```lua\n(.-)```" do
      for _, pattern in ipairs(ELSEWHERE) do block = not block:find(pattern) and block or "" end
      source[#source + 1] = block
    end
    local text = table.concat(source)
    for _, pair in ipairs(OTHERWISE) do text = text:gsub(pair[1], (pair[2]:gsub("%%", "%%%%"))) end
    local conninfo = server.conninfo .. " dbname=" .. database
    text = text:gsub('"host=[ab]"', function() return ("%q"):format(conninfo) end)
    env.print = function(...)
      local words = { ... }
      for i = 1, select("#", ...) do words[i] = tostring(words[i]) end
      printed[#printed + 1] = table.concat(words, " ")
    end
    local names = {}
    for name in pairs(env) do names[#names + 1] = name end
    assert(loadstring(("local env = ... local %s = env.%s\n"):format(table.concat(names, ", "),
      table.concat(names, ", env.")) .. text, "=" .. path))(env)
    return printed
  end

  it("the reference does what is said there", function()
    local dblink = require "dblink"
    local busy = server.connect()
    busy:send_query "select 1"
    local function same(text) return text end
    local world = {
      dblink = dblink, codecs = require "dblink.codecs", names = { "pen", "ink" }, shop = 7, f = same, g = same,
      today = "happy", week = { "sad", "happy" }, busy = { busy }, ngx = {},
    }
    function world.ngx.print(...) world.print(...) end
    assert.same({ "6", "6 x", "3 3", "pen 1", "ink 2", "pen 1 1.50", "ink 2 2.25",
      '[{"id":1,"name":"pen"},{"id":2,"name":"ink"}]', "2", "1,1", "2,4" },
      run("docs/reference.md", world))
    busy:close()
    local conn = server.connect("dbname=" .. database)
    assert.same({ { balance = 20 }, { balance = 10 } }, conn:query "select balance from account order by id":all())
    assert.equal("happy|{sad,happy}", conn:query "select concat_ws('|', mood, past) from diary" (1, 1))
    conn:close()
  end)

  it("the first page prints what is said there", function()
    local printed = run("README.md", {})
    printed[#printed] = nil -- the time
    assert.same({ "done", "42" }, printed)
  end)
end)
