"""Large bodies and full tables: the cost of 20 MB as a ratio to json.loads of the same body, and of a callback when a million
annotations are stored."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import psutil
import psycopg
from rich.table import Table
from sqlalchemy import func, select

from benchmarks import stack
from benchmarks.bodies import ONE_BOX, Body, box, make
from benchmarks.callbacks import ids
from benchmarks.load import Connection, send
from config import load_settings
from models import Annotation
from pipeline.bootstrap import build_service
from pipeline.db.migrations import migrate
from pipeline.receive.receive import receive
from pipeline.service import Service
from scale.envelope import parse_callback
from scale.task_types import parse_response
from tests.servers import wait_until
from workers.runner import run_due_jobs

BOXES = 68_000
"""Boxes of 20 MB."""
MIB = 1024 * 1024


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Return the median of a few runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def large_body() -> Body:
    """Return a callback with BOXES boxes."""
    return make(f"{BOXES:,} boxes", "annotation", [box(n) for n in range(BOXES)], "Box every **sheep**.")


def in_process(servers: stack.Servers, body: Body) -> Table:
    """Measure parsing, and receiving with the job that stores the rows, without the web process and the worker."""
    content = body.with_id(1)
    floor = seconds(lambda: json.loads(content))
    table = Table(f"{body.name}, {len(content) / MIB:.0f} MiB", "seconds", "÷ json.loads", "goal")
    table.add_row("json.loads", f"{floor:.2f}", "1.0", "")

    def parse() -> None:
        callback = parse_callback(content, "live")
        parse_response("annotation", callback.response, {})

    found = seconds(parse)
    table.add_row("parse", f"{found:.2f}", f"{found / floor:.1f}", "")
    urls = {
        "SQLite": f"sqlite:///{servers.folder}/growth.db",
        "PostgreSQL": servers.postgres.create_database("growth").replace(
            "postgresql:", "postgresql+psycopg:"
        ),
    }
    for number, (name, url) in enumerate(urls.items(), 2):
        migrate(url)
        settings = {"DATABASE_URL": url, "SECRET_KEY": "bench", "WORKFLOWS_DIR": str(servers.folder)}
        service = build_service(load_settings(settings))
        bodies = iter([body.with_id(number * 10 + n) for n in range(3)])

        def store(service: Service = service, bodies: Iterator[bytes] = bodies) -> None:
            receive(service, next(bodies), "live")
            while run_due_jobs(service):
                pass

        found = seconds(store)
        table.add_row(f"rows there, {name}", f"{found:.2f}", f"{found / floor:.1f}", "≤ 5")
        with service.reader.begin() as connection:
            stored = connection.scalar(select(func.count()).select_from(Annotation))
        if stored != 3 * BOXES:
            raise SystemExit(f"{name} has {stored} annotations, and not {3 * BOXES}")
        service.engine.dispose()
    return table


def through_the_service(servers: stack.Servers, body: Body, rounds: int) -> Table:
    """Measure when callbacks are answered, when their rows are visible, and how much memory the processes gain."""
    floors, answered, present = [], [], []
    table = Table("figure", "found", "ratio", "goal")
    with stack.weighbridge(servers, WEB_CONCURRENCY="1", SWEEP_SECONDS="1") as ours:
        Connection(ours.port).post(ONE_BOX.with_id(1))
        processes = dict(zip(("web", "worker"), ours.processes, strict=True))
        worker = psutil.Process(processes["worker"].pid)
        wait_until(lambda: len(worker.children()) == 2, 60, "the worker has started its processes")
        idle = {name: _memory(process.pid) for name, process in processes.items()}
        peak = dict(idle)

        def has_responses(number: int) -> bool:
            for name, process in processes.items():
                peak[name] = max(peak[name], _memory(process.pid))
            return _responses(ours) >= number

        for number in range(1, rounds + 1):
            content = body.with_id(6 + number)
            floors.append(seconds(lambda content=content: json.loads(content), times=1))
            start = time.perf_counter()
            if Connection(ours.port).post(content) != 200:
                raise SystemExit("a large body was refused")
            answered.append(time.perf_counter() - start)
            wait_until(partial(has_responses, number + 1), 120, "the rows of a large body are there")
            present.append(time.perf_counter() - start)
        stored, expected = ours.stored()[1], rounds * BOXES + ONE_BOX.annotations
        if stored != expected:
            raise SystemExit(f"{stored} annotations are there, and not {expected}")
    for name, found, goal in (("answered", answered, "≤ 1.0"), ("rows there", present, "≤ 5")):
        ratios = [one / floor for one, floor in zip(found, floors, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) × json.loads"
        table.add_row(name, f"{statistics.median(found):.2f} s", ratio, goal)
    for name, goal in (("web", "≤ 2.5"), ("worker", "≤ 8")):
        grown = peak[name] - idle[name]
        table.add_row(
            f"{name} grows by", f"{grown / MIB:.0f} MiB", f"{grown / len(content):.1f} × the body", goal
        )
    return table


def _responses(ours: stack.Contender) -> int:
    """Return the number of stored responses, whose rows are committed with them. To count these would take the worker's time."""
    with psycopg.connect(ours.database_url) as connection:
        return connection.execute("SELECT count(*) FROM responses").fetchone()[0]  # type: ignore[index]


def _memory(pid: int) -> int:
    """Return the private memory of the process and its children in bytes."""
    root = psutil.Process(pid)
    return sum(
        one.memory_info().rss - one.memory_info().shared for one in (root, *root.children(recursive=True))
    )


def full_tables(servers: stack.Servers, measured: float, rounds: int) -> Table:
    """Send callbacks in turn to a service with empty tables, and to one with a million annotations."""
    table = Table("annotations in the table", "callbacks /s", "cost ÷ empty", "goal")
    other_broker = f"{servers.redis.url.removesuffix('/0')}/1"
    with (
        stack.weighbridge(servers) as empty,
        stack.weighbridge(servers, REDIS_URL=other_broker) as full,
    ):
        _fill(full.database_url, 1_000_000)
        for one in (empty, full):
            _rate(one, measured)  # warm
        rates = [[_rate(one, measured) for one in (empty, full)] for _ in range(rounds)]
    costs = [without / with_rows for without, with_rows in rates]
    medians = [statistics.median(column) for column in zip(*rates, strict=True)]
    table.add_row("none", f"{medians[0]:,.0f}", "1.00", "")
    spread = f"{statistics.median(costs):.2f} ({min(costs):.2f}–{max(costs):.2f})"
    table.add_row("1,000,000", f"{medians[1]:,.0f}", spread, "≤ 1.05")
    return table


def _rate(contender: stack.Contender, measured: float) -> float:
    sent = send(contender.port, ONE_BOX, seconds=measured, first_id=next(ids))
    return sent.accepted / sent.seconds


def _fill(url: str, annotations: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO annotations (response_id, file, position, type, label, attributes, geometry)"
            " SELECT md5((n / 20)::text)::uuid, 0, n %% 20, 'box', 'sheep', '{}',"
            ' \'{"left": 1, "top": 2, "width": 3, "height": 4}\' FROM generate_series(1, %s) AS n',
            (annotations,),
        )
        connection.execute("VACUUM ANALYZE annotations")
