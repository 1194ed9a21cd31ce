"""Preview and explain: which follow-ups a result would produce, and why. The decisions of planning, with nothing written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from models import FollowUp as Row
from models import Job
from pipeline.db.ids import format_timestamp
from pipeline.db.memory_budget import ReadTooLarge, is_bounded
from pipeline.follow_ups.activation import late_steps
from pipeline.follow_ups.joins import pending_children
from pipeline.follow_ups.limits import claim, read_budget
from pipeline.follow_ups.pauses import paused
from pipeline.follow_ups.prices import cost_of_task, project_of
from pipeline.jobs import kinds
from pipeline.service import Service
from workflows.definition.interpreter import plan_budget
from workflows.definition.model import Workflow, limits_for
from workflows.definition.recipes import displayed
from workflows.planning.conditions import Condition
from workflows.planning.explain import ExplainedElement, explain
from workflows.planning.plan import PlannedFollowUp, plan
from workflows.planning.view import View

MAX_PREVIEW_STEPS = 10_000_000
"""Evaluation steps of one workflow in a preview: the web process computes it, which also receives callbacks."""
MAX_PREVIEW_SIZE = 500_000
"""Elements of all requests of one workflow in a preview by a web process."""


@contextmanager
def _preview_budget() -> Iterator[None]:
    """Bound what a preview computes. Raises ReadTooLarge where a web process would hold too large requests."""
    with plan_budget(MAX_PREVIEW_STEPS, MAX_PREVIEW_SIZE if is_bounded() else math.inf) as budget:
        yield
    if budget.size_left < 0:
        raise ReadTooLarge


class Preview:
    """The follow-ups of these workflows, result after result, up to their limits."""

    def __init__(self, service: Service, chosen: Iterable[Workflow]) -> None:
        self._service, self._chosen = service, list(chosen)
        with service.reader.begin() as connection:
            workflows = service.workflows
            limits = {
                limit
                for workflow in self._chosen
                for step in workflow.steps
                for limit in limits_for(workflow, step)
            }
            every = {*limits, *workflows.limits.counters}
            self._budget, self._workflows = read_budget(connection, workflows, every), workflows

    def of(self, view: View) -> Iterator[dict[str, Any]]:
        """Yield {unique_id, workflow, step, state, reason, reason_code, type, cost, request} of each follow-up of a result, with the request as
        Scale would receive it. state: created, held, skipped or already_exists. Raises ReadTooLarge in a web process."""
        settings, prices = self._service.settings, self._service.prices
        for workflow in self._chosen:
            with _preview_budget():
                planned = plan(view, workflow, settings.unique_id_prefix)
            for follow_up in planned:
                state, reason = self._state(workflow, follow_up)
                added = {"callback_url": settings.callback_url, "unique_id": follow_up.unique_id}
                yield {
                    "unique_id": follow_up.unique_id,
                    "workflow": workflow.name,
                    "step": follow_up.step,
                    "state": state,
                    "reason": reason,
                    "reason_code": follow_up.reason_code,
                    "type": follow_up.task_type,
                    "cost": cost_of_task(prices, follow_up.task_type, follow_up.request).to_json(),
                    "request": {**displayed(follow_up.request, follow_up.files), **added},
                }

    def _state(self, workflow: Workflow, follow_up: PlannedFollowUp) -> tuple[str, str | None]:
        with self._service.reader.begin() as connection:
            existing = connection.scalar(select(Row.state).where(Row.unique_id == follow_up.unique_id))
        if existing is not None:
            return "already_exists", f"it is {existing}"
        step = workflow.step(follow_up.step)
        if follow_up.state != "planned" or step is None:
            return follow_up.state, follow_up.reason
        limits = (*limits_for(workflow, step), *self._workflows.limits.counters)
        project = project_of(follow_up.request)
        reason = self._budget.take(claim(limits, self._workflows.prices, follow_up.task_type, project))
        return ("created", follow_up.reason) if reason is None else ("held", reason.text)


def explanations(
    connection: Connection, service: Service, view: View, chosen: Iterable[Workflow]
) -> list[dict[str, Any]]:
    """Return for each step {workflow, paused, step, conditions, elements, left, follow_ups}: each condition with its value and
    reason, and the follow-ups as they are stored. A follow-up that is not stored has the state null."""
    stored = _stored(connection, view.task_id)
    paused_names = paused(connection)
    explanations = []
    for workflow in chosen:
        children = pending_children(connection, view.task_id, workflow)
        late = late_steps(connection, workflow, view.task_id)
        with _preview_budget():
            steps = explain(view, workflow, service.settings.unique_id_prefix, children)
        for step in steps:
            follow_ups = [
                {
                    "unique_id": one.unique_id,
                    "cost": cost_of_task(service.prices, one.task_type, one.request).to_json(),
                    **stored.get(one.unique_id, {"state": None, "reason": one.reason, "task_id": None}),
                }
                for one in step.follow_ups
            ]
            explanations.append(
                {
                    "workflow": workflow.name,
                    "paused": workflow.name in paused_names,
                    "step": step.step,
                    "conditions": [
                        _with_values(condition)
                        for condition in (*_came_before(workflow, late.get(step.step)), *step.conditions)
                    ],
                    "where": [_with_values(element) for element in step.where],
                    "elements": step.elements,
                    "left": step.left,
                    "omitted": step.omitted,
                    "follow_ups": follow_ups,
                }
            )
    return explanations


def _with_values(part: Condition | ExplainedElement) -> dict[str, Any]:
    """Return a condition or an element, with its values as {expression, value}."""
    return {**part._asdict(), "values": [value._asdict() for value in part.values]}


def _came_before(workflow: Workflow, active_from: datetime | None) -> Iterator[Condition]:
    """Yield the condition that a result misses which came before the step was there."""
    if active_from is not None:
        why = (
            f"the result came before this step, which applies from {format_timestamp(active_from)} on;"
            f" `weighbridge workflows backfill {workflow.name}` runs it over older results"
        )
        yield Condition("received", False, why)


def _stored(connection: Connection, task_id: str) -> dict[str, dict[str, Any]]:
    """Return {unique_id: {state, reason, task_id}} of a task's follow-ups. The reason of one that is not created yet is its
    job's last error."""
    columns = (Row.unique_id, Row.state, Row.reason, Row.task_id, Job.last_error)
    statement = (
        select(*columns)
        .outerjoin(Job, Job.key == f"{kinds.CREATE}:" + Row.unique_id)
        .where(Row.source_task_id == task_id)
    )
    return {
        row.unique_id: {"state": row.state, "reason": row.last_error or row.reason, "task_id": row.task_id}
        for row in connection.execute(statement)
    }
