-- Other programs of the Lua that runs the specs.
local program = {}

for i = 0, -10, -1 do program.lua = arg[i] or program.lua end

-- What "[BEFORE] lua WORDS" prints, errors too, and the status it ends with.
function program.run(words, before)
  local pipe = assert(io.popen(("(%s %s %s) 2>&1; echo $?"):format(before or "", program.lua, words)))
  local output, status = pipe:read "*a":match "^(.-)(%d+)\n$"
  pipe:close()
  return output, tonumber(status)
end

-- The same of a program's text.
function program.run_text(text, before)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  local output, status = program.run(path, before)
  os.remove(path)
  return output, status
end

return program
