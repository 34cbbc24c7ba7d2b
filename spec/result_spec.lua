local host = require "support.host"
local memory = require "support.memory"
local server = require "support.server"

describe("a result", function()
  local conn
  setup(function() conn = server.connect() end)
  teardown(function() conn:close() end)

  it("tells its status, its command and how many rows that touched", function()
    local function facts(sql)
      local res = assert(conn:query(sql))
      return { res.status, res.command, res.affected, #res }
    end
    assert.same({ "tuples_ok", "SELECT 2", 2, 2 }, facts "values (1), (2)")
    assert.same({ "command_ok", "CREATE TABLE", nil, 0 }, facts "create temp table facts (a int)")
    assert.same({ "command_ok", "INSERT 0 3", 3, 0 }, facts "insert into facts values (1), (2), (3)")
    assert.same({ "tuples_ok", "UPDATE 3", 3, 3 }, facts "update facts set a = a + 1 returning a")
    assert.same({ "command_ok", "DELETE 0", 0, 0 }, facts "delete from facts where a = 99")
    assert.same({ "empty_query", "", nil, 0 }, facts "")
    local res = conn:query "select 1"
    assert.is_nil(res.no_such_field)
    assert.is_nil(res[true])
    for _, at in ipairs { { 0, 1 }, { 2, 1 }, { 1, 2 }, { 1, 0 }, { 1, "x" } } do assert.is_nil(res(at[1], at[2])) end
    assert.is_nil(conn:query "select"(1))
  end)

  it("is freed when nobody has it any more, though the collector does not see its memory", function()
    if host.sanitized then return end -- what is freed stays for a while
    local before = memory.peak()
    for _ = 1, 300 do assert(conn:query "select repeat('x', 1000000)") end
    assert.is_true(memory.peak() < before + 100)
  end)

  it("describes its columns", function()
    assert(conn:query "create temp table described (id int8, name varchar(10))")
    local columns = conn:query "select name, id, 1.5 as x from described":columns()
    assert.equal(3, #columns)
    local oid = conn:query "select 'described'::regclass::oid"(1, 1)
    assert.same({ name = "name", oid = 1043, modifier = 14, size = -1, table = oid, column = 2, format = "text" },
      columns[1])
    assert.equal(8, columns[2].size)
    assert.is_nil(columns[3].table)
  end)

  it("can be freed at once, and says so afterwards", function()
    for _, rows in ipairs { 1, 5000 } do -- a small one and one that libpq holds
      local res = conn:query("select generate_series(1, $1::int) as n", rows)
      res:clear()
      res:clear()
      assert.equal("dblink.result (cleared)", tostring(res))
      assert.error_matches(function() return #res end, "result was cleared")
      assert.error_matches(function() return res[1] end, "result was cleared")
      assert.error_matches(function() return res.status end, "result was cleared")
    end
  end)

  it("says what it is", function()
    assert.equal("dblink.result (1 rows, 1 columns)", tostring(conn:query "select 1"))
    assert.equal("dblink.result (SET)", tostring(conn:query "set application_name = 'x'"))
    assert.equal("dblink.result (empty_query)", tostring(conn:query ""))
  end)

  it("is not the connection's: it stays when that is closed", function()
    local other = server.connect()
    local small, big = other:query "select 7", other:query "select generate_series(1, 5000)"
    other:close()
    collectgarbage()
    assert.equal(7, small(1, 1))
    assert.equal(5000, big(5000, 1))
  end)
end)
