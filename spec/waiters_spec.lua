local waiters = require "dblink.waiters"
local poll = require "dblink.wait.poll"

describe("those who wait", function()
  local plain = { wait = poll.wait, forget = poll.forget } -- without hooks, and not known to be a plain script's

  it("stand in the order in which they came, or in front", function()
    local line, names = waiters.line(), {}
    for _, name in ipairs { "a", "b", "c" } do
      local waiter = waiters.new(plain)
      waiter.name = name
      assert.is_true(line:join(waiter, name == "c"))
      names[name] = waiter
    end
    assert.equal(3, line.length)
    local order = {}
    line:quit(names.a)
    line:quit(names.a)
    while line:head() do
      order[#order + 1] = line:head().name
      line:quit(line:head())
    end
    assert.same({ "c", "b" }, order)
    assert.equal(0, line.length)
    for _, waiter in pairs(names) do line:dismiss(waiter) end
  end)

  it("are woken by a bell where their wait has no hooks", function()
    local waiter = waiters.new(plain)
    assert.is_true(waiter:equip())
    local ok, why = waiter:park(0.01)
    assert.is_nil(ok)
    assert.equal("timeout", why)
    waiter:wake()
    assert.is_true(waiter:park(5))
    local line = waiters.line()
    line:dismiss(waiter)
    line:dismiss(waiter)
    waiter:wake() -- too late, and no matter
  end)

  it("are woken by its hooks where it has them", function()
    local woken
    local how = {
      self = function() return "me" end,
      park = function(seconds) return woken, seconds end,
      unpark = function(token) woken = token end,
    }
    local waiter = waiters.new(how)
    assert.is_true(waiter:equip())
    waiter:wake()
    assert.same({ "me", 3 }, { waiter:park(3) })
  end)

  it("are passed over when their coroutine is no more", function()
    local line = waiters.line()
    local function join()
      assert(line:join(waiters.new(plain)))
      coroutine.yield()
    end
    coroutine.wrap(join)()
    local kept = coroutine.wrap(join)
    kept()
    collectgarbage()
    collectgarbage()
    local head = line:head()
    assert.equal(1, line.length)
    line:quit(head)
    assert.is_nil(line:head())
    kept()
  end)
end)
