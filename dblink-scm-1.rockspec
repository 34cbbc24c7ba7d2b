rockspec_format = "3.0"
package = "dblink"
version = "scm-1"
source = { url = "git+file:///usr/src/dblink" } -- a release names its own; `luarocks make` builds what lies here
description = {
  summary = "PostgreSQL's dblink for Lua: asynchronous queries over many connections",
  detailed = "A C module on libpq: one connection type for plain scripts and every event loop.",
  license = "MIT",
}
dependencies = { "lua >= 5.1, < 5.6" }
external_dependencies = { PQ = { library = "pq" } } -- Debian: libpq-dev
build = {
  type = "builtin",
  modules = {
    -- modules, made by `make rockspec`
    ["dblink.core"] = {
      sources = {
        "src/attempt.c",
        "src/block.c",
        "src/cancel.c",
        "src/compat.c",
        "src/condition.c",
        "src/conn.c",
        "src/connect.c",
        "src/copy.c",
        "src/core.c",
        "src/crowd.c",
        "src/digits.c",
        "src/escape.c",
        "src/fail.c",
        "src/hooks.c",
        "src/literal.c",
        "src/memory.c",
        "src/news.c",
        "src/notice.c",
        "src/notify.c",
        "src/null.c",
        "src/pair.c",
        "src/param.c",
        "src/process.c",
        "src/receive.c",
        "src/render.c",
        "src/request.c",
        "src/result.c",
        "src/row.c",
        "src/send.c",
        "src/text.c",
        "src/thread.c",
        "src/tls.c",
        "src/type.c",
        "src/type_array.c",
        "src/type_net.c",
        "src/type_number.c",
        "src/type_text.c",
        "src/type_time.c",
      },
      libraries = { "pq", "pthread" },
      libdirs = { "$(PQ_LIBDIR)" },
      -- Debian, Fedora and a plain installation put libpq-fe.h in different folders
      incdirs = { "$(PQ_INCDIR)", "$(PQ_INCDIR)/postgresql", "$(PQ_INCDIR)/pgsql" },
    },
    ["dblink"] = "src/dblink.lua",
    ["dblink.await"] = "src/dblink/await.lua",
    ["dblink.codec"] = "src/dblink/codec.lua",
    ["dblink.codecs"] = "src/dblink/codecs.lua",
    ["dblink.connection"] = "src/dblink/connection.lua",
    ["dblink.copy"] = "src/dblink/copy.lua",
    ["dblink.crew"] = "src/dblink/crew.lua",
    ["dblink.gather"] = "src/dblink/gather.lua",
    ["dblink.named"] = "src/dblink/named.lua",
    ["dblink.notify"] = "src/dblink/notify.lua",
    ["dblink.pool"] = "src/dblink/pool.lua",
    ["dblink.protect"] = "src/dblink/protect.lua",
    ["dblink.transaction"] = "src/dblink/transaction.lua",
    ["dblink.values"] = "src/dblink/values.lua",
    ["dblink.wait"] = "src/dblink/wait.lua",
    ["dblink.wait.copas"] = "src/dblink/wait/copas.lua",
    ["dblink.wait.cqueues"] = "src/dblink/wait/cqueues.lua",
    ["dblink.wait.luv"] = "src/dblink/wait/luv.lua",
    ["dblink.wait.poll"] = "src/dblink/wait/poll.lua",
    ["dblink.wait.selftest"] = "src/dblink/wait/selftest.lua",
    -- end of modules
  },
}
