"""Many results with twenty annotations each, and a follow-up for every annotation: the pace, how it grows, and the memory.

At a Scale that answers at once the limit is ours; at the sandbox it is Scale's.
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from rich.table import Table
from sqlalchemy import create_engine

from benchmarks import stack
from benchmarks.bodies import box, make
from benchmarks.load import Connection
from benchmarks.scale import Scale
from pipeline.jobs import queue
from sandbox.pytest_plugin import running_sandbox

EACH = 20
TWENTY_BOXES = make("20 boxes", "annotation", [box(number) for number in range(EACH)], "Box every **sheep**.")
QUESTION = {
    "instruction": "Which kind of ${{ annotation.label }}?",
    "attachment_type": "text",
    "attachment": "${{ annotation.uuid }}",
    "categories": ["old", "young"],
}
STEP = {
    "after": {"type": "annotation"},
    "for_each": "annotation",
    "create": {"type": "categorization", "params": QUESTION},
}
WORKFLOW = {"workflow": "each", "limits": {"per_day": 10_000_000}, "steps": {"ask": STEP}}
LOOK_SECONDS = 1.0
MAX_SECONDS = 1800.0
STOPPED = "INSERT INTO state (key, value, changed_at) VALUES ('creating:stopped', '{}', now())"


@dataclass
class Seen:
    """One sample of the service."""

    seconds: float
    planned: int
    created: int
    memory: int  # bytes of the largest process of the worker


def planning(servers: stack.Servers, sources: int) -> Table:
    """Measure planning: from the results to every follow-up and its job. Creation is paused."""
    with tempfile.TemporaryDirectory() as folder:
        write_workflow(folder)
        with stack.weighbridge(servers, SCALE_API_URL="http://127.0.0.1:9/v1", WORKFLOWS_DIR=folder) as one:
            with psycopg.connect(one.database_url, autocommit=True) as database:
                database.execute(STOPPED)
            looks = watch(one, sources, "planned")
            claim = claim_milliseconds(one)
    table = Table(*COLUMNS, "claim, ms")
    table.add_row(*paces("planning alone", looks, "planned", sources * EACH), f"{claim:.1f}")
    return table


def creating(servers: stack.Servers, sources: int) -> Table:
    """Measure creation: from the results to every task at Scale."""
    table = Table(*COLUMNS)
    for name, scale in (("a Scale that answers at once", quick_scale), ("the sandbox", sandbox)):
        with tempfile.TemporaryDirectory() as folder, scale() as url:
            write_workflow(folder)
            with stack.weighbridge(servers, SCALE_API_URL=url, WORKFLOWS_DIR=folder) as one:
                looks = watch(one, sources, "created")
        table.add_row(*paces(name, looks, "created", sources * EACH))
    return table


COLUMNS = ("", "follow-ups", "/s", "first quarter", "last quarter", "worker MB", "at the end")


def paces(name: str, looks: list[Seen], what: str, total: int) -> list[str]:
    """Return a row of the table: how fast the work went in each quarter."""
    quarters = [at(looks, what, total * share // 4) for share in range(5)]
    pace = [total / 4 / (end - start) for start, end in itertools.pairwise(quarters)]
    first = next(look for look in looks if getattr(look, what) >= total // 4)
    figures = (
        total,
        total / looks[-1].seconds,
        pace[0],
        pace[-1],
        first.memory / 2**20,
        looks[-1].memory / 2**20,
    )
    return [name, *(f"{figure:,.0f}" for figure in figures)]


def watch(one: stack.Contender, sources: int, what: str) -> list[Seen]:
    """Post the results and sample once a second until every follow-up is planned, or created."""
    connection, began = Connection(one.port), time.monotonic()
    for number in range(1, sources + 1):
        if connection.post(TWENTY_BOXES.with_id(number)) != 200:
            raise SystemExit("a callback was refused")
    looks = [Seen(0.0, 0, 0, 0)]
    with psycopg.connect(one.database_url, autocommit=True) as database:
        while getattr(looks[-1], what) < sources * EACH:
            time.sleep(LOOK_SECONDS)
            counts = database.execute("SELECT count(*), count(created_at) FROM follow_ups").fetchone()
            assert counts is not None
            looks.append(Seen(time.monotonic() - began, counts[0], counts[1], memory(one)))
            if time.monotonic() - began > MAX_SECONDS:
                raise SystemExit(f"after half an hour there are {looks[-1]}")
    return looks


def at(looks: list[Seen], what: str, number: int) -> float:
    """Return when a number of follow-ups was planned or created, interpolated between two samples."""
    for before, after in itertools.pairwise(looks):
        there, then = getattr(before, what), getattr(after, what)
        if then >= number:
            return before.seconds + (number - there) / max(1, then - there) * (after.seconds - before.seconds)
    return looks[-1].seconds


def claim_milliseconds(one: stack.Contender) -> float:
    """Return the median time to claim one of many waiting jobs."""
    engine = create_engine(one.database_url.replace("postgresql://", "postgresql+psycopg://"))
    taken = []
    for _ in range(200):
        began = time.monotonic()
        queue.claim(engine, 60)
        taken.append(time.monotonic() - began)
    engine.dispose()
    return statistics.median(taken) * 1000


def memory(one: stack.Contender) -> int:
    """Return the resident bytes of the largest process of a worker."""
    worker = one.processes[-1]
    return max(process.memory_info().rss for process in (psutil.Process(worker.pid), *worker.children()))


def write_workflow(folder: str) -> None:
    """Write the workflow file into a folder."""
    (Path(folder) / "each.yaml").write_text(json.dumps(WORKFLOW))


@contextmanager
def quick_scale() -> Iterator[str]:
    """Start a Scale that answers at once. Yields its URL."""
    scale = Scale()
    yield scale.url
    scale.close()


@contextmanager
def sandbox() -> Iterator[str]:
    """No task is completed here: only creation is measured."""
    with running_sandbox(stack.ROOT, None, "--memory", "--speed", "manual") as one:
        yield one.api_url
