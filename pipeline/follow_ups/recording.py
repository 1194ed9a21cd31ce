"""Store follow-ups before they are requests, and enqueue their creation as far as the limits allow. A unique_id is inserted
once, however often its source is planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from more_itertools import chunked
from sqlalchemy import Connection, and_, bindparam, or_, select, tuple_

from models import FollowUp
from models.follow_up import HELD_BY_LIMIT
from pipeline.db.dialect import insert, lock_exclusively, one_or_all
from pipeline.db.follow_up_states import CANCELED, CREATED, HELD, PLANNED, transition
from pipeline.db.ids import new_id, utcnow
from pipeline.follow_ups.limits import claims, count_without_limit, key_of, limits_of, read_used, reserve
from pipeline.follow_ups.views import TaskSnapshot
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from scale.environments import ENVIRONMENTS
from workflows.definition.model import Limit, Workflows
from workflows.definition.money import to_micros
from workflows.planning.plan import PlannedFollowUp
from workflows.planning.reasons import Reason, ReasonCode

BATCH_SIZE = 500
RELEASE_LOCK = 7_104_332
"""Advisory lock: one worker at a time releases follow-ups that limits held."""
MISSING_SETTINGS = (ReasonCode.MISSING_KEY, ReasonCode.MISSING_URL)
RECALLED = Reason(ReasonCode.RECALLED, "its source was recalled")
"""Why a step with `on_recall: cancel` cancels a follow-up. A new response of the source plans it again."""

FOLLOW_UPS = FollowUp.__table__.c
UNATTENDED = (ReasonCode.IMPORTED, ReasonCode.RECONCILED)
"""Codes of follow-ups whose result no callback delivered. A callback of the same result releases them."""
REPLANNABLE = and_(
    FOLLOW_UPS.task_id.is_(None),
    or_(
        and_(FOLLOW_UPS.state == CANCELED, FOLLOW_UPS.reason_code == ReasonCode.RECALLED),
        and_(FOLLOW_UPS.state == HELD, FOLLOW_UPS.reason_code.in_((ReasonCode.INCOMPLETE, *UNATTENDED))),
    ),
)
"""Follow-ups that planning writes again: canceled by a recall, held because a result file was missing, or UNATTENDED."""

StepKey = tuple[str, str]
"""(workflow, step)"""
ToCreate = dict[StepKey, list[str]]
"""unique_ids that may be created, as far as the limits allow."""


class Inserted(NamedTuple):
    """What is new."""

    unique_ids: list[str]
    to_create: ToCreate


def insert_follow_ups(
    connection: Connection, service: Service, snapshot: TaskSnapshot, planned: Iterable[PlannedFollowUp]
) -> Inserted:
    """Insert the follow-ups that are new, and write those again that are REPLANNABLE."""
    missing = settings_reason(service, snapshot.view.environment)
    inserted = Inserted([], {})
    for batch in chunked(planned, BATCH_SIZE):
        rows = {follow_up.unique_id: follow_up_row(snapshot, follow_up, missing) for follow_up in batch}
        new = set(
            connection.scalars(_insert_statement(connection.dialect.name), one_or_all([*rows.values()]))
        )
        new |= _replan(connection, {key: row for key, row in rows.items() if key not in new})
        for unique_id, row in rows.items():
            if unique_id in new:
                inserted.unique_ids.append(unique_id)
                if row["state"] == PLANNED:
                    inserted.to_create.setdefault((row["workflow"], row["step"]), []).append(unique_id)
    return inserted


@cache
def _insert_statement(dialect: str) -> Any:
    """Build the statement once: to build it costs more than to run it."""
    statement = insert(dialect, FollowUp.__table__).on_conflict_do_nothing(index_elements=["unique_id"])
    return statement.returning(FollowUp.unique_id)


def follow_up_row(
    snapshot: TaskSnapshot, follow_up: PlannedFollowUp, missing: Reason | None
) -> dict[str, Any]:
    """Return the row of a planned follow-up; it is held if a setting is `missing`."""
    state, code, text = follow_up.state, follow_up.reason_code, follow_up.reason
    if missing is not None and state == PLANNED:
        state, code, text = HELD, missing.code, missing.text
    of_this_task = follow_up.source_task_id == snapshot.view.task_id  # a retry has its first attempt's source
    return {
        "unique_id": follow_up.unique_id,
        "id": new_id(),
        "workflow": follow_up.workflow,
        "workflow_digest": follow_up.digest,
        "step": follow_up.step,
        "state": state,
        "reason_code": code,
        "reason": text,
        "attempt": follow_up.attempt,
        "first_unique_id": follow_up.first_unique_id,
        "environment": snapshot.view.environment,
        "source_task_id": follow_up.source_task_id,
        "source_response_id": snapshot.response_id if of_this_task else snapshot.source_response_id,
        "source_annotation": follow_up.source_annotation,
        "task_type": follow_up.task_type,
        "request": follow_up.request,
        "files": [file.to_json() for file in follow_up.files] or None,
        "depth": follow_up.depth,
        "planned_at": utcnow(),
    }


def _replan(connection: Connection, rows: Mapping[str, dict[str, Any]]) -> set[str]:
    """Write the rows again that are REPLANNABLE, unless nothing about them is new. Returns their unique_ids."""
    if not rows:
        return set()
    columns = (FOLLOW_UPS.unique_id, FOLLOW_UPS.state, FOLLOW_UPS.reason)
    found = select(*columns).where(FOLLOW_UPS.unique_id.in_(rows), REPLANNABLE).with_for_update()
    changed = {
        known.unique_id
        for known in connection.execute(found)
        if (known.state, known.reason) != (rows[known.unique_id]["state"], rows[known.unique_id]["reason"])
    }
    for unique_id in changed:
        _write_again(connection, rows[unique_id])
    return changed


def rewrite(
    connection: Connection, service: Service, snapshot: TaskSnapshot, follow_up: PlannedFollowUp
) -> str:
    """Write a follow-up without a task as it is planned now, in place of its row. Returns its state."""
    row = follow_up_row(snapshot, follow_up, settings_reason(service, snapshot.view.environment))
    _write_again(connection, row)
    state: str = row["state"]
    return state


def _write_again(connection: Connection, row: Mapping[str, Any]) -> None:
    """Replace a stored row and clear its decision, which was about the former request."""
    columns = {name: value for name, value in row.items() if name not in ("unique_id", "state")}
    code, text = columns.pop("reason_code"), columns.pop("reason")
    reason = Reason(code, text) if code else text
    columns |= {"created_at": None, "decided_by": None, "decided_at": None}
    transition(connection, [row["unique_id"]], row["state"], reason, **columns)


def close_incomplete(
    connection: Connection,
    task_id: str,
    workflow: str,
    steps: Sequence[str],
    planned: Iterable[PlannedFollowUp],
) -> list[str]:
    """Cancel the follow-ups of these steps that were held for a missing file and are not in `planned`. Returns their ids.

    The held follow-up of a fan-out stands for elements that were unknown; with the file they are planned one by one.
    """
    held = connection.scalars(_INCOMPLETE, {"task": task_id, "workflow": workflow, "steps": steps})
    kept = {follow_up.unique_id for follow_up in planned}
    replaced = [unique_id for unique_id in held if unique_id not in kept]
    reason = Reason(ReasonCode.REPLANNED, "the missing file has arrived, and the step was planned again")
    return transition(connection, replaced, CANCELED, reason, previous=(HELD,))


_INCOMPLETE = select(FOLLOW_UPS.unique_id).where(
    FOLLOW_UPS.source_task_id == bindparam("task"),
    FOLLOW_UPS.workflow == bindparam("workflow"),
    FOLLOW_UPS.step.in_(bindparam("steps", expanding=True)),
    FOLLOW_UPS.state == HELD,
    FOLLOW_UPS.reason_code == ReasonCode.INCOMPLETE,
)


def enqueue_within_limits(
    connection: Connection, service: Service, environment: str, to_create: ToCreate
) -> None:
    """Enqueue the creation of as many as the limits of their steps allow, and hold the others."""
    if not to_create:
        return
    workflows = service.workflows
    asked = claims(connection, workflows, dict(sorted(to_create.items())))
    held: dict[Reason, list[str]] = {}
    granted: list[str] = []
    for unique_id, reason in zip(asked, reserve(connection, workflows, list(asked.values())), strict=True):
        (granted if reason is None else held.setdefault(reason, [])).append(unique_id)
    queue.enqueue(connection, kinds.CREATE, granted, queue=environment)
    for reason, unique_ids in held.items():
        transition(connection, unique_ids, HELD, reason)


def count_approved(connection: Connection, service: Service, unique_id: str) -> None:
    """Count a follow-up that a person approved under its limits, also beyond them."""
    columns = (FOLLOW_UPS.workflow, FOLLOW_UPS.step)
    row = connection.execute(select(*columns).where(FOLLOW_UPS.unique_id == unique_id)).one()
    asked = claims(connection, service.workflows, {(row.workflow, row.step): [unique_id]})
    count_without_limit(connection, asked.values())


def cancel_for_recall(connection: Connection, task_id: str, workflow: str, steps: Sequence[str]) -> list[str]:
    """Cancel what these steps planned for a recalled task and what is not finished. Returns the unique_ids."""
    unfinished = select(FOLLOW_UPS.unique_id, FOLLOW_UPS.state).where(
        FOLLOW_UPS.source_task_id == task_id,
        FOLLOW_UPS.workflow == workflow,
        FOLLOW_UPS.step.in_(steps),
        FOLLOW_UPS.state.in_((PLANNED, HELD, CREATED)),
    )
    rows = connection.execute(unfinished.order_by(FOLLOW_UPS.unique_id).with_for_update())
    states = {row.unique_id: row.state for row in rows}
    created = [unique_id for unique_id, state in states.items() if state == CREATED]
    transition(connection, states, CANCELED, RECALLED, previous=(PLANNED, HELD))
    transition(connection, created, CREATED, RECALLED, previous=(CREATED,))
    queue.enqueue(connection, kinds.CANCEL, created)
    return list(states)


def settings_reason(service: Service, environment: str) -> Reason | None:
    """Return which missing setting keeps follow-ups of this environment from being created; None if all are set."""
    if service.client(environment) is None:
        name = "SCALE_TEST_API_KEY" if environment == "test" else "SCALE_API_KEY"
        return Reason(ReasonCode.MISSING_KEY, f"{name} is not set")
    if not service.settings.callback_url:
        return Reason(ReasonCode.MISSING_URL, "PUBLIC_URL is not set")
    return None


def missing_setting(service: Service, environment: str) -> str | None:
    """Return the sentence of `settings_reason`."""
    reason = settings_reason(service, environment)
    return reason and reason.text


def release(connection: Connection, service: Service) -> int:
    """Enqueue the follow-ups that were held for a setting which is set now. Returns how many."""
    released = 0
    for environment in ENVIRONMENTS:
        if settings_reason(service, environment) is not None:
            continue
        held = (
            select(FOLLOW_UPS.unique_id, FOLLOW_UPS.workflow, FOLLOW_UPS.step)
            .where(
                FOLLOW_UPS.state == HELD,
                FOLLOW_UPS.environment == environment,
                FOLLOW_UPS.reason_code.in_(MISSING_SETTINGS),
            )
            .order_by(FOLLOW_UPS.id)
        )
        to_create: ToCreate = {}
        for row in connection.execute(held):
            to_create.setdefault((row.workflow, row.step), []).append(row.unique_id)
        for unique_ids in to_create.values():
            released += len(transition(connection, unique_ids, PLANNED, previous=(HELD,)))
        enqueue_within_limits(connection, service, environment, to_create)
    return released


def release_limited(connection: Connection, service: Service) -> int:
    """Enqueue the follow-ups that were held by a limit which has room again, the first planned first. Returns how many."""
    lock_exclusively(connection, RELEASE_LOCK)
    workflows = service.workflows
    columns = (FOLLOW_UPS.workflow, FOLLOW_UPS.step, FOLLOW_UPS.environment)
    groups = connection.execute(select(*columns).where(HELD_BY_LIMIT).distinct()).all()
    with_room = [group for group in groups if _has_room(connection, service, workflows, *group)]
    if not with_room:
        return 0
    found = (
        select(FOLLOW_UPS.unique_id, *columns)
        .where(HELD_BY_LIMIT, tuple_(*columns).in_(with_room))
        .order_by(FOLLOW_UPS.id)
        .limit(BATCH_SIZE)
    )
    rows = connection.execute(found.with_for_update()).all()
    to_check: ToCreate = {}
    for row in rows:
        to_check.setdefault((row.workflow, row.step), []).append(row.unique_id)
    asked = claims(connection, workflows, to_check)
    reasons = reserve(connection, workflows, [asked[row.unique_id] for row in rows])
    granted: dict[str, list[str]] = {}
    for row, reason in zip(rows, reasons, strict=True):
        if reason is None:
            granted.setdefault(row.environment, []).append(row.unique_id)
    for environment, unique_ids in granted.items():
        transition(connection, unique_ids, PLANNED, previous=(HELD,))
        queue.enqueue(connection, kinds.CREATE, unique_ids, queue=environment)
    return sum(map(len, granted.values()))


def _has_room(
    connection: Connection, service: Service, workflows: Workflows, workflow: str, step: str, environment: str
) -> bool:
    """Return whether some follow-up of a step could be created now: its limits are not exhausted."""
    known = workflows.workflow(workflow)
    if known is None or known.step(step) is None or settings_reason(service, environment) is not None:
        return False
    limits = limits_of(workflows, workflow, step)
    used = read_used(connection, limits)
    now = utcnow()
    return all(
        used.get(key_of(limit, now), 0)
        < (limit.most if isinstance(limit, Limit) else to_micros(limit.most.amount))
        for limit in limits
    )
