"""Why a step does, or does not, follow a result: the same decisions as plan(), each told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workflows.definition.expressions import ExpressionError
from workflows.definition.model import Workflow
from workflows.planning.conditions import Condition, conditions
from workflows.planning.joins import Child, decide_join
from workflows.planning.plan import PlannedFollowUp, follow_ups_of_step
from workflows.planning.reasons import MissingFile
from workflows.planning.requests import elements
from workflows.planning.view import StepScope, View


@dataclass(frozen=True)
class Explanation:
    step: str
    conditions: tuple[Condition, ...]  # all of them, also after the first that fails
    elements: int  # of the fan-out; 1 without one
    left: int  # of these, after `where`
    follow_ups: tuple[PlannedFollowUp, ...]  # what plan() gives for this step


def explain(
    view: View, workflow: Workflow, prefix: str = "", children: Mapping[str, Sequence[Child]] = {}
) -> list[Explanation]:
    """For each step: each condition, whether it holds and why, and what follows.

    children: for a step with a `join`, the follow-ups of this task that it waits for.
    """
    explanations = []
    for step in workflow.steps:
        follow_ups = tuple(follow_ups_of_step(view, workflow, step, prefix))
        if step.join is not None:
            waited_for = " and ".join(step.after.step) if step.after else ""
            if given := children.get(step.name):
                verdict = decide_join(workflow, step, given)
                asked = [Condition("join", verdict.do in ("fire", "hold"), f"{verdict.do}: {verdict.why}")]
            else:
                asked = [Condition("join", False, f"this task has no tasks of the step {waited_for}")]
            explanations.append(Explanation(step.name, tuple(asked), 0, 0, follow_ups))
            continue
        asked, every, left = [], 0, 0
        try:
            for condition in conditions(view, workflow, step):
                asked.append(condition)
            for _, own in elements(view, step):
                every += 1
                left += step.where is None or step.where.holds(StepScope(view, own))
        except ExpressionError as error:
            asked.append(Condition("for_each", None, str(error)))
        except MissingFile as missing:
            asked.append(Condition("files", None, str(missing)))
        explanations.append(Explanation(step.name, tuple(asked), every, left, follow_ups))
    return explanations
