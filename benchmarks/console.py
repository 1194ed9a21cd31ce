"""The console in a large database against a small one: `python -m benchmarks.console`, on SQLite and PostgreSQL.

200,000 tasks, 2,000,000 annotations and 500,000 deliveries are copies of a few received ones, written by the database itself.
Each page is asked for in turn from both, 20 times; the figure is the ratio of the medians.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask.testing import FlaskClient
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, event, text

from app.application import create_app
from benchmarks import stack
from config import load_settings
from models import Annotation, Delivery, DeliveryBody, Response, Task
from pipeline.db.engine import AUTOCOMMIT
from pipeline.db.migrations import migrate
from pipeline.receive.receive import receive
from pipeline.service import Service
from tests.app.api.conftest import PAYLOADS, TOKEN

TIMES = 20
GOAL = 1.5
ANNOTATIONS_EACH = 10
SMALL, LARGE = (200, 500), (200_000, 500_000)
"""Tasks and deliveries."""
PAGES = (
    "/",
    "/tasks",
    "/tasks?status=completed",
    "/tasks?type=annotation",
    "/tasks?q=nothing-like-it",
    "/tasks/task-100",
    "/tasks/task-100/annotations",
    "/deliveries",
    "/deliveries?status=quarantined",
    "/deliveries?task_id=task-100",
    "/quarantine",
    "/jobs",
    "/follow-ups",
    "/workflows",
    "/datasets",
    "/exports",
    "/batches",
    "/projects",
    "/settings",
    "/tokens",
    "/subscribers",
    "/audit",
    "/bulk-actions",
    "/insights",
    "/insights/tasks?number=late",
)


def copies(connection: Connection, model: Any, count: int, **changes: str) -> None:
    """Insert `count` copies of the model's one row. `changes`: column → SQL over the number n."""
    columns = [column.name for column in model.__table__.c]
    values = ", ".join(changes.get(name, f'"{name}"') for name in columns)
    numbers = (
        f"generate_series(1, {count}) AS numbers(n)"
        if connection.dialect.name == "postgresql"
        else f"(WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {count}) SELECT n FROM counted)"
    )
    names = ", ".join(f'"{name}"' for name in columns)
    table = model.__table__.name
    connection.execute(
        text(
            f"INSERT INTO {table} ({names}) SELECT {values} FROM (SELECT * FROM {table} LIMIT 1) AS seed, {numbers}"
        )
    )


def uuid_of(connection: Connection, number: str) -> str:
    """Return SQL of a UUIDv7 of the past whose order is that of the number."""
    if connection.dialect.name == "postgresql":
        return f"('018f0000-0000-7000-8000-' || lpad(to_hex({number}), 12, '0'))::uuid"
    return f"printf('018f0000000070008000%012x', {number})"


def fill(service: Service, tasks: int, deliveries: int) -> None:
    """Receive one result, and copy its rows."""
    body = (PAYLOADS / "annotation/accepted.json").read_bytes()
    receive(service, body, "live")
    with service.engine.begin() as connection:
        postgres = connection.dialect.name == "postgresql"
        if postgres:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        digest = "lpad(to_hex(n), 64, '0')" if postgres else "printf('%064x', n)"
        task_id = f"'task-' || (n % {tasks} + 1)"
        copies(connection, Delivery, deliveries, id=uuid_of(connection, "n"), sha256=digest, task_id=task_id)
        copies(connection, DeliveryBody, deliveries, delivery_id=uuid_of(connection, "n"))
        own = {"task_id": "'task-' || n", "id": uuid_of(connection, "n"), "unique_id": "'unique-' || n"}
        response_id = uuid_of(connection, "n")
        copies(connection, Task, tasks, **own, response_id=response_id)
        copies(connection, Response, tasks, id=response_id, task_id="'task-' || n")
        copies(
            connection,
            Annotation,
            tasks * ANNOTATIONS_EACH,
            response_id=uuid_of(connection, f"(n - 1) / {ANNOTATIONS_EACH} + 1"),
            file="0",
            position=f"(n - 1) % {ANNOTATIONS_EACH}",
        )
    with service.engine.execution_options(**AUTOCOMMIT).begin() as connection:
        connection.execute(text("VACUUM ANALYZE" if postgres else "ANALYZE"))


def signed_in(url: str) -> tuple[FlaskClient, Service]:
    """Return a browser that is signed in to a console over this database."""
    settings = {"API_TOKEN": TOKEN, "SECRET_KEY": "bench", "DATABASE_URL": url, "WORKFLOWS_DIR": "nowhere"}
    app = create_app(load_settings(settings))
    client = app.test_client()
    csrf = re.findall(r'name="csrf_token" value="([^"]+)"', client.get("/console/sign-in").text)[0]
    client.post("/console/sign-in", data={"csrf_token": csrf, "token": TOKEN})
    return client, app.extensions["weighbridge"]


def seconds(client: FlaskClient, page: str) -> float:
    """Return how long one page takes. Exits if it is no page."""
    started = time.perf_counter()
    answer = client.get(f"/console{page}")
    taken = time.perf_counter() - started
    if answer.status_code != 200:
        sys.exit(f"{page} was answered with {answer.status_code}")
    return taken


@contextmanager
def plans(service: Service, found: list[str]) -> Iterator[None]:
    """Collect the plan of each query that the block makes."""

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith("SELECT"):
            word = "EXPLAIN" if service.engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
            rows = connection.connection.cursor().execute(f"{word} {statement}", parameters).fetchall()
            found.append("\n".join([" ".join(statement.split())[:200], *(f"    {row[-1]}" for row in rows)]))

    event.listen(service.engine, "before_cursor_execute", explain)
    try:
        yield
    finally:
        event.remove(service.engine, "before_cursor_execute", explain)


def compare(name: str, small_url: str, large_url: str, with_plans: bool) -> tuple[Table, list[str]]:
    """Return the ratios of all pages, and with `with_plans` the plans of their queries in the large database."""
    found: list[str] = []
    contenders = []
    for url, (tasks, deliveries) in ((small_url, SMALL), (large_url, LARGE)):
        migrate(url)
        client, service = signed_in(url)
        fill(service, tasks, deliveries)
        contenders.append((client, service))
    (small, _), (large, service) = contenders
    table = Table(f"page, {name}", "small ms", "large ms", "ratio", "goal")
    for page in PAGES:
        for client in (small, large):
            seconds(client, page)
        pairs = [(seconds(small, page), seconds(large, page)) for _ in range(TIMES)]
        few, many = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
        table.add_row(page, f"{few:.1f}", f"{many:.1f}", f"{many / few:.2f}", f"≤ {GOAL}")
        if with_plans:
            found.append(f"\n{name} {page}")
            with plans(service, found):
                seconds(large, page)
    return table, found


def main() -> None:
    """Print both tables. With --plans also the plans of the queries."""
    with_plans = "--plans" in sys.argv
    with stack.servers() as servers:
        databases = {
            "SQLite": [f"sqlite:///{servers.folder}/{size}.db" for size in ("small", "large")],
            "PostgreSQL": [
                servers.postgres.create_database(f"console_{size}").replace(
                    "postgresql:", "postgresql+psycopg:"
                )
                for size in ("small", "large")
            ],
        }
        for name, (small, large) in databases.items():
            table, found = compare(name, small, large, with_plans)
            Console(width=120).print(table)
            print("\n".join(found))


if __name__ == "__main__":
    main()
