-- Many servers at once: some well, one frozen, one restarting.
local dblink = require "dblink"
local crew = require "dblink.crew"
local poll = require "dblink.wait.poll"
local server = require "support.server"

if not server.own then return end

describe("with four clusters #heavy", function()
  local names, infos = { "many1", "many2", "many3", "many4" }, {}
  setup(function()
    for i, name in ipairs(names) do
      server.sh("new", name)
      infos[i] = server.conninfo_of(name)
    end
  end)
  teardown(function()
    for _, name in ipairs(names) do server.sh("drop", name) end
  end)

  local function two_hundred()
    local list = {}
    for i = 1, 200 do list[i] = { infos[(i - 1) % 4 + 1], "select $1::int", i } end
    return list
  end

  it("gather opens 200 connections at once, and closes them", function()
    local results, errors = dblink.gather(two_hundred(), { timeout = 60 })
    assert.same({}, errors)
    for i = 1, 200 do assert.equal(i, results[i](1, 1)) end
    local admin = assert(dblink.connect(infos[1], { timeout = 10 }))
    server.until_true(function() return server.backends(admin, "dblink") <= 1 end)
    admin:close()
  end)

  it("gather gives the answers of the others when one is frozen", function()
    local given = assert(dblink.connect(infos[3]))
    local list = two_hundred()
    list[201] = { given, "select 1" }
    server.sh("freeze", names[3])
    local results, errors = dblink.gather(list, { timeout = 2, grace = 0.1 })
    server.sh("thaw", names[3])
    for i = 1, 200 do
      if i % 4 == 3 then
        assert.equal("timeout", errors[i].kind)
      else
        assert.equal(i, results[i](1, 1))
      end
    end
    assert.equal("timeout", errors[201].kind)
    assert.is_true(errors[201].connection_lost)
    assert.equal("bad", given:status())
    given:close()
  end)

  it("hedge answers from another when the first is frozen", function()
    local first, second = assert(dblink.connect(infos[3])), assert(dblink.connect(infos[1]))
    server.sh("freeze", names[3])
    local res, which = dblink.hedge({ { first, "select 1" }, { second, "select 2" } }, { after = 0.02, grace = 0.1 })
    server.sh("thaw", names[3])
    assert.equal(2, which)
    assert.equal(2, res(1, 1))
    first:close()
    second:close()
  end)

  it("a pool gets over a restart under load: each caller has an answer or a clear error", function()
    local pool = dblink.pool { infos[4], max = 10, acquire_timeout = 30 }
    local hands, stop = crew.new(poll), false
    local good, bad = 0, {}
    for _ = 1, 50 do
      hands:spawn(function()
        while not stop do
          local res, err = pool:query "select 1 from pg_sleep(0.002)"
          if res then good = good + 1 else bad[#bad + 1] = err end
        end
      end)
    end
    hands:run(nil, function() return good > 200 end)
    -- beside us: a server waits for clients that have begun to connect and then say nothing
    os.execute("'" .. os.getenv "DBLINK_PG" .. "' restart " .. names[4] .. " >/dev/null 2>&1 &")
    hands:run(nil, function() return pool:stats().failed > 0 end)
    local before = good
    hands:run(nil, function() return good > before + 500 and pool:stats().idle + pool:stats().lent == 10 end)
    stop = true
    hands:run()
    hands:close()
    for _, err in ipairs(bad) do assert.is_true(err.connection_lost, tostring(err)) end
    assert.is_true(#bad <= 20) -- only those that were under way, not all who waited
    local stats = pool:stats()
    assert.equal(10, stats.size)
    assert.equal(0, stats.waiting)
    pool:close()
  end)
end)
