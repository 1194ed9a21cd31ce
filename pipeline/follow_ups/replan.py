"""Plan a follow-up again with today's file: show what its request was and would be, then write the new one.

Nothing is paid twice. A follow-up whose task exists at Scale is refused, unless that task ended in an error or was canceled
there: its unique_id stays with it, and the new request gets the one of the next attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast
from uuid import UUID

from more_itertools import chunked
from sqlalchemy import Connection, RowMapping, Table, or_, select

from models import FollowUp, Job
from pipeline.access.audit import log_action
from pipeline.db.follow_up_states import CANCELED, CREATED, ERROR, FAILED, HELD, PLANNED, SKIPPED, transition
from pipeline.events.outbox import enqueue_run_check, publish_follow_ups
from pipeline.events.subscriptions import load_subscriptions
from pipeline.follow_ups import joins
from pipeline.follow_ups.json_changes import MAX_CHANGES, json_changes
from pipeline.follow_ups.pauses import paused_workflows
from pipeline.follow_ups.prices import Cost, cost_of_requests
from pipeline.follow_ups.recording import (
    ToCreate,
    enqueue_within_limits,
    insert_follow_ups,
    rewrite,
    settings_reason,
)
from pipeline.follow_ups.views import ContentPurged, TaskSnapshot, load_parent, load_snapshot, snapshot_key
from pipeline.jobs import kinds
from pipeline.service import Service
from scale.client import Client, ScaleError
from scale.envelope import holds_error
from workflows.definition.model import Step, Workflow
from workflows.definition.recipes import displayed, stored_files
from workflows.planning.plan import PlannedFollowUp, plan
from workflows.planning.reasons import Reason, ReasonCode

STATES = (SKIPPED, FAILED, HELD, CANCELED, ERROR)
"""States of the follow-ups that can be planned again."""
BATCH_SIZE = 100
"""Follow-ups of one transaction."""
FOLLOW_UPS = cast(Table, FollowUp.__table__)


class CannotReplan(Exception):
    """Raised when a follow-up cannot be planned again; args[0] says why."""


@dataclass(frozen=True, slots=True)
class Replan:
    """The result of planning a follow-up again."""

    unique_id: str
    row: RowMapping | None = None  # as it is stored; None: it is not known
    snapshot: TaskSnapshot | None = None
    planned: tuple[PlannedFollowUp, ...] = ()
    refused: str | None = None  # why it stays as it is

    @property
    def is_unknown(self) -> bool:
        """Return whether there is no such follow-up."""
        return self.row is None


def preview(service: Service, unique_ids: Iterable[str]) -> Iterator[Replan]:
    """Yield what each follow-up would become. Writes nothing; asks Scale about tasks that may exist."""
    with service.reader.begin() as connection:
        paused = paused_workflows(connection, service)
    for batch in chunked(unique_ids, BATCH_SIZE):
        with service.reader.begin() as connection:
            found = connection.execute(select(FOLLOW_UPS).where(FOLLOW_UPS.c.unique_id.in_(batch)))
            rows = {row["unique_id"]: row for row in found.mappings()}
        for unique_id in batch:
            if (row := rows.get(unique_id)) is None:
                yield Replan(unique_id, refused=f"no follow-up {unique_id} is known")
                continue
            try:
                snapshot, planned = _plan(service, row, paused)
                yield Replan(unique_id, row, snapshot, planned)
            except (CannotReplan, ContentPurged) as reason:
                yield Replan(unique_id, row, refused=str(reason))


def replan(service: Service, unique_ids: Sequence[str], actor: str) -> Iterator[tuple[Replan, list[UUID]]]:
    """Plan each follow-up again and store it. Yields what became of it, and the jobs to dispatch."""
    for one in preview(service, unique_ids):
        if one.refused is not None:
            yield one, []
            continue
        with service.engine.begin() as connection:
            try:
                job_ids = _store(connection, service, one, actor)
            except CannotReplan as reason:
                yield replace(one, refused=str(reason)), []
            else:
                yield one, job_ids


def cost_of(service: Service, replans: Iterable[Replan]) -> Cost:
    """Return the expected cost of the tasks that would be created."""
    created = (new for one in replans for new in one.planned if new.state == PLANNED)
    return cost_of_requests(service.prices, ((new.task_type, new.request) for new in created))


def describe(service: Service, one: Replan) -> dict[str, Any]:
    """Return {unique_id, workflow, step, state, reason, refused, cost, follow_ups: [{unique_id, state, reason, type, changes}]}.

    changes: [{path, before, after}] of the request. state of a follow-up: created (as far as the limits allow) or held.
    """
    missing = settings_reason(service, one.row["environment"]) if one.row else None
    row = one.row or dict.fromkeys(("workflow", "step", "state", "reason"))
    before = displayed(one.row["request"], stored_files(one.row["files"])) if one.row else {}
    return {
        "unique_id": one.unique_id,
        **{name: row[name] for name in ("workflow", "step", "state", "reason")},
        "refused": one.refused,
        "cost": cost_of(service, [one]).to_json(),
        "follow_ups": [
            {
                "unique_id": new.unique_id,
                **_outcome(new, missing),
                "type": new.task_type,
                "changes": [
                    change._asdict()
                    for change in islice(json_changes(before, displayed(new.request, new.files)), MAX_CHANGES)
                ],
            }
            for new in one.planned
        ],
    }


def _outcome(new: PlannedFollowUp, missing: Reason | None) -> dict[str, str | None]:
    """Return {state, reason} that a planned follow-up would have."""
    if new.state == PLANNED and missing is not None:
        return {"state": HELD, "reason": missing.text}
    return {"state": CREATED if new.state == PLANNED else new.state, "reason": new.reason}


# What would follow now.


def _plan(
    service: Service, row: RowMapping, paused: set[str]
) -> tuple[TaskSnapshot, tuple[PlannedFollowUp, ...]]:
    """Return the follow-ups that take the place of a stored one. Raises CannotReplan."""
    if row["state"] not in STATES:
        raise CannotReplan(f"the follow-up is {row['state']}; replan takes one that is {' or '.join(STATES)}")
    workflow = service.workflows.workflow(row["workflow"])
    step = workflow.step(row["step"]) if workflow else None
    if workflow is None or step is None:
        raise CannotReplan(f"the step {row['workflow']}.{row['step']} is not among the loaded workflows")
    if workflow.name in paused:
        raise CannotReplan(f"{workflow.name} is paused; `weighbridge workflows resume` resumes it")
    is_spent = _check_scale(service, row)
    snapshot, planned = _planned_again(service, row, workflow, step)
    if is_spent:
        planned = (_next_attempt(service, row, planned[0]),)
    if skipped := [new.reason for new in planned if new.state == SKIPPED]:
        raise CannotReplan(f"today's file skips it, too: {skipped[0]}")
    if row["state"] == HELD and _is_unchanged(row, planned):
        raise CannotReplan(f"nothing would change; it is held: {row['reason']}")
    return snapshot, planned


def _planned_again(
    service: Service, row: RowMapping, workflow: Workflow, step: Step
) -> tuple[TaskSnapshot, tuple[PlannedFollowUp, ...]]:
    """Return what the step plans in place of this follow-up: itself, or what an unplanned step would have planned."""
    first = row["first_unique_id"] or row["unique_id"]
    last: tuple[TaskSnapshot, list[PlannedFollowUp]] | None = None
    for snapshot, found in _plans(service, row, workflow, step):
        for unique_id in (row["unique_id"], first):
            if same := [one for one in found if one.unique_id == unique_id]:
                return snapshot, _as_attempt(row, same[0])
        last = last or (snapshot, found)
    stands_for_step = row["source_annotation"] is None and row["task_id"] is None and row["attempt"] == 1
    if last is not None and stands_for_step and (new := _not_stored(service, last[1])):
        return last[0], new
    raise CannotReplan(
        "today's file plans no such follow-up; `weighbridge workflows explain` shows the conditions"
    )


def _plans(
    service: Service, row: RowMapping, workflow: Workflow, step: Step
) -> Iterator[tuple[TaskSnapshot, list[PlannedFollowUp]]]:
    """Yield (source, what the step plans from it): from the former attempt of a retry, the current and the former response."""
    prefix = service.settings.unique_id_prefix
    if step.join is not None and (found := joins.plan_again(service, workflow, step, row)) is not None:
        yield found
        return
    for snapshot in _sources(service, row):
        seen = snapshot.view if row["state"] == HELD else replace(snapshot.view, held=None)
        yield snapshot, [one for one in plan(seen, workflow, prefix) if one.step == step.name]


def _sources(service: Service, row: RowMapping) -> Iterator[TaskSnapshot]:
    with service.reader.begin() as connection:
        former = _former_task(connection, row) if row["attempt"] > 1 else None
        if former is not None and (snapshot := load_snapshot(connection, former)) is not None:
            yield snapshot
        current = load_snapshot(connection, row["source_task_id"])
        if current is None:
            raise CannotReplan(f"a file of its source {row['source_task_id']} is still to be fetched")
        yield current
        if row["source_response_id"] not in (None, current.response_id):
            parent = load_parent(connection, row["source_task_id"], row["source_response_id"])
            if parent is not None:
                yield TaskSnapshot(parent, (), row["source_response_id"])


def _former_task(connection: Connection, row: RowMapping) -> str | None:
    """Return the task of the attempt before this one."""
    first = row["first_unique_id"]
    former = select(FollowUp.task_id).where(
        or_(FollowUp.unique_id == first, FollowUp.first_unique_id == first),
        FollowUp.attempt == row["attempt"] - 1,
    )
    return connection.scalar(former.limit(1))


def _as_attempt(row: RowMapping, planned: PlannedFollowUp) -> tuple[PlannedFollowUp]:
    """Return a follow-up under the unique_id and with the attempt of the stored one."""
    same = {name: row[name] for name in ("unique_id", "attempt", "first_unique_id")}
    return (replace(planned, **same),)


def _next_attempt(service: Service, row: RowMapping, planned: PlannedFollowUp) -> PlannedFollowUp:
    """Return the follow-up as the attempt after the stored one. Raises CannotReplan if that exists."""
    first, attempt = row["first_unique_id"] or row["unique_id"], row["attempt"]
    unique_id = f"{first}.retry-{attempt}"
    with service.reader.begin() as connection:
        state = connection.scalar(select(FollowUp.state).where(FollowUp.unique_id == unique_id))
    if state is not None:
        raise CannotReplan(f"its next attempt {unique_id} exists and is {state}")
    return replace(planned, unique_id=unique_id, attempt=attempt + 1, first_unique_id=first)


def _not_stored(service: Service, planned: Sequence[PlannedFollowUp]) -> tuple[PlannedFollowUp, ...]:
    ids = [one.unique_id for one in planned]
    known: set[str] = set()
    with service.reader.begin() as connection:
        for batch in chunked(ids, BATCH_SIZE):
            known.update(connection.scalars(select(FollowUp.unique_id).where(FollowUp.unique_id.in_(batch))))
    return tuple(one for one in planned if one.unique_id not in known)


def _is_unchanged(row: RowMapping, planned: Sequence[PlannedFollowUp]) -> bool:
    """Return whether a held follow-up would be the same again."""
    (one, *others) = planned
    if others or one.unique_id != row["unique_id"] or one.state != HELD:
        return False
    files = [file.to_json() for file in one.files] or None
    return (one.request, files, one.reason) == (row["request"], row["files"], row["reason"])


# What Scale has.


def _check_scale(service: Service, row: RowMapping) -> bool:
    """Return whether the unique_id is used by a task that gives no result any more. Raises CannotReplan if it may give one."""
    client = service.client(row["environment"])
    if row["state"] in (SKIPPED, HELD) or client is None:
        return row["task_id"] is not None
    try:
        task = _task_at_scale(client, row)
    except ScaleError as error:
        raise CannotReplan(f"Scale does not say whether its task exists: {error.message}") from None
    if task is None:
        return False
    status, task_id, response = task.get("status"), task.get("task_id"), task.get("response")
    is_over = status in ("canceled", "error") or (isinstance(response, dict) and holds_error(response))
    if not is_over:
        raise CannotReplan(f"its task {task_id} exists at Scale and is {status}, not canceled")
    return True


def _task_at_scale(client: Client, row: RowMapping) -> dict[str, Any] | None:
    if row["task_id"] is not None:
        return client.get_task(row["task_id"])
    return client.task_by_unique_id(row["unique_id"])


# Writing it.


def _store(connection: Connection, service: Service, one: Replan, actor: str) -> list[UUID]:
    """Write the new follow-ups, in the order in which rows are locked: task, follow-ups, joins, counters, jobs."""
    assert one.row is not None
    assert one.snapshot is not None
    row, snapshot = one.row, one.snapshot
    if snapshot.key and snapshot.key != snapshot_key(connection, snapshot.view.task_id):
        raise CannotReplan("its source has changed meanwhile; try again")
    current = connection.execute(
        select(FOLLOW_UPS).where(FOLLOW_UPS.c.unique_id == one.unique_id).with_for_update()
    )
    if current.mappings().one_or_none() != row:
        raise CannotReplan("it has changed meanwhile; try again")
    to_create: ToCreate = {}
    if one.planned[0].unique_id == one.unique_id:
        if rewrite(connection, service, snapshot, one.planned[0]) == PLANNED:
            to_create = {(row["workflow"], row["step"]): [one.unique_id]}
    else:
        to_create = insert_follow_ups(connection, service, snapshot, one.planned).to_create
        if row["task_id"] is None:
            reason = Reason(ReasonCode.REPLANNED, f"planned again by {actor}")
            transition(connection, [one.unique_id], CANCELED, reason)
    log_action(connection, actor, "follow-up.replan", one.unique_id, {"state": row["state"]})
    new = [planned.unique_id for planned in one.planned]
    enqueue_within_limits(connection, service, row["environment"], to_create)
    subscriptions = load_subscriptions(connection)
    job_ids = publish_follow_ups(connection, subscriptions, list(dict.fromkeys((one.unique_id, *new))))
    job_ids += joins.recheck_joins(connection, row)
    job_ids += enqueue_run_check(connection, subscriptions, row["source_task_id"])
    keys = [f"{kinds.CREATE}:{unique_id}" for unique_id in new]
    return [*job_ids, *connection.scalars(select(Job.id).where(Job.key.in_(keys)))]
