"""From when on each step of the workflow files applies: a new file acts on what is received after it was saved, never on the past.

Backfills and replays act on older results on purpose.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from models import FollowUp, WorkflowSeen
from pipeline.db.compiled import connected
from pipeline.db.dialect import insert
from pipeline.db.errors import safe_message
from pipeline.db.ids import utcnow
from pipeline.follow_ups.views import last_received
from pipeline.service import Service
from workflows.definition.model import Workflow, Workflows

log = logging.getLogger(__name__)

MAX_LEAD = timedelta(seconds=60)
"""A file that was saved longer ago, in an image or a checkout, counts as saved this long before it was first loaded: what is
received while a service starts is followed."""

StepKey = tuple[str, str]
"""(workflow, step)"""


def activations(service: Service) -> Mapping[StepKey, datetime]:
    """Return from when on each loaded step applies. What is loaded for the first time is recorded."""
    workflows, known = service.workflows, service.activations
    if service.recorded_workflows is not workflows:
        if any(key not in known for key, _ in _keys(workflows)):
            with service.engine.begin() as connection:
                _record(connection, workflows, known)
        service.recorded_workflows = workflows
    return known


def record_in_background(service: Service) -> None:
    """Record in a thread what was loaded for the first time: the receiver of callbacks does not wait for it."""
    workflows = service.workflows
    if service.recorded_workflows is workflows:
        return
    with contextlib.suppress(RuntimeError):  # no more threads: a worker records it when it plans
        threading.Thread(target=_record_quietly, args=(service,), name="activations", daemon=True).start()


def _record_quietly(service: Service) -> None:
    try:
        activations(service)
    except SQLAlchemyError as fault:
        log.warning("could not record workflow files", extra={"error": safe_message(fault)})


def stored_activations(connection: Connection) -> dict[StepKey, datetime]:
    """Return from when on each step applies, as far as it is recorded."""
    columns = (WorkflowSeen.workflow, WorkflowSeen.step, WorkflowSeen.active_from)
    return {(row.workflow, row.step): row.active_from for row in connection.execute(select(*columns))}


def applying_steps(
    database: Connection | Engine,
    active_from: Mapping[StepKey, datetime],
    workflow: Workflow,
    task_id: str,
    received_at: datetime | None,
) -> set[str]:
    """Return the steps that may follow a result: those that were loaded before it came, or that follow it already.

    received_at: when the task changed last; None: it is not known, and every step applies.
    """
    steps = {step.name for step in workflow.steps}
    if received_at is None:
        return steps
    late = {step for step in steps if active_from.get((workflow.name, step), received_at) > received_at}
    if not late:
        return steps
    following = select(FollowUp.step).where(
        FollowUp.source_task_id == task_id, FollowUp.workflow == workflow.name, FollowUp.step.in_(late)
    )
    with connected(database) as connection:
        return (steps - late) | set(connection.scalars(following.distinct()))


def late_steps(connection: Connection, workflow: Workflow, task_id: str) -> dict[str, datetime]:
    """Return {step: from when on it applies} of the steps that do not follow a task, because it came before."""
    active_from, received_at = stored_activations(connection), last_received(connection, task_id)
    applying = applying_steps(connection, active_from, workflow, task_id, received_at)
    return {
        step.name: active_from[workflow.name, step.name]
        for step in workflow.steps
        if step.name not in applying
    }


def _keys(workflows: Workflows) -> Iterable[tuple[StepKey, str]]:
    """Yield ((workflow, step), path); a file that is not valid is recorded by its path, so that fixing it is no new file."""
    for workflow in workflows.loaded:
        for step in workflow.steps:
            yield (workflow.name, step.name), workflow.path
    for invalid in workflows.invalid:
        yield (invalid.path, ""), invalid.path


def _record(connection: Connection, workflows: Workflows, known: dict[StepKey, datetime]) -> None:
    stored = stored_activations(connection)
    for key, path in sorted(_keys(workflows)):
        if key not in stored:
            active_from = stored.get((path, "")) or _saved_at(path)
            row = {"workflow": key[0], "step": key[1], "active_from": active_from}
            connection.execute(insert(connection, WorkflowSeen).values(row).on_conflict_do_nothing())
    known.update(stored_activations(connection))


def _saved_at(path: str) -> datetime:
    """Return when a file was saved, to the millisecond, MAX_LEAD ago at the earliest."""
    now = utcnow()
    try:
        saved = datetime.fromtimestamp(int(Path(path).stat().st_mtime * 1000) / 1000, UTC)
    except OSError:
        saved = now
    return min(max(saved, now - MAX_LEAD), now)
