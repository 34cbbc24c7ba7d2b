-- One query on every server of a list at once.
--
--   lua examples/fanout.lua -c shards.txt "select ..."
--   lua examples/fanout.lua -s host=a -s postgresql://b/shop "select ..."
--
--   -c FILE   the servers: a conninfo in each line, or "name: conninfo"; # begins a comment
--   -s INFO   a server, as such a line (again for more)
--   -f FORM   table (default), csv or json; the first column is the server
--   -t SECS   time limit for all
--   -l N      at most N at a time
--   -p        a picture of who took how long
--   --        what follows is the query, also if it begins with a -
--
-- Answers go to stdout, all else to stderr. Ctrl-C cancels everywhere and prints what
-- there is. The status is 0 when all have answered, 1 when some have, 3 when none has,
-- 2 for a wrong command line, 130 after Ctrl-C.
local dblink = require "dblink"

-- What a terminal would obey is shown instead: what servers say is theirs.
local function printable(text)
  if not text:find "[%c\194]" then return text end
  text = text:gsub("[^%C\n\t]", function(c) return ("\\x%02X"):format(c:byte()) end)
  return (text:gsub("\194([\128-\159])", function(c) return ("\\x%02X"):format(c:byte()) end))
end

local function say(format, ...) io.stderr:write(printable(format:format(...)), "\n") end

local USAGE = 'usage: lua fanout.lua (-c FILE | -s INFO)... [-f table|csv|json] [-t SECS] [-l N] [-p] "select ..."'

local function usage(problem)
  say("fanout: %s", problem)
  say("%s", USAGE)
  os.exit(2)
end

-- A name for a server that shows no password.
local function name_of(conninfo)
  local uri = conninfo:match "^postgres%w*://([^?]*)"
  if uri then return (uri:gsub("^[^@/]*@", "")) end
  local words = {}
  for _, key in ipairs { "host", "port", "dbname" } do
    words[#words + 1] = (" " .. conninfo):match("%s" .. key .. "%s*=%s*([^%s']+)")
      or (" " .. conninfo):match("%s" .. key .. "%s*=%s*'([^']*)'")
  end
  return #words > 0 and table.concat(words, " ") or "default"
end

local function read_server(line, servers)
  line = line:gsub("^%s+", ""):gsub("%s+$", "")
  if line == "" or line:sub(1, 1) == "#" then return end
  local name, conninfo = line:match "^([^%s:=]+):%s+(.*)$"
  servers[#servers + 1] = { name = name or name_of(line), conninfo = conninfo or line }
end

local function read_arguments(words)
  local o = { form = "table", servers = {} }
  local i = 1
  local function value()
    i = i + 1
    return words[i] or usage(words[i - 1] .. " wants a value")
  end
  local function number(least)
    local word = words[i]
    local n = tonumber(value())
    return n and n >= least and n or usage(("%s wants a number, at least %d"):format(word, least))
  end
  local function query(sql)
    if o.sql then usage "one query only, please; in quotes" end
    o.sql = sql
  end
  while words[i] do
    local word = words[i]
    if word == "-c" then
      local path = value()
      local file, why = io.open(path)
      local text = file and file:read "*a" -- nil: a folder
      if not text then usage(why or path .. " cannot be read") end
      for line in text:gmatch "[^\n]+" do read_server(line, o.servers) end
      file:close()
    elseif word == "-s" then
      read_server(value(), o.servers)
    elseif word == "-f" then
      o.form = value()
    elseif word == "-t" then
      o.timeout = number(0)
    elseif word == "-l" then
      o.limit = number(1)
    elseif word == "-p" then
      o.picture = true
    elseif word == "-h" or word == "--help" then
      print(USAGE)
      os.exit(0)
    elseif word == "--" then
      query(value())
    elseif word:match "^%-%S+$" then -- SQL may begin with a comment
      usage("unknown option " .. word)
    else
      query(word)
    end
    i = i + 1
  end
  if not o.sql then usage "no query" end
  if #o.servers == 0 then usage "no server" end
  if not ({ table = 1, csv = 1, json = 1 })[o.form] then usage("unknown form " .. o.form) end
  return o
end

-- How answers are written. Each has a row for each row of each server; values are the
-- server's text, nil for NULL.

local write = {}

-- How many columns of a terminal it takes: East Asian characters and pictures two, accents upon a letter none.
local function width(text)
  if not text:find "[\128-\255]" then return #text end
  local function count(pattern) return select(2, text:gsub(pattern, "")) end
  return count "[^\128-\191]" + count "[\227-\236]" + count "\237[\128-\158]" + count "\239[\164-\171\188]"
    + count "\240\159[\140-\171]" + count "\240[\160-\191]" - count "\204" - count "\205[\128-\175]"
end

function write.table(names, rows)
  local widths, lines = {}, {}
  local function add(row)
    local cells = {}
    for j = 1, #names do
      cells[j] = printable(row[j] or ""):gsub("[\n\t]", " ")
      widths[j] = math.max(widths[j] or 0, width(cells[j]))
    end
    lines[#lines + 1] = cells
  end
  add(names)
  for _, row in ipairs(rows) do add(row) end
  local rules = {}
  for j = 1, #names do rules[j] = ("-"):rep(widths[j]) end
  table.insert(lines, 2, rules)
  for _, cells in ipairs(lines) do
    for j, text in ipairs(cells) do cells[j] = text .. (" "):rep(widths[j] - width(text)) end
    print((table.concat(cells, "  "):gsub("%s+$", "")))
  end
end

function write.csv(names, rows)
  local function line(row)
    local cells = {}
    for j = 1, #names do
      local text = row[j]
      if text and (text == "" or text:find '[,"\r\n]') then text = '"' .. text:gsub('"', '""') .. '"' end
      cells[j] = text or ""
    end
    print(table.concat(cells, ","))
  end
  line(names)
  for _, row in ipairs(rows) do line(row) end
end

local JSON_AS_IT_IS = { [20] = true, [21] = true, [23] = true, [26] = true, [700] = true, [701] = true,
  [1700] = true, [114] = true, [3802] = true }
local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function json(text, oid)
  if text == nil then return "null" end
  if oid == 16 then return text == "t" and "true" or "false" end
  if JSON_AS_IT_IS[oid] and not text:find "^-?[IN]" then return text end
  return '"' .. text:gsub('[%c"\\]', function(c) return ESCAPES[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

function write.json(names, rows)
  io.write "["
  for i, row in ipairs(rows) do
    local members = {}
    for j, name in ipairs(names) do members[j] = json(name) .. ":" .. json(row[j], row.oids[j]) end
    io.write(i > 1 and ",\n " or "", "{", table.concat(members, ","), "}")
  end
  io.write "]\n"
end

local o = read_arguments(arg)
local ok, _, status = os.execute "test -t 2"
local terminal = ok == 0 or (ok == true and status == 0) -- Lua 5.1, and later ones

local function draw_progress(done, total)
  if not terminal then return end
  local filled = math.floor(30 * done / total)
  io.stderr:write(("\r[%s%s] %d of %d"):format(("#"):rep(filled), (" "):rep(30 - filled), done, total),
    done == total and "\r\27[K" or "")
end

-- Ask.
local items, at = {}, {}
for i, server in ipairs(o.servers) do
  items[i] = { server.conninfo, o.sql }
  at[items[i]] = server
end
local begun = dblink.now()
draw_progress(0, #items)
local finished, problem = pcall(dblink.gather, items, {
  timeout = o.timeout, limit = o.limit,
  connect = { decode = false, rows = "array" },
  on_progress = function(done, total, item, res, err)
    local server = at[item]
    server.res, server.err, server.took = res, err, dblink.now() - begun
    draw_progress(done, total)
  end,
})
local interrupted = not finished and tostring(problem):find "interrupted!" ~= nil
if not finished and not interrupted then error(problem, 0) end
local total = dblink.now() - begun
if interrupted and terminal then io.stderr:write "\r\27[K" end

-- Answer.
local names, rows, good = nil, {}, 0
for _, server in ipairs(o.servers) do
  local res = server.res
  if res then
    local columns, list, oids = res:columns(), { "server" }, { 25 }
    for j, column in ipairs(columns) do list[j + 1], oids[j + 1] = column.name, column.oid end
    if #columns == 0 then list[2], oids[2] = "status", 25 end
    names = names or list
    if table.concat(names, "\0") ~= table.concat(list, "\0") then
      server.err = "its columns are others than those of the first"
    else
      good = good + 1
      if #columns == 0 then rows[#rows + 1] = { server.name, res.command, oids = oids } end
      for i = 1, #res do
        local row = { server.name, oids = oids }
        for j = 1, #columns do row[j + 1] = res(i, j) end
        rows[#rows + 1] = row
      end
    end
  end
end
if names or o.form == "json" then write[o.form](names or {}, rows) end
for _, server in ipairs(o.servers) do
  if server.err then say("%s: %s", server.name, tostring(server.err)) end
  if not server.took then say("%s: not done", server.name) end
end
if o.picture then
  local widest = 0
  for _, server in ipairs(o.servers) do widest = math.max(widest, width(server.name)) end
  for _, server in ipairs(o.servers) do
    local took = server.took or total
    local bar = ("="):rep(math.max(1, math.floor(50 * took / total + 0.5)))
    say("%s%s |%-50s| %8.3f s%s", server.name, (" "):rep(widest - width(server.name)), bar, took,
      server.err and "  failed" or not server.took and "  not done" or "")
  end
end
os.exit(interrupted and 130 or good == #items and 0 or good > 0 and 1 or 3)
