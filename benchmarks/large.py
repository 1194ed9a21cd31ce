"""A large database against an empty one on the same PostgreSQL: `python -m benchmarks.large`.

By default 10,000,000 deliveries of 5,000,000 tasks within 24 months, and 50,000,000 annotations, which takes 30 GB and a quarter of an
hour. A callback, the claim of a job and the first pages of the lists are measured in both in turn; the figure is the ratio.
"""

import argparse
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import psutil
from flask.testing import FlaskClient
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, text

from app.application import create_app
from benchmarks.bodies import box, make
from benchmarks.stack import DURABLE
from config import load_settings
from models import Annotation, Delivery, DeliveryBody, Response, Task
from pipeline.db.engine import AUTOCOMMIT
from pipeline.db.ids import utcnow
from pipeline.db.migrations import migrate
from pipeline.db.months import make_months
from pipeline.jobs import kinds, queue
from pipeline.receive.receive import receive
from pipeline.service import Service
from tests.app.api.conftest import TOKEN
from tests.databases import for_sqlalchemy
from tests.servers import OwnPostgres, shared_postgres, start_postgres

GOAL = 1.1
MONTHS = 24
ANNOTATIONS_EACH = 10
"""Of a task. Each has two deliveries: its result, and a review of it."""
BODY_BYTES = 200
ROUNDS = 20
CALLBACKS = 50
"""Of each kind in a round."""
# A table that is filled by the transaction that empties it needs no log.
SERVER = {**DURABLE, "wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "16GB",
          "shared_buffers": "2GB", "autovacuum": "off", "random_page_cost": "1.1"}  # fmt: skip
BODY = make("large", "annotation", [box(0)], "Draw a box around each sheep.")
UNIQUE = "uq_deliveries_environment_sha256"
"""Its entries come in no order, so that it is built once the rows are there."""


def fill(service: Service, deliveries: int, report: Callable[[str], None]) -> None:
    """Receive one result, and copy its rows into tables of the usual size for this number of deliveries."""
    receive(service, BODY.with_id(0), "live")
    tasks = deliveries // 2
    end = utcnow() - timedelta(minutes=1)
    start = end - timedelta(days=MONTHS * 30)
    step = (end - start).total_seconds() * 1000 / deliveries
    with service.engine.begin() as connection:
        make_months(connection, utcnow(), since=start)

    def id_of(number: str) -> str:
        """Return SQL of the UUIDv7 of a delivery."""
        moment = f"({start.timestamp() * 1000:.0f} + ({number}) * {step})::bigint"
        return f"(lpad(to_hex({moment}), 12, '0') || '70008' || lpad(to_hex({number}), 15, '0'))::uuid"

    received = f"to_timestamp({start.timestamp():.3f} + n * {step / 1000})"
    result, review = id_of("2 * n - 1"), id_of("2 * n")
    task_id = "lpad(to_hex(n), 24, '0')"
    of_delivery = {"id": id_of("n"), "task_id": "lpad(to_hex((n + 1) / 2), 24, '0')",
                   "sha256": "md5(n::text) || md5((-n)::text)", "size_bytes": str(BODY_BYTES),
                   "received_at": received, "last_received_at": received, "clock": received}  # fmt: skip
    of_task = {"id": result, "task_id": task_id, "response_id": result, "latest_response_id": result,
               "latest_response_delivery_id": result, "clock_delivery_id": review,
               "described_delivery_id": review}  # fmt: skip
    for model, count, changes in (
        (Delivery, deliveries, of_delivery),
        (DeliveryBody, deliveries, {"delivery_id": id_of("n"), "body": f"substr(body, 1, {BODY_BYTES})"}),
        (Task, tasks, of_task),
        (Response, tasks, {"id": result, "task_id": task_id, "delivery_id": result, "digest": "md5(n::text) || md5((-n)::text)"}),
        (Annotation, tasks * ANNOTATIONS_EACH, {
            "response_id": id_of(f"2 * ((n - 1) / {ANNOTATIONS_EACH}) + 1"), "position": f"(n - 1) % {ANNOTATIONS_EACH}"}),
    ):  # fmt: skip
        began = time.monotonic()
        with service.engine.begin() as connection:
            copy(connection, model, count, changes)
        report(f"{model.__tablename__}: {count:,} rows in {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    with service.engine.execution_options(**AUTOCOMMIT).connect() as connection:
        for statement in (
            "SET statement_timeout = 0",
            "VACUUM (ANALYZE)",
            "CHECKPOINT",
            "RESET statement_timeout",
        ):
            connection.execute(text(statement))
    report(f"vacuum and statistics in {time.monotonic() - began:.0f} s")


def copy(connection: Connection, model: Any, count: int, changes: dict[str, str]) -> None:
    """Replace the model's rows by copies of its first one. `changes`: column → SQL over the number n and that row."""
    table = model.__tablename__
    columns = [column.name for column in model.__table__.c]
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(changes.get(name, f'seed."{name}"') for name in columns)
    is_delivery = model is Delivery
    for statement in (
        "SET LOCAL statement_timeout = 0",
        "SET LOCAL maintenance_work_mem = '1GB'",
        f"CREATE TEMPORARY TABLE seed ON COMMIT DROP AS SELECT * FROM {table} LIMIT 1",
        f"TRUNCATE {table}",
        f"ALTER TABLE {table} DROP CONSTRAINT {UNIQUE}" if is_delivery else "",
        f"INSERT INTO {table} ({names}) SELECT {values} FROM seed, generate_series(1::bigint, {count}) AS n",
        f"ALTER TABLE {table} ADD CONSTRAINT {UNIQUE} UNIQUE (environment, sha256)" if is_delivery else "",
    ):
        if statement:
            connection.execute(text(statement))


class Contender:
    """One database with a service in this process, and one connection to the server."""

    def __init__(self, url: str, first_id: int) -> None:
        app = create_app(
            load_settings(
                {
                    "API_TOKEN": TOKEN,
                    "SECRET_KEY": "bench",
                    "DATABASE_URL": url,
                    "WORKFLOWS_DIR": "tests/workflows/files",
                }
            )
        )
        self.service: Service = app.extensions["weighbridge"]
        self.client: FlaskClient = app.test_client()
        self.first_id = first_id
        self.numbers = itertools.count(first_id)
        self.reviewed = itertools.count(first_id)
        self.seconds: dict[str, list[float]] = {}
        self.cpu: dict[str, float] = {}

    def backends(self) -> list[psutil.Process]:
        """Return the processes of the server that work for this service."""
        mine = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        with self.service.reader.begin() as connection:
            return [psutil.Process(pid) for pid in connection.scalars(text(mine))]

    def _cpu_seconds(self) -> float:
        found = [time.process_time()]
        for one in self.backends():
            used = one.cpu_times()
            found.append(used.user + used.system)
        return sum(found)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Add the processor time of the block, here and in the server, to the figure `name`."""
        before = self._cpu_seconds()
        yield
        self.cpu[name] = self.cpu.get(name, 0.0) + self._cpu_seconds() - before

    def times(self, name: str, count: int, act: Callable[[], object]) -> None:
        """Act `count` times, and keep what each took."""
        with self.measured(name):
            for _ in range(count):
                began = time.perf_counter()
                act()
                self.seconds.setdefault(name, []).append(time.perf_counter() - began)


def first_callback(one: Contender) -> None:
    """Receive the result of a new task."""
    assert receive(one.service, BODY.with_id(next(one.numbers)), "live").status == "processed"


def later_callback(one: Contender, known: Callable[[int], int]) -> None:
    """Receive a second result of a task that is known, in the large database of any age."""
    number = next(one.reviewed)
    body = BODY.with_id(known(number)).replace(b'"left": 10.5', b'"left": %d' % number)
    assert receive(one.service, body, "live").status == "processed"


def claim(one: Contender) -> None:
    """Enqueue a job, claim and finish it."""
    with one.service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PURGE, ["bench"])
    job = queue.claim(one.service.engine, 60)
    assert job is not None
    with one.service.engine.begin() as connection:
        queue.finish(connection, job)


def page(one: Contender, path: str) -> None:
    """Read the first page of a list through the API."""
    answer = one.client.get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, len(answer.json["data"])) == (200, 100)  # type: ignore[index]


def compare(empty: Contender, full: Contender, deliveries: int) -> Table:
    """Measure both in turn, round by round."""
    tasks = deliveries // 2
    recent = max(tasks // (MONTHS * 4), 1)

    def in_the_first(number: int) -> int:
        return number % 1000 + empty.first_id

    def of_the_last_week(number: int) -> int:
        return tasks - number * 7919 % recent

    def of_any_age(number: int) -> int:
        return number * 7919 % tasks + 1

    def later(known: Callable[[int], int]) -> Callable[[Contender], object]:
        return lambda one: later_callback(one, in_the_first if one is empty else known)

    acts: list[tuple[str, int, Callable[[Contender], object]]] = [
        ("first callback of a task", CALLBACKS, first_callback),
        ("later callback, task of the last week", CALLBACKS, later(of_the_last_week)),
        ("later callback, task of any age", CALLBACKS, later(of_any_age)),
        ("claim of a job", 20, claim),
        *((f"GET /api/v1/{path}", 5, partial(page, path=path)) for path in ("tasks", "deliveries")),
    ]
    for number in range(ROUNDS + 1):
        for name, count, act in acts:
            for one in (empty, full) if number % 2 else (full, empty):
                if number == 0:
                    count = 1000 if act is first_callback else count  # warm, and rows for the pages
                one.times(name, count, lambda act=act, one=one: act(one))
        if number == 0:
            gc.freeze()  # a collection of everything that was imported takes as long as 20 pages
            for one in (empty, full):
                one.seconds.clear()
                one.cpu.clear()
    table = Table(
        "figure", "empty p50 ms", "full p50 ms", "ratio", "empty CPU ms", "full CPU ms", "ratio", "goal"
    )
    for name, *_ in acts:
        p50 = [statistics.median(one.seconds[name]) * 1000 for one in (empty, full)]
        cpu = [one.cpu[name] * 1000 / len(one.seconds[name]) for one in (empty, full)]
        table.add_row(
            name, f"{p50[0]:.2f}", f"{p50[1]:.2f}", f"{p50[1] / p50[0]:.2f}",
            f"{cpu[0]:.2f}", f"{cpu[1]:.2f}", f"{cpu[1] / cpu[0]:.2f}", f"≤ {GOAL}",
        )  # fmt: skip
    return table


def main() -> None:
    """Fill one of two databases, then measure both. Each part can be run alone on the server that TEST_DATABASE_URL names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=10_000_000)
    parser.add_argument("--only", choices=("fill", "measure"), help="one part, with TEST_DATABASE_URL")
    options = parser.parse_args()
    console = Console(width=140)
    server = shared_postgres() if options.only else start_postgres(SERVER)
    names = ("large_empty", "large_full")
    if options.only != "measure":
        for name in names:
            migrate(for_sqlalchemy(server.create_database(name)))
    empty, full = (Contender(for_sqlalchemy(server.url(name)), time.time_ns() // 10**6) for name in names)
    if options.only != "measure":
        fill(full.service, options.deliveries, console.print)
    if options.only != "fill":
        console.print(
            f"{options.deliveries:,} deliveries, {options.deliveries * ANNOTATIONS_EACH // 2:,} annotations"
        )
        console.print(compare(empty, full, options.deliveries))
    for one in (empty, full):
        one.service.engine.dispose()
    if isinstance(server, OwnPostgres):
        server.close()


if __name__ == "__main__":
    main()
