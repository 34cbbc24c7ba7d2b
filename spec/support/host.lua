-- C programs around libdblink.a, for specs.

local host = {}

-- Where the module of this run lies, and libdblink.a beside it: build/lua5.4; and which Lua it is.
host.folder = (os.getenv "LUA_CPATH" or ""):match "^(.-)/%?%.so"
host.lua = host.folder and host.folder:match "[^/]+$"
host.sanitized = host.folder and host.folder:find "asan" ~= nil

-- What a program needs that links the archive.
host.flags = host.sanitized and "-fsanitize=address,undefined"
  or host.folder and host.folder:find "coverage" and "--coverage" or ""

function host.quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- Runs a command: what it printed, and its status.
function host.run(command)
  local pipe = assert(io.popen("exec 2>&1; " .. command .. "\necho status $?"))
  local output, status = pipe:read "*a":match "^(.-)status (%d+)\n$"
  pipe:close()
  return output, tonumber(status)
end

-- The same for one that must succeed.
function host.sh(command)
  local output, status = host.run(command)
  if status ~= 0 then error(command .. ":\n" .. output, 2) end
  return output
end

local function compile(program, source, flags, libraries)
  program = host.folder .. "/" .. program
  host.sh(table.concat({
    "cc -g -Wall -Wextra -Werror -std=gnu99", host.flags, source, flags,
    "-Isrc $(pkg-config --cflags", host.lua, "libpq | sed 's/-I */-isystem /g')",
    libraries, "$(pkg-config --libs", host.lua, "libpq) -lpthread -lm -o", program,
  }, " "))
  return program
end

-- Compiles a C program against the archive; gives its path.
function host.compile(source)
  return compile(source:match "([^/]+)/[^/]+%.c$" .. "-host", source, "", host.folder .. "/libdblink.a")
end

-- The interpreter whose memory ends when it is told to. Its malloc is called before a sanitizer is ready: only what is
-- around it is watched.
function host.faults()
  local object = host.folder .. "/faults.o"
  host.sh(("cc -g -O1 -Wall -Wextra -Werror -std=gnu99 -c -o %s spec/support/faults.c $(pkg-config --cflags %s)")
    :format(object, host.lua))
  return compile("faults", object, "-rdynamic", "-ldl")
end

return host
