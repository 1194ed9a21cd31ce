"""Follow-ups are rows before they are requests: recorded here, and asked for as far as the limits go. A unique_id is
recorded once, however often its source is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, update

from models import FollowUp
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id, utcnow
from pipeline.follow_ups.limits import reserve
from pipeline.follow_ups.views import TaskSnapshot
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from workflows.definition.model import limits_for
from workflows.planning.plan import PlannedFollowUp as Wanted
from workflows.planning.reasons import Reason, ReasonCode

ROW_BATCH_SIZE = 500
MISSING_SETTINGS = (ReasonCode.MISSING_KEY, ReasonCode.MISSING_URL)
RECALLED = "its source was recalled"
"""Why a step with `on_recall: cancel` took a follow-up back. A new response of the source asks for it again."""

Step = tuple[str, str]
"""(workflow, step)"""
Planned = dict[Step, list[str]]
"""unique_ids that may be created, as far as the limits go."""


class Inserted(NamedTuple):
    """What was new."""

    unique_ids: list[str]
    planned: Planned


def insert_follow_ups(
    connection: Connection, service: Service, seen: TaskSnapshot, wanted: Iterable[Wanted]
) -> Inserted:
    """Write the follow-ups that are new. What is planned of them is to be asked for."""
    view = seen.view
    held = settings_reason(service, view.environment)
    recorded = Inserted([], {})
    follow_ups = iter(wanted)
    while some := list(islice(follow_ups, ROW_BATCH_SIZE)):
        rows = {follow_up.unique_id: _row(seen, follow_up, held) for follow_up in some}
        new = set(connection.scalars(_insert_statement(connection.dialect.name), list(rows.values())))
        new |= _replan_recalled(connection, {key: row for key, row in rows.items() if key not in new})
        for unique_id, row in rows.items():
            if unique_id in new:
                recorded.unique_ids.append(unique_id)
                if row["state"] == "planned":
                    recorded.planned.setdefault((row["workflow"], row["step"]), []).append(unique_id)
    return recorded


@cache
def _insert_statement(dialect: str) -> Any:
    """Built once: to build it costs more than to run it."""
    statement = insert(dialect, FollowUp.__table__).on_conflict_do_nothing(index_elements=["unique_id"])
    return statement.returning(FollowUp.unique_id)


def _row(seen: TaskSnapshot, follow_up: Wanted, held: Reason | None) -> dict[str, Any]:
    holds = held is not None and follow_up.state == "planned"
    of_this_task = follow_up.source_task_id == seen.view.task_id  # a retry has the source of the first try
    return {
        "unique_id": follow_up.unique_id,
        "id": new_id(),
        "workflow": follow_up.workflow,
        "workflow_digest": follow_up.digest,
        "step": follow_up.step,
        "state": "held" if holds else follow_up.state,
        "reason_code": held.code if holds and held else follow_up.reason_code,
        "reason": held.text if holds and held else follow_up.reason,
        "attempt": follow_up.attempt,
        "first_unique_id": follow_up.first_unique_id,
        "environment": seen.view.environment,
        "source_task_id": follow_up.source_task_id,
        "source_response_id": seen.response_id if of_this_task else seen.source_response_id,
        "source_annotation": follow_up.source_annotation,
        "task_type": follow_up.task_type,
        "request": follow_up.request,
        "files": [file.to_json() for file in follow_up.files] or None,
        "depth": follow_up.depth,
        "planned_at": utcnow(),
    }


def _replan_recalled(connection: Connection, rows: Mapping[str, dict[str, Any]]) -> set[str]:
    """Plan those of these again that were taken back when their source was recalled: it has been answered anew."""
    if not rows:
        return set()
    taken_back = (
        FollowUp.unique_id.in_(rows),
        FollowUp.state == "canceled",
        FollowUp.task_id.is_(None),
        FollowUp.reason.startswith(RECALLED),
    )
    revived = set(connection.scalars(select(FollowUp.unique_id).where(*taken_back).with_for_update()))
    for unique_id in revived:
        fresh = {**rows[unique_id], "created_at": None}
        connection.execute(update(FollowUp).where(FollowUp.unique_id == unique_id).values(fresh))
    return revived


def enqueue_within_limits(
    connection: Connection, service: Service, environment: str, planned: Planned
) -> None:
    """Ask for as many as the limits of their steps grant; the others are held."""
    for (workflow_name, step_name), unique_ids in sorted(planned.items()):
        workflow = service.workflows.workflow(workflow_name)
        step = workflow.step(step_name) if workflow else None
        counters = limits_for(workflow, step) if workflow and step else ()
        granted, reason = reserve(connection, counters, len(unique_ids))
        queue.enqueue(connection, kinds.CREATE, unique_ids[:granted], queue=environment)
        for some in _some(unique_ids[granted:]):
            held = update(FollowUp).where(FollowUp.unique_id.in_(some))
            connection.execute(held.values(state="held", reason=reason))


def cancel_for_recall(connection: Connection, task_id: str, workflow: str, steps: Sequence[str]) -> list[str]:
    """Cancel what these steps have asked for of a task that was recalled: what is not done yet. Its unique_ids."""
    columns = FollowUp.__table__.c
    theirs = (columns.source_task_id == task_id, columns.workflow == workflow, columns.step.in_(steps))
    open_ones = select(columns.unique_id, columns.state).where(
        *theirs, columns.state.in_(("planned", "held", "created"))
    )
    rows = connection.execute(open_ones.order_by(columns.unique_id).with_for_update())
    states = {row.unique_id: row.state for row in rows}
    created = [unique_id for unique_id, state in states.items() if state == "created"]
    for some in _some(list(states)):
        taken = update(FollowUp).where(FollowUp.unique_id.in_(some))
        connection.execute(taken.values(reason=RECALLED))
        connection.execute(taken.where(FollowUp.state != "created").values(state="canceled"))
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
    """Ask for the follow-ups that were held because a setting was missing and is there now."""
    released = 0
    for environment in ("live", "test"):
        if missing_setting(service, environment) is not None:
            continue
        waiting = (
            FollowUp.state == "held",
            FollowUp.environment == environment,
            FollowUp.reason_code.in_(MISSING_SETTINGS),
        )
        values = {"state": "planned", "reason_code": None, "reason": None}
        statement = update(FollowUp).where(*waiting).values(**values)
        planned: Planned = {}
        for unique_id, *step in connection.execute(
            statement.returning(FollowUp.unique_id, FollowUp.workflow, FollowUp.step)
        ):
            planned.setdefault((step[0], step[1]), []).append(unique_id)
            released += 1
        enqueue_within_limits(connection, service, environment, planned)
    return released


def _some(unique_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (unique_ids[start : start + ROW_BATCH_SIZE] for start in range(0, len(unique_ids), ROW_BATCH_SIZE))
