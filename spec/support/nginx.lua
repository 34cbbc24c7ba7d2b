-- nginx with the Lua module, for specs: spec/support/nginx has one, or says why not.

local host = require "support.host"
local server = require "support.server"

local nginx = {}

local build = (host.folder or ""):match "^(.*)/[^/]+$" or "build"
local script = ("BUILD=%s spec/support/nginx "):format(host.quote(build))

-- Why there is none, or nil. Its Lua is a LuaJIT.
function nginx.missing()
  if host.sanitized then return "nginx runs without sanitizers" end
  if not server.own then return "the server is not ours" end
  local output, status = host.run(script .. "get && command -v curl wrk")
  if status ~= 0 then return (output:gsub("%s+$", "")) end
  output, status = host.run(("make -s build LUA=luajit BUILD=%s"):format(host.quote(build)))
  if status ~= 0 then return "no module for LuaJIT: " .. output end
end

-- The tree into which make rock has installed a rock for Lua 5.1, or nil.
function nginx.rock()
  local tree, status = host.run "realpath -e build/rock/5.1/tree"
  return status == 0 and (tree:gsub("%s+$", "")) or nil
end

local TEMPLATE = [[
%(modules)s
%(user)s
daemon on;
worker_processes %(workers)s;
error_log %(root)s/error.log %(level)s;
pid %(root)s.pid; # the reaper of spec/support/pg looks here
env DBLINK_CONNINFO;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path %(root)s/t1;
  proxy_temp_path %(root)s/t2;
  fastcgi_temp_path %(root)s/t3;
  uwsgi_temp_path %(root)s/t4;
  scgi_temp_path %(root)s/t5;
  lua_package_path "%(sources)s/?.lua;%(here)s/examples/openresty/?.lua;%(lua)s/?.lua;;";
  lua_package_cpath "%(objects)s/?.so;;";
  %(http)s
  server {
    listen 127.0.0.1:%(port)s;
    lua_check_client_abort on;
    location /hello { content_by_lua_block { ngx.print "hello" } }
    %(server)s
  }
}
]]

local Nginx = {}
Nginx.__index = Nginx

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

function Nginx:run(arguments)
  return host.run(("DBLINK_CONNINFO=%s %s %s run -p %s -e %s/error.log -c %s/conf %s"):format(
    host.quote(self.conninfo), self.environment, script, self.root, self.root, self.root, arguments or ""))
end

-- The environment in which a library made of spec/support/NAME.c comes before all others.
local function preload(name)
  local library = build .. "/" .. name .. ".so"
  host.sh(("cc -shared -fPIC -o %s spec/support/%s.c -ldl"):format(host.quote(library), name))
  return "LD_PRELOAD=" .. host.quote(host.sh("realpath " .. host.quote(library)):gsub("%s+$", ""))
end

-- Starts one. options: http, server (directives), level (of the log), workers, conninfo; preload: "slow_names" or
-- "delayed_events"; refuse: what is refused to our module, see refuse.c; tree: where a rock was installed, which serves
-- instead of this module.
function nginx.start(options)
  local self = setmetatable({ root = server.root .. "/" .. server.name "nginx" }, Nginx)
  host.sh("mkdir " .. self.root)
  self.conninfo = options.conninfo or server.conninfo
  self.environment = options.preload and preload(options.preload) or ""
  if options.refuse then self.environment = ("DBLINK_REFUSE='%s' %s"):format(options.refuse, preload "refuse") end
  local values = {
    modules = host.sh(script .. "modules"), lua = host.sh(script .. "lua"):gsub("%s", ""),
    user = host.sh "id -u":match "^0%s" and "user root;" or "", workers = options.workers or 1, root = self.root,
    level = options.level or "error", here = host.sh "pwd":gsub("%s", ""),
    http = options.http or "", server = options.server or "",
  }
  values.sources = options.tree and options.tree .. "/share/lua/5.1" or values.here .. "/src"
  values.objects = options.tree and options.tree .. "/lib/lua/5.1" or values.here .. "/" .. build .. "/luajit"
  local output, status
  for _ = 1, 20 do
    self.port = 58000 + math.random(1999)
    values.port = self.port
    os.remove(self.root .. "/error.log") -- that a port was taken is nobody's error
    write(self.root .. "/conf", (TEMPLATE:gsub("%%%((%w+)%)s", values)))
    output, status = self:run()
    if status == 0 then break end
  end
  if status ~= 0 then error(output) end
  self.pid = host.sh("cat " .. self.root .. ".pid"):match "%d+"
  return self
end

-- What a page says; seconds: after which the client goes.
function Nginx:get(path, seconds)
  return (host.run(("curl -s --max-time %g http://127.0.0.1:%d/%s"):format(seconds or 30, self.port, path)))
end

-- The same, many at once, nobody waiting for them.
function Nginx:begin(path, seconds, many)
  return assert(io.popen(("for i in $(seq %d); do curl -s --max-time %g http://127.0.0.1:%d/%s & done; wait"):format(
    many or 1, seconds, self.port, path)))
end

-- The same, and when each of the clients was gone: a list of seconds since 1970.
function Nginx:leave(path, seconds, many)
  local moments = {}
  local client = "curl -s -o /dev/null --max-time %g http://127.0.0.1:%d/%s; date +%%s.%%N"
  local output = host.run(("for i in $(seq %d); do (" .. client .. ") & done; wait"):format(
    many, seconds, self.port, path))
  for moment in output:gmatch "%S+" do moments[#moments + 1] = tonumber(moment) end
  return moments
end

-- wrk: how many requests were answered with 200, and how many otherwise or not at all.
function Nginx:hammer(path, connections, seconds)
  local output = host.sh(("wrk -t1 -c%d -d%gs http://127.0.0.1:%d/%s"):format(connections, seconds, self.port, path))
  local good = tonumber(output:match "(%d+) requests in")
  local bad = tonumber(output:match "Non%-2xx or 3xx responses: (%d+)" or 0)
  for count in (output:match "Socket errors: ([^\n]*)" or ""):gmatch "%d+" do bad = bad + tonumber(count) end
  return good - bad, bad, output
end

function Nginx:reload() return host.sh("kill -HUP " .. self.pid) end

function Nginx:workers()
  local list = {}
  local children = host.run("cat /proc/" .. self.pid .. "/task/*/children 2>/dev/null")
  for pid in children:gmatch "%d+" do list[#list + 1] = tonumber(pid) end
  return list
end

function Nginx:log()
  return (host.run("cat " .. self.root .. "/error.log"))
end

function Nginx:stop()
  host.run("kill -TERM " .. self.pid)
  server.until_true(function() return #self:workers() == 0 end, 10)
end

return nginx
