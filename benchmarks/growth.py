"""Large bodies and full tables: the cost of 50,000 boxes as a ratio to json.loads of the same body, and of a callback when
a million annotations are stored."""

import json
import statistics
import time
from collections.abc import Callable

import psutil
import psycopg
from rich.table import Table

from benchmarks import stack
from benchmarks.bodies import ONE_BOX, Body, box, make
from benchmarks.load import Connection, send
from config import load_settings
from pipeline.bootstrap import build_service
from pipeline.db.migrations import migrate
from pipeline.receive.receive import receive
from scale.envelope import parse_callback
from scale.task_types import parse_response
from tests.servers import wait_until

BOXES = 50_000
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
    return make("50,000 boxes", "annotation", [box(n) for n in range(BOXES)], "Box every **sheep**.")


def in_process(servers: stack.Servers, body: Body) -> Table:
    """Measure parsing and storing without the web process."""
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
        inline = {"INLINE_CALLBACK_BYTES": str(1 << 30), "WORKFLOWS_DIR": "nowhere"}
        service = build_service(load_settings({"DATABASE_URL": url, "SECRET_KEY": "bench", **inline}))
        bodies = iter([body.with_id(number * 10 + n) for n in range(3)])
        found = seconds(lambda service=service, bodies=bodies: receive(service, next(bodies), "live"))
        table.add_row(f"received whole, {name}", f"{found:.2f}", f"{found / floor:.1f}", "≤ 5")
        service.engine.dispose()
    return table


def through_the_service(servers: stack.Servers, body: Body) -> Table:
    """Measure when the callback is answered, when its rows are visible, and how much memory the processes gain."""
    content = body.with_id(7)
    floor = seconds(lambda: json.loads(content))
    table = Table("figure", "found", "ratio", "goal")
    with stack.weighbridge(servers, WEB_CONCURRENCY="1", SWEEP_SECONDS="1") as ours:
        Connection(ours.port).post(ONE_BOX.with_id(1))
        idle = {
            name: _memory(process.pid)
            for name, process in zip(("web", "worker"), ours.processes, strict=True)
        }
        start = time.perf_counter()
        if Connection(ours.port).post(content) != 200:
            raise SystemExit("the large body was refused")
        answered = time.perf_counter() - start
        peak = dict(idle)

        def there() -> bool:
            for name, process in zip(("web", "worker"), ours.processes, strict=True):
                peak[name] = max(peak[name], _memory(process.pid))
            return ours.stored()[1] >= BOXES

        wait_until(there, 120, "the rows of the large body are there")
        present = time.perf_counter() - start
    table.add_row("answered", f"{answered:.2f} s", f"{answered / floor:.1f} × json.loads", "≤ 1.5")
    table.add_row("rows there", f"{present:.2f} s", f"{present / floor:.1f} × json.loads", "≤ 5")
    for name, goal in (("web", "≤ 2.5"), ("worker", "≤ 8")):
        grown = peak[name] - idle[name]
        table.add_row(
            f"{name} grows by", f"{grown / MIB:.0f} MiB", f"{grown / len(content):.1f} × the body", goal
        )
    return table


def _memory(pid: int) -> int:
    """Return the private memory of the process and its children in bytes."""
    root = psutil.Process(pid)
    return sum(
        one.memory_info().rss - one.memory_info().shared for one in (root, *root.children(recursive=True))
    )


def full_tables(servers: stack.Servers, measured: float) -> Table:
    """Send the same callbacks into empty tables and into tables with a million annotations."""
    table = Table("annotations in the table", "callbacks /s", "cost ÷ empty", "goal")
    with stack.weighbridge(servers) as ours:
        send(ours.port, ONE_BOX, seconds=1, first_id=1)
        rates = {"none": [], "1,000,000": []}
        for name in rates:
            if name != "none":
                _fill(ours.database_url, 1_000_000)
            for turn in range(3):
                sent = send(
                    ours.port,
                    ONE_BOX,
                    seconds=measured,
                    first_id=(turn + 1) * 10**8 + hash(name) % 10**6 * 10**3,
                )
                rates[name].append(sent.accepted / sent.seconds)
    empty, full = (statistics.median(found) for found in rates.values())
    table.add_row("none", f"{empty:,.0f}", "1.00", "")
    table.add_row("1,000,000", f"{full:,.0f}", f"{empty / full:.2f}", "≤ 1.05")
    return table


def _fill(url: str, annotations: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO annotations (response_id, file, position, type, label, attributes, geometry)"
            " SELECT md5((n / 20)::text)::uuid, 0, n %% 20, 'box', 'sheep', '{}',"
            ' \'{"left": 1, "top": 2, "width": 3, "height": 4}\' FROM generate_series(1, %s) AS n',
            (annotations,),
        )
        connection.execute("VACUUM ANALYZE annotations")
