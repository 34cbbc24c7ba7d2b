-- The wait of nginx's Lua code: the relay. See nginx.lua.
return require "dblink.nginx".relay
