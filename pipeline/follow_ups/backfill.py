"""Backfill: run a workflow over results that are already stored, as a job, with a preview, progress and a rate.

The position is stored in the transaction that stores a result's follow-ups, so that each result is evaluated exactly once,
wherever the job is interrupted. unique_ids make running the same backfill again free.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, func, select, update

from models import Annotation, Backfill, Task
from pipeline.access.audit import log_action
from pipeline.db.dialect import insert
from pipeline.db.ids import format_timestamp, new_id, utcnow
from pipeline.db.memory_budget import ReadTooLarge, temporary_reads
from pipeline.db.tables import has_tag
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.follow_ups.pauses import paused_workflows
from pipeline.follow_ups.plan_task import plan_past_result, store_plan
from pipeline.follow_ups.preview import Preview
from pipeline.follow_ups.prices import Cost, project_of
from pipeline.follow_ups.views import ContentPurged, load_snapshot
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job, RetryLater
from pipeline.service import Service
from workflows.definition.model import Workflow

log = logging.getLogger(__name__)

RUNNING, STOPPED, COMPLETED = STATES = ("running", "stopped", "completed")
BATCH_SIZE = 50
"""Results that one run of the job evaluates; it continues after other jobs."""
ID_BATCH_SIZE = 500
MAX_EXAMPLES = 5
"""Requests that a preview shows."""
PAUSED_RETRY_SECONDS = 60.0
FILTERS = ("since", "until", "project", "type", "label", "batch", "tag", "environment")
BACKFILLS = cast(Table, Backfill.__table__)


@dataclass(slots=True)
class BackfillPreview:
    """What a backfill would create."""

    cost: Cost
    matching: int = 0  # results that the filters select
    evaluated: int = 0
    left_out: int = 0  # of those: too large for a web process
    results: int = 0  # with new follow-ups
    follow_ups: Counter[str] = field(default_factory=Counter)  # created | held | skipped | already_exists
    examples: list[dict[str, Any]] = field(default_factory=list)  # the first requests that would be created

    @property
    def is_complete(self) -> bool:
        """Whether every result that would be run over was evaluated."""
        return self.evaluated == self.matching and not self.left_out


def preview(
    service: Service,
    workflow: Workflow,
    filters: Mapping[str, Any],
    *,
    limit: int | None = None,
    max_evaluated: int | None = None,
) -> Iterator[BackfillPreview]:
    """Evaluate the results one by one, and yield the growing preview after each, at least once.

    limit: results with new follow-ups after which it ends. max_evaluated: results that are evaluated at the most.
    """
    seen = BackfillPreview(Cost(service.prices))
    with service.reader.begin() as connection:
        seen.matching = count(connection, filters)
    planned = Preview(service, [workflow])
    yield seen
    for _, task_id in _ids(service, filters, None):
        if (limit is not None and seen.results >= limit) or seen.evaluated == max_evaluated:
            return
        seen.evaluated += 1
        try:
            with temporary_reads():
                _evaluate(service, planned, seen, task_id)
        except ReadTooLarge:
            seen.left_out += 1
        yield seen


def _evaluate(service: Service, planned: Preview, seen: BackfillPreview, task_id: str) -> None:
    try:
        with service.reader.begin() as connection:
            snapshot = load_snapshot(connection, task_id, parents=service.workflows.needs_parents)
    except ContentPurged:
        return
    if snapshot is None:
        return
    states: Counter[str] = Counter()
    for follow_up in [*planned.of(replace(snapshot.view, held=None))]:  # all of a result's, or none
        states[follow_up["state"]] += 1
        if follow_up["state"] == "created":
            seen.cost.add(follow_up["type"], project_of(follow_up["request"]))
        if follow_up["state"] in ("created", "held") and len(seen.examples) < MAX_EXAMPLES:
            seen.examples.append(follow_up)
    seen.follow_ups += states
    seen.results += any(states[state] for state in ("created", "held", "skipped"))


# Which results.


def _conditions(connection: Connection, filters: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Return the conditions of the filters: since and until bound the time of the newest event."""
    found: list[ColumnElement[bool]] = [Task.response_count > 0]
    for name in ("project", "type", "batch", "environment"):
        if (value := filters.get(name)) is not None:
            found.append(getattr(Task, name) == value)
    if (since := filters.get("since")) is not None:
        found.append(Task.clock >= since)
    if (until := filters.get("until")) is not None:
        found.append(Task.clock < until)
    if (label := filters.get("label")) is not None:
        labeled = select(Annotation.response_id).where(
            Annotation.response_id == Task.response_id, Annotation.label == label
        )
        found.append(labeled.exists())
    if (tag := filters.get("tag")) is not None:
        found.append(has_tag(connection, tag))
    return found


def count(connection: Connection, filters: Mapping[str, Any]) -> int:
    """Return how many results the filters select."""
    statement = select(func.count()).select_from(Task).where(*_conditions(connection, filters))
    return connection.scalar(statement) or 0


def _ids(
    service: Service, filters: Mapping[str, Any], after: UUID | None, size: int = ID_BATCH_SIZE
) -> Iterator[tuple[UUID, str]]:
    """Yield (tasks.id, task_id) of the results after `after`, in the order in which their tasks were discovered."""
    while True:
        with service.reader.begin() as connection:
            statement = select(Task.id, Task.task_id).where(*_conditions(connection, filters))
            if after is not None:
                statement = statement.where(Task.id > after)
            page = connection.execute(statement.order_by(Task.id).limit(size)).all()
        yield from ((row.id, row.task_id) for row in page)
        if len(page) < size:
            return
        after = page[-1].id


# Starting, stopping, and reading them.


def start(
    connection: Connection,
    workflow: str,
    filters: Mapping[str, Any],
    actor: str,
    *,
    limit: int | None = None,
    per_minute: int | None = None,
) -> tuple[UUID, list[UUID]]:
    """Start a backfill. Returns its id, and the jobs to dispatch."""
    backfill_id, moment = new_id(), utcnow()
    row = {
        "id": backfill_id,
        "workflow": workflow,
        "requested_by": actor,
        "filters": _to_json(filters),
        "max_results": limit,
        "per_minute": per_minute,
        "state": RUNNING,
        "total": count(connection, filters),
        "started_at": moment,
        "updated_at": moment,
    }
    connection.execute(insert(connection, Backfill).values(row))
    details = {"workflow": workflow, "filters": row["filters"], "limit": limit, "per_minute": per_minute}
    log_action(connection, actor, "backfill.start", str(backfill_id), details)
    return backfill_id, queue.enqueue(connection, kinds.BACKFILL, [str(backfill_id)])


def stop(connection: Connection, backfill_id: UUID, actor: str) -> None:
    """Stop a backfill after the result that it evaluates now. Raises LookupError, InvalidTransition."""
    _change(connection, backfill_id, actor, "stop", RUNNING, STOPPED)


def resume(connection: Connection, backfill_id: UUID, actor: str) -> list[UUID]:
    """Go on with a stopped backfill where it stopped. Returns the jobs to dispatch. Raises LookupError, InvalidTransition."""
    _change(connection, backfill_id, actor, "resume", STOPPED, RUNNING)
    return queue.enqueue(connection, kinds.BACKFILL, [str(backfill_id)])


def _change(connection: Connection, backfill_id: UUID, actor: str, action: str, before: str, to: str) -> None:
    state = connection.scalar(select(Backfill.state).where(Backfill.id == backfill_id).with_for_update())
    if state is None:
        raise LookupError(f"no backfill {backfill_id} is known")
    if state != before:
        raise InvalidTransition(f"the backfill is {state}; {action} takes one that is {before}")
    columns = {"state": to, "updated_at": utcnow(), "finished_at": utcnow() if to == STOPPED else None}
    connection.execute(update(Backfill).where(Backfill.id == backfill_id).values(columns))
    log_action(connection, actor, f"backfill.{action}", str(backfill_id))


def _to_json(filters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: format_timestamp(value) if isinstance(value, datetime) else value
        for name, value in filters.items()
        if value is not None
    }


def _from_json(filters: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: datetime.fromisoformat(filters[name]) for name in ("since", "until") if name in filters}
    return {**filters, **times}


# The job.


def run_backfill(service: Service, job: Job) -> None:
    """Run a job of kind `backfill`: evaluate some results, then go on after other jobs."""
    with service.reader.begin() as connection:
        row = connection.execute(select(BACKFILLS).where(Backfill.id == UUID(job.subject))).mappings().first()
        paused = paused_workflows(connection, service)
    if row is None or row["state"] != RUNNING:
        return _finish(service, job)
    workflow = service.workflows.workflow(row["workflow"])
    if workflow is None or workflow.name in paused:
        why = f"{row['workflow']} is {'paused' if workflow else 'not among the loaded workflows'}"
        raise RetryLater(why, PAUSED_RETRY_SECONDS)
    size = _batch_size(row)
    with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as check_lease:
        page = _page(service, row, size)
        position, goes_on = row["position"], True
        for task_row_id, task_id in page:
            goes_on = _run_over(service, job, workflow, (position, task_row_id), task_id, check_lease)
            position = task_row_id
            if not goes_on:
                break
    with service.engine.begin() as connection:
        if goes_on and len(page) < size:
            _complete(connection, row["id"])
        if goes_on and len(page) == size:
            delay = size * 60 / row["per_minute"] if row["per_minute"] else 0
            queue.reschedule(connection, job, None, delay=delay, count_attempt=False)
        else:
            queue.finish(connection, job)


def _batch_size(row: RowMapping) -> int:
    """Return the results of one run: about ten seconds' worth if there is a rate."""
    return max(1, min(BATCH_SIZE, row["per_minute"] // 6)) if row["per_minute"] else BATCH_SIZE


def _page(service: Service, row: RowMapping, size: int) -> Sequence[tuple[UUID, str]]:
    ids = _ids(service, _from_json(row["filters"]), row["position"], size)
    return [one for one, _ in zip(ids, range(size), strict=False)]


def _run_over(
    service: Service, job: Job, workflow: Workflow, move: tuple[UUID | None, UUID], task_id: str, check_lease: Any,
) -> bool:  # fmt: skip
    """Evaluate one result, and store what follows together with the position. Returns whether the backfill goes on."""
    outcome: list[bool | None] = []

    def finish(connection: Connection, created: int | None) -> None:
        outcome.append(None if created is None else _advance(connection, job, move, {"follow_ups": created}))

    while True:
        try:
            plan = plan_past_result(service, task_id, workflow)
        except Exception:
            log.exception("backfill: could not plan a result", extra={**job.log_fields, "task_id": task_id})
            return _count_only(service, job, move, "failed")
        if plan is None:
            return _count_only(service, job, move, "not_ready")
        store_plan(service, plan, check_lease, finish)
        if (goes_on := outcome[-1]) is not None:  # else the task has changed meanwhile: look again
            return goes_on


def _count_only(service: Service, job: Job, move: tuple[UUID | None, UUID], counter: str) -> bool:
    with service.engine.begin() as connection:
        return _advance(connection, job, move, {counter: 1})


def _advance(
    connection: Connection, job: Job, move: tuple[UUID | None, UUID], counts: Mapping[str, int]
) -> bool:
    """Move the position over one result, if it stands where it stood. Returns whether the backfill goes on."""
    before, after = move
    added = {name: BACKFILLS.c[name] + number for name, number in counts.items()}
    if counts.get("follow_ups"):
        added["results"] = Backfill.results + 1
    moved = (
        update(Backfill)
        .where(
            Backfill.id == UUID(job.subject),
            Backfill.position.is_not_distinct_from(before),
        )
        .values(position=after, evaluated=Backfill.evaluated + 1, updated_at=utcnow(), **added)
        .returning(Backfill.state, Backfill.results, Backfill.max_results)
    )
    row = connection.execute(moved).one_or_none()
    if row is None or row.state != RUNNING:  # another worker goes on with it, or a person stopped it
        return False
    if row.max_results is not None and row.results >= row.max_results:
        _complete(connection, UUID(job.subject))
        return False
    return True


def _complete(connection: Connection, backfill_id: UUID) -> None:
    columns = {"state": COMPLETED, "updated_at": utcnow(), "finished_at": utcnow()}
    running = update(Backfill).where(Backfill.id == backfill_id, Backfill.state == RUNNING)
    connection.execute(running.values(columns))


def _finish(service: Service, job: Job) -> None:
    with service.engine.begin() as connection:
        queue.finish(connection, job)
