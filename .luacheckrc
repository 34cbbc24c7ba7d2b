std = "max"
max_line_length = 120
self = false -- a method that does not need its self is one all the same
exclude_files = { "build", "docs/library" } -- the latter are annotations, no code
files["spec"] = { std = "+busted" }
files["*.rockspec"] = { std = "+rockspec" }
