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

-- Whether it is a number, no less than that, and so no NaN.
function options.is_least(value, least)
  return type(value) == "number" and value >= least
end

-- The option of that name, in seconds, or nil.
function options.check_seconds(seconds, name)
  if seconds ~= nil and not options.is_least(seconds, 0) then
    core.misuse("option " .. name .. " must be a number of seconds")
  end
  return seconds
end

-- The argument `seconds`, or nil.
function options.seconds(seconds)
  if seconds == nil or options.is_least(seconds, 0) then return seconds end
  core.misuse("bad argument 'seconds' (" .. (type(seconds) == "number" and "must not be negative"
    or "number expected, got " .. type(seconds)) .. ")")
end

-- The deadline that it means.
function options.deadline(seconds)
  return options.seconds(seconds) and core.now() + seconds
end

return options
