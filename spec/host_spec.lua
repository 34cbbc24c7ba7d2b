local server = require "support.server"
local host = require "support.host"

describe("a C program", function()
  local function conninfo() return " " .. host.quote(server.conninfo) end

  it("has its hooks, its PGconn, its allocator and its globals to itself", function()
    assert.equal("all is well\n", host.sh(host.compile "spec/support/host.c" .. conninfo()))
  end)

  it("of its own event loop runs a hundred scripts over ten connections in the time that they take", function()
    local program = host.compile "examples/host/host.c"
    local best, output = math.huge, nil
    for _ = 1, 5 do -- others use this machine too
      output = host.sh(program .. conninfo())
      assert.matches("failed 0, greedy stopped 1", output)
      assert.matches("left: 0 bytes, 0 descriptors", output)
      best = math.min(best, tonumber((output:match "ratio ([%d.]+)")))
      if best <= 1.1 then break end
    end
    assert.is_true(best <= 1.1, output)
  end)

  it("gives the Lua rooms all the globals that they read", function()
    local file, given = assert(io.open "src/host.c"), { require = true, package = true }
    for list in file:read "*a":gmatch "static const char %*const %l+%[%] = (%b{})" do
      for name in list:gmatch '"([%w_]+)"' do given[name] = true end
    end
    file:close()
    local command = "find src -name '*.lua' ! -path '*/wait/*' | xargs -n 1 luac5.4 -l -l -p | grep TABUP"
    for name in host.sh(command):gmatch '_ENV "([%w_]+)"' do
      assert.is_true(given[name], name .. " is not in src/host.c")
    end
  end)

  it("shares between its Lua states only facts of the process", function()
    if host.flags ~= "" then return end
    local known = {
      ngx = "nginx's names", program = "likewise", ssl_pending = "a function of OpenSSL's", places = "types by OID",
      forks = "which process this is", once = "whether that was asked", running = "threads under way",
      born = "in which process",
    }
    local list = host.sh("objdump -t " .. host.folder .. "/libdblink.a")
    for section, name in list:gmatch " O (%.[%w.]+)%s+%x+ ([%w_]+)" do
      if section == ".bss" or section == ".data" then assert.is_string(known[name], name .. " is shared") end
    end
  end)

  it("finds header and archive by pkg-config", function()
    local root = host.sh "mktemp -d":gsub("\n", "")
    host.sh(("make -s install-static LUA=%s BUILD=%s PREFIX=%s"):format(
      host.lua, host.folder:match "^(.*)/", root))
    local flags = host.sh(("PKG_CONFIG_PATH=%s/lib/pkgconfig pkg-config --cflags --libs dblink"):format(root))
    assert.matches("-I" .. root .. "/include", flags, 1, true)
    host.sh(("cc -Werror -xc - -o %s/program %s $(pkg-config --cflags --libs %s) %s <<'E'\n%s\nE"):format(
      root, flags:gsub("\n", ""), host.lua, host.flags, [[
#include <dblink.h>
#include <lauxlib.h>
#include <lualib.h>
int main(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaopen_dblink(L);
    lua_close(L);
    return 0;
}]]))
    host.sh(root .. "/program; rm -r " .. root)
  end)
end)
