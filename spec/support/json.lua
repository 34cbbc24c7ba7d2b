-- Reads JSON into Lua: null is json.null, an array is a table with n.

local json = { null = setmetatable({}, { __tostring = function() return "null" end }) }

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function utf8_of(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64) end
  return string.char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

local function read_string(text, at) -- at: behind the quote
  local to = at
  while text:sub(to, to) ~= '"' do to = to + (text:sub(to, to) == "\\" and 2 or 1) end
  local value = text:sub(at, to - 1)
  value = value:gsub("\\u(%x%x%x%x)", function(hex) return utf8_of(tonumber(hex, 16)) end)
  return value:gsub("\\(.)", ESCAPES), to + 1
end

local read

local function read_all(text, at, close, item)
  at = text:match("^%s*()", at)
  while text:sub(at, at) ~= close do
    at = text:match("^%s*,?%s*()", item(at))
  end
  return at + 1
end

function read(text, at)
  local from, mark = text:match("^%s*()(.)", at)
  if mark == '"' then
    return read_string(text, from + 1)
  elseif mark == "[" then
    local list = { n = 0 }
    return list, read_all(text, from + 1, "]", function(i)
      list.n = list.n + 1
      list[list.n], i = read(text, i)
      return i
    end)
  elseif mark == "{" then
    local object = {}
    return object, read_all(text, from + 1, "}", function(i)
      local key
      key, i = read(text, i)
      object[key], i = read(text, text:match("^%s*:()", i))
      return i
    end)
  end
  local word, to = text:match("^([%w.+-]+)()", from)
  if word == "null" then return json.null, to end
  if word == "true" or word == "false" then return word == "true", to end
  return assert(tonumber(word), "JSON?"), to
end

function json.read(text)
  return (read(text, 1))
end

function json.read_file(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return json.read(text)
end

return json
