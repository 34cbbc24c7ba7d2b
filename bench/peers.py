"""The work of limit.c with Python's clients: peers.py CLIENT WORKLOAD N, see bench.lua."""
import os
import resource
import sys
import time

client, workload, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
ROWS = "select * from bench_rows limit %d" % n


def pieces():
    rows = "".join("%d\t%.15g\ta text of twenty %03d\t2024-01-01 00:%02d:%02d+00\t%s\n"
                   % (i * 1234567, i * 1.25 + 0.01, i, i // 60, i % 60, "ft"[i % 2]) for i in range(1000))
    text = (rows * (n // 1000)).encode()
    return [text[at:at + 65536] for at in range(0, len(text), 65536)]


def psycopg(connect, streaming):
    conn = connect("")
    conn.autocommit = True
    cursor = conn.cursor()

    def query():
        for _ in range(n):
            cursor.execute("select 1")
            cursor.fetchone()

    def params():
        for i in range(n):
            cursor.execute("select %s::int4 + %s::int4", (i, 2))
            cursor.fetchone()

    def arrays():
        cursor.execute(ROWS)
        return cursor.fetchall()

    def named():
        cursor.execute(ROWS)
        names = [c[0] for c in cursor.description]
        return [dict(zip(names, row)) for row in cursor]

    def stream():
        conn.autocommit = False
        server = conn.cursor("c")
        server.itersize = 1000
        server.execute(ROWS)
        for _ in server:
            pass

    return {"query": query, "params": params, "array_text": arrays, "named_text": named,
            "values_text": stream, "copy_bytes": streaming(conn, cursor)}


def psycopg2():
    import psycopg2 as module

    def streaming(conn, cursor):
        class File:
            def __init__(self):
                self.left = iter(pieces())

            def read(self, size):
                return next(self.left, b"")

        def copy(file=File() if workload == "copy_bytes" else None):
            cursor.execute("truncate bench_copy")
            cursor.copy_expert("copy bench_copy from stdin", file, 65536)
        return copy
    return psycopg(module.connect, streaming)


def psycopg3():
    import psycopg as module

    def streaming(conn, cursor):
        def copy(list=pieces() if workload == "copy_bytes" else None):
            cursor.execute("truncate bench_copy")
            with cursor.copy("copy bench_copy from stdin") as out:
                for piece in list:
                    out.write(piece)
        return copy
    return psycopg(module.connect, streaming)


def asyncpg():
    import asyncio
    import asyncpg as module
    loop = asyncio.new_event_loop()
    conn = loop.run_until_complete(module.connect(
        host=os.environ["PGHOST"], port=os.environ["PGPORT"], user=os.environ["PGUSER"],
        database=os.environ["PGDATABASE"]))

    async def query():
        for _ in range(n):
            await conn.fetchval("select 1")

    async def params():
        statement = await conn.prepare("select $1::int4 + $2::int4")
        for i in range(n):
            await statement.fetchval(i, 2)

    async def arrays():
        return await conn.fetch(ROWS)

    async def named():
        return [dict(row) for row in await conn.fetch(ROWS)]

    async def stream():
        async with conn.transaction():
            async for _ in conn.cursor(ROWS, prefetch=1000):
                pass

    made = {"query": query, "params": params, "array_binary": arrays, "named_binary": named,
            "values_binary": stream}
    return {name: lambda f=f: loop.run_until_complete(f()) for name, f in made.items()}


try:
    work = {"psycopg2": psycopg2, "psycopg3": psycopg3, "asyncpg": asyncpg}[client]()[workload]
except (ImportError, KeyError):
    print("not there")
    sys.exit()
cpu, wall = time.process_time(), time.monotonic()
kept = work()
cpu, wall = time.process_time() - cpu, time.monotonic() - wall
print("%.4f %.4f %d" % (cpu / n * 1e6, wall / n * 1e6, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
