local memory = {}

-- The most that this process has had in memory, in MiB.
function memory.peak()
  local file = assert(io.open "/proc/self/status")
  local kb = file:read "*a":match "VmHWM:%s*(%d+)"
  file:close()
  return kb / 1024
end

return memory
