local core = require "dblink.core"
local dblink = require "dblink"
local host = require "support.host"
local server = require "support.server"

describe("an error object", function()
  local conn
  before_each(function() conn = server.connect() end)
  after_each(function() conn:close() end)

  it("has a text whatever is taken out of it", function()
    local _, err = conn:query "select 1 / 0"
    err.message, err.sqlstate = nil, nil
    assert.equal("unknown error", tostring(err))
    _, err = conn:query "select 1 / 0"
    err.severity = nil
    assert.equal("division by zero", tostring(err))
  end)

  it("knows names that several SQLSTATEs have", function()
    for name, states in pairs {
      string_data_right_truncation = { "01004", "22001" }, null_value_not_allowed = { "22004", "39004" },
      modifying_sql_data_not_permitted = { "2F002", "38002" }, reading_sql_data_not_permitted = { "2F004", "38004" },
      prohibited_sql_statement_attempted = { "2F003", "38003" },
    } do
      for _, state in ipairs(states) do
        local _, err = conn:query(("do $$ begin raise exception using errcode = '%s'; end $$"):format(state))
        assert.is_true(err:is(name), name)
        assert.is_false(err:is "unique_violation")
      end
    end
  end)

  it("has all that the server said", function()
    local res, err = conn:query [[do $$ begin
      raise exception 'boom' using errcode = 'P0099', detail = 'the detail', hint = 'the hint',
        schema = 's', table = 't', column = 'c', datatype = 'd', constraint = 'k';
    end $$]]
    assert.is_nil(res)
    assert.equal("server", err.kind)
    assert.equal("boom", err.message)
    assert.equal("P0099", err.sqlstate)
    assert.equal("ERROR", err.severity)
    assert.equal("the detail", err.detail)
    assert.equal("the hint", err.hint)
    assert.same({ "s", "t", "c", "d", "k" }, { err.schema, err.table, err.column, err.datatype, err.constraint })
    assert.matches("PL/pgSQL function", err.context)
    assert.equal("string", type(err.file))
    assert.equal("number", type(err.line))
    assert.equal("string", type(err.routine))
    assert.is_false(err.connection_lost)
  end)

  it("has the position as a number", function()
    local _, err = conn:query "select * from nowhere"
    assert.equal(15, err.position)
    _, err = conn:query "do $$ begin execute 'select 1 +'; end $$"
    assert.equal("select 1 +", err.internal_query)
    assert.equal("number", type(err.internal_position))
  end)

  it("reads well in print, in a concatenation, in assert", function()
    local _, err = conn:query "select * from nowhere"
    assert.equal('ERROR 42P01: relation "nowhere" does not exist', tostring(err))
    assert.equal('failed: ERROR 42P01: relation "nowhere" does not exist', "failed: " .. err)
    assert.equal('ERROR 42P01: relation "nowhere" does not exist!', err .. "!")
    assert.equal(tostring(err) .. tostring(err), err .. err)
    for _, other in ipairs { 1, true, false, {}, function() end } do
      assert.equal(tostring(err) .. tostring(other), err .. other)
      assert.equal(tostring(other) .. tostring(err), other .. err)
    end
    assert.equal(tostring(err) .. "nil", err .. nil)
    local odd = setmetatable({}, { __tostring = function() return {} end })
    local why = _VERSION == "Lua 5.2" and "concatenate a table" or "must return a string"
    assert.error_matches(function() return err .. odd end, why)
    local ok, raised = pcall(dblink.assert, nil, err)
    assert.is_false(ok)
    assert.equal(err, raised)
    assert.equal(1, (dblink.assert(1)))
    _, err = conn:query "do $$ begin raise 'boom' using detail = 'd', hint = 'h'; end $$"
    assert.equal("ERROR P0001: boom\nDETAIL: d\nHINT: h", tostring(err))
  end)

  it("knows PostgreSQL's names of conditions", function()
    assert(conn:query "create temp table only_one (id int primary key); insert into only_one values (1)")
    local _, err = conn:query "insert into only_one values (1)"
    assert.is_true(err:is "unique_violation")
    assert.is_true(err:is "integrity_constraint_violation")
    assert.is_true(err:is "23505")
    assert.is_false(err:is "23506")
    assert.is_false(err:is "division_by_zero")
    assert.is_false(err:is "active_sql_transaction") -- the first of the list
    assert.is_false(err:is "zero_length_character_string") -- and the last
    assert.error_matches(function() err:is "no_such_condition" end, "no condition is named 'no_such_condition'")
    _, err = dblink.connect "nonsense"
    assert.is_false(err:is "unique_violation")
    assert.is_false(err:is "23505")
    assert.error_matches(function() err:is "abcde" end, "no condition is named 'abcde'")
  end)

  it("of a wrong argument names the caller's line, whoever the caller is", function()
    local function told(f)
      local _, err = pcall(function() f "a\0b" end)
      assert.matches("^spec/fail_spec.lua:%d+: bad argument 'conninfo' %(a NUL byte", err)
    end
    told(dblink.ping)
    told(dblink.connect)
    local beside = debug.getinfo(dblink.ping, "S").source:gsub("%.lua$", "s.lua") -- the caller's, though of our name
    local _, err = pcall(assert((loadstring or load)("local ping = ... ping 'a\\0b'", beside)), dblink.ping)
    assert.matches("dblinks%.lua:1: bad argument 'conninfo'", err)
    if pcall(coroutine.create, core.home) then -- a coroutine of C alone, which is nobody's home
      coroutine.wrap(core.home)()
      told(dblink.ping)
    end
    if host.sanitized then return end -- what is started does not have the sanitizer's runtime
    for _, home in ipairs { "", "core.home()" } do -- without our Lua rooms
      local code = ("local core = require 'dblink.core' %s print(pcall(core.json_text, print))"):format(home)
      local output = host.sh(("%s -e %q"):format(host.lua, code))
      assert.matches("^false\t%(command line%):1: JSON at depth 0: a function", output)
    end
  end)

  it("tells a loss from an error", function()
    local admin = server.connect()
    conn:send_query "select pg_sleep(60)"
    server.wait_active(admin, conn:backend_pid())
    admin:query("select pg_terminate_backend($1)", conn:backend_pid())
    local _, first = conn:get_result()
    assert.equal("57P01", first.sqlstate)
    assert.is_true(first.connection_lost)
    local _, second = conn:get_result()
    assert.equal("connection", second.kind)
    assert.is_true(second.connection_lost)
    assert.is_nil(second.sqlstate)
    assert.is_nil(conn:get_result())
    admin:close()
  end)
end)
