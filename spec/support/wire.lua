-- A relay before our server that does harm on demand: wire.c, made where it is first needed.
--   local wire = require "support.wire".open()       wire.conninfo leads through it
--   wire "cut 100"                                    one of its orders (see wire.c), for the connections to come
--   wire:close()
local server = require "support.server"

local wire = {}
local Wire = {}
Wire.__index = Wire

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- A C program of spec/support, made of its one file.
function wire.make(name, flags)
  local path = server.root .. "/" .. name
  if not exists(path) then
    assert(0 == os.execute(("cc -std=gnu99 -O1 -g -o %s.new spec/support/%s.c %s && mv %s.new %s; exit $?")
      :format(path, name, flags or "", path, path)) or exists(path), "cannot make " .. name)
  end
  return path
end

local opened = 0

-- tls: to the server's TCP port, where TLS can be spoken; else to its Unix socket, where nobody asks for a password.
-- port: of another server than the first.
function wire.open(tls, port)
  opened = opened + 1
  port = port or os.getenv "PGPORT"
  local self = setmetatable({ file = server.root .. "/wire.port." .. opened }, Wire)
  local target = tls and port or server.root .. "/s/.s.PGSQL." .. port
  os.remove(self.file)
  self.pipe = assert(io.popen(("exec %s %s %s"):format(wire.make "wire", self.file, target), "w"))
  server.until_true(function() return exists(self.file) end)
  local file = assert(io.open(self.file))
  self.port = file:read "*n"
  file:close()
  self.conninfo = ("host=127.0.0.1 port=%d user=postgres password=secret dbname=postgres sslmode=%s")
    :format(self.port, tls and "require" or "disable")
  return self
end

function Wire:__call(order)
  self.pipe:write(order, "\n")
  self.pipe:flush()
end

function Wire:close()
  self.pipe:close()
  os.remove(self.file)
end

return wire
