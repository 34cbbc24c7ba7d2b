-- The Lua rooms as C text, for libdblink.a: dbl_sources of src/host.c.
--   lua spec/support/embed.lua FILE.lua ...      writes it to stdout

local function quote(line)
  return '"' .. line:gsub('[\\"?]', "\\%0"):gsub("[^\32-\126]", function(c)
    return ("\\%03o"):format(c:byte())
  end) .. '\\n"\n'
end

local texts, rows = {}, {}
for i, path in ipairs(arg) do
  local name, lines = path:gsub("^src/", ""), {}
  for line in io.lines(path) do lines[#lines + 1] = quote(line) end
  texts[i] = ("static const char text_%d[] =\n%s;\n"):format(i, table.concat(lines))
  rows[i] = ('{"%s", "=%s", text_%d, sizeof text_%d - 1},\n'):format(
    name:gsub("%.lua$", ""):gsub("/", "."), name, i, i)
end

io.write("/* Made by spec/support/embed.lua. */\n#include <stddef.h>\n\n", table.concat(texts, "\n"), [[

struct Source { const char *module, *chunk, *text; size_t size; };
extern const struct Source dbl_sources[];
const struct Source dbl_sources[] = {
]], table.concat(rows), "{NULL, NULL, NULL, 0},\n};\n")
