"""Steps whose expressions failed on some results: how many follow-ups are skipped for it, and where the expression is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from models import FollowUp
from pipeline.service import Service
from workflows.definition.locations import locate
from workflows.planning.reasons import ReasonCode

MAX_STEPS = 20
"""Steps that are reported."""


class ExpressionFault(NamedTuple):
    """The newest follow-up that a step skipped because its request could not be built, and their number."""

    workflow: str
    step: str
    follow_ups: int
    place: str  # file:line: field; the step's name if its workflow is not loaded
    reason: str  # with the expression and the value that it failed on
    source_task_id: str


def expression_faults(connection: Connection, service: Service) -> Iterator[ExpressionFault]:
    """Yield one fault for each step that has skipped follow-ups for it."""
    skipped = (FollowUp.state == "skipped", FollowUp.reason_code == ReasonCode.INVALID)
    columns = (FollowUp.workflow, FollowUp.step, func.count(), func.max(FollowUp.planned_at))
    steps = select(*columns).where(*skipped).group_by(FollowUp.workflow, FollowUp.step)
    for name, step, count, newest in connection.execute(steps.order_by("workflow", "step").limit(MAX_STEPS)):
        of_step = (*skipped, FollowUp.workflow == name, FollowUp.step == step)
        example = select(FollowUp.reason, FollowUp.source_task_id)
        example = example.where(*of_step, FollowUp.planned_at == newest).limit(1)
        reason, source = connection.execute(example).one()
        workflow = service.workflows.workflow(name)
        place = locate(workflow, step, reason or "") if workflow else f"{name}.{step}"
        yield ExpressionFault(name, step, count, place, reason or "", source)
