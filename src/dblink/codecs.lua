--- Codecs that one can give to conn:codec: local codecs = require "dblink.codecs".
--
--   conn:codec("timestamptz", codecs.epoch)             seconds since 1970
--   conn:codec("date", codecs.date)                     { year =, month =, day = }
--   conn:codec("interval", codecs.interval)             { months =, days =, seconds = }
--   conn:codec("point3", codecs.composite { { "x", "float8" }, { "y", "float8" }, "label" })
--   conn:codec("int4range", codecs.range "int4")        { lower =, upper =, lower_inc =, upper_inc = }
--
-- They read DateStyle ISO and IntervalStyle postgres or iso_8601; others are an error.
-- infinity is math.huge. The year before 1 is 0, which PostgreSQL writes 0001 BC.
local core = require "dblink.core"

local codecs = {}

local function no_value(kind, text)
  error(core.failure("usage", ("codecs.%s cannot read '%s'"):format(kind, text)), 0)
end

local INFINITIES = { infinity = math.huge, ["-infinity"] = -math.huge }

local function infinity(value)
  return value == math.huge and "infinity" or value == -math.huge and "-infinity" or nil
end

-- Integers where Lua has them.
local int = math.tointeger or tonumber

local function number(digits) return digits and int(tonumber(digits)) end

-- "05:30", "-08", "+00:00:30": seconds east of Greenwich.
local function offset_of(text)
  local sign, h, m, s = text:match "^([+-])(%d%d):?(%d?%d?):?(%d?%d?)$"
  if not sign then return nil end
  local seconds = number(h) * 3600 + (number(m) or 0) * 60 + (number(s) or 0)
  return sign == "-" and -seconds or seconds
end

local function offset_text(offset)
  if not offset then return "" end
  local s = math.abs(offset)
  return ("%s%02d:%02d:%02d"):format(offset < 0 and "-" or "+", math.floor(s / 3600), math.floor(s / 60) % 60, s % 60)
end

-- "-1.5": of a point Lua 5.1's tonumber makes what the locale says.
local function seconds_of(text)
  local sign, whole, fraction = text:match "^([+-]?)(%d*)%.?(%d*)$"
  if not whole then return nil end
  local s = number(whole) or 0
  if fraction ~= "" then s = (s * 10 ^ #fraction + number(fraction)) / 10 ^ #fraction end
  return sign == "-" and -s or s
end

-- Any of date, time, timestamp, with or without a zone.
local function read_moment(kind, text)
  if INFINITIES[text] then return INFINITIES[text] end
  local t, rest = {}, text
  local y, m, d, after = rest:match "^(%d%d%d%d+)%-(%d%d)%-(%d%d)(.*)$"
  if y then
    t.year, t.month, t.day, rest = number(y), number(m), number(d), after
    local before_christ = rest:match "^(.*) BC$"
    if before_christ then t.year, rest = 1 - t.year, before_christ end
    rest = rest:gsub("^[ T]", "")
  end
  local h, min, s, zone = rest:match "^(%d%d):(%d%d):([%d.]+)(.*)$"
  if h then
    t.hour, t.min, t.sec, rest = number(h), number(min), seconds_of(s), zone
    t.offset = offset_of(rest)
    if t.offset then rest = "" end
  end
  if rest ~= "" or not (y or h) then no_value(kind, text) end
  return t
end

local function date_text(t)
  local year = t.year > 0 and t.year or 1 - t.year
  return ("%04d-%02d-%02d"):format(year, t.month, t.day), t.year > 0 and "" or " BC"
end

local function time_text(t)
  local sec = t.sec or 0
  local text = sec == math.floor(sec) and ("%02d"):format(sec) or ("%09.6f"):format(sec)
  return ("%02d:%02d:%s"):format(t.hour or 0, t.min or 0, (text:gsub(",", "."))) .. offset_text(t.offset)
end

local function moment(kind, write)
  return {
    decode = function(text) return read_moment(kind, text) end,
    encode = function(t)
      if type(t) == "string" then return t end
      return infinity(t) or write(t)
    end,
  }
end

local function write_date(t)
  local date, era = date_text(t)
  return date .. era
end

local function write_timestamp(t)
  local date, era = date_text(t)
  return date .. " " .. time_text(t) .. era
end

codecs.date = moment("date", write_date)
codecs.time = moment("time", time_text)
codecs.timetz = codecs.time
codecs.timestamp = moment("timestamp", write_timestamp)
codecs.timestamptz = codecs.timestamp

-- The date of a count of days since 1970-01-01, by a calendar that begins in March.
local function date_from(days)
  days = days + 719468
  local era = math.floor(days / 146097)
  local doe = days - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local m = math.floor((5 * doy + 2) / 153)
  local month = m < 10 and m + 3 or m - 9
  return yoe + era * 400 + (month < 3 and 1 or 0), month, doy - math.floor((153 * m + 2) / 5) + 1
end

--- timestamptz (or timestamp, taken as UTC): seconds since 1970-01-01 00:00 UTC.
codecs.epoch = {
  decode = core.epoch, -- C reads columns of theirs without calling it
  encode = function(seconds)
    if type(seconds) == "string" then return seconds end
    if infinity(seconds) then return infinity(seconds) end
    local whole = math.floor(seconds)
    local micro = math.floor((seconds - whole) * 1e6 + 0.5)
    if micro == 1e6 then whole, micro = whole + 1, 0 end
    local year, month, day = date_from(math.floor(whole / 86400))
    local rest = whole % 86400
    local date, era = date_text { year = year, month = month, day = day }
    return ("%s %02d:%02d:%02d.%06d+00%s"):format(date, math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60,
      micro, era)
  end,
}

local UNITS = {
  year = { "months", 12 }, mon = { "months", 1 }, month = { "months", 1 }, week = { "days", 7 }, day = { "days", 1 },
  hour = { "seconds", 3600 }, min = { "seconds", 60 }, sec = { "seconds", 1 },
}
local ISO_DATE = { Y = { "months", 12 }, M = { "months", 1 }, W = { "days", 7 }, D = { "days", 1 } }
local ISO_TIME = { H = { "seconds", 3600 }, M = { "seconds", 60 }, S = { "seconds", 1 } }

local function add_part(t, unit, amount)
  t[unit[1]] = t[unit[1]] + seconds_of(amount) * unit[2]
end

local function read_iso_interval(t, date, time)
  for amount, unit in date:gmatch "([%d.-]+)(%a)" do add_part(t, ISO_DATE[unit], amount) end
  for amount, unit in time:gmatch "([%d.-]+)(%a)" do add_part(t, ISO_TIME[unit], amount) end
  return t
end

local function read_interval(text)
  local t = { months = 0, days = 0, seconds = 0 }
  local date, time = text:match "^P([%d.YMWD-]*)T?([%d.HMS-]*)$"
  if date then return read_iso_interval(t, date, time) end
  local rest = text:gsub("([+-]?%d+) (%a-)s?%f[%A]", function(amount, unit)
    if not UNITS[unit] then no_value("interval", text) end
    add_part(t, UNITS[unit], amount)
    return ""
  end)
  local sign, h, m, s = rest:match "^%s*([+-]?)(%d+):(%d%d):([%d.]+)$"
  if h then
    local seconds = number(h) * 3600 + number(m) * 60 + seconds_of(s)
    t.seconds = sign == "-" and -seconds or seconds
  elseif rest:find "%S" then
    no_value("interval", text)
  end
  return t
end

codecs.interval = {
  decode = function(text) return INFINITIES[text] or read_interval(text) end,
  encode = function(t)
    if type(t) == "string" then return t end
    if infinity(t) then return infinity(t) end
    local seconds = t.seconds or 0
    local text = seconds == math.floor(seconds) and ("%d"):format(seconds) or ("%.6f"):format(seconds):gsub(",", ".")
    return ("%d mons %d days %s secs"):format(t.months or 0, t.days or 0, text)
  end,
}

-- How a part of another type is read and written: a codec, a decoder, or the name of
-- a type that C knows; nothing: as text.
local function part_of(given)
  if given == nil then return {} end
  if type(given) == "function" then return { decode = given } end
  if type(given) == "table" then return given end
  local known = core.type(given)
  if not known then core.misuse("codecs: no type is named '" .. tostring(given) .. "'") end
  local oid = known.is_array and known.array or known.oid
  return {
    decode = function(text)
      local value, err = core.decode(oid, "text", text)
      if value == nil then error(err, 0) end
      return value
    end,
    encode = known.is_array and function(t) return core.array_text(t) end or nil,
  }
end

-- The text of a part, as it stands between commas: in quotes, what is in it doubled.
local function part_text(part, value)
  if value == nil or value == core.null then return "" end
  if part.encode then value = part.encode(value) end
  if type(value) == "boolean" then value = value and "t" or "f" end
  if type(value) ~= "string" and type(value) ~= "number" then
    core.misuse("codecs: a " .. type(value) .. " needs a codec with encode")
  end
  return '"' .. tostring(value):gsub('["\\]', "%0%0") .. '"'
end

-- The part of a composite or a range that begins at i: its text, nil where it is empty,
-- and where it ends. plain: a pattern of what needs no care.
local function read_part(text, i, plain_part)
  local from, pieces = i, {}
  while true do
    local plain, stop, at = text:match(plain_part, i)
    pieces[#pieces + 1] = plain
    if stop == '"' then
      i = at
      repeat -- "" and \x inside of quotes
        local inner, mark, after = text:match('^([^"\\]*)(.)()', i)
        if not inner then return nil, #text + 1 end
        pieces[#pieces + 1] = inner
        local follows = text:sub(after, after)
        if mark == "\\" or follows == '"' then
          pieces[#pieces + 1], i = follows, after + 1
        else
          i = after
        end
      until mark == '"' and follows ~= '"'
    elseif stop == "\\" then
      pieces[#pieces + 1], i = text:sub(at, at), at + 1
    else
      i = at - #stop
      break
    end
  end
  if i == from then return nil, i end
  return table.concat(pieces), i
end

local function decode_part(part, text)
  if text ~= nil and part.decode then return part.decode(text) end
  return text
end

local FIELD, BOUND = '^([^",\\%)]*)(.?)()', '^([^",\\%)%]]*)(.?)()'

--- A composite type: its fields in order, each a name or {name, type}.
function codecs.composite(fields)
  local names, parts = {}, {}
  for i, field in ipairs(fields) do
    names[i] = type(field) == "table" and field[1] or field
    parts[i] = part_of(type(field) == "table" and field[2] or nil)
  end
  return {
    decode = function(text)
      local row, at = {}, 2
      if text:sub(1, 1) ~= "(" then no_value("composite", text) end
      for k = 1, #names do
        local value, i = read_part(text, at, FIELD)
        row[names[k]] = decode_part(parts[k], value)
        if text:sub(i, i) ~= (k < #names and "," or ")") then no_value("composite", text) end
        at = i + 1
      end
      return row
    end,
    encode = function(row)
      local list = {}
      for k, name in ipairs(names) do list[k] = part_text(parts[k], row[name]) end
      return "(" .. table.concat(list, ",") .. ")"
    end,
  }
end

--- A range of such values: {lower =, upper =, lower_inc =, upper_inc =}, a bound that is
-- absent being without end; or {empty = true}.
function codecs.range(of)
  local part = part_of(of)
  return {
    decode = function(text)
      if text == "empty" then return { empty = true } end
      local lower, i = read_part(text, 2, BOUND)
      if not text:match "^[%[%(]" or text:sub(i, i) ~= "," then no_value("range", text) end
      local upper
      upper, i = read_part(text, i + 1, BOUND)
      local last = text:sub(i)
      if last ~= "]" and last ~= ")" then no_value("range", text) end
      return {
        lower = decode_part(part, lower), upper = decode_part(part, upper),
        lower_inc = text:sub(1, 1) == "[", upper_inc = last == "]",
      }
    end,
    encode = function(range)
      if range.empty then return "empty" end
      return (range.lower_inc == false and "(" or "[") .. part_text(part, range.lower) .. ","
        .. part_text(part, range.upper) .. (range.upper_inc and "]" or ")")
    end,
  }
end

return codecs
