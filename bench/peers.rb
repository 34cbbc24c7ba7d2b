# The work of limit.c with Ruby's client: peers.rb WORKLOAD N, see bench.lua.
begin
  require "pg"
rescue LoadError
  puts "not there"
  exit
end
workload, n = ARGV[0], ARGV[1].to_i
rows = "select * from bench_rows limit #{n}"
conn = PG.connect(host: ENV["PGHOST"]) # it does not look there by itself
conn.type_map_for_results = PG::BasicTypeMapForResults.new(conn)
work = {
  "query" => -> { n.times { conn.exec("select 1") { |res| res.getvalue(0, 0) } } },
  "params" => lambda do
    conn.prepare("s", "select $1::int4 + $2::int4")
    n.times { |i| conn.exec_prepared("s", [i, 2]) { |res| res.getvalue(0, 0) } }
  end,
  "array_text" => -> { conn.exec(rows) { |res| res.values } },
  "named_text" => -> { conn.exec(rows) { |res| res.to_a } },
  "values_text" => lambda do
    conn.send_query(rows)
    conn.set_single_row_mode
    conn.get_result.stream_each_row { |row| row }
  end,
}[workload]
unless work
  puts "not there"
  exit
end
clock = Process::CLOCK_PROCESS_CPUTIME_ID
cpu, wall = Process.clock_gettime(clock), Process.clock_gettime(Process::CLOCK_MONOTONIC)
work.call
cpu, wall = Process.clock_gettime(clock) - cpu, Process.clock_gettime(Process::CLOCK_MONOTONIC) - wall
peak = File.read("/proc/self/status")[/VmHWM:\s*(\d+)/, 1].to_i / 1024
puts format("%.4f %.4f %d", cpu / n * 1e6, wall / n * 1e6, peak)
