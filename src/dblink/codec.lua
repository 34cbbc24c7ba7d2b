-- Codecs: how a connection reads and writes types that C does not know, or not so.
--
-- A connection's state has `codecs`, by OID: what result.c asks for each column.
-- An entry is {decode = f(text), decode_binary = f(bytes), convert = f(value),
-- array = it is an array of such, textual = its binary form is its text}.
local core = require "dblink.core"

local state, methods = core.state, core.methods

local codec = {}

local function use(conn, codecs)
  state(conn).codecs = codecs
  core.use_codecs(conn)
  return codecs
end

-- Those of a connection, to be added to: in a table of their own, since others may keep the old one.
local function habits(conn)
  local codecs = {}
  for oid, entry in pairs(state(conn).codecs or {}) do codecs[oid] = entry end
  return use(conn, codecs)
end

-- A connection has those again that were state(conn).codecs once: what it is now.
function codec.restore(conn, codecs)
  return use(conn, codecs or {})
end

-- int8 = "cdata": what C gives, a number or digits, becomes an int64_t.
local function to_int64()
  local found, ffi = pcall(require, "ffi")
  if not found then core.misuse 'option int8: "cdata" is there on LuaJIT alone' end
  local int64 = ffi.typeof "int64_t"
  return function(value)
    if type(value) == "number" then return int64(value) end
    local negative = value:sub(1, 1) == "-"
    local n = int64(0)
    for digit in value:gmatch "%d" do n = n * 10 - tonumber(digit) end -- there is one more below zero
    return negative and n or -n
  end
end

-- What conn:codec returns: called with a value it makes a parameter of it.
local Codec = { __name = "dblink.codec" }

function Codec:__call(value)
  if not self.encode then core.misuse "this codec has no encode" end
  return setmetatable({ value }, self.mark)
end

local function new_codec(oid, array, functions)
  local encode = functions.encode
  return setmetatable({
    oid = oid, array = array, encode = encode,
    mark = {
      __name = "dblink.value",
      dblink_text = function(self)
        if self[1] == nil or self[1] == core.null then return nil, oid end
        return encode(self[1]), oid
      end,
    },
  }, Codec)
end

local function check(functions)
  functions = functions or {}
  if type(functions) ~= "table" then core.misuse "codec must be a table {decode = f, encode = f}" end
  for _, name in ipairs { "decode", "decode_binary", "encode" } do
    local f = functions[name]
    if f ~= nil and type(f) ~= "function" then core.misuse("codec." .. name .. " must be a function") end
  end
  if next(functions) ~= nil and not (functions.decode or functions.decode_binary or functions.encode) then
    core.misuse "codec has none of decode, decode_binary and encode"
  end
  return functions
end

-- to_regtype takes what may stand behind :: in SQL, and is nil for what is no type.
local LOOK_UP = [[select t.oid, t.typarray, t.typtype::text, format_type(t.typbasetype, null) as base
  from pg_catalog.pg_type t where t.oid = pg_catalog.to_regtype($1)]]

-- The type of that name, asked for once in a connection: {oid=, array=, kind=}, or nil and an error.
local function look_up(conn, name)
  local s = state(conn)
  local known = s.types and s.types[name]
  if known then return known end
  local res, err = conn:query { LOOK_UP, name, decode = true }
  if not res then return nil, err end
  if #res == 0 then return nil, core.failure("usage", ('type "%s" does not exist'):format(name)) end
  known = { oid = tonumber(res(1, 1)), array = tonumber(res(1, 2)), kind = res(1, 3) }
  if known.kind == "d" then
    return nil, core.failure("unsupported",
      ("%s is a domain: its values come as those of %s"):format(name, res(1, 4)))
  end
  s.types = s.types or {}
  s.types[name] = known
  return known
end

-- Notes in a connection's codecs what is known of a type; array: the OID of its array type.
local function add(conn, oid, array, kind, functions)
  local codecs, textual = habits(conn), kind == "e" or nil -- an enum is its label
  local function entry(is_array)
    return {
      decode = functions.decode, decode_binary = functions.decode_binary, textual = textual, array = is_array,
    }
  end
  codecs[oid] = entry()
  if array and array ~= 0 then codecs[array] = entry(true) end
  return new_codec(oid, array, functions)
end

-- A type that C knows, or its OID alone: {oid=, array=}; nil where the server must be asked.
local function find_known(which)
  local known = core.type(which)
  if known and not known.is_array then return known end
  return type(which) == "number" and { oid = which } or nil
end

-- The same of such a type.
local function add_known(conn, which, functions)
  local known = find_known(which)
  return known and add(conn, known.oid, known.array, nil, functions)
end

--- Adds a type to a connection, by its OID or its name. By name, its arrays are read too.
-- functions: decode(text), decode_binary(bytes), encode(value), each optional. Returns what
-- makes parameters of that type: codec(value).
function methods:codec(which, functions)
  state(self)
  local is_oid = type(which) == "number" and which % 1 == 0 and which > 0
  if not is_oid and (type(which) ~= "string" or which:find "%z") then
    core.misuse(("bad argument 'type' (OID or name expected, got %s)")
      :format(type(which) == "table" and "table" or tostring(which)))
  end
  functions = check(functions)
  local made = add_known(self, which, functions)
  if made then return made end
  local found, err = look_up(self, which)
  if not found then return nil, err end
  return add(self, found.oid, found.array, found.kind, functions)
end

--- Raises where the options int8, numeric, json and codecs of a connection cannot be.
function codec.check(options)
  if options.int8 ~= nil and options.int8 ~= "cdata" then core.misuse 'option int8 must be "cdata"' end
  if options.int8 then to_int64() end
  if options.numeric ~= nil and options.numeric ~= "number" then core.misuse 'option numeric must be "number"' end
  if options.json ~= nil and not (type(options.json) == "table" and options.json.decode) then
    core.misuse "option json must have a function decode, as cjson has"
  end
  if options.codecs ~= nil and type(options.codecs) ~= "table" then core.misuse "option codecs must be a table" end
  for which, functions in pairs(options.codecs or {}) do
    check(functions)
    if not ((type(which) == "number" or type(which) == "string") and find_known(which)) then
      core.misuse(("option codecs: '%s' is no type that is known before the server is asked: use conn:codec")
        :format(tostring(which)))
    end
  end
end

--- What they mean.
function codec.configure(conn, options)
  if options.int8 then habits(conn)[20] = { convert = to_int64() } end
  if options.json then
    local codecs, entry = habits(conn), { convert = options.json.decode }
    codecs[114], codecs[3802] = entry, entry
  end
  for which, functions in pairs(options.codecs or {}) do add_known(conn, which, check(functions)) end
end

return codec
