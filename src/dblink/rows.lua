-- res:rows on LuaJIT: an iterator in Lua, made for the names of the columns, which the compiler takes
-- into the loop that calls it. The values it reads from memory that C fills some rows at a time (sheet.c).
local core = require "dblink.core"

local found, ffi = pcall(require, "ffi")
if not found or not require("jit").status() then return end

local methods = core.result_methods
local in_c = methods.rows

local SHAPES = { row = true, array = true, values = true }
local MOST_MAKERS = 200

-- struct Sheet
local pointer = ffi.typeof [[
  struct {
    int (*fill)(void *);
    const unsigned char *cleared;
    const void *result;
    int row;
    struct { double number; const char *text; int size, kind; } *values;
  } *]]

local function open(memory) return ffi.cast(pointer, memory) end

-- $values, $row and $columns differ. #res raises where the result was cleared.
local ITERATOR = [[
local open, string = ...
return function(res, memory, null)
  local sheet = open(memory)
  local values, at, count, row = sheet.values, 0, 0, 0
  return function()
    if at == count then
      at, count = 0, sheet.fill(memory)
      if count < 1 then return count < 0 and #res or nil end
    elseif sheet.cleared[0] ~= 0 then
      return #res
    end
    local value = values + at * $columns
    at, row = at + 1, row + 1
    $values
    return $row
  end
end]]

local VALUE = [[
    local kind, v$j = value[$i].kind, null
    if kind == 2 then v$j = string(value[$i].text, value[$i].size)
    elseif kind == 1 then v$j = value[$i].number
    elseif kind == 3 then v$j = value[$i].number ~= 0
    elseif kind == 4 then v$j = res(row, $j) end
]]

local function by_name(names)
  local fields = {}
  for j, name in ipairs(names) do
    if name ~= "" then fields[#fields + 1] = ("[%q] = v%d"):format(name, j) end
  end
  return "{ " .. table.concat(fields, ", ") .. " }"
end

local function generate(key, memory)
  local shape, names, list, code = key:match "^%l+", {}, {}, {}
  for name in key:gmatch "%z(%Z*)" do
    local j = #names + 1
    names[j], list[j] = name, "v" .. j
    code[j] = VALUE:gsub("%$(%l)", { i = j - 1, j = j })
  end
  local values = table.concat(list, ", ")
  local row = shape == "row" and by_name(names)
    or shape == "array" and ("{ %s, n = %d }"):format(values, #names) or "row, " .. values
  local text = ITERATOR:gsub("%$(%l+)", { columns = #names, values = table.concat(code), row = row })
  local make = assert(require("_G").load(text, "=dblink/rows.lua"))(open, ffi.string)
  for _ = 1, 3 do make(nil, memory) end -- LuaJIT compiles each of the first closures for itself, then for all
  return make
end

local makers, many = {}, 0

local function maker(key, memory)
  if many == MOST_MAKERS then makers, many = {}, 0 end
  local make = generate(key, memory)
  makers[key], many = make, many + 1
  return make
end

function methods.rows(res, shape)
  local memory, key, null
  if SHAPES[shape or "row"] then memory, key, null = core.sheet(res, shape) end
  if not memory then return in_c(res, shape) end
  return (makers[key] or maker(key, memory))(res, memory, null)
end
