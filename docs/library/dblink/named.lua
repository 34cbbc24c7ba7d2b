---@meta dblink.named

-- Annotations for LuaLS: the functions of docs/dblink.md in the editor.

---@class dblink.named.options: dblink.options
---@field on_notice fun(err: dblink.error)? told what dblink itself gives as a NOTICE
---@field on_remote_notice fun(err: dblink.error)? told what the remote server raised

---@class dblink.named
local named = {}

---@param options dblink.named.options?
---@return dblink.named set a set of links with names of its own
function named.new(options) end

---@param name string
---@param conninfo string|table
---@return "OK"?
---@overload fun(conninfo: string|table): "OK"?
function named.connect(name, conninfo) end
---@param name string
---@param conninfo string|table
---@return "OK"?
---@overload fun(conninfo: string|table): "OK"?
function named.connect_u(name, conninfo) end
---@param name string? left out: the unnamed link
---@return "OK"?
function named.disconnect(name) end
---@return string[]? names sorted; nil: none
function named.get_connections() end

---@param name string|table a link's name, or a conninfo
---@param sql string
---@param fail boolean?
---@return dblink.result?
---@overload fun(sql: string, fail?: boolean): dblink.result?
function named.dblink(name, sql, fail) end
---@param name string|table a link's name, or a conninfo
---@param sql string
---@param fail boolean?
---@return string? tag the command's, or "ERROR"
---@overload fun(sql: string, fail?: boolean): string?
function named.exec(name, sql, fail) end

---@param name string
---@param cursor string
---@param sql string
---@param fail boolean?
---@return "OK"|"ERROR"?
---@overload fun(cursor: string, sql: string, fail?: boolean): "OK"|"ERROR"?
function named.open(name, cursor, sql, fail) end
---@param name string
---@param cursor string
---@param howmany integer
---@param fail boolean?
---@return dblink.result?
---@overload fun(cursor: string, howmany: integer, fail?: boolean): dblink.result?
function named.fetch(name, cursor, howmany, fail) end
---@param name string
---@param cursor string
---@param fail boolean?
---@return "OK"|"ERROR"?
---@overload fun(cursor: string, fail?: boolean): "OK"|"ERROR"?
function named.close(name, cursor, fail) end

---@param name string
---@param sql string
---@return 0|1|nil sent
function named.send_query(name, sql) end
---@param name string
---@return 0|1|nil busy
function named.is_busy(name) end
---@param name string
---@param fail boolean?
---@return dblink.result? result nil: no more
function named.get_result(name, fail) end
---@param name string
---@return string? ok "OK", or the text of an error
function named.cancel_query(name) end
---@param name string
---@return string? message "OK" without an error
function named.error_message(name) end
---@param name string? left out: the unnamed link
---@return {notify_name: string, be_pid: integer, extra: string}[]?
function named.get_notify(name) end

---@param name string? nil: the unnamed link
---@param relname string
---@return {position: integer, colname: string}[]?
function named.get_pkey(name, relname) end
---@param name string? nil: the unnamed link
---@param relname string
---@param attnums integer[]
---@param n integer
---@param src any[]
---@param tgt any[]
---@return string? sql
function named.build_sql_insert(name, relname, attnums, n, src, tgt) end
---@param name string? nil: the unnamed link
---@param relname string
---@param attnums integer[]
---@param n integer
---@param src any[]
---@param tgt any[]
---@return string? sql
function named.build_sql_update(name, relname, attnums, n, src, tgt) end
---@param name string? nil: the unnamed link
---@param relname string
---@param attnums integer[]
---@param n integer
---@param tgt any[]
---@return string? sql
function named.build_sql_delete(name, relname, attnums, n, tgt) end

return named
