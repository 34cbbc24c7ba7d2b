-- Where the fuzzers begin: seeds.lua DIRECTORY [STEP] writes values into DIRECTORY/decode, each for every STEPth type
-- (4), answers into DIRECTORY/server.
local directory, step = arg[1], tonumber(arg[2]) or 4
local count = 0

local function seed(which, bytes)
  count = count + 1
  local file = assert(io.open(("%s/%s/seed%03d"):format(directory, which, count), "wb"))
  file:write(bytes)
  file:close()
end

-- Values as the server writes them, each for every type (decode.c takes the type's number from the first byte).
local values = { "t", "-12", "9223372036854775807", "1.5e-7", "NaN", "-Infinity", "12345.6789", "\\x00ff", "a\\000b",
  "{1,NULL,3}", '[0:1][2:3]={{"a","b\\\\\\""},{NULL,x}}', "{}", "2026-11-21", "0044-03-15 BC", "infinity",
  "2026-11-21 17:00:00.123456+02:30:15", "24:00:00", "-1 years -2 mons +3 days -04:05:06.7", "P1Y2M3DT4H5M6S",
  '{"a":[1,2,{"b":null}]}', "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "192.168.0.1/24", "::ffff:1.2.3.4/120",
  "08:00:2b:01:02:03", "10110", '(1,"a ""b""",)', "[1,5)", "empty" }
-- The same in binary: numbers, numeric, a moment, intervals, a net, an array with a NULL, one of two dimensions.
local binary = { "\0", "\0\1", "\0\0\0\7", "\127\240\0\0\0\0\0\0", "\0\2\0\1\64\0\0\2\0\1\7\208", "\0\0\0\0\192\0\0\0",
  "\0\0\0\0\0\0\0\1\0\0\0\2\0\0\0\3", "\2\24\0\4\192\168\0\1", "\3\128\1\16" .. ("\1"):rep(16), "\0\0\0\5\88",
  "\0\0\0\1\0\0\0\1\0\0\0\23\0\0\0\2\0\0\0\1\0\0\0\4\0\0\0\9\255\255\255\255", "\1{}",
  "\127" .. ("\255"):rep(7) .. "\127\255\255\255\127\255\255\255", "\128" .. ("\0"):rep(7) .. "\128\0\0\0\128\0\0\0",
  "\0\0\0\2\0\0\0\0\0\0\0\23" .. ("\0\0\0\2\0\0\0\1"):rep(2) .. ("\0\0\0\4\0\0\0\9"):rep(4) }
for i, value in ipairs(values) do
  for type = i % step, 170, step do seed("decode", string.char(type, 0) .. value) end
end
for i, value in ipairs(binary) do
  for type = i % step, 170, step do seed("decode", string.char(type, 1) .. value) end
end

local function int(n, size)
  local s = ""
  for _ = 1, size do
    s = string.char(n % 256) .. s
    n = math.floor(n / 256)
  end
  return s
end
local function message(type, body) return type .. int(#body + 4, 4) .. body end

local function describe(...)
  local s, oids = "", { ... }
  for i, oid in ipairs(oids) do
    s = s .. "c" .. i .. "\0" .. int(0, 6) .. int(oid, 4) .. int(4, 2) .. int(0, 4) .. int(0, 2)
  end
  return message("T", int(#oids, 2) .. s)
end
local function row(...)
  local s, list = "", { ... }
  for _, v in ipairs(list) do s = s .. (v and int(#v, 4) .. v or "\255\255\255\255") end
  return message("D", int(#list, 2) .. s)
end
local function problem(type, state, severity)
  return message(type, "SERROR\0V" .. (severity or "ERROR") .. "\0C" .. state ..
    "\0Mmessage\0Ddetail\0Hhint\0P3\0Wwhere\0nc\0Ffile\0L1\0\0")
end
local done, ready, parsed, bound = message("C", "SELECT 1\0"), message("Z", "I"), message("1", ""), message("2", "")
local oids = message("t", int(1, 2) .. int(23, 4))
local notification = message("A", int(7, 4) .. "x\0hello\0")
local rows = describe(23, 25, 1700, 1007) .. row("1", "x", "1.5", "{1,NULL}") .. row("2", false, "NaN", "{}") .. done
local answers = {
  rows .. ready, rows .. rows .. ready, problem("E", "42P01") .. ready, message("I", "") .. ready,
  parsed .. bound .. rows .. ready, parsed .. oids .. describe(23) .. ready .. bound .. rows .. ready,
  parsed .. oids .. describe(23) .. bound .. rows .. ready .. problem("E", "0A000") .. ready,
  bound .. rows .. bound .. rows .. bound .. rows .. ready, bound .. rows .. problem("E", "22012") .. ready,
  message("G", "\0" .. int(2, 2) .. int(0, 4)) .. message("C", "COPY 1\0") .. ready,
  message("H", "\0" .. int(2, 2) .. int(0, 4)) .. message("d", "1\t{1.5,\\N}\t\\\\x00\t2026-01-01\tt\n") ..
    message("d", "\\N\ta\\tb\\n\\x41\\101\n") .. message("c", "") .. message("C", "COPY 2\0") .. ready,
  problem("N", "00000") .. notification .. message("C", "LISTEN\0") .. ready .. notification,
  message("S", "TimeZone\0UTC\0") .. message("C", "BEGIN\0") .. message("Z", "T") .. problem("E", "40001") ..
    message("Z", "E") .. message("C", "ROLLBACK\0") .. ready,
  problem("E", "57P01", "FATAL"), problem("E", "XX000", "PANIC"), message("E", "SERROR\0C42P01\0\0") .. ready,
  message("R", int(5, 4) .. "salt"), message("R", int(10, 4) .. "SCRAM-SHA-256\0\0"),
}
for operation = 0, 15 do
  for _, answer in ipairs(answers) do
    seed("server", string.char(operation) .. answer .. answer)
    seed("server", string.char(128 + operation) .. answer .. rows .. ready)
  end
end
