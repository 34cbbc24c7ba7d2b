# make demo, make test: each does all that it needs, on a fresh Debian too (as root, or with sudo).
#
#   make build                 the module for every Lua, in build/<lua>/
#   make test LUA=5.4          one Lua; BUSTED="--filter=cancel" for some tests
#   make asan                  the suite under sanitizers and a hard-working collector (ASAN_LUAS)
#   make test-tls              the suite over TCP with TLS and SCRAM
#   make test-matrix           the suite with libpq and server 17 and 18, and Lua 5.5 (Debians of its own)
#   make soak                  100,000 queries with cancels and deadlines at random moments (QUERIES, SEED)
#   make torture               every allocation fails, and the wire at every byte (STRIDE=7: each seventh; LUA=5.1)
#   make fuzz                  hostile values, and a hostile server (SECONDS each, 60)
#   make coverage              lines and branches of the C core that the suite runs (on COVERAGE_LUAS)
#   make proof                 that ten million rows, and gigabytes of COPY, do not raise a process's peak (ROWS)
#   make lint format floors rock rockspec bench bench-17 bench-nginx clean
#   make static                libdblink.a for C programs, in build/<lua>/ (docs/hosts.md)
#   make install LUA=5.4       into $(DESTDIR)$(PREFIX)
#   make install-static LUA=5.4  libdblink.a, dblink.h and dblink.pc, likewise

LUA       ?= 5.1 5.2 5.3 5.4 luajit
LUAS      := $(patsubst lua%,%,$(LUA))
LUAS      := $(patsubst jit,luajit,$(patsubst 5.%,lua5.%,$(LUAS)))
ASAN_LUAS ?= $(or $(filter $(LUAS),lua5.1 lua5.4 luajit),$(LUAS))
ONE_LUA   := $(if $(filter file default,$(origin LUA)),lua5.4,$(firstword $(LUAS)))
BUSTED    ?=
BUILD     ?= build
PREFIX    ?= /usr/local
CFLAGS    ?= -O2 -g

# gnu99 without a _GNU_SOURCE: then luarocks, which passes no such options, compiles the same text.
override CFLAGS += -std=gnu99 -fPIC -fvisibility=hidden
WARN = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wcast-qual -Wwrite-strings \
       -Wpointer-arith -Wundef -Werror
# nodelete: libpq and OpenSSL keep pointers into themselves that outlive a lua_State
override LDFLAGS += -shared -Wl,-z,nodelete
SANITIZE = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

C_FILES   = $(wildcard src/*.c src/*.h examples/*/*.c examples/*/*.h bench/*.c \
            spec/support/*.c spec/fuzz/*.[ch])
LUA_FILES = $(wildcard src/*.lua src/*/*.lua src/*/*/*.lua)
PG        = spec/support/pg run
AGAIN     = $(MAKE) --no-print-directory
LUA_ENV   = env LUA_INIT= LUA_PATH="./src/?.lua;./spec/?.lua;;" LUA_CPATH="./$(BUILD)/$(1)/?.so;;"

.PHONY: all build static install-static demo test test-tls test-matrix soak proof torture fuzz coverage asan lint format floors rock rockspec bench bench-17 bench-nginx install clean
.SUFFIXES:
all: build

# An interpreter's module: objects of its own, and no Lua library linked, since the interpreter brings it. The archive
# for C programs has the Lua rooms too, as text.
objects = $(patsubst src/%.c,$(BUILD)/$(1)/obj/%.o,$(wildcard src/*.c))
define module
$(BUILD)/$(1)/dblink/core.so: $(filter-out %/host.o,$(call objects,$(1)))
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) -o $$@ $$^ $$(LDFLAGS) $$$$(pkg-config --libs libpq) -lpthread
$(BUILD)/$(1)/obj/%.o: src/%.c Makefile
	@mkdir -p $$(@D)
	$$(CC) $$(WARN) $$(CPPFLAGS) $$(CFLAGS) -MMD -MP $$$$(pkg-config --cflags $(1) libpq | sed 's/-I */-isystem /g') -c -o $$@ $$<
$(BUILD)/$(1)/libdblink.a: $(call objects,$(1)) $(BUILD)/$(1)/obj/sources.o
	@rm -f $$@
	$$(AR) rcs $$@ $$^
$(BUILD)/$(1)/obj/sources.c: spec/support/embed.lua $(LUA_FILES)
	@mkdir -p $$(@D)
	$(1) $$^ >$$@
$(BUILD)/$(1)/obj/sources.o: $(BUILD)/$(1)/obj/sources.c
	$$(CC) $$(CFLAGS) -c -o $$@ $$<
endef
$(foreach lua,$(LUAS),$(eval $(call module,$(lua))))
-include $(wildcard $(BUILD)/*/obj/*.d)

build: $(LUAS:%=$(BUILD)/%/dblink/core.so)
static: setup.build $(LUAS:%=$(BUILD)/%/libdblink.a)

# Whether a package is missing is asked each time: that costs 50 ms, and a stamp file would lie.
setup.%:
	@spec/support/setup $*

demo: setup.build setup.server
	@$(AGAIN) -s build LUA=5.4
	@$(call LUA_ENV,lua5.4) $(PG) lua5.4 examples/orchestrate.lua $(BUILD)/timeline.svg

test: setup.build setup.test setup.nginx
	@$(AGAIN) -s build static
	@BUILD=$(BUILD) spec/support/test $(LUAS) -- $(BUSTED)

# Everything once more over TCP with TLS and SCRAM.
test-tls: setup.build setup.test
	@$(AGAIN) -s build static
	@DBLINK_TLS=1 BUILD=$(BUILD) spec/support/test $(LUAS) -- $(BUSTED)

test-matrix:
	@spec/support/matrix

# Cancels and deadlines at random moments, on one connection. SEED repeats a run.
QUERIES ?= 100000
soak: setup.build setup.server
	@$(AGAIN) -s build LUA=5.4
	@$(call LUA_ENV,lua5.4) $(PG) lua5.4 spec/support/soak.lua $(QUERIES) $(SEED)

# Memory: see spec/support/peak.lua.
ROWS ?= 10000000
proof: setup.build setup.server
	@$(AGAIN) -s build LUA=5.4
	@$(call LUA_ENV,lua5.4) $(PG) lua5.4 spec/support/peak.lua $(ROWS)

# A session that uses all operations, once for each thing that can fail. KIND: lua, libpq, system or wire.
torture: setup.build setup.server
	@$(AGAIN) -s build LUA="$(ONE_LUA)"
	@$(CC) -std=gnu99 -O1 -g -rdynamic -o build/faults spec/support/faults.c $$(pkg-config --cflags --libs $(ONE_LUA)) -ldl
	@$(call LUA_ENV,$(ONE_LUA)) $(PG) build/faults spec/support/torture.lua $(or $(STRIDE),1) $(KIND)

# Inputs that ended badly are left in build/fuzz/. (libpq loses results to a server out of step: its leaks are not ours.)
SECONDS ?= 60
FUZZ = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
fuzz: setup.build setup.torture
	@$(AGAIN) -s static BUILD=build/fuzz LUA=5.4 CC=clang CFLAGS="$(FUZZ) -fsanitize=fuzzer-no-link"
	@rm -f build/fuzz/found-* && mkdir -p build/fuzz/decode build/fuzz/server && lua5.4 spec/fuzz/seeds.lua build/fuzz
	@for f in decode server; do \
	  clang -std=gnu99 $(FUZZ) -fsanitize=fuzzer -Isrc $$(pkg-config --cflags lua5.4 libpq) -o build/fuzz/$$f.run spec/fuzz/$$f.c \
	    build/fuzz/lua5.4/libdblink.a $$(pkg-config --libs lua5.4 libpq) -lpthread -ldl || exit 1; \
	  ASAN_OPTIONS=detect_leaks=$$([ $$f = decode ] && echo 1 || echo 0) build/fuzz/$$f.run -max_total_time=$(SECONDS) -detect_leaks=0 -timeout=20 -rss_limit_mb=1024 -max_len=4000 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/found-$$f- build/fuzz/$$f >build/fuzz/$$f.log 2>&1; status=$$?; \
	  echo "fuzz: $$f: $$(sed -n 's/^stat::number_of_executed_units: *//p' build/fuzz/$$f.log) executions," \
	    "$$(grep -o 'cov: [0-9]*' build/fuzz/$$f.log | tail -n 1), finds: $$(ls build/fuzz | grep -c found-$$f-)"; \
	  [ $$status = 0 ] || { tail -n 60 build/fuzz/$$f.log; exit 1; }; \
	done

# The suite and the torture, on the Luas named, and nginx's. What nothing can be made to reach here is listed in
# spec/support/uncovered.lua, with the reason.
COVERAGE_LUAS ?= lua5.1 lua5.4 luajit
COVERAGE = $(firstword $(COVERAGE_LUAS))
coverage: BUILD = build/coverage
coverage: setup.build setup.test setup.nginx
	@rm -rf build/coverage
	@$(AGAIN) -s build static BUILD=build/coverage LUA="$(sort $(COVERAGE_LUAS) luajit)" CFLAGS="-O0 -g --coverage -fprofile-abs-path" LDFLAGS=--coverage
	@BUILD=build/coverage DBLINK_LIMIT=1800 spec/support/test $(COVERAGE_LUAS) -- $(BUSTED) >build/coverage/log 2>&1; tail -n 1 build/coverage/log
	@$(foreach kind,lua libpq system,$(call LUA_ENV,$(COVERAGE)) $(PG) \
	  build/coverage/$(COVERAGE)/faults spec/support/torture.lua $(or $(STRIDE),1) $(kind) | tail -n 1;)
	@mkdir -p build/coverage/decode build/coverage/server && lua5.4 spec/fuzz/seeds.lua build/coverage 1
	@$(foreach f,decode server,gcc -std=gnu99 -g -Isrc $$(pkg-config --cflags $(COVERAGE) libpq) -o build/coverage/$(f).run spec/fuzz/$(f).c \
	  spec/fuzz/replay.c build/coverage/$(COVERAGE)/libdblink.a $$(pkg-config --libs $(COVERAGE) libpq) --coverage -lpthread -ldl -lm && \
	  build/coverage/$(f).run $(or $(STRIDE),$(if $(filter server,$(f)),20,1)) build/coverage/$(f)/*;)
	@lua5.4 spec/support/coverage.lua build/coverage >build/coverage/report; sed '/^for a reason.*:$$/,$$d' build/coverage/report

asan: setup.build setup.test
	@mkdir -p build && gcc -shared -fPIC -o build/unpreload.so spec/support/unpreload.c
	@$(AGAIN) -s build static BUILD=build/asan LUA="$(ASAN_LUAS)" CC=gcc CFLAGS="$(SANITIZE)" LDFLAGS="-fsanitize=address,undefined"
	@BUILD=build/asan DBLINK_UNDER=spec/support/asan-run DBLINK_LIMIT=$${DBLINK_LIMIT:-600} \
	  spec/support/test $(ASAN_LUAS) -- --helper=spec/support/gcstress.lua $(BUSTED)

lint: setup.build setup.lint
	luacheck --no-color -q . *.rockspec .luacheckrc
	clang-format --dry-run -Werror $(C_FILES)
	cppcheck -q --enable=warning,performance,portability --inline-suppr --std=c99 --error-exitcode=1 src
	@echo "clang $(WARN)" && $(AGAIN) -s build static BUILD=build/clang LUA="5.1 5.4" CC=clang

format: setup.lint
	clang-format -i $(C_FILES)

floors: setup.build
	@lua5.4 spec/support/floors.lua

rockspec: setup.build
	@$(call LUA_ENV,lua5.4) lua5.4 spec/support/rockspec.lua

# Without any server: what is needed lies here. Each rock is built in a copy, since luarocks leaves its objects beside the
# sources, packed, and installed from that one file into an empty tree, where LuaJIT takes that of 5.1.
rock: setup.build setup.rock
	@luarocks lint dblink-scm-1.rockspec
	@rm -rf build/rock && mkdir -p build/rock/none
	@for v in 5.1 5.4; do \
	  rocks="luarocks --lua-version=$$v --only-server=$(CURDIR)/build/rock/none"; \
	  mkdir -p build/rock/$$v && cp -r dblink-scm-1.rockspec src build/rock/$$v && (cd build/rock/$$v && \
	    { $$rocks --tree="$$PWD/made" make && $$rocks --tree="$$PWD/made" pack dblink && \
	      $$rocks --tree="$$PWD/tree" install dblink-scm-1.*.rock; } >log 2>&1 || { cat log; exit 1; }) && \
	  rm -rf build/rock/$$v/made build/rock/$$v/src && \
	  for l in lua$$v $$([ $$v = 5.4 ] || echo luajit); do \
	    (cd / && t=$(CURDIR)/build/rock/$$v/tree && LUA_INIT= LUA_PATH="$$t/share/lua/$$v/?.lua" LUA_CPATH="$$t/lib/lua/$$v/?.so" \
	      $$l -e 'io.write("rock: ", jit and jit.version or _VERSION, ": dblink ", tostring(require("dblink")._VERSION), "\n")') || exit 1; \
	  done || exit 1; \
	done

$(BUILD)/limit: bench/limit.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra $$(pkg-config --cflags libpq) -o $@ $< $$(pkg-config --libs libpq)

# See bench/run.lua for BENCH, ROUNDS and N.
BENCH_LUAS = $(if $(filter file default,$(origin LUA)),lua5.4,$(LUAS))
bench: setup.build setup.server $(BUILD)/limit
	@$(AGAIN) -s build LUA="$(BENCH_LUAS)"
	@for l in $(BENCH_LUAS); do echo "== $$l"; BUILD=$(BUILD) $(call LUA_ENV,$$l) $(PG) $$l bench/run.lua $$l || exit 1; done

# The same with libpq and server 17, whose streams come in chunks (a Debian of its own: see spec/support/matrix).
bench-17:
	@spec/support/matrix -b trixie

# The same in nginx, in multiples of a page that says hello. See bench/nginx.lua for ROUNDS and SECONDS.
bench-nginx: setup.build setup.server setup.nginx
	@$(AGAIN) -s build LUA="5.4 luajit"
	@$(call LUA_ENV,lua5.4) $(PG) lua5.4 bench/nginx.lua

install: build
	@for l in $(LUAS); do v=$${l#lua}; [ $$l != luajit ] || v=5.1; d="$(DESTDIR)$(PREFIX)"; \
	  install -D -m 755 $(BUILD)/$$l/dblink/core.so "$$d/lib/lua/$$v/dblink/core.so" || exit 1; \
	  for f in $(LUA_FILES:src/%=%); do install -D -m 644 src/$$f "$$d/share/lua/$$v/$$f" || exit 1; done; \
	done

install-static: static
	@test $(words $(LUAS)) = 1 || { echo "for which Lua? make install-static LUA=5.4" >&2; exit 1; }
	install -D -m 644 $(BUILD)/$(LUAS)/libdblink.a "$(DESTDIR)$(PREFIX)/lib/libdblink.a"
	install -D -m 644 src/dblink.h "$(DESTDIR)$(PREFIX)/include/dblink.h"
	@mkdir -p "$(DESTDIR)$(PREFIX)/lib/pkgconfig"
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LUA@|$(LUAS)|' -e "s|@VERSION@|$$(sed -n 's/^#define VERSION "\(.*\)"/\1/p' src/core.c)|" \
	  src/dblink.pc.in >"$(DESTDIR)$(PREFIX)/lib/pkgconfig/dblink.pc"

clean:
	rm -rf build
