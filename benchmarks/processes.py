"""The cost of more processes: callbacks and follow-ups with 1, 2, 4 and 8 web and worker processes on one PostgreSQL, and
with 1 and 8 through PgBouncer; and what as many processes cost that only store the bytes of a callback."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from rich.table import Table

from benchmarks import stack
from benchmarks.bodies import ONE_BOX
from benchmarks.callbacks import measure
from benchmarks.chain import Chain
from benchmarks.scale import Scale
from tests.servers import OwnPgBouncer, pgbouncer_binaries, start_pgbouncer

COUNTS = ((1, False), (2, False), (4, False), (8, False), (1, True), (8, True))
"""Web and worker processes, and whether they reach PostgreSQL through PgBouncer, in transaction mode with 20 connections."""
FOLLOW_UPS = 500
MAX_MORE_CPU = 1.10
LOOK_SECONDS = 0.01
WAITING = """
SELECT coalesce(wait_event_type, 'CPU') FROM pg_stat_activity
WHERE datname = %s AND state = 'active' AND pid != pg_backend_pid()
"""


@contextmanager
def waits(contender: stack.Contender) -> Iterator[Counter[str]]:
    """Sample what the active backends wait for while the block runs. Yields the samples by the type of wait."""
    found: Counter[str] = Counter()
    ended = threading.Event()

    def look() -> None:
        with psycopg.connect(contender.database_url, autocommit=True) as connection:
            while not ended.wait(LOOK_SECONDS):
                found.update(kind for (kind,) in connection.execute(WAITING, [connection.info.dbname]))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _start_pgbouncer(servers: stack.Servers) -> OwnPgBouncer:
    return start_pgbouncer(servers.postgres, pgbouncer_binaries()[0], {"default_pool_size": "20"})


def _callback(servers: stack.Servers, contender: stack.Contender, seconds: float) -> float:
    """Return the processor time of a callback in milliseconds, after as many that warm up."""
    measure(servers, contender, ONE_BOX, seconds)
    return measure(servers, contender, ONE_BOX, seconds).cpu


def processes(servers: stack.Servers, seconds: float) -> Table:
    """Measure each number of processes once, on a database of its own, when all of them have worked for a while."""
    columns = (
        "raw callback, CPU ms",
        "÷ 1",
        "callback, CPU ms",
        "÷ 1",
        "follow-up, CPU ms",
        "÷ 1",
        "drain s",
        "waits for locks",
        "goal",
    )
    table = Table("web × worker", *columns)
    first: list[float] = []
    for count, is_pooled in COUNTS:
        with stack.raw(servers, count) as limit:
            floor = _callback(servers, limit, seconds)
        scale = Scale()
        pooler = _start_pgbouncer(servers) if is_pooled else None
        env = {"WEB_CONCURRENCY": str(count), "WORKER_CONCURRENCY": str(count), "SCALE_API_URL": scale.url}
        with stack.weighbridge(servers, pooler, **env) as ours:
            chain = Chain(ours, scale)
            chain.follow(
                FOLLOW_UPS * count
            )  # until every process has opened its connections and PostgreSQL has its plans
            before = stack.cpu_seconds(servers, ours)
            with waits(ours) as waited:
                drained = chain.follow(FOLLOW_UPS)
            follow_up = (stack.cpu_seconds(servers, ours) - before) * 1000 / FOLLOW_UPS
            callback = _callback(servers, ours, seconds)
        scale.close()
        if pooler:
            pooler.close()
        costs = [floor, callback, follow_up]
        first = first or costs
        table.add_row(
            f"{count} × {count}{', PgBouncer' if pooler else ''}",
            *(text for cost, alone in zip(costs, first, strict=True) for text in (f"{cost:.2f}", f"{cost / alone:.2f}")),
            f"{drained:.2f}", f"{waited['Lock'] / max(1, waited.total()):.0%}",
            f"≤ {MAX_MORE_CPU:.2f}",
        )  # fmt: skip
    return table
