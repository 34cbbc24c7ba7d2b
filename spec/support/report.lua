-- Busted's plain output, and besides: what is running (DBLINK_TALLY.now, read after a crash) and, at the end,
-- the counts (DBLINK_TALLY), which spec/support/test adds up over all Luas.

local tally = os.getenv "DBLINK_TALLY"

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

return function(options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.plainTerminal"(options)
  local passed, failed, skipped = 0, 0, 0

  busted.subscribe({ "test", "start" }, function(element)
    if tally then
      local at = element.trace or {}
      write(tally .. ".now",
        ("%s (%s:%s)\n"):format(handler.getFullName(element), at.short_src or "?", at.currentline or "?"))
    end
    return nil, true
  end)
  busted.subscribe({ "suite", "end" }, function() -- once for each of --repeat's rounds
    passed = passed + handler.successesCount
    failed = failed + handler.failuresCount + handler.errorsCount
    skipped = skipped + handler.pendingsCount
    if tally then write(tally .. ".now", "the end, after all tests\n") end
    return nil, true
  end)
  -- Ctrl-C, which Lua turns into an error of whatever test runs
  busted.subscribe({ "error" }, function(_, _, message)
    if tostring(message):match "interrupted!" then os.exit(130) end
    return nil, true
  end)
  busted.subscribe({ "exit" }, function()
    local line = ("%d %d %d\n"):format(passed, failed, skipped)
    if tally then write(tally, line) end
    return nil, true
  end)
  return handler
end
