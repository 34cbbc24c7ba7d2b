-- The floors of src/, as docs/house.md draws them, against what its files include and require: a file goes only to
-- floors below its own, and every file has one.
--   lua spec/support/floors.lua      says what is wrong, and fails

local floors = {}

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

-- The picture: in docs/house.md, the block fenced as ```floors. Lines are "[C|Lua] NUMBER room room ...", a
-- language holds until the next, "*" stands for any letters, a room in parentheses needs no spec of its own, words
-- after two hyphens are talk.
-- Gives { { language =, floor =, room =, spec = boolean }, ... }.
function floors.picture(markdown)
  local block = assert(("\n" .. markdown):match "\n```floors\n(.-)\n```", "docs/house.md has no block ```floors")
  local rooms, language = {}, nil
  for line in (block .. "\n"):gmatch "(.-)\n" do
    local word, floor, names = line:gsub("%-%-.*", ""):match "^%s*(%a*)%s*(%d+)%s+(.*)$"
    if floor then
      if word ~= "" then language = word end
      for name in names:gmatch "%S+" do
        local bare = name:match "^%((.*)%)$"
        rooms[#rooms + 1] = {
          language = assert(language, "the first floor names no language"),
          floor = tonumber(floor), room = bare or name, spec = not bare,
        }
      end
    end
  end
  return rooms
end

-- src/conn.c and src/conn.h are the C room conn, src/dblink/wait/poll.lua is the Lua room wait/poll.
function floors.room_of(path)
  local name, ext = path:match "^src/(.+)%.(%w+)$"
  if ext == "lua" then return "Lua", name:gsub("^dblink/", "") end
  return "C", name
end

local function find(rooms, language, room)
  for _, r in ipairs(rooms) do
    if r.language == language and room:find("^" .. r.room:gsub("%p", "%%%0"):gsub("%%%*", ".*") .. "$") then
      return r
    end
  end
end

-- The rooms a file goes to, as { language, room }.
local function goes_to(language, text, files)
  local list = {}
  if language == "C" then
    for name in ("\n" .. text):gmatch '\n[ \t]*#[ \t]*include[ \t]*"(.-)"' do
      list[#list + 1] = { "C", (name:gsub("%.%w+$", "")) }
    end
    return list
  end
  for name in text:gmatch "require%s*%(?%s*[\"'](dblink[%w_.]*)[\"']" do
    if name == "dblink.core" then
      list[#list + 1] = { "C", "core" }
    elseif name:match "%.$" then -- "dblink.wait." .. name: any of them
      for path in pairs(files) do
        local l, room = floors.room_of(path)
        if l == "Lua" and ("dblink." .. room:gsub("/", ".")):find(name, 1, true) == 1 then
          list[#list + 1] = { "Lua", room }
        end
      end
    else
      list[#list + 1] = { "Lua", (name:gsub("^dblink%.", ""):gsub("%.", "/")) }
    end
  end
  return list
end

-- What is wrong, as a list of sentences. files: path -> text.
function floors.check(rooms, files)
  local wrong = {}
  for path, text in pairs(files) do
    local language, room = floors.room_of(path)
    local from = find(rooms, language, room)
    if not from then
      wrong[#wrong + 1] = ("%s has no floor in docs/house.md"):format(path)
    else
      for _, target in ipairs(goes_to(language, text, files)) do
        local to = find(rooms, target[1], target[2])
        if not to then
          wrong[#wrong + 1] = ("%s goes to %s, which has no floor"):format(path, target[2])
        elseif to.floor >= from.floor and not (target[1] == language and target[2] == room) then
          wrong[#wrong + 1] = ("%s (floor %d) goes to %s (floor %d)"):format(path, from.floor, target[2], to.floor)
        end
      end
    end
  end
  table.sort(wrong)
  return wrong
end

-- Rooms that should have a spec of their name and have none: src/cancel.c, spec/cancel_spec.lua; those of a folder
-- share one, wait/poll and wait/copas spec/wait_spec.lua. A header alone is no room to test.
function floors.missing_specs(rooms, files, specs)
  local missing = {}
  for path in pairs(files) do
    local language, room = floors.room_of(path)
    local r = find(rooms, language, room)
    local spec = "spec/" .. room:gsub("/.*", "") .. "_spec.lua"
    if not path:match "%.h$" and r and r.spec and not specs[spec] then
      missing[#missing + 1] = path .. " has no " .. spec
    end
  end
  table.sort(missing)
  return missing
end

-- The files below a folder whose names end so: path -> text.
function floors.files(folder, ...)
  local files, pipe = {}, assert(io.popen("find " .. folder .. " -type f"))
  for path in pipe:lines() do
    for _, ending in ipairs { ... } do
      if path:sub(-#ending) == ending then files[path] = read(path) end
    end
  end
  pipe:close()
  return files
end

function floors.here()
  return floors.picture(read "docs/house.md"), floors.files("src", ".c", ".h", ".lua")
end

if arg and arg[0] and arg[0]:match "floors%.lua$" then
  local rooms, files = floors.here()
  local wrong, count = floors.check(rooms, files), 0
  for _ in pairs(files) do count = count + 1 end
  for _, sentence in ipairs(wrong) do io.stderr:write(sentence, "\n") end
  print(("floors: %d files, %d go the wrong way"):format(count, #wrong))
  os.exit(#wrong == 0 and 0 or 1)
end

return floors
