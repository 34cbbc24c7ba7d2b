-- What make coverage has reached of src/*.[ch], all its processes and Luas together:
--   coverage.lua FOLDER      gcc's data lie below it
-- prints the lines and branches of each file; the lines that nothing reached, and the lines whose branches were not
-- all taken, those for which spec/support/uncovered.lua has a reason apart. A branch that the Luas' macros make another
-- number of counts by the Lua that reached most. No figure leaves out what has a reason.

local files, names = {}, {}

local function file_of(path)
  local name = path:match "src/([%w_]+%.[ch])$"
  if not name then return { counts = {}, texts = {}, names = {}, branches = {} } end
  if not files[name] then
    files[name] = { counts = {}, texts = {}, names = {}, branches = {}, last = 0 }
    names[#names + 1] = name
  end
  return files[name]
end

local function read(data)
  local pipe = assert(io.popen(("gcov -t -b -c '%s' 2>/dev/null"):format(data)))
  local file, within, branches
  for line in pipe:lines() do
    local count, at, text = line:match "^ *([%d#=*-]+): *(%d+):(.*)$"
    local number = tonumber(at)
    if number == 0 then
      file = text:match "^Source:" and file_of(text:sub(8)) or file
    elseif number and count ~= "-" then
      file.counts[number] = (file.counts[number] or 0) + (tonumber(count:match "^%d+") or 0)
      file.texts[number], file.names[number] = text:gsub("^%s+", ""):gsub("%s+$", ""), within
      file.last = math.max(file.last or 0, number)
      branches = {}
      file.branches[number] = file.branches[number] or {}
      table.insert(file.branches[number], branches)
    elseif line:match "^function" then
      within = line:match "^function (%S+)"
    elseif line:match "^branch" then
      branches[#branches + 1] = tonumber(line:match "taken (%d+)" or 0)
    end
  end
  pipe:close()
end

-- How many of a line's branches were taken, and how many there are.
local function count_branches(runs)
  local sums, taken, most = {}, 0, 0
  for _, run in ipairs(runs) do
    local sum = sums[#run] or {}
    for i, times in ipairs(run) do sum[i] = (sum[i] or 0) + times end
    sums[#run] = sum
  end
  for total, sum in pairs(sums) do
    local here = 0
    for _, times in ipairs(sum) do here = here + (times > 0 and 1 or 0) end
    if most == 0 or (total > 0 and here * most > taken * total) then taken, most = here, total end
  end
  return taken, most
end

local function tell(name, sum)
  local function percent(n, total) return ("%5.1f %%"):format(total > 0 and n * 100 / total or 100) end
  print(("%-16s %5d of %5d lines %s %5d of %5d branches %s"):format(
    name, sum[1], sum[2], percent(sum[1], sum[2]), sum[3], sum[4], percent(sum[3], sum[4])))
end

local list = assert(io.popen(("find '%s' -name '*.gcda'"):format(arg[1])))
for data in list:lines() do read(data) end
list:close()
table.sort(names)

local reasons, unused = {}, {}
for _, entry in ipairs(dofile "spec/support/uncovered.lua") do
  for _, line in ipairs(entry) do reasons[line], unused[line] = entry.why, true end
end

local all = { 0, 0, 0, 0 }
local unknown, known, half, known_half, excused = {}, {}, {}, {}, 0
for _, name in ipairs(names) do
  local file, sum = files[name], { 0, 0, 0, 0 }
  for number = 1, file.last do
    local count, text = file.counts[number], file.texts[number]
    if count then
      local taken, most = count_branches(file.branches[number])
      for i, n in ipairs { count > 0 and 1 or 0, 1, taken, most } do sum[i], all[i] = sum[i] + n, all[i] + n end
      local key, where = ("%s %s: %s"):format(name, file.names[number], text), ("%s:%d: %s"):format(name, number, text)
      unused[key] = nil
      if count == 0 and reasons[key] then
        known[#known + 1] = ("%s (%s)"):format(where, reasons[key])
      elseif count == 0 then
        unknown[#unknown + 1] = key
      elseif taken < most then
        local halves = reasons[key] and known_half or half
        halves[#halves + 1] = ("%s   %d of %d%s"):format(where, taken, most,
          reasons[key] and (" (%s)"):format(reasons[key]) or "")
        if reasons[key] then excused = excused + most - taken end
      end
    end
  end
  tell(name, sum)
end
tell("all", all)
print(("for a reason, %d lines not reached, %d branches of other lines not taken"):format(#known, excused))
for key in pairs(unused) do unknown[#unknown + 1] = "in uncovered.lua, but nowhere else: " .. key end
print(("\n%d lines not reached:\n%s"):format(#unknown, table.concat(unknown, "\n")))
print(("\nfor a reason, %d lines not reached:\n%s"):format(#known, table.concat(known, "\n")))
print(("\nbranches not all taken, in %d lines:\n%s"):format(#half, table.concat(half, "\n")))
print(("\nbranches not taken for a reason, in %d lines:\n%s"):format(#known_half, table.concat(known_half, "\n")))
