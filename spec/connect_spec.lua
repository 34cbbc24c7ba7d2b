local core = require "dblink.core"
local dblink = require "dblink"
local server = require "support.server"
local wire = require "support.wire"

-- What a conninfo is refused with.
local function refusal(conninfo, options)
  local conn, err = dblink.connect(conninfo, options)
  assert.is_nil(conn)
  assert.are_not.matches("\n$", err.message)
  return err
end

describe("connecting", function()
  it("takes a string, a URI and a table", function()
    local info = server.connect():info()
    local uri = ("postgresql://%s@/%s?host=%s&port=%s"):format(info.user, info.dbname, info.host, info.port)
    for _, conninfo in ipairs { server.conninfo, uri, info } do
      local conn = assert(dblink.connect(conninfo))
      assert.equal(info.dbname, conn:query "select current_database()"(1, 1))
      conn:close()
    end
  end)

  it("takes booleans in a table, and refuses what no string can hold", function()
    local info = server.connect():info()
    info.keepalives = false
    local conn = assert(dblink.connect(info))
    assert.equal("0", conn:info().keepalives)
    conn:close()
    info.port = tonumber(info.port) + 0.0
    dblink.connect(info):close()
    for key, value in pairs { dbname = "a\0b", user = {}, [1] = "x", host = true } do
      assert.error_matches(function() dblink.connect { [key] = value } end, "conninfo")
    end
    local many = {}
    for i = 1, 200 do many["key" .. i] = "x" end
    assert.has_error(function() dblink.connect(many) end)
  end)

  it("gives nobody a connection that is not open yet", function()
    local conn = dblink.connect_start(server.conninfo, { timeout = 60 })
    assert.is_true(conn:timeout() > 0 and conn:timeout() <= 60)
    for _, verb in ipairs { "escape_literal", "escape_identifier", "escape_bytea", "query", "send_query", "prepare",
      "next_notification", "copy_in", "pipeline", "cancel" } do
      local argument = verb == "copy_in" and "copy t from stdin" or verb == "next_notification" and 1 or "x"
      if verb == "pipeline" or verb == "cancel" then argument = nil end
      local ok, err = conn[verb](conn, argument)
      assert.is_nil(ok)
      assert.matches("not open yet", err.message)
    end
    conn:close()
  end)

  it("speaks UTF8 unless the conninfo names another encoding", function()
    local conn = server.connect()
    assert.equal("UTF8", conn:parameter "client_encoding")
    conn:close()
    conn = server.connect "client_encoding=LATIN1"
    assert.equal("LATIN1", conn:parameter "client_encoding")
    conn:close()
  end)

  it("speaks no encoding in which half a character may be a backslash", function()
    for _, name in ipairs { "SJIS", "sjis", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SHIFT_JIS_2004" } do
      for _, open in ipairs { dblink.connect, dblink.connect_start } do
        local conn, err = open(server.conninfo .. " client_encoding=" .. name)
        assert.is_nil(conn)
        assert.equal("unsupported", err.kind)
        assert.equal("client_encoding " .. name .. " is not supported: use UTF8", err.message)
      end
    end
    server.connect("client_encoding=EUC_JP"):close()
  end)

  it("can be driven by steps", function()
    local conn = dblink.connect_start(server.conninfo)
    assert.equal("connecting", conn:status())
    local res, err = conn:query "select 1"
    assert.is_nil(res)
    assert.matches("not open yet", err.message)
    local wait = require "dblink.wait.poll".wait
    local need = conn:step()
    assert.equal("w", need)
    while need do
      wait(conn:getfd(), need, conn:timeout())
      need = conn:step()
    end
    assert.equal("ok", conn:status())
    assert.equal(1, conn:query "select 1"(1, 1))
    conn:close()
  end)

  it("refuses what is no conninfo, in libpq's words", function()
    local err = refusal "hots=x"
    assert.equal('invalid connection option "hots"', err.message)
    assert.equal("usage", err.kind)
    assert.equal('missing "=" after "nonsense" in connection info string', refusal "nonsense".message)
    err = refusal { hots = "x", host = "y" }
    assert.equal('invalid connection option "hots"', err.message)
    assert.equal("usage", err.kind)
  end)

  it("raises for what is of a wrong type", function()
    assert.error_matches(function() dblink.connect() end, "^bad argument 'conninfo'")
    assert.error_matches(function() dblink.connect { host = {} } end, "conninfo%.host is a table")
    assert.error_matches(function() dblink.connect { "x" } end, "key that is no string")
    assert.error_matches(function() dblink.connect "host=a\0b" end, "NUL")
    assert.error_matches(function() dblink.connect(server.conninfo, { tmeout = 1 }) end, "unknown option 'tmeout'")
    assert.error_matches(function() dblink.connect(server.conninfo, { timeout = "x" }) end, "option timeout")
    assert.error_matches(function() dblink.connect(server.conninfo, { wait = "nonsense" }) end, "option wait")
    assert.error_matches(function() dblink.connect(server.conninfo, { rows = 3 }) end, "option rows")
  end)

  it("never repeats a password", function()
    for _, conninfo in ipairs {
      "password=my hush", "password='hush", "host=x password=a hush=1 b", "postgresql://u:hu sh@[x/db",
      "postgresql://u:hush@host:port:9/db", "hush PASSWORD=x", "postgres://u:p?hush@x", 'password=a"hush"b "hush"',
    } do
      local err = refusal(conninfo)
      if not err.message:find "invalid connection option" then
        assert.are_not.matches("hu ?sh", err.message, conninfo)
      end
    end
  end)

  it("says why a server could not be reached", function()
    local err = refusal "host=/nonexistent"
    assert.equal("connection", err.kind)
    assert.is_true(err.connection_lost)
    assert.matches("No such file or directory", err.message)
    err = refusal "host=127.0.0.1 port=1"
    assert.matches("Connection refused", err.message)
    err = refusal(server.conninfo .. " dbname=no_such_db")
    assert.matches('database "no_such_db" does not exist', err.message)
  end)

  it("stays where it has failed, however often it is driven on", function()
    local conn = assert(dblink.connect_start "host=127.0.0.1 port=1")
    while conn:step() do core.poll(conn:getfd(), conn:events(), 1) end
    for _ = 1, 2 do
      assert.is_nil(conn:step())
      assert.equal("bad", conn:status())
      assert.matches("lost%)$", tostring(conn))
      assert.matches("Connection refused", select(2, conn:query "select 1").message)
    end
    conn:close()
  end)

  it("looks up only names that libpq would look up, by itself", function()
    local function hosts(conninfo) return { core.hosts(conninfo) } end
    assert.same({ "a,b", "1,2" }, hosts "host=a,b port=1,2")
    assert.same({ "a", "5" }, hosts { host = "a", hostaddr = "", port = 5 })
    assert.same({ "a", "5" }, hosts "host=a hostaddr='' port=5")
    assert.same({}, hosts "host='' port=1")
    assert.same({}, hosts "host=a hostaddr=127.0.0.1")
    assert.same({}, hosts "nonsense")
  end)

  it("tries the hosts of a list in turn", function()
    local info = server.connect():info()
    info.host = "/nonexistent," .. info.host
    info.port = nil
    local conn = assert(dblink.connect(setmetatable(info, nil) and {
      host = info.host, port = ("1,%s"):format(server.connect():info().port), user = info.user, dbname = info.dbname,
    }))
    assert.equal(1, conn:query "select 1"(1, 1))
    conn:close()
  end)

  if not server.own then return end

  describe("to a silent host", function()
    local relay, silent -- it takes the connection, and nothing ever answers
    before_each(function()
      relay = wire.open()
      relay "hold"
      silent = relay.port
    end)
    after_each(function() relay:close() end)

    it("keeps connect_timeout, which libpq itself does not here", function()
      local err = refusal(("host=127.0.0.1 port=%d connect_timeout=1 user=x"):format(silent))
      assert.equal("connection", err.kind)
      assert.matches(("port %d failed: timeout expired"):format(silent), err.message)
    end)

    it("goes on to the next host when the time of one is over", function()
      local info = server.connect():info()
      local conn = assert(dblink.connect {
        host = "127.0.0.1," .. info.host, port = silent .. "," .. info.port, connect_timeout = 1,
        user = info.user, dbname = info.dbname,
      })
      assert.equal(info.port, conn:info().port)
      assert.equal(1, conn:query "select 1"(1, 1))
      conn:close()
    end)

    it("tells what every host had to say", function()
      local err = refusal(("host=127.0.0.1,127.0.0.1 port=%d,1 connect_timeout=1 user=x"):format(silent))
      assert.matches("timeout expired", err.message)
      assert.matches("Connection refused", err.message)
    end)

    it("leaves the silent ones out, wherever in the list they are", function()
      local info = server.connect():info()
      local conn = assert(dblink.connect {
        host = "127.0.0.1,127.0.0.1," .. info.host, port = "1," .. silent .. "," .. info.port, connect_timeout = 1,
        hostaddr = info.host:find "^/" and "127.0.0.1,127.0.0.1," or nil, user = info.user, dbname = info.dbname,
      })
      assert.equal(1, conn:query "select 1"(1, 1))
      conn:close()
      local err = refusal(("host=127.0.0.1,127.0.0.1,127.0.0.1 port=1,2,%d connect_timeout=1 user=x"):format(silent))
      for _, port in ipairs { 1, 2, silent } do assert.matches(("port %d failed"):format(port), err.message) end
    end)

    -- Each has a silent one; the others refuse or serve. All at once, since each takes its second.
    it("is left behind, however the list of hosts looks", function()
      local info = server.connect():info()
      local folder, cases, pending = info.host:find "^/" and info.host or nil, {}, {}
      local function try(host, port, address, serves)
        local conn = assert(dblink.connect_start {
          host = host, hostaddr = address, port = port:gsub("S", silent), connect_timeout = 1,
          user = info.user, dbname = info.dbname,
        })
        cases[conn], pending[#pending + 1] = { host = host, list = host:find ",", serves = serves }, conn
      end
      try("localhost,127.0.0.1", "S,1")
      try("127.0.0.1,127.0.0.1", "1,S")
      try("localhost,localhost", "S,1", "127.0.0.1,127.0.0.1")
      try("localhost,other", "S", "127.0.0.1,127.0.0.2")
      try(",localhost", "1,S", "127.0.0.1,127.0.0.1")
      try("same,same", "S", "127.0.0.2,127.0.0.1")
      try("127.0.0.1", "S")
      try("localhost", "S", "127.0.0.1")
      if folder then
        try("127.0.0.1," .. folder, "S," .. info.port, nil, true)
        try(folder .. "/none,127.0.0.1," .. folder, "1,S," .. info.port, nil, true)
      end
      while #pending > 0 do
        assert(dblink.wait_any(pending, 20))
        for i = #pending, 1, -1 do
          local conn = pending[i]
          if conn:status() ~= "connecting" then
            local case, res, err = cases[conn], conn:query "select 1"
            if case.serves then
              assert.equal(1, assert(res, err)(1, 1), case.host)
            else
              assert.is_nil(conn:step()) -- which is over
              assert.matches("timeout expired", err.message, case.host)
              if case.list then assert.matches("refused", err.message, case.host) end
            end
            conn:close()
            table.remove(pending, i)
          end
        end
      end
    end)

    it("keeps its own timeout over all hosts", function()
      local err = refusal(("host=127.0.0.1 port=%d user=x"):format(silent), { timeout = 0.05 })
      assert.equal("timeout", err.kind)
    end)
  end)
end)

if server.own then
  describe("a wrong password #socket", function()
    it("is the server's to refuse, and is not told", function()
      local err = refusal(server.conninfo .. " user=pwuser password=hush")
      assert.matches('password authentication failed for user "pwuser"', err.message)
      assert.are_not.matches("hush", err.message)
      err = refusal(server.conninfo .. " user=pwuser passfile=/nowhere")
      assert.matches("no password supplied", err.message)
    end)
  end)
end

describe("ping", function()
  it("tells whether there is a server, whoever asks", function()
    assert.equal("ok", dblink.ping(server.conninfo))
    assert.equal("ok", dblink.ping(server.conninfo .. " dbname=no_such_db"))
    assert.equal("no response", dblink.ping "host=/nonexistent")
    assert.equal("no attempt", dblink.ping "nonsense")
  end)

  it("keeps what the server has to say before it is ready", function()
    if not server.own then return end
    local admin, name = server.connect(), server.name "old"
    assert(admin:query("create database " .. name))
    assert(admin:query("update pg_database set datcollversion = 'old' where datname = $1", name))
    local conn = server.connect("dbname=" .. name)
    assert.matches("collation version", conn:notices()[1].message)
    conn:close()
    server.until_true(function() return admin:query("drop database " .. name) end)
    admin:close()
  end)
end)
