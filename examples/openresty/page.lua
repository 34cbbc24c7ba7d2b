-- The pages of nginx.conf. The pool is the worker's: it outlives the requests.
local dblink = require "dblink"

local ngx = require "ngx"

local pool = dblink.pool { os.getenv "DBLINK_CONNINFO" or "", max = 10 }

local page = {}

function page.primes()
  local below = tonumber(ngx.var.arg_below) or 100
  -- waits without stopping the worker; a deadline, so that no page takes for ever
  local res, err = pool:query {
    [[select n from generate_series(2, $1::int - 1) n
      where not exists (select from generate_series(2, sqrt(n)::int) d where n % d = 0)]],
    below, timeout = 2,
  }
  if not res then
    ngx.log(ngx.ERR, err)
    return ngx.exit(err.kind == "timeout" and 504 or 500)
  end
  ngx.say(table.concat(res:column "n", " "))
end

return page
