---@meta dblink

-- Annotations for LuaLS: docs/reference.md in the editor.

---@class dblink
---@field null userdata stands for NULL
---@field _VERSION string
---@field libpq_version integer
---@field features table<string, boolean>
local dblink = {}

---@class dblink.error
---@field message string
---@field kind "server"|"connection"|"timeout"|"cancelled"|"pipeline_aborted"|"usage"|"unsupported"|"too_big"|"memory"
---@field connection_lost boolean
---@field sqlstate string?
---@field severity string?
---@field detail string?
---@field hint string?
---@field position integer?
---@field context string?
---@field schema string?
---@field table string?
---@field column string?
---@field datatype string?
---@field constraint string?
---@field internal_position integer?
---@field internal_query string?
---@field file string?
---@field line integer?
---@field routine string?
local err = {}
---@param condition string a condition's name, a class's, or an SQLSTATE
---@return boolean
function err:is(condition) end

---@class dblink.wait
---@field wait fun(fd: integer, events: "r"|"w"|"rw", seconds: number?): true?, "timeout"?
---@field forget fun(fd: integer)
---@field self (fun(): any)?
---@field park (fun(seconds: number?): true?, "timeout"?)?
---@field unpark fun(token: any)?

---@class dblink.options
---@field timeout number? seconds
---@field wait "poll"|"cqueues"|"copas"|"luv"|"openresty"|"openresty-direct"|dblink.wait|nil
---@field null any
---@field rows "row"|"array"|nil
---@field int8 "cdata"|nil
---@field numeric "number"|nil
---@field json {decode: fun(text: string): any}?
---@field codecs table?
---@field decode boolean?
---@field max_bytes number|false|nil
---@field statement_cache integer|false|nil

---@param conninfo string|table
---@param options dblink.options?
---@return dblink.connection? connection
---@return dblink.error? err
function dblink.connect(conninfo, options) end

---@param conninfo string|table
---@param options dblink.options?
---@return dblink.connection? connection
---@return dblink.error? err
function dblink.connect_start(conninfo, options) end

---@param conninfo string|table
---@param seconds number?
---@return "ok"|"reject"|"no response"|"no attempt"
function dblink.ping(conninfo, seconds) end

---@return number seconds on a clock that no one sets
function dblink.now() end

---@generic T
---@param value T?
---@param err any
---@return T
function dblink.assert(value, err, ...) end

---@param s string
---@return any parameter
function dblink.bytea(s) end
---@param t table
---@param type string|integer|dblink.codec|nil
---@return any parameter
function dblink.array(t, type) end
---@param value any
---@return any parameter
function dblink.json(value) end

---@param s string
---@return string bytes
function dblink.unescape_bytea(s) end

---@class dblink.connection
local conn = {}
---@return "r"|"w"|"rw"|nil events
function conn:step() end
---@return integer? fd
function conn:getfd() end
---@return integer? fd
function conn:pollfd() end
---@return "r"|"rw" events
function conn:events() end
---@return number? seconds
function conn:timeout() end
---@return boolean
function conn:dirty() end
---@param seconds number?
---@return dblink.connection? connection
---@return dblink.error? err
function conn:reset(seconds) end
function conn:close() end
---@return "ok"|"bad"|"connecting"|"closed"
function conn:status() end
---@return "idle"|"active"|"intrans"|"inerror"|"unknown"
function conn:transaction_status() end
---@param name string
---@return string? value
function conn:parameter(name) end
---@return integer
function conn:server_version() end
---@return integer
function conn:backend_pid() end
---@return table<string, string>
function conn:info() end
---@param sql string|table
---@return true? sent
---@return dblink.error? err
function conn:send_query(sql, ...) end
---@return boolean
function conn:is_busy() end
---@param seconds number?
---@return dblink.result? result
---@return dblink.error? err
function conn:get_result(seconds) end
---@return dblink.result|false|nil result
---@return dblink.error? err
function conn:try_result() end
---@return fun(): integer, dblink.result?, dblink.error?
function conn:results() end
---@param seconds number?
---@return true? sent
---@return dblink.error? err
function conn:cancel(seconds) end
---@return string
function conn:error_message() end
---@return {channel: string, payload: string, pid: integer}?
function conn:get_notify() end
---@param sql string|table
---@return dblink.result? result
---@return dblink.error? err
function conn:query(sql, ...) end
---@param sql string|table
---@return string? json
---@return dblink.error? err
function conn:json(sql, ...) end
---@class dblink.codec
---@field oid integer
---@field array integer?
---@operator call(any): any
---@param type string|integer
---@param codec {decode: (fun(text: string): any)?, decode_binary: (fun(bytes: string): any)?, encode: (fun(value: any): string)?}?
---@return dblink.codec? codec
---@return dblink.error? err
function conn:codec(type, codec) end
---@param sql string|table
---@return dblink.stream stream
function conn:rows(sql, ...) end
---@param sql string
---@param name string?
---@param seconds number?
---@return dblink.statement? statement
---@return dblink.error? err
function conn:prepare(sql, name, seconds) end
---@param options { timeout: number? }?
---@return dblink.pipeline? pipeline
---@return dblink.error? err
function conn:pipeline(options) end
---@param sql string
---@param seconds number?
---@return dblink.result[]? results
---@return dblink.error? err
function conn:exec_all(sql, seconds) end
---@return dblink.error[] notices
---@return integer dropped
---@return any failure of on_notice
function conn:notices() end
---@class dblink.transaction_options
---@field isolation "serializable"|"repeatable read"|"read committed"|"read uncommitted"|nil
---@field read_only boolean?
---@field deferrable boolean?
---@field retries integer?
---@field timeout number?
---@param fn fun(conn: dblink.connection): ...
---@param options dblink.transaction_options?
---@return any ... what fn returned, or nil and an error
function conn:transaction(fn, options) end
---@param channel string
---@param seconds number?
---@return true? done
---@return dblink.error? err
function conn:listen(channel, seconds) end
---@param channel string?
---@param seconds number?
---@return true? done
---@return dblink.error? err
function conn:unlisten(channel, seconds) end
---@param channel string
---@param payload string?
---@param seconds number?
---@return true? sent
---@return dblink.error? err
function conn:notify(channel, payload, seconds) end
---@param options {timeout: number?, limit: integer?}?
---@return fun(): {channel: string, payload: string, pid: integer, dropped: integer?}?
function conn:notifications(options) end
---@param seconds number?
---@return {channel: string, payload: string, pid: integer, dropped: integer?}? notification
---@return dblink.error? err
function conn:next_notification(seconds) end
---@param sql string|{[1]: string, timeout: number?}
---@return dblink.writer? writer
---@return dblink.error? err
function conn:copy_in(sql) end
---@param sql string|{[1]: string, timeout: number?}
---@return dblink.reader? reader
---@return dblink.error? err
function conn:copy_out(sql) end
---@param s string
---@return string? literal
---@return dblink.error? err
function conn:escape_literal(s) end
---@param s string
---@return string? identifier
---@return dblink.error? err
function conn:escape_identifier(s) end
---@param s string
---@return string? text
---@return dblink.error? err
function conn:escape_bytea(s) end

---@class dblink.writer
local writer = {}
---@param s string
---@return true? taken
---@return dblink.error? err
function writer:write(s) end
---@param values any[]
---@return true? taken
---@return dblink.error? err
function writer:row(values) end
---@return dblink.result? result
---@return dblink.error? err
function writer:finish() end
---@param why any
---@return true? failed
---@return dblink.error? err
function writer:fail(why) end
function writer:close() end

---@class dblink.reader
---@operator call: string?
local reader = {}
---@return string? line
---@return dblink.error? err
function reader:line() end
---@return string? bytes
---@return dblink.error? err
function reader:read() end
---@return any[]? row
---@return dblink.error? err
function reader:row() end
---@param types (string|false)[]?
---@return fun(): any[]?
function reader:rows(types) end
function reader:close() end

---@class dblink.stream
---@operator call: any
local stream = {}
---@return any ... the row
function stream:next() end
---@return table[]? columns
---@return dblink.error? err
function stream:columns() end
function stream:close() end

---@class dblink.pipeline
local pipeline = {}
---@param sql string|dblink.statement|table
---@param ... any
---@return dblink.ticket? ticket
---@return dblink.error? err
function pipeline:query(sql, ...) end

---@param sql string|dblink.statement|table
---@param ... any
---@return true? sent
---@return dblink.error? err
function pipeline:send_query(sql, ...) end

---@param seconds? number
---@return dblink.result? result nil alone: all are collected
---@return dblink.error? err
function pipeline:get_result(seconds) end

---@return fun(p: dblink.pipeline): integer?, any, any, any, any
---@return dblink.pipeline self
function pipeline:values() end

---@param seconds? number
---@return integer? n the number of the query; nil alone: all are collected
---@return any ... the values, or an error and the number of the query
function pipeline:next_values(seconds) end

---@return true? sent
---@return dblink.error? err
function pipeline:sync() end

---@return true? sent
---@return dblink.error? err
function pipeline:flush() end

---@param seconds? number
---@return true? ended
---@return dblink.error? err
function pipeline:close(seconds) end

---@class dblink.ticket
local ticket = {}
---@param seconds? number
---@return dblink.result? result
---@return dblink.error? err
function ticket:result(seconds) end

---@class dblink.statement
local stmt = {}
---@return dblink.result? result
---@return dblink.error? err
function stmt:query(...) end
---@return true? sent
---@return dblink.error? err
function stmt:send_query(...) end
---@return dblink.stream stream
function stmt:rows(...) end
---@return {parameters: integer[], columns: table[]}
function stmt:describe() end
---@return true? closed
---@return dblink.error? err
function stmt:close() end

---@class dblink.result
---@field status string
---@field command string
---@field affected integer?
---@field [integer] table
---@operator len: integer
---@operator call: any
local res = {}
---@param shape "row"|"array"|"values"|nil
---@return function
function res:rows(shape) end
---@param shape "row"|"array"|nil
---@return table[]
function res:all(shape) end
---@param column integer|string
---@return any[]?
function res:column(column) end
---@return table[]
function res:columns() end
---@param shape "row"|"array"|nil
---@return string
function res:json(shape) end
---@param options {header: boolean?, delimiter: string?, null: string?}?
---@return string
function res:csv(options) end
function res:clear() end

---@class dblink.run_options
---@field timeout number? seconds
---@field limit integer?
---@field on_error "cancel"|nil
---@field on_progress fun(done: integer, total: integer, item: table, res: dblink.result?, err: dblink.error?)?
---@field connect dblink.options?
---@field wait string|table|nil
---@field after number? seconds (hedge)
---@field grace number? seconds (race, hedge)

---@param list table[]
---@param options dblink.run_options?
---@return table<integer, dblink.result> results
---@return table<integer, dblink.error> errors
function dblink.gather(list, options) end
---@param list table[]
---@param options dblink.run_options?
---@return fun(): integer, dblink.result?, dblink.error?
function dblink.as_completed(list, options) end
---@param list table[]
---@param options dblink.run_options?
---@return dblink.result? result
---@return integer|dblink.error which
---@return dblink.error[]? errors
function dblink.race(list, options) end
---@param list table[]
---@param options dblink.run_options?
---@return dblink.result? result
---@return integer|dblink.error which
---@return dblink.error[]? errors
function dblink.hedge(list, options) end
---@param list dblink.connection[]
---@param seconds number?
---@return dblink.connection[]? ready
---@return dblink.error? err
function dblink.wait_any(list, seconds) end

---@param options table
---@return dblink.pool
function dblink.pool(options) end

---@class dblink.lease: dblink.connection
local lease = {}
function lease:release() end

---@class dblink.pool
local pool = {}
---@param sql string|table
---@return dblink.result? result
---@return dblink.error? err
function pool:query(sql, ...) end
---@param seconds number?
---@return dblink.lease? lease
---@return dblink.error? err
function pool:acquire(seconds) end
---@param given dblink.lease
function pool:release(given) end
---@param f fun(conn: dblink.lease, ...): ...
function pool:with(f, ...) end
---@param f fun(conn: dblink.connection): ...
---@param options table?
function pool:transaction(f, options) end
---@return table<string, number>
function pool:stats() end
---@param n integer?
---@return true? ok
---@return dblink.error? err
function pool:fill(n) end
---@param max integer
---@param min integer?
function pool:resize(max, min) end
---@param seconds number?
---@return true? ok
---@return dblink.error? err
function pool:drain(seconds) end
function pool:close() end

return dblink
