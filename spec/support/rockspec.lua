-- The list of modules in the rockspec, made from src/: rockspecs cannot look into folders.
--   lua spec/support/rockspec.lua      writes it (make rockspec); house_spec compares

local floors = require "support.floors"

local rockspec = { path = "dblink-scm-1.rockspec" }

-- The lines between "-- modules" and "-- end of modules".
function rockspec.modules(files)
  local sources, lines = {}, {}
  for path in pairs(files) do
    if path:match "%.c$" and path ~= "src/host.c" then -- that is libdblink.a's alone, see `make static`
      sources[#sources + 1] = path
    elseif path:match "%.lua$" then
      local name = path:match "^src/(.+)%.lua$":gsub("/init$", ""):gsub("/", ".")
      lines[#lines + 1] = ('    ["%s"] = "%s",\n'):format(name, path)
    end
  end
  table.sort(sources)
  table.sort(lines)
  local list = {}
  for _, path in ipairs(sources) do list[#list + 1] = ('        "%s",\n'):format(path) end
  return ([[
    ["dblink.core"] = {
      sources = {
%s      },
      libraries = { "pq", "pthread" },
      libdirs = { "$(PQ_LIBDIR)" },
      -- Debian, Fedora and a plain installation put libpq-fe.h in different folders
      incdirs = { "$(PQ_INCDIR)", "$(PQ_INCDIR)/postgresql", "$(PQ_INCDIR)/pgsql" },
    },
%s]]):format(table.concat(list), table.concat(lines))
end

-- The text of the rockspec as it should be, and as it is.
function rockspec.both()
  local file = assert(io.open(rockspec.path))
  local is = file:read "*a"
  file:close()
  local head, tail = is:match "^(.-%-%- modules[^\n]*\n).-(    %-%- end of modules.*)$"
  assert(head, rockspec.path .. ' has no lines "-- modules" and "-- end of modules"')
  return head .. rockspec.modules(floors.files("src", ".c", ".lua")) .. tail, is
end

if arg and arg[0] and arg[0]:match "rockspec%.lua$" then
  local should = rockspec.both()
  local file = assert(io.open(rockspec.path, "w"))
  file:write(should)
  file:close()
end

return rockspec
