-- Marks: parameters that say what they are, where a bare table would be a guess.
--
-- A mark is a table {value} with a metatable that param.c and literal.c know:
-- dblink_text gives the string to send (and the OID of its type, if known),
-- dblink_bytes that of a bytea; dblink_array and dblink_json unwrap it in others.
local core = require "dblink.core"

local values = {}

local function check(value, wanted, name, verb)
  if type(value) ~= wanted then
    core.misuse(("bad argument '%s' to %s (%s expected, got %s)"):format(name, verb, wanted, type(value)))
  end
end

local Bytea = { __name = "dblink.bytea", dblink_bytes = function(self) return self[1] end }

--- A parameter that is sent as the bytes of a bytea.
function values.bytea(s)
  check(s, "string", "s", "bytea")
  return setmetatable({ s }, Bytea)
end

local Json = { __name = "dblink.json", dblink_json = true }
function Json:dblink_text() return core.json_text(self[1]) end

--- A parameter that is sent as JSON: tables, strings, numbers, booleans, nil.
function values.json(value)
  return setmetatable({ value }, Json)
end

local ALIASES = {
  int = "int4", integer = "int4", smallint = "int2", bigint = "int8", boolean = "bool", real = "float4",
  ["double precision"] = "float8", decimal = "numeric", string = "text",
}

local Array = { __name = "dblink.array", dblink_array = true }

function Array:dblink_text()
  local of = self[2]
  return core.array_text(self[1], of.name == "bytea", of.encode, of.name == "box" and ";" or ","), of.array
end

local UNKNOWN = {}

-- What is known of an element type: its name, its array's OID, an encoder.
local function find_type(given)
  if given == nil then return UNKNOWN end
  local named = type(given) == "string" or type(given) == "number"
  local of = named and core.type(ALIASES[given] or given) or given
  if type(of) ~= "table" or not of.array or of.is_array then
    if not named then core.misuse "bad argument 'type' to array (a name, an OID or a codec expected)" end
    core.misuse(("array of unknown type '%s': leave the type out and write $1::%s[] in SQL, or give a codec")
      :format(given, given))
  end
  return of
end

--- A parameter that is sent as an array. t has n elements, or #t; nil and dblink.null are NULL,
-- tables in it are further dimensions. of: the type of its elements, a name, an OID, or what
-- conn:codec returned; else the server infers it.
function values.array(t, of)
  check(t, "table", "t", "array")
  return setmetatable({ t, find_type(of) }, Array)
end

return values
