-- The wait of a plain script: the whole program waits, in poll(2).
local core = require "dblink.core"

local function forget() end

return { wait = core.poll, forget = forget, plain = true }
