"""One decision about all rows that match a filter: what can be decided, how many rows match, and doing it in batches.

A bulk action is a row: who, filter, count, progress. It decides about rows that existed when it was confirmed, never about
more than the person saw, and can be stopped between two batches.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, func, select, update

from models import BulkAction, Delivery, FollowUp
from models import Job as JobRow
from pipeline.access.audit import log_action
from pipeline.db.dialect import insert
from pipeline.db.follow_up_states import CREATED, FAILED, HELD, PLANNED, SKIPPED
from pipeline.db.ids import new_id, utcnow
from pipeline.follow_ups import decisions, replan
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.follow_ups.recording import count_approved
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job
from pipeline.operations import dismissals, retries
from pipeline.operations.queries import NotFound, Page, Record
from pipeline.operations.queries import deliveries as delivery_queries
from pipeline.operations.queries.filters import equal
from pipeline.operations.queries.follow_ups import FILTERS as FOLLOW_UP_FILTERS
from pipeline.operations.queries.paging import DEFAULT_LIMIT, paginate
from pipeline.receive.receive import DatabaseBusy
from pipeline.receive.replay import replay
from pipeline.service import Service

RUNNING, COMPLETED, STOPPED = "running", "completed", "stopped"
BATCH_SIZE = 50
"""Rows that are decided about in one transaction."""
MAX_RUN_SECONDS = 10.0
"""How long one run of the job takes: other jobs get their turn."""
TAKEOVER_SECONDS = 30.0
"""A worker continues what a web process began and did not end."""
DISMISSED = "dismissed in the console"

Filters = Mapping[str, Any]
Decide = Callable[[Service, Connection, str, str], list[UUID]]
"""(service, connection, row's key, actor) → jobs to dispatch after the commit."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something that can be decided about many rows."""

    name: str
    """<list>.<verb>"""
    verb: str
    past: str
    noun: str
    model: Any
    """Its `id` is the order in which rows are taken."""
    key: Any
    """The column that names a row to `decide`."""
    conditions: Callable[[Filters], Iterator[ColumnElement[bool]]]
    decide: Decide
    command: tuple[str, ...]
    """The command that does the same, before the filters."""
    options: Mapping[str, str]
    """Filter → option of that command."""
    all_option: tuple[str, ...] = ()
    """What the command needs where no filter is chosen."""
    has_cost: bool = False
    has_own_transaction: bool = False
    """`decide` commits by itself, row by row."""

    def matching(self, filters: Filters) -> list[ColumnElement[bool]]:
        """Return the conditions of the rows that `filters` selects."""
        return list(self.conditions(filters))

    def shell_line(self, filters: Filters) -> str:
        """Return the command that does the same as this action with these filters."""
        chosen = [
            part
            for name, option in self.options.items()
            if filters.get(name)
            for part in (option, str(filters[name]))
        ]
        if not chosen and self.all_option:
            chosen = list(self.all_option)
        line = shlex.join(["weighbridge", *self.command, *chosen])
        others = [
            f"{name} = {value}" for name, value in filters.items() if value and name not in self.options
        ]
        return f"{line}  # only where {', '.join(others)}" if others else line


def _follow_ups(*states: str) -> Callable[[Filters], Iterator[ColumnElement[bool]]]:
    def conditions(filters: Filters) -> Iterator[ColumnElement[bool]]:
        yield FollowUp.state.in_(states)
        yield from equal(FollowUp, FOLLOW_UP_FILTERS, filters)

    return conditions


def _replanned(filters: Filters) -> Iterator[ColumnElement[bool]]:
    """Select skipped follow-ups unless the filter names another state, as the command does."""
    yield FollowUp.state.in_(replan.STATES)
    yield from equal(FollowUp, FOLLOW_UP_FILTERS, {"state": SKIPPED, **filters})


def _dead_jobs(filters: Filters) -> Iterator[ColumnElement[bool]]:
    yield JobRow.state == "dead"
    yield from equal(JobRow, ("kind",), filters)


def _quarantined(filters: Filters) -> Iterator[ColumnElement[bool]]:
    yield from delivery_queries.conditions({**filters, "status": "quarantined"})
    yield Delivery.dismissed_at.is_(None)


def _decided(decide: Callable[[Connection, str, str], list[UUID]]) -> Decide:
    return lambda _, connection, key, actor: decide(connection, key, actor)


def _retry_job(_: Service, connection: Connection, key: str, actor: str) -> list[UUID]:
    retries.retry_job(connection, UUID(key), actor)
    return [UUID(key)]


def _dismiss_job(_: Service, connection: Connection, key: str, actor: str) -> list[UUID]:
    dismissals.dismiss_job(connection, UUID(key), actor, DISMISSED)
    return []


def _dismiss_delivery(_: Service, connection: Connection, key: str, actor: str) -> list[UUID]:
    dismissals.dismiss_delivery(connection, UUID(key), actor, DISMISSED)
    return []


FOLLOW_UP_OPTIONS = {
    "workflow": "--workflow",
    "step": "--step",
    "source_task_id": "--source",
    "environment": "--environment",
}
DELIVERY_OPTIONS = {
    "status": "--status",
    "task_id": "--task",
    "environment": "--environment",
    "event": "--event",
    "kind": "--kind",
    "reason": "--reason",
}


def _follow_up_action(
    verb: str, past: str, states: tuple[str, ...], decide: Any, *, has_cost: bool = False
) -> Action:
    return Action(
        f"follow-ups.{verb}",
        verb.capitalize(),
        past,
        "follow-ups",
        FollowUp,
        FollowUp.unique_id,
        _follow_ups(*states),
        _decided(decide),
        ("follow-ups", verb),
        FOLLOW_UP_OPTIONS,
        ("--since", "2000-01-01"),
        has_cost,
    )


def _replan(service: Service, _: Connection, key: str, actor: str) -> list[UUID]:
    ((done, job_ids),) = replan.replan(service, [key], actor)
    if done.refused is not None:
        raise InvalidTransition(done.refused)
    return job_ids


def _approve(service: Service, connection: Connection, key: str, actor: str) -> list[UUID]:
    """Approve one follow-up. Limits do not hold it again, but they count it."""
    job_ids = decisions.approve(connection, key, actor)
    count_approved(connection, service, key)
    return job_ids


ACTIONS = (
    replace(
        _follow_up_action("approve", "Approved", (HELD,), decisions.approve, has_cost=True), decide=_approve
    ),
    _follow_up_action("cancel", "Canceled", (HELD, PLANNED, CREATED), decisions.cancel),
    _follow_up_action("retry", "Retried", (FAILED,), decisions.retry, has_cost=True),
    Action(
        "follow-ups.replan",
        "Replan",
        "Planned again",
        "follow-ups",
        FollowUp,
        FollowUp.unique_id,
        _replanned,
        _replan,
        ("follow-ups", "replan"),
        {**FOLLOW_UP_OPTIONS, "state": "--state"},
        ("--since", "2000-01-01"),
        has_cost=True,
        has_own_transaction=True,
    ),
    Action(
        "deliveries.replay",
        "Replay",
        "Replayed",
        "deliveries",
        Delivery,
        Delivery.id,
        delivery_queries.conditions,
        lambda service, _, key, actor: replay(service, UUID(key), actor).receipt.jobs,
        ("deliveries", "replay"),
        DELIVERY_OPTIONS,
        ("--since", "2000-01-01"),
        has_own_transaction=True,
    ),
    Action(
        "deliveries.dismiss",
        "Dismiss",
        "Dismissed",
        "deliveries",
        Delivery,
        Delivery.id,
        _quarantined,
        _dismiss_delivery,
        ("deliveries", "dismiss", "--quarantined", "--reason", DISMISSED),
        {},
    ),
    Action(
        "jobs.retry",
        "Retry",
        "Retried",
        "jobs",
        JobRow,
        JobRow.id,
        _dead_jobs,
        _retry_job,
        ("jobs", "retry", "--dead"),
        {"kind": "--kind"},
    ),
    Action(
        "jobs.dismiss",
        "Dismiss",
        "Dismissed",
        "jobs",
        JobRow,
        JobRow.id,
        _dead_jobs,
        _dismiss_job,
        ("jobs", "dismiss", "--dead", "--reason", DISMISSED),
        {"kind": "--kind"},
    ),
)
"""Everything that can be decided about many rows."""
FILTERS = {
    "follow-ups": ("state", "workflow", "step", "source_task_id", "environment"),
    "deliveries": ("status", "task_id", "environment", "event", "kind", "reason"),
    "jobs": ("kind",),
}
"""First part of an action's name → the filters that it takes."""
COLUMNS = tuple(BulkAction.__table__.c)


def filter_names(action: Action) -> tuple[str, ...]:
    """Return the filters that an action takes."""
    return FILTERS[action.name.partition(".")[0]]


def find_action(name: str) -> Action:
    """Return an action by its name. Raises NotFound."""
    for action in ACTIONS:
        if action.name == name:
            return action
    raise NotFound(f"no bulk action is called {name}")


def count_matching(connection: Connection, action: Action, filters: Filters) -> int:
    """Return how many rows the action would decide about."""
    statement = select(func.count()).select_from(action.model).where(*action.matching(filters))
    return connection.scalar(statement) or 0


def matching_keys(connection: Connection, action: Action, filters: Filters) -> list[str]:
    """Return the keys of all rows that the action would decide about."""
    statement = select(action.key).where(*action.matching(filters)).order_by(action.model.id)
    return [str(key) for key in connection.scalars(statement)]


def request_action(
    connection: Connection, action: Action, filters: Filters, actor: str, expected: int, cost: str | None
) -> UUID:
    """Insert a bulk action and the job that continues it. Return its id."""
    action_id = new_id()
    values = {
        "id": action_id,
        "action": action.name,
        "filters": dict(filters),
        "actor": actor,
        "state": RUNNING,
        "expected": expected,
        "cost": cost,
        "done": 0,
        "failed": 0,
        "created_at": utcnow(),
    }
    connection.execute(insert(connection, BulkAction).values(values))
    queue.enqueue(connection, kinds.BULK, [str(action_id)], delay=TAKEOVER_SECONDS)
    log_action(
        connection, actor, f"bulk.{action.name}", str(action_id), {"filters": dict(filters), "rows": expected}
    )
    return action_id


def stop_action(connection: Connection, action_id: UUID, actor: str) -> None:
    """Stop a bulk action after its present batch. Raises NotFound, and InvalidTransition if it has ended."""
    statement = update(BulkAction).where(BulkAction.id == action_id, BulkAction.state == RUNNING)
    values = {"state": STOPPED, "stopped_by": actor, "completed_at": utcnow()}
    if not connection.execute(statement.values(**values)).rowcount:
        raise InvalidTransition(f"the bulk action is {get_action(connection, action_id)['state']}")
    log_action(connection, actor, "bulk.stop", str(action_id))


def get_action(connection: Connection, action_id: UUID) -> Record:
    """Return one bulk action. Raises NotFound."""
    row = connection.execute(select(*COLUMNS).where(BulkAction.id == action_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no bulk action {action_id} is known")
    return dict(row)


def list_actions(connection: Connection, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page:
    """Return bulk actions, newest first."""
    return paginate(connection, select(*COLUMNS), [BulkAction.id], limit=limit, cursor=cursor)


def run_action(
    service: Service, action_id: UUID, dispatch: Callable[[list[UUID]], object], max_seconds: float
) -> bool:
    """Decide about batch after batch until the action has ended or the time is over. Return whether it has ended."""
    deadline = time.monotonic() + max_seconds
    while True:
        job_ids, is_running = _run_batch(service, action_id)
        dispatch(job_ids)
        if not is_running:
            return True
        if time.monotonic() > deadline:
            return False


def continue_action(service: Service, job: Job) -> int:
    """Run a job of kind `bulk`: continue a bulk action."""
    found: list[UUID] = []
    with queue.keep_lease(service.engine, job, service.settings.lease_seconds):
        has_ended = run_action(service, UUID(job.subject), found.extend, MAX_RUN_SECONDS)
    with service.engine.begin() as connection:
        if has_ended:
            queue.finish(connection, job)
        else:
            queue.reschedule(connection, job, None, delay=0.0, count_attempt=False)
    return len(found)


def _run_batch(service: Service, action_id: UUID) -> tuple[list[UUID], bool]:
    """Decide about the next rows. Return the jobs to dispatch, and whether the action goes on."""
    with service.reader.begin() as connection:
        row = get_action(connection, action_id)
        action = find_action(row["action"])
        rows = _next_rows(connection, action, row) if row["state"] == RUNNING else []
    if row["state"] != RUNNING:
        return [], False
    job_ids: list[UUID] = []
    errors: list[str] = []
    done = 0
    with service.engine.begin() as connection:
        if not action.has_own_transaction:
            done = _decide_each(service, connection, action, row["actor"], rows, job_ids, errors)
            _record(connection, row, rows, done, errors)
    if action.has_own_transaction:
        with service.reader.begin() as connection:
            done = _decide_each(service, connection, action, row["actor"], rows, job_ids, errors)
        with service.engine.begin() as connection:
            _record(connection, row, rows, done, errors)
    return job_ids, len(rows) == BATCH_SIZE


def _next_rows(connection: Connection, action: Action, row: Record) -> list[tuple[UUID, str]]:
    statement = select(action.model.id, action.key).where(
        *action.matching(row["filters"]), action.model.id < row["id"]
    )
    if row["after"] is not None:
        statement = statement.where(action.model.id > row["after"])
    left = row["expected"] - row["done"] - row["failed"]
    found = connection.execute(statement.order_by(action.model.id).limit(min(BATCH_SIZE, left)))
    return [(one[0], str(one[1])) for one in found]


def _decide_each(
    service: Service,
    connection: Connection,
    action: Action,
    actor: str,
    rows: list[tuple[UUID, str]],
    job_ids: list[UUID],
    errors: list[str],
) -> int:
    """Decide about each row; a row that has changed meanwhile is an error. Return how many were decided about."""
    done = 0
    for _, key in rows:
        try:
            job_ids += action.decide(service, connection, key, actor)
            done += 1
        except (InvalidTransition, LookupError, DatabaseBusy) as error:
            errors.append(f"{key}: {error}")
    return done


def _record(
    connection: Connection, row: Record, rows: list[tuple[UUID, str]], done: int, errors: list[str]
) -> None:
    """Store the progress; the end, if there are no further rows."""
    values: dict[str, Any] = {
        "done": BulkAction.done + done,
        "failed": BulkAction.failed + len(errors),
    }
    if rows:
        values["after"] = rows[-1][0]
    if errors:
        values["last_error"] = errors[-1]
    connection.execute(update(BulkAction).where(BulkAction.id == row["id"]).values(**values))
    if len(rows) < BATCH_SIZE:
        running = update(BulkAction).where(BulkAction.id == row["id"], BulkAction.state == RUNNING)
        connection.execute(running.values(state=COMPLETED, completed_at=utcnow()))
