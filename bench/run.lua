-- make bench: our module beside the same work in C (limit.c) and the clients that are installed.
--
-- Every measurement is a process of its own, and they take turns, so that a busy
-- moment of the machine is everybody's. What is compared is the client's CPU time,
-- user and system: the median of some rounds, in microseconds for each query or row.
--
--   BENCH=copy       only workloads with that in their names
--   ROUNDS=5         turns
--   N=0.1            that much of the work
--   PEERS=luasql     only these others; PEERS= none
local lua = arg[1]
local rounds, scale = tonumber(os.getenv "ROUNDS") or 5, tonumber(os.getenv "N") or 1

local PEERS = {}
for name in (os.getenv "PEERS" or "luasql luadbi psycopg2 psycopg3 asyncpg ruby-pg"):gmatch "%S+" do
  PEERS[#PEERS + 1] = name
end
local COMMANDS = {
  limit = (os.getenv "BUILD" or "build") .. "/limit %s %d",
  ours = lua .. " bench/bench.lua ours %s %d",
  luasql = lua .. " bench/bench.lua luasql %s %d",
  luadbi = lua .. " bench/bench.lua luadbi %s %d",
  ["ruby-pg"] = "ruby bench/peers.rb %s %d",
}
for _, name in ipairs { "psycopg2", "psycopg3", "asyncpg" } do
  COMMANDS[name] = "/usr/bin/python3 bench/peers.py " .. name .. " %s %d"
end

-- Our workload, the one of limit.c it is compared with, how many, the ratio to reach; and how many
-- times the rounds, where one is so short that the median of a few says little.
local MILLION = 1000000
local CHUNKS = require "dblink".features.chunked_rows
local WORKLOADS = {
  { "query", "exec", 50000, 1.10, "select 1" },
  { "params", "params", 50000, 1.00, "prepared, two int4" },
  { "cached", "params", 50000, nil, "conn:query, two int4" },
  { "coroutine", "exec", 50000, 1.25, "select 1 in a coroutine" },
  { "array_binary", "rows", MILLION, 1.8, "rows as arrays, binary" },
  { "array_text", "rows", MILLION, 2.9, "rows as arrays, text" },
  { "named_binary", "rows", MILLION, 2.7, "rows by name, binary" },
  { "named_text", "rows", MILLION, 3.5, "rows by name, text" },
  { "columns_binary", "rows", MILLION, 1.4, "an array a column, binary" },
  { "columns_text", "rows", MILLION, 2.4, "an array a column, text" },
  { "values_binary", "rows", MILLION, CHUNKS and 0.55 or 0.75, "streamed values, binary" },
  { "values_text", "rows", MILLION, 1.0, "streamed values, text" },
  { "stream_binary", "rows", MILLION, CHUNKS and 1.0 or 1.15, "streamed by name, binary" },
  { "stream_text", "rows", MILLION, 1.4, "streamed by name, text" },
  { "array_strings", "rows", MILLION, 1.8, "as arrays, times as text" },
  { "values_strings", "rows", MILLION, 0.75, "streamed, times as text" },
  { "pipeline", "pipeline", 100000, 1.4, "pipeline, a call each" },
  { "tickets", "pipeline", 100000, nil, "pipeline with tickets" },
  { "copy_bytes", "copy_bytes", MILLION, 1.2, "COPY in, 64 KiB writes" },
  { "copy_rows", "copy_rows", MILLION, 0.8, "COPY in, rows" },
  { "copy_out", "copy_out", MILLION, nil, "COPY out, lines" },
  { "fanout", "fanout", 2000, 1.25, "100 connections, 20 each", 6 },
}

local function capture(command)
  local pipe = assert(io.popen(command))
  local output = pipe:read "*a"
  pipe:close()
  return output
end

-- libpq has a server from the environment; bench_rows is what the rows come from.
local function make_tables()
  local conn = assert(require "dblink".connect "")
  assert(conn:exec_all([[
    create unlogged table bench_rows (i int8, f float8, t text, ts timestamptz, b bool);
    insert into bench_rows
      select i * 1234567::int8, i % 100000 * 1.25 + 0.01, 'a text of ' || to_char(i, 'FM0000000000'),
      timestamptz '2024-01-01 00:00Z' + i * interval '1 second', i % 2 = 1
      from generate_series(1, ]] .. MILLION .. [[) i;
    create unlogged table bench_copy (like bench_rows);
    analyze bench_rows]]))
  conn:close()
end

local function median(list)
  table.sort(list)
  return list[math.floor(#list / 2) + 1]
end

-- figures[subject] = { cpu = {...}, wall = {...}, peak = n }, of subjects that can do it
local function measure(workload, n)
  local figures = {}
  local subjects = { "limit", "ours" }
  for _, peer in ipairs(PEERS) do subjects[#subjects + 1] = peer end
  for round = 1, rounds * (workload[6] or 1) do
    for _, subject in ipairs(subjects) do
      if round == 1 or figures[subject] then
        local name = subject == "limit" and workload[2] or workload[1]
        local output = capture(COMMANDS[subject]:format(name, n) .. (subject == "ours" and "" or " 2>/dev/null"))
        local cpu, wall, peak = output:match "([%d.]+) ([%d.]+) (%d+)"
        if cpu then
          local f = figures[subject] or { cpu = {}, wall = {}, peak = 0 }
          figures[subject] = f
          f.cpu[round], f.wall[round] = tonumber(cpu), tonumber(wall)
          f.peak = math.max(f.peak, tonumber(peak))
        end
      end
    end
  end
  return figures
end

local function report(workload, figures)
  local base = median(figures.limit.cpu)
  local function ratio(subject)
    return ("%.2f"):format(median(figures[subject].cpu) / base)
  end
  local line = ("%-26s %8.3f"):format(workload[5], base)
  if figures.ours then
    local reach = workload[4]
    line = line .. ("  %8.3f  %5s  %5s  %-6s  %5d"):format(median(figures.ours.cpu), ratio "ours",
      reach and ("%.2f"):format(reach) or "", reach and (tonumber(ratio "ours") <= reach and "met" or "missed") or "",
      figures.ours.peak)
  else
    line = line .. "  not there" .. (" "):rep(29)
  end
  for _, peer in ipairs(PEERS) do
    if figures[peer] then line = line .. "  " .. peer .. " " .. ratio(peer) end
  end
  print(line)
end

make_tables()
print(("%-26s %8s  %8s  %5s  %-13s  %5s  %s"):format("client CPU, us each", "C", "ours", "ratio", "to reach", "MB",
  "others"))
for _, workload in ipairs(WORKLOADS) do
  if (workload[1] .. " " .. workload[5]):find(os.getenv "BENCH" or "", 1, true) then
    report(workload, measure(workload, math.ceil(workload[3] * scale)))
    io.stdout:flush()
  end
end
