"""Scale's own list of tasks against what is stored here: what a callback should have told is taken from the list.

Each task object that differs is received the way its callback would have been, as a delivery of kind `reconciled`; an
import of exported objects does the same with kind `imported`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from models import KeyValue, Response, Task
from pipeline.db.ids import utcnow
from pipeline.db.state import delete_state, get_state, set_state
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job, RetryLater
from pipeline.receive.receive import parse_body
from pipeline.receive.replay import receive_task
from pipeline.service import Service
from scale.canonical import canonical_json
from scale.client import PermanentError, Throttled, Unauthorized
from scale.envelope import ABSENT, Callback, InvalidCallback, response_digest

OVERLAP = timedelta(hours=1)
"""A scheduled run begins so much before the last one did: lists and callbacks may lag behind."""
FIRST_LOOK_BACK = timedelta(days=30)
"""How far the first scheduled run looks back; `weighbridge reconcile` looks at everything unless --since is given."""
PAGE_BATCH_SIZE = 20
"""After so many pages a job lets others run, and goes on behind them."""
THROTTLED_SECONDS = 30.0
REFUSED_SECONDS = 900.0
RESUMED_WITHIN = timedelta(days=1)

RECONCILING = "reconciling:"
RECONCILED = "reconciled:"
ASKED = "reconcile-asked:"


class NoKey(Exception):
    """There is no API key to ask Scale with."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A task object that differs from what is stored."""

    task_id: str | None
    why: str  # missing | stale | odd (no task object at all)
    receipt: str | None  # what receiving it gave; None in a dry run
    jobs: list[UUID] = field(default_factory=list)  # to ring for


@dataclass(frozen=True, slots=True)
class ReconcileRun:
    """How far one pass through the list has come, and what it has found so far."""

    asked_by: str  # schedule | person
    environment: str
    project: str | None
    since: datetime | None  # tasks that changed before are not looked at
    started_at: datetime
    position: Mapping[str, Any]  # where the next page begins, as a filter for the list
    finished: bool = False
    total: int | None = None  # tasks, as Scale counts them
    seen: int = 0
    missing: int = 0
    stale: int = 0
    repaired: int = 0
    found: tuple[Difference, ...] = ()  # on the last page

    @property
    def key(self) -> str:
        return f"{RECONCILING}{self.asked_by}:{self.environment}:{self.project or ''}"


def begin(
    service: Service,
    environment: str,
    *,
    since: datetime | None = None,
    project: str | None = None,
    asked_by: str = "person",
) -> ReconcileRun:
    """A new run, or the one like it that was interrupted."""
    fresh = ReconcileRun(asked_by, environment, project, since, utcnow(), {})
    with service.reader.begin() as connection:
        kept = get_state(connection, fresh.key)
    if kept is None:
        return fresh
    dates = {name: kept[name] and datetime.fromisoformat(kept[name]) for name in ("since", "started_at")}
    run = ReconcileRun(**{**kept, **dates})
    alike = run.since is since is None or (
        run.since is not None and since is not None and abs(run.since - since) < RESUMED_WITHIN
    )
    return run if alike else fresh


def reconcile(service: Service, run: ReconcileRun, *, dry_run: bool = False) -> Iterator[ReconcileRun]:
    """Look through the pages from where `run` stands; after each page the run as it is then.

    Where it stands is kept after each page, so that an interrupted run can go on. Raises NoKey, and ScaleError: what
    was given last can be passed in again after a while.
    """
    client = service.client(run.environment)
    if client is None:
        raise NoKey(f"no API key for {run.environment} tasks is set")
    began_at, filters = run.position, {"project": run.project, "updated_after": run.since}
    try:
        for page in client.iter_task_pages(**filters, **run.position):
            found = receive_differences(
                service, page["docs"], run.environment, kind="reconciled", dry_run=dry_run
            )
            counts = [one.why for one in found]
            run = replace(
                run,
                position=next_position(page, run.position),
                finished=not page.get("has_more") or not page["docs"],
                total=page["total"] if isinstance(page.get("total"), int) else None,
                seen=run.seen + len(page["docs"]),
                missing=run.missing + counts.count("missing"),
                stale=run.stale + counts.count("stale"),
                repaired=run.repaired + sum(one.receipt in ("processed", "stored") for one in found),
                found=tuple(found),
            )
            if not dry_run:
                save_progress(service, run)
            yield run
    except PermanentError:
        if not began_at or run.position is not began_at:
            raise
        yield from reconcile(service, replace(run, position={}), dry_run=dry_run)  # its token is too old


def next_position(page: Mapping[str, Any], position: Mapping[str, Any]) -> dict[str, Any]:
    """Where the page behind this one begins: at its token, or with an old server at an offset."""
    if page.get("next_token"):
        return {"next_token": page["next_token"]}
    offset = page["offset"] if isinstance(page.get("offset"), int) else position.get("offset", 0)
    return {"offset": offset + len(page["docs"])}


def save_progress(service: Service, run: ReconcileRun) -> None:
    with service.engine.begin() as connection:
        if run.finished:
            delete_state(connection, run.key)
        else:
            dates = {"since": run.since and run.since.isoformat(), "started_at": run.started_at.isoformat()}
            set_state(connection, run.key, {**asdict(replace(run, found=())), **dates})


# Task objects, from the list or from a file.


def receive_differences(
    service: Service, docs: Sequence[Any], environment: str, *, kind: str, dry_run: bool = False
) -> list[Difference]:
    """Receive those of the objects that say something new."""
    readings = [parse_body(canonical_json(doc), environment) for doc in docs]
    ids = [reading.task_id for reading in readings if isinstance(reading, Callback) and reading.task_id]
    with service.reader.begin() as connection:
        stored = load_stored(connection, ids)
    found = []
    for doc, reading in zip(docs, readings, strict=True):
        why = difference(reading, stored)
        if why is None:
            continue
        task_id = reading.task_id if isinstance(reading, Callback) else None
        if dry_run:
            found.append(Difference(task_id, why, None))
        else:
            receipt = receive_task(service, doc, environment, kind=kind)
            found.append(Difference(task_id, why, receipt.status, receipt.jobs))
    return found


@dataclass(frozen=True, slots=True)
class StoredTask:
    """What is stored of a task, as far as it is compared."""

    described: bool
    clock: datetime | None
    status: str | None
    review: str | None
    current: str | None  # digest of the current version
    versions: frozenset[str]  # digests of all versions


def load_stored(connection: Connection, task_ids: Sequence[str]) -> dict[str, StoredTask]:
    digests: dict[str, dict[UUID, str]] = {}
    versions = select(Response.task_id, Response.id, Response.digest).where(Response.task_id.in_(task_ids))
    for row in connection.execute(versions):
        digests.setdefault(row.task_id, {})[row.id] = row.digest
    tasks = select(
        Task.task_id, Task.described_clock, Task.clock, Task.status, Task.review_status, Task.response_id
    ).where(Task.task_id.in_(task_ids))
    return {
        row.task_id: StoredTask(
            row.described_clock is not None,
            row.clock,
            row.status,
            row.review_status,
            digests.get(row.task_id, {}).get(row.response_id),
            frozenset(digests.get(row.task_id, {}).values()),
        )
        for row in connection.execute(tasks)
    }


def difference(reading: Callback | InvalidCallback, stored: Mapping[str, StoredTask]) -> str | None:
    """missing, stale or odd; None where it says nothing new. A pending task that is not known here misses nothing."""
    if not isinstance(reading, Callback):
        return "odd"
    if reading.task_id is None:  # a batch
        return "stale"
    known = stored.get(reading.task_id)
    if known is None:
        return None if reading.status == "pending" else "missing"
    if not known.described:
        return "stale"
    digest = None if reading.response is ABSENT else response_digest(reading.response)
    if digest is not None and digest not in known.versions:
        return "stale"
    if known.clock is not None and reading.clock is not None and reading.clock != known.clock:
        return "stale" if reading.clock > known.clock else None
    review = reading.task.review_status if reading.task else None
    current = None if reading.event == "recalled" else digest
    same = (reading.status, review, current) == (known.status, known.review, known.current)
    return None if same else "stale"


# On a schedule.


def enqueue_due_runs(connection: Connection, service: Service) -> None:
    """Ask for a run of each environment that has an API key, RECONCILE_EVERY_SECONDS after the last one was asked for."""
    every = service.settings.reconcile_every_seconds
    if not every:
        return
    for environment in ("live", "test"):
        asked_at = connection.scalar(select(KeyValue.changed_at).where(KeyValue.key == ASKED + environment))
        due = asked_at is None or utcnow() - asked_at >= timedelta(seconds=every)
        if due and service.client(environment) is not None:
            set_state(connection, ASKED + environment, {})
            queue.enqueue(connection, kinds.RECONCILE, [environment])


def run_job(service: Service, job: Job) -> None:
    """Go on with the scheduled run of one environment, for some pages; what is left comes after other jobs."""
    environment = job.subject
    with service.reader.begin() as connection:
        last = get_state(connection, RECONCILED + environment)
    since = datetime.fromisoformat(last["until"]) - OVERLAP if last else utcnow() - FIRST_LOOK_BACK
    run = begin(service, environment, since=since, asked_by="schedule")
    with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as still_leased:
        try:
            for page in islice(reconcile(service, run), PAGE_BATCH_SIZE):
                still_leased()
                run = page
        except Throttled as slow:
            raise RetryLater("Scale asks to slow down", slow.retry_after or THROTTLED_SECONDS) from slow
        except Unauthorized as refused:
            raise RetryLater(f"Scale refuses the API key: {refused.message}", REFUSED_SECONDS) from refused
        except NoKey as gone:
            raise RetryLater(str(gone), REFUSED_SECONDS) from gone
    with service.engine.begin() as connection:
        if run.finished:
            set_state(connection, RECONCILED + environment, {"until": run.started_at.isoformat()})
            queue.finish(connection, job)
        else:
            queue.reschedule(connection, job, None, delay=0, count_attempt=False)
