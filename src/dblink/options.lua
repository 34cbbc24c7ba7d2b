-- Tables of options: what a verb does not know is misuse.
local core = require "dblink.core"

local options = {}

-- What was given, {} for nil. names: the options that there are, as keys.
function options.check(given, names)
  if given == nil then return {} end
  if type(given) ~= "table" then core.misuse "options must be a table" end
  for name in pairs(given) do
    if not names[name] then core.misuse("unknown option '" .. tostring(name) .. "'") end
  end
  return given
end

return options
