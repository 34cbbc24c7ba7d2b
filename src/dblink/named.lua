-- Links by name: the functions of PostgreSQL's dblink chapter.
--
-- They take and return what the chapter says, and raise where dblink raises, with
-- the same SQLSTATE, message, detail, hint and context; docs/dblink.md tells how
-- SQL's shapes become Lua's, and what is otherwise on purpose. As dblink itself
-- they keep no state about a query: libpq's is what they show. So each verb makes
-- the very calls that dblink makes, and no others.
--
-- A link is {name =, conn =}, the unnamed one without a name. Its `begun` is the
-- moment at which open() began a transaction of its own, `cursors` the names opened
-- since. Whether that transaction and those cursors are still there, close() asks
-- the server: a COMMIT, a ROLLBACK TO or a CLOSE may have come by any other way.
local core = require "dblink.core"
local await = require "dblink.await"
local connection = require "dblink.connection"

local misuse = core.misuse
local unpack = table.unpack or unpack -- luacheck: ignore

-- The longest that cancel_query waits, in seconds, as dblink from 17 on does.
local CANCEL_TIME = 30

-- As much of "while opening cursor ..." as dblink shows.
local LONGEST_DOING = 511

-- Errors -----------------------------------------------------------------------

local KINDS = { ["08"] = "connection", ["0A"] = "unsupported" }

local function new_error(sqlstate, message, fields)
  local err = core.failure(fields.kind or KINDS[sqlstate:sub(1, 2)] or "usage", message)
  err.severity, err.sqlstate = fields.severity or "ERROR", sqlstate
  err.detail, err.hint, err.context = fields.detail, fields.hint, fields.context
  err.connection_lost = fields.connection_lost or false
  return err
end

-- Raises what dblink itself has to say.
local function raise(sqlstate, message, fields)
  error(new_error(sqlstate, message, fields or {}), 0)
end

local function raise_not_available(name)
  raise("08003", name and ('connection "%s" not available'):format(name) or "connection not available")
end

-- Calls a function of the user's on behalf of a link, which is in use meanwhile: a
-- listener or a codec may call anything.
local function tell(link, f, value)
  local outer = link.calling
  link.calling = true
  local ok, answer = pcall(f, value)
  link.calling = outer
  if not ok then error(answer, 0) end
  return answer
end

-- A verb is done with its link: one made for this call alone is closed, and what the
-- remote server had to say is handed on, or forgotten.
local function leave(link)
  local notices, listener = link.conn:notices(), link.set.on_remote_notice
  if link.temporary then link.conn:close() end
  for _, notice in ipairs(listener and notices or {}) do tell(link, listener, notice) end
end

local function raise_internal(link, what)
  local message = what .. ": " .. link.conn:error_message()
  local lost = link.conn:status() == "bad"
  leave(link)
  raise("XX000", message, { kind = lost and "connection", connection_lost = lost })
end

local function give_notice(link, err)
  local listener = link.set.on_notice
  if listener then tell(link, listener, err) end
end

-- A COPY brought to its end by the core, not an error of the server's.
local function is_copy(err)
  return err ~= nil and err.sqlstate == "0A000" and not err.severity
end

-- What has no SQLSTATE (a lost link, a refused query, an empty one) has libpq's text,
-- all of it.
local function remote_message(conn, err)
  local message = err.message
  if not err.sqlstate then message = conn:error_message():gsub("^OK$", "") end
  return message ~= "" and message or "could not obtain message string for remote error"
end

-- Reports a remote failure, as an error or as a notice, which is returned then.
local function report(link, err, fail, doing)
  if is_copy(err) then
    leave(link)
    raise("0A000", "COPY is not supported by dblink functions")
  end
  local context = ("%s on %s"):format(doing:sub(1, LONGEST_DOING),
    link.name and ('dblink connection named "%s"'):format(link.name) or "unnamed dblink connection")
  local told = new_error(err.sqlstate or "08006", remote_message(link.conn, err), {
    severity = fail == false and "NOTICE" or "ERROR",
    kind = err.kind,
    detail = err.detail,
    hint = err.hint,
    context = err.context and err.context .. "\n" .. context or context,
    connection_lost = link.conn:status() == "bad",
  })
  leave(link)
  if fail ~= false then error(told, 0) end
  give_notice(link, told)
  return told
end

-- Arguments --------------------------------------------------------------------

local function bad_argument(name, what)
  misuse(("bad argument '%s' (%s)"):format(name, what))
end

local function check_type(value, name, expected)
  if type(value) ~= expected then bad_argument(name, expected .. " expected, got " .. type(value)) end
end

local function check_text(value, name)
  if value == nil then return end
  check_type(value, name, "string")
  if value:find("\0", 1, true) then bad_argument(name, "a NUL byte, which no text of PostgreSQL can hold") end
end

local function check_conninfo(value, name)
  if type(value) ~= "table" then check_text(value, name) end
end

-- SQL's int; a float that is whole is one, too.
local function check_integer(value, name)
  if value == nil then return end
  check_type(value, name, "number")
  if value % 1 ~= 0 or value < -2 ^ 31 or value >= 2 ^ 31 then
    bad_argument(name, "an int4 expected, got " .. value)
  end
end

local function check_fail(value)
  if value ~= nil then check_type(value, "fail", "boolean") end
end

local CHECKS = { howmany = check_integer }

-- What the verbs want besides a link; the first is content with a conninfo for one.
local SQL, CURSOR = { "sql", conninfo = true }, { "cursorname" }
local CURSOR_SQL, CURSOR_HOWMANY = { "cursorname", "sql" }, { "cursorname", "howmany" }

local function check_given(n, at, name)
  if n < at then bad_argument(name, "no value") end
end

-- Reads [connname,] wanted ... [, fail], which number and type tell apart. Gives
-- whether nothing is NULL, then the name (nil: the unnamed link), fail, and what was
-- wanted.
local function read(wanted, ...)
  local n, given, last = select("#", ...), { ... }, #wanted
  local unnamed = n <= last or type(given[last + 1]) == "boolean"
    or wanted[last] == "howmany" and type(given[last]) == "number"
  local before = unnamed and 0 or 1
  if not unnamed then (wanted.conninfo and check_conninfo or check_text)(given[1], "connname") end
  local complete, values = unnamed or given[1] ~= nil, {}
  for i, what in ipairs(wanted) do
    local value = given[before + i]
    check_given(n, before + i, what);
    (CHECKS[what] or check_text)(value, what)
    values[i] = value
    complete = complete and value ~= nil
  end
  local fail = given[before + last + 1]
  check_fail(fail)
  return complete, not unnamed and given[1] or nil, fail, values[1], values[2]
end

-- Reads one name that may not be left out; nil is SQL's NULL.
local function read_name(...)
  check_given(select("#", ...), 1, "connname")
  local name = ...
  check_text(name, "connname")
  return name
end

-- Links ------------------------------------------------------------------------

local function raise_in_use(link)
  raise("55006", link.name and ('connection "%s" is already in use'):format(link.name)
    or "connection is already in use")
end

-- A function that is called on behalf of a link cannot call on that link.
local function check_not_calling(link)
  if link.calling then raise_in_use(link) end
  return link
end

-- Nor can anyone have it, whose verb needs it alone, while a coroutine waits on it.
local function enter(link)
  if core.is_held(link.conn) then raise_in_use(link) end
  return check_not_calling(link)
end

local function find(set, name)
  local link = set.unnamed
  if name then link = set.links[name] end
  return link or raise_not_available(name)
end

-- The options of a link's connection: its codecs are called on its behalf.
local function link_options(link)
  local options, codecs = {}, {}
  for name, value in pairs(link.set.options) do options[name] = value end
  if type(options.codecs) ~= "table" then return options end
  for which, functions in pairs(options.codecs) do
    codecs[which] = functions
    if type(functions) == "table" then
      codecs[which] = {}
      for name, f in pairs(functions) do
        codecs[which][name] = type(f) == "function" and function(value) return tell(link, f, value) end or f
      end
    end
  end
  options.codecs = codecs
  return options
end

local function open_link(set, name, conninfo)
  local link = { set = set, name = name }
  local conn, err = connection.connect(conninfo, link_options(link))
  if not conn then
    raise("08001", "could not establish connection",
      { kind = err.kind, detail = err.message, connection_lost = err.connection_lost })
  end
  core.let_run(conn)
  link.conn = conn
  return link
end

-- The link of that name; else, as in dblink, the name is a conninfo, of a link for
-- this call alone.
local function find_or_open(set, name)
  if name and not set.links[name] then
    local link = open_link(set, nil, name)
    link.temporary = true
    return link
  end
  return enter(find(set, name))
end

-- Runs a string of statements to its end: the last result; or nil, the last error, and
-- whether nothing was sent. An empty query is an error, of which nobody knows anything.
local function run(link, sql)
  local conn = link.conn
  local ok, err = conn:send_query(sql)
  if not ok then return nil, err, true end
  local last, why, copy
  repeat
    local res, failed = conn:get_result()
    local over = not res and not failed
    if not over then last, why = res, failed end
    if is_copy(failed) then copy = failed end
  until over
  if copy then return nil, copy end
  if not last or last.status == "empty_query" then return nil, why or {} end
  return last
end

-- A command's tag is a row of one column, `status`.
local function rows(res)
  return res.status == "command_ok" and core.tag_row(res) or res
end

-- The functions ----------------------------------------------------------------

local verbs = {}

-- Raises where the name is taken; conn, if any, is closed then.
local function check_free(set, name, conn)
  if not name or not set.links[name] then return end
  if conn then conn:close() end
  raise("42710", "duplicate connection name")
end

function verbs.connect(set, ...)
  local n, name, conninfo = select("#", ...), ...
  check_given(n, 1, "connstr")
  if n == 1 then name, conninfo = nil, name end
  check_text(name, "connname")
  check_conninfo(conninfo, "connstr")
  if conninfo == nil or n > 1 and name == nil then return nil end
  check_free(set, name)
  if not name and set.unnamed then check_not_calling(set.unnamed) end
  local link = open_link(set, name, conninfo)
  check_free(set, name, link.conn) -- other coroutines may have run meanwhile
  if name then
    set.links[name] = link
  else
    if set.unnamed then set.unnamed.conn:close() end
    set.unnamed = link
  end
  return "OK"
end

verbs.connect_u = verbs.connect

function verbs.disconnect(set, ...)
  local name = ...
  check_text(name, "connname")
  if name == nil and select("#", ...) > 0 then return nil end
  check_not_calling(find(set, name)).conn:close()
  if name then
    set.links[name] = nil
  else
    set.unnamed = nil
  end
  return "OK"
end

function verbs.get_connections(set)
  local names = {}
  for name in pairs(set.links) do names[#names + 1] = name end
  table.sort(names)
  return names[1] and names or nil
end

function verbs.dblink(set, ...)
  local complete, name, fail, sql = read(SQL, ...)
  if not complete then return nil end
  local link = find_or_open(set, name)
  local res, err, unsent = run(link, sql)
  if res then
    leave(link)
    return rows(res)
  end
  if unsent then raise_internal(link, "could not send query") end
  return core.no_rows(report(link, err, fail, "while executing query"))
end

function verbs.exec(set, ...)
  local complete, name, fail, sql = read(SQL, ...)
  if not complete then return nil end
  local link = find_or_open(set, name)
  local res, err = run(link, sql)
  if not res then
    report(link, err, fail, "while executing command")
    return "ERROR"
  end
  leave(link)
  if res.status ~= "command_ok" then raise("2F003", "statement returning results not allowed") end
  return res.command
end

function verbs.send_query(set, ...)
  local name, sql = ...
  check_given(select("#", ...), 2, "sql")
  check_text(name, "connname")
  check_text(sql, "sql")
  if name == nil or sql == nil then return nil end
  local link = enter(find(set, name))
  if link.conn:send_query(sql) then
    await.flush(link.conn) -- it has been sent, though nobody may ever ask again
    return 1
  end
  local notice = new_error("00000", "could not send query: " .. link.conn:error_message(), {
    severity = "NOTICE",
    connection_lost = link.conn:status() == "bad",
  })
  leave(link)
  give_notice(link, notice)
  return 0
end

function verbs.is_busy(set, ...)
  local name = read_name(...)
  if not name then return nil end
  local link = check_not_calling(find(set, name))
  local busy = link.conn:is_busy()
  leave(link)
  return busy and 1 or 0
end

function verbs.get_result(set, ...)
  local name, fail = ...
  read_name(...)
  check_fail(fail)
  if name == nil then return nil end
  local link = enter(find(set, name))
  local res, err = link.conn:get_result()
  if is_copy(err) then link.conn:get_result() end -- how the COPY ended is part of it
  if err or res and res.status == "empty_query" then
    return core.no_rows(report(link, err or {}, fail, "while executing query"))
  end
  leave(link)
  return res and rows(res)
end

function verbs.cancel_query(set, ...)
  local name = read_name(...)
  if not name then return nil end
  local link = check_not_calling(find(set, name))
  local ok, err = link.conn:cancel(CANCEL_TIME)
  return ok and "OK" or err.kind == "timeout" and "cancel request timed out" or err.message
end

function verbs.error_message(set, ...)
  local name = read_name(...)
  return name and check_not_calling(find(set, name)).conn:error_message()
end

function verbs.get_notify(set, ...)
  local name = ...
  check_text(name, "connname")
  if name == nil then
    if select("#", ...) > 0 then return nil end
    if not set.unnamed then return {} end
  end
  local link, list = check_not_calling(find(set, name)), {}
  local notify = link.conn:get_notify()
  while notify do
    list[#list + 1] = { notify_name = notify.channel, be_pid = notify.pid, extra = notify.payload }
    notify = link.conn:get_notify()
  end
  leave(link)
  return list
end

-- Cursors ----------------------------------------------------------------------

-- A transaction is known by the moment it began; each row has a cursor open in it.
local MOMENT = "extract(epoch FROM pg_catalog.now())"
local BEGIN = { "BEGIN; SELECT " .. MOMENT, decode = false }
local STATE = {
  "SELECT " .. MOMENT .. ", c.name FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_cursors c ON true", decode = false,
}

-- A cursor's name as the server has it.
local function fold(name)
  local quoted = name:gsub('""', "\0"):match '^%s*"([^"]*)"'
  local folded = quoted and quoted:gsub("%z", '"') or name:match("^%s*([%w_$\128-\255]*)"):lower()
  local last = math.min(#folded, 63)
  while last < #folded and (folded:byte(last + 1) - 128) % 256 < 64 do last = last - 1 end
  return folded:sub(1, last)
end

function verbs.open(set, ...)
  local complete, name, fail, cursor, sql = read(CURSOR_SQL, ...)
  if not complete then return nil end
  local link = enter(find(set, name))
  if link.conn:transaction_status() == "idle" then
    local res = run(link, BEGIN)
    if not res then raise_internal(link, "begin error") end
    link.begun, link.cursors = res(1, 1), {}
  end
  if link.begun then link.cursors[fold(cursor)] = true end
  local res, err = run(link, ("DECLARE %s CURSOR FOR %s"):format(cursor, sql))
  if not res or res.status ~= "command_ok" then
    report(link, err or {}, fail, ('while opening cursor "%s"'):format(cursor))
    return "ERROR"
  end
  leave(link)
  return "OK"
end

function verbs.fetch(set, ...)
  local complete, name, fail, cursor, howmany = read(CURSOR_HOWMANY, ...)
  if not complete then return nil end
  local link = enter(find(set, name))
  local res, err = run(link, ("FETCH %d FROM %s"):format(howmany, cursor))
  if not res then
    return core.no_rows(report(link, err, fail, ('while fetching from cursor "%s"'):format(cursor)))
  end
  leave(link)
  if res.status == "command_ok" then raise("34000", ('cursor "%s" does not exist'):format(cursor)) end
  return res
end

-- Whether close() has closed the last of open()'s cursors in a transaction of open()'s.
local function is_last(link)
  if not link.begun or link.conn:transaction_status() == "idle" then
    link.begun = nil
    return false
  end
  local state = run(link, STATE)
  if not state then raise_internal(link, "commit error") end
  if state(1, 1) ~= link.begun then
    link.begun = nil
    return false
  end
  for i = 1, #state do
    if link.cursors[state(i, 2)] then return false end
  end
  return true
end

function verbs.close(set, ...)
  local complete, name, fail, cursor = read(CURSOR, ...)
  if not complete then return nil end
  local link = enter(find(set, name))
  local res, err = run(link, "CLOSE " .. cursor)
  if not res or res.status ~= "command_ok" then
    report(link, err or {}, fail, ('while closing cursor "%s"'):format(cursor))
    return "ERROR"
  end
  if is_last(link) then
    link.begun = nil
    if not run(link, "COMMIT") then raise_internal(link, "commit error") end
  end
  leave(link)
  return "OK"
end

-- Tables ------------------------------------------------------------------------
--
-- What dblink looks up in its own database is looked up on a link. The server quotes
-- (quote_ident, quote_literal), for it knows its keywords and the encoding.

-- The result of a query; its error raised without the line that says on which link.
local function ask(link, sql, ...)
  local res, err = link.conn:query { sql, n = select("#", ...) + 1, decode = false, ... }
  if res then return res end
  local message = err.sqlstate and err.message or link.conn:error_message()
  local lost = link.conn:status() == "bad"
  leave(link)
  raise(err.sqlstate or "08006", message,
    { kind = err.kind, detail = err.detail, hint = err.hint, connection_lost = lost })
end

local RELATION = [[
SELECT c.oid, c.relname, c.relkind,
       CASE WHEN NOT pg_catalog.pg_table_is_visible(c.oid) THEN pg_catalog.quote_ident(n.nspname) || '.' ELSE '' END
       || pg_catalog.quote_ident(c.relname),
       pg_catalog.quote_ident(a.attname)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.oid = (' ' || $1::text)::pg_catalog.regclass
 ORDER BY a.attnum]] -- the blank: "1" is to be a name, and no OID

local WORDS = { v = "view", m = "materialized view", S = "sequence", f = "foreign table" }

-- The relation that a name means to the server, to be read: as in dblink it has to
-- exist, to be none of the kinds that have no rows, and to be open to us, in this order.
local function relation(link, relname)
  local may = ask(link, "SELECT pg_catalog.has_table_privilege($1::text, 'SELECT')", relname)(1, 1)
  local found = ask(link, RELATION, relname)
  local rel = { oid = found(1, 1), kind = found(1, 3), name = found(1, 4), columns = {} }
  if ("iIc"):find(rel.kind, 1, true) then ask(link, "SELECT FROM " .. rel.name) end
  if may ~= "t" then
    leave(link)
    raise("42501", ("permission denied for %s %s"):format(WORDS[rel.kind] or "table", found(1, 2)))
  end
  for i = 1, #found do rel.columns[i] = found(i, 5) end
  return rel
end

local PRIMARY_KEY = [[
SELECT a.attname
  FROM pg_catalog.pg_index i
 CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts - 1) AS k
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
 WHERE i.indrelid = $1::pg_catalog.oid AND i.indisprimary
 ORDER BY k]]

function verbs.get_pkey(set, name, relname)
  check_text(name, "connname")
  check_text(relname, "relname")
  if relname == nil then return nil end
  local link, list = enter(find(set, name)), {}
  for i, column in ipairs(ask(link, PRIMARY_KEY, relation(link, relname).oid):column(1)) do
    list[i] = { position = i, colname = column }
  end
  leave(link)
  return list
end

local function check_list(value, name)
  if value ~= nil then check_type(value, name, "table") end
end

local function length(list)
  return list.n or #list
end

-- The key values of an array, as the server writes them in SQL.
local function literals(set, link, keys)
  local values, list = { n = length(keys) }, {}
  for i = 1, values.n do
    values[i] = keys[i]
    if keys[i] == set.options.null then values[i] = nil end
    list[i] = ("pg_catalog.quote_nullable($%d::text)"):format(i)
  end
  return ask(link, "SELECT " .. table.concat(list, ", "), unpack(values, 1, values.n)):rows "array" ()
end

local function is_null(literal)
  return literal == "NULL" -- a text of that name is quoted
end

local function condition(rel, attnums, values)
  local list = {}
  for i, value in ipairs(values) do
    list[i] = rel.columns[attnums[i]] .. (is_null(value) and " IS NULL" or " = " .. value)
  end
  return table.concat(list, " AND ")
end

-- The one row with these keys, each value as the server writes it in SQL.
local function source_row(link, rel, where)
  local list = {}
  for i, column in ipairs(rel.columns) do list[i] = ("pg_catalog.format('%%L', %s)"):format(column) end
  local res = ask(link, ("SELECT %s FROM %s WHERE %s LIMIT 2"):format(table.concat(list, ", "), rel.name, where))
  if #res ~= 1 then
    leave(link)
    raise("21000", #res == 0 and "source row not found" or "source criteria matched more than one record")
  end
  return res:rows "array" ()
end

-- What the three functions that build SQL have in common: the relation, its columns'
-- values with the target's keys in place of the source's, and the condition that finds
-- the target. All checks are made in dblink's order. src is nil for a DELETE.
local function build(set, name, relname, attnums, count, tgt, src)
  local link = enter(find(set, name))
  local function refuse(sqlstate, message, ...)
    leave(link)
    raise(sqlstate, message:format(...))
  end
  local rel = relation(link, relname)
  count = math.min(count, length(attnums))
  if count <= 0 then refuse("22023", "number of key attributes must be > 0") end
  for i = 1, count do
    if not rel.columns[attnums[i]] then refuse("22023", "invalid attribute number %d", attnums[i]) end
  end
  if src and length(src) ~= count then
    refuse("2202E", "source key array length must match number of key attributes")
  elseif length(tgt) ~= count then
    refuse("2202E", "target key array length must match number of key attributes")
  end
  local keys, values = literals(set, link, tgt), nil
  if src then
    values = source_row(link, rel, condition(rel, attnums, literals(set, link, src)))
    for i = count, 1, -1 do values[attnums[i]] = keys[i] end
  end
  leave(link)
  return rel, values, condition(rel, attnums, keys)
end

local function check_build(name, relname, attnums, count, src, tgt)
  check_text(name, "connname")
  check_text(relname, "relname")
  check_list(attnums, "attnums")
  for i = 1, attnums and length(attnums) or 0 do
    check_type(attnums[i], "attnums", "number")
    check_integer(attnums[i], "attnums")
  end
  check_integer(count, "n")
  check_list(src, "src")
  check_list(tgt, "tgt")
  return relname ~= nil and attnums ~= nil and count ~= nil and tgt ~= nil
end

function verbs.build_sql_insert(set, name, relname, attnums, n, src, tgt)
  if not check_build(name, relname, attnums, n, src, tgt) or src == nil then return nil end
  local rel, values = build(set, name, relname, attnums, n, tgt, src)
  return ("INSERT INTO %s(%s) VALUES(%s)"):format(rel.name, table.concat(rel.columns, ","), table.concat(values, ","))
end

function verbs.build_sql_update(set, name, relname, attnums, n, src, tgt)
  if not check_build(name, relname, attnums, n, src, tgt) or src == nil then return nil end
  local rel, values, where = build(set, name, relname, attnums, n, tgt, src)
  local list = {}
  for i, column in ipairs(rel.columns) do list[i] = column .. " = " .. values[i] end
  return ("UPDATE %s SET %s WHERE %s"):format(rel.name, table.concat(list, ", "), where)
end

function verbs.build_sql_delete(set, name, relname, attnums, n, tgt)
  if not check_build(name, relname, attnums, n, nil, tgt) then return nil end
  local rel, _, where = build(set, name, relname, attnums, n, tgt)
  return ("DELETE FROM %s WHERE %s"):format(rel.name, where)
end

-- Sets --------------------------------------------------------------------------

local LISTENERS = { on_notice = true, on_remote_notice = true }

-- A set of links with names of its own. options: what connection.connect takes, and
-- on_notice(err), on_remote_notice(err).
local function new(options)
  local set, functions = { links = {}, options = {} }, {}
  if options ~= nil then check_type(options, "options", "table") end
  for name, value in pairs(options or {}) do
    if LISTENERS[name] then
      check_type(value, name, "function")
      set[name] = value
    else
      set.options[name] = value
    end
  end
  for name, verb in pairs(verbs) do
    functions[name] = function(...) return verb(set, ...) end
  end
  return functions
end

local named = new()
named.new = new
return named
