"""Compare Scale's own list of tasks with the database, and receive what no callback delivered.

Each task object that differs is received like its callback, as a delivery of kind `reconciled`; an import of exported
objects does the same with kind `imported`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, func, select, true

from models import Response, SyncRun, Task
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id, utcnow
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job, RetryLater
from pipeline.receive.receive import parse_body
from pipeline.receive.replay import receive_task
from pipeline.service import Service
from scale.canonical import canonical_json
from scale.client import PermanentError, Throttled, Unauthorized
from scale.envelope import ABSENT, Callback, InvalidCallback, response_digest
from scale.environments import ENVIRONMENTS

OVERLAP = timedelta(hours=1)
"""A scheduled run starts this long before the previous one: lists and callbacks may lag."""
FIRST_LOOK_BACK = timedelta(days=30)
"""How far the first scheduled run looks back; `weighbridge reconcile` reads everything unless --since is given."""
PAGE_BATCH_SIZE = 20
"""Pages of one run of the job; it continues after other jobs."""
UNAUTHORIZED_RETRY_SECONDS = 900.0
MAX_START_DIFFERENCE = timedelta(days=1)
"""An interrupted run is resumed if its --since differs by less than this."""
KEPT_RUNS = timedelta(days=30)

RECONCILE, SCHEDULE, PERSON = "reconcile", "schedule", "person"

SYNC_RUNS = SyncRun.__table__.c


class NoKey(Exception):
    """Raised when no API key is set for the environment."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A task object that differs from what is stored."""

    task_id: str | None
    why: str  # missing | stale | invalid (not a task object)
    receipt: str | None  # the status of its delivery; None in a dry run
    jobs: list[UUID] = field(default_factory=list)  # to dispatch


@dataclass(frozen=True, slots=True)
class ReconcileRun:
    """One pass through Scale's list: its position, and what it has found so far."""

    requested_by: str  # schedule | person
    environment: str
    project: str | None
    since: datetime | None  # tasks that changed before are left out
    started_at: datetime
    position: Mapping[str, Any]  # where the next page begins, as filters of the list
    finished: bool = False
    total: int | None = None  # tasks, as Scale counts them
    seen: int = 0
    missing: int = 0
    stale: int = 0
    repaired: int = 0
    found: tuple[Difference, ...] = ()  # on the last page
    id: UUID = field(default_factory=new_id)


def begin(
    service: Service,
    environment: str,
    *,
    since: datetime | None = None,
    project: str | None = None,
    requested_by: str = PERSON,
) -> ReconcileRun:
    """Return a new run, or the interrupted one with the same filters."""
    with service.reader.begin() as connection:
        interrupted = _newest_run(connection, requested_by, environment, project, finished=False)
    if interrupted is not None and same_start(interrupted.since, since):
        return interrupted
    return ReconcileRun(requested_by, environment, project, since, utcnow(), {})


def same_start(one: datetime | None, other: datetime | None) -> bool:
    """Return whether two runs start at about the same time, so that the second can resume the first."""
    if one is None or other is None:
        return one is other
    return abs(one - other) < MAX_START_DIFFERENCE


def _newest_run(
    connection: Connection, requested_by: str, environment: str, project: str | None, *, finished: bool
) -> ReconcileRun | None:
    """Return the newest run if it is finished, or unfinished, as asked."""
    names = [one.name for one in fields(ReconcileRun) if one.name not in ("finished", "found")]
    newest = (
        select(*(SYNC_RUNS[name] for name in names), SYNC_RUNS.finished_at)
        .where(
            SYNC_RUNS.kind == RECONCILE,
            SYNC_RUNS.requested_by == requested_by,
            SYNC_RUNS.environment == environment,
            SYNC_RUNS.project.is_not_distinct_from(project),
            SYNC_RUNS.finished_at.is_not(None) if finished else true(),
        )
        .order_by(SYNC_RUNS.id.desc())
        .limit(1)
    )
    row = connection.execute(newest).mappings().one_or_none()
    if row is None or (row["finished_at"] is not None) != finished:
        return None
    return ReconcileRun(**{name: row[name] for name in names}, finished=finished)


def reconcile(
    service: Service, run: ReconcileRun, *, dry_run: bool = False, create: bool = False
) -> Iterator[ReconcileRun]:
    """Compare page by page from the position of `run`, and yield the run after each page.

    The position is stored after each page, so that an interrupted run is resumed. Raises NoKey, and ScaleError: the last
    run that was yielded can be passed in again later. `create` is as in `receive_differences`.
    """
    client = service.client(run.environment)
    if client is None:
        raise NoKey(f"no API key for {run.environment} tasks is set")
    first_position, filters = run.position, {"project": run.project, "updated_after": run.since}
    try:
        for page in client.iter_task_pages(**filters, **run.position):
            found = receive_differences(
                service, page["docs"], run.environment, kind="reconciled", dry_run=dry_run, create=create
            )
            run = _after_page(run, page, found)
            if not dry_run:
                with service.engine.begin() as connection:
                    save_progress(connection, run)
            yield run
    except PermanentError:
        if not first_position or run.position is not first_position:
            raise
        yield from reconcile(
            service, replace(run, position={}), dry_run=dry_run, create=create
        )  # its token has expired


def _after_page(run: ReconcileRun, page: Mapping[str, Any], found: Sequence[Difference]) -> ReconcileRun:
    reasons = [one.why for one in found]
    return replace(
        run,
        position=next_position(page, run.position),
        finished=not page.get("has_more") or not page["docs"],
        total=page["total"] if isinstance(page.get("total"), int) else None,
        seen=run.seen + len(page["docs"]),
        missing=run.missing + reasons.count("missing"),
        stale=run.stale + reasons.count("stale"),
        repaired=run.repaired + sum(one.receipt in ("processed", "stored") for one in found),
        found=tuple(found),
    )


def next_position(page: Mapping[str, Any], position: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the next page begins: at its token, or at an offset if the server gives no token."""
    if page.get("next_token"):
        return {"next_token": page["next_token"]}
    offset = page["offset"] if isinstance(page.get("offset"), int) else position.get("offset", 0)
    return {"offset": offset + len(page["docs"])}


def save_progress(connection: Connection, run: ReconcileRun) -> None:
    """Store the run's position and counts."""
    moment = utcnow()
    columns = {name: getattr(run, name) for name in ("total", "seen", "missing", "stale", "repaired")}
    columns |= {
        "position": dict(run.position),
        "updated_at": moment,
        "finished_at": moment if run.finished else None,
    }
    key = {name: getattr(run, name) for name in ("requested_by", "environment", "project", "since")}
    row = {"id": run.id, "kind": RECONCILE, "started_at": run.started_at, **key, **columns}
    statement = insert(connection, SyncRun).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=columns))


# Task objects, from the list or from a file.


def receive_differences(
    service: Service,
    docs: Sequence[Any],
    environment: str,
    *,
    kind: str,
    dry_run: bool = False,
    create: bool = False,
) -> list[Difference]:
    """Receive the objects that differ from what is stored. Their follow-ups are held unless `create` is set."""
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
            receipt = receive_task(service, doc, environment, kind=kind, may_create=create)
            found.append(Difference(task_id, why, receipt.status, receipt.jobs))
    return found


@dataclass(frozen=True, slots=True)
class StoredTask:
    """The columns of a stored task that are compared."""

    described: bool
    clock: datetime | None
    status: str | None
    review: str | None
    current: str | None  # digest of the current version
    versions: frozenset[str]  # digests of all versions


def load_stored(connection: Connection, task_ids: Sequence[str]) -> dict[str, StoredTask]:
    """Return what is stored of these tasks, by task_id: the columns that a reconciliation compares."""
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
    """Return missing, stale or invalid; None if nothing is new. An unknown task that is pending is not missing."""
    if not isinstance(reading, Callback):
        return "invalid"
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
    """Enqueue a run of each environment that has an API key, RECONCILE_EVERY_SECONDS after the previous one started.

    A run that has not finished is continued. Old runs are deleted.
    """
    if not service.settings.reconcile_every_seconds:
        return
    interval = timedelta(seconds=service.settings.reconcile_every_seconds)
    for environment in ENVIRONMENTS:
        if service.client(environment) is None:
            continue
        unfinished = _newest_run(connection, SCHEDULE, environment, None, finished=False)
        last = connection.scalar(
            select(func.max(SYNC_RUNS.started_at if unfinished is None else SYNC_RUNS.updated_at)).where(
                *_scheduled(environment)
            )
        )
        if last is not None and utcnow() - last < interval:
            continue
        save_progress(connection, unfinished or _new_scheduled_run(connection, environment))
        old = SYNC_RUNS.finished_at < utcnow() - max(KEPT_RUNS, 2 * interval)
        connection.execute(delete(SyncRun).where(*_scheduled(environment), old))
        queue.enqueue(connection, kinds.RECONCILE, [environment])


def _scheduled(environment: str) -> tuple[ColumnElement[bool], ...]:
    return (
        SYNC_RUNS.kind == RECONCILE,
        SYNC_RUNS.requested_by == SCHEDULE,
        SYNC_RUNS.environment == environment,
    )


def _new_scheduled_run(connection: Connection, environment: str) -> ReconcileRun:
    previous = _newest_run(connection, SCHEDULE, environment, None, finished=True)
    since = utcnow() - FIRST_LOOK_BACK if previous is None else previous.started_at - OVERLAP
    return ReconcileRun(SCHEDULE, environment, None, since, utcnow(), {})


def run_job(service: Service, job: Job) -> None:
    """Continue the scheduled run of one environment for some pages; the rest comes after other jobs."""
    with service.engine.begin() as connection:
        run = _newest_run(connection, SCHEDULE, job.subject, None, finished=False)
        if run is None:
            return queue.finish(connection, job)
    with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as check_lease:
        try:
            for page in islice(reconcile(service, run), PAGE_BATCH_SIZE):
                check_lease()
                run = page
        except Throttled as error:
            raise RetryLater("Scale asks to slow down", error.delay) from error
        except Unauthorized as error:
            why = f"Scale refuses the API key: {error.message}"
            raise RetryLater(why, UNAUTHORIZED_RETRY_SECONDS) from error
        except NoKey as error:
            raise RetryLater(str(error), UNAUTHORIZED_RETRY_SECONDS) from error
    with service.engine.begin() as connection:
        if run.finished:
            queue.finish(connection, job)
        else:
            queue.reschedule(connection, job, None, delay=0, count_attempt=False)
