-- res:rows on LuaJIT: an iterator in Lua, made for the names and kinds of the columns, which the compiler takes
-- into the loop that calls it. The values it reads from memory that C fills some rows at a time (sheet.c).
local core = require "dblink.core"

local found, ffi = pcall(require, "ffi")
if not found or not require("jit").status() then return end

core.use_sheets()

local methods = core.result_methods
local in_c = methods.rows

local SHAPES = { row = true, array = true, values = true }
local MOST_MAKERS = 200

-- struct Sheet
local pointer = ffi.typeof [[
  struct {
    int (*fill)(void *);
    const unsigned char *cleared;
    unsigned short *readers;
    const void *result;
    int row;
    struct { double number; const char *text; int size, kind; } *values;
  } *]]

local function open(memory) return ffi.cast(pointer, memory) end

-- What is in capitals differs with the columns.  #res raises where the result was cleared.
local ITERATOR = [[
local open, string = ...
return function(res, memory, null)
  local sheet = open(memory)
  local values, at, count, row = sheet.values, 0, 0, 0
  BEFORE
  return function()
    FIRST
    if at == count then
      at, count = 0, sheet.fill(memory)
      if count < 1 then return count < 0 and #res or nil end
    elseif sheet.cleared[0] ~= 0 then
      return #res
    end
    local value = values + at * COLUMNS
    at, row = at + 1, row + 1
    BEGIN
    VALUES
    END
    return ROW
  end
end]]

-- How a column is read: $i from 0, $j from 1.  last$j is of one type, whatever the values are: NULL does not change it.
local KINDS = {
  text = { none = '""', size = "#last$j", value = [[
    local v$j = null
    if value[$i].kind == 2 then
      last$j = string(value[$i].text, value[$i].size)
      v$j = last$j
    end
]] },
  number = { none = "0", size = "last$j", value = [[
    local v$j, kind = null, value[$i].kind
    last$j = value[$i].number
    if kind == 1 then v$j = last$j elseif kind == 4 then v$j = res(row, $j) end
]] },
  boolean = { none = "0", size = "0", value = [[
    local v$j, kind = null, value[$i].kind
    if kind == 3 then v$j = value[$i].number ~= 0 elseif kind == 4 then v$j = res(row, $j) end
]] },
}

local function by_name(names)
  local fields = {}
  for j, name in ipairs(names) do
    if name ~= "" then fields[#fields + 1] = ("[%q] = v%d"):format(name, j) end
  end
  return "{ " .. table.concat(fields, ", ") .. " }"
end

local function generate(key, memory)
  local shape, kinds, names = key:match "^%l+", {}, {}
  for kind, name in key:gmatch "%z(%l+) (%Z*)" do
    kinds[#kinds + 1], names[#names + 1] = KINDS[kind], name
  end
  local function each(what, between)
    local list = {}
    for j, kind in ipairs(kinds) do
      list[j] = (kind[what] or what):gsub("%$(%l)", { i = j - 1, j = j })
    end
    return table.concat(list, between)
  end
  local values = each("v$j", ", ")
  local row = shape == "row" and by_name(names) or ("{ %s, n = %d }"):format(values, #names)
  local last = ("local %s = %s"):format(each("last$j", ", "), each("none", ", "))
  -- Where a loop only reads its rows, the compiler makes no tables of them, if all that would be stored there is
  -- constant or carried from one turn to the next, used or not. So each turn uses what the one before it read.
  local before, first = last .. "\n  local used", "used = " .. each("size", " + ")
  if shape == "values" then before, first, row = "", last, "row, " .. values end
  local texts = key:find "%ztext " -- whose making may call finalizers: see dbl_begin_reading
  local text = ITERATOR:gsub("%u+", {
    BEFORE = before, FIRST = first, COLUMNS = #names, VALUES = each "value", ROW = row,
    BEGIN = texts and "sheet.readers[0] = sheet.readers[0] + 1" or "",
    END = texts and "sheet.readers[0] = sheet.readers[0] - 1" or "",
  })
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
