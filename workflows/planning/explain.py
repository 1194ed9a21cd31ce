"""Why a step does or does not follow a result: the same decisions as plan(), each shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from workflows.definition.expressions import Expression, ExpressionError, Operand, Scope
from workflows.definition.interpreter import plan_budget
from workflows.definition.model import Step, Workflow
from workflows.planning.conditions import Condition, conditions
from workflows.planning.joins import FIRE, HOLD, Child, decide_join, joins_of, plan_join
from workflows.planning.plan import PlannedFollowUp, follow_ups_of_step
from workflows.planning.reasons import MissingFile
from workflows.planning.requests import elements
from workflows.planning.view import StepScope, View

MAX_ELEMENTS = 50
"""Elements of a fan-out of which an explanation says whether `where` selects them."""
MAX_SHOWN = 200
"""Characters of a value, as JSON; a longer one is described."""


class ExplainedElement(NamedTuple):
    """One element of a fan-out, and whether `where` selects it."""

    element: str | None  # as in the unique_id
    held: bool | None  # None: `where` could not be evaluated
    values: tuple[Operand, ...]


@dataclass(frozen=True)
class Explanation:
    """One step: its conditions, its fan-out, and its follow-ups."""

    step: str
    conditions: tuple[Condition, ...]  # all of them, also after the first that is not met
    elements: int  # of the fan-out; 1 without one
    left: int  # of these, after `where`
    follow_ups: tuple[PlannedFollowUp, ...]
    where: tuple[ExplainedElement, ...] = ()  # the first MAX_ELEMENTS, in a step with `where`
    omitted: int = 0  # annotations or items that no element contains, because another one has their identity


def explain(
    view: View, workflow: Workflow, prefix: str = "", children: Mapping[str, Sequence[Child]] = {}
) -> list[Explanation]:
    """Return, for each step, each condition with its reason, and the follow-ups.

    children: for a step with a `join`, the follow-ups of this task that it joins.
    """
    with plan_budget():
        return [
            _joined_step(view, workflow, step, prefix, children.get(step.name, ()))
            if step.join is not None
            else _step(view, workflow, step, prefix)
            for step in workflow.steps
        ]


def _step(view: View, workflow: Workflow, step: Step, prefix: str) -> Explanation:
    found: list[Condition] = []
    where: list[ExplainedElement] = []
    total = left = omitted = 0
    try:
        for condition in conditions(view, workflow, step):
            found.append(_with_values(condition, step, view))
        for element in elements(view, step):
            total += 1
            omitted += element.omitted
            if step.where is None:
                left += 1
                continue
            scope = StepScope(view, element.names)
            is_selected = step.where.holds(scope)
            left += is_selected
            if len(where) < MAX_ELEMENTS:
                where.append(ExplainedElement(element.key, is_selected, _values(step.where, scope)))
    except ExpressionError as error:
        found.append(Condition("for_each", None, str(error)))
    except MissingFile as missing:
        found.append(Condition("files", None, str(missing)))
    follow_ups = tuple(follow_ups_of_step(view, workflow, step, prefix))
    return Explanation(step.name, tuple(found), total, left, follow_ups, tuple(where), omitted)


def _with_values(condition: Condition, step: Step, scope: Scope) -> Condition:
    """Return the condition `when` with the values that it saw, and any other as it is."""
    if condition.name != "when" or step.when is None:
        return condition
    return condition._replace(values=_values(step.when, scope))


def _values(expression: Expression, scope: Scope) -> tuple[Operand, ...]:
    return tuple(one._replace(value=_shown(one.value)) for one in expression.operands(scope))


def _shown(value: Any) -> Any:
    """Return a value as it is shown: a large one in words, and what is no JSON by its type."""
    try:
        size = len(json.dumps(value))
    except (TypeError, ValueError):
        return f"a {type(value).__name__.lower()}"
    if size <= MAX_SHOWN:
        return value
    match value:
        case str():
            return f"{value[:MAX_SHOWN]}…"
        case list():
            return f"a list of {len(value):,}"
        case _:
            return f"an object with {', '.join(list(value)[:10])}"


def _joined_step(
    view: View, workflow: Workflow, step: Step, prefix: str, children: Sequence[Child]
) -> Explanation:
    """Explain a join over the follow-ups that exist. One that fired is planned again, to show its own conditions."""
    retries = tuple(follow_ups_of_step(view, workflow, step, prefix))
    if not children:
        awaited = " and ".join(step.after.step) if step.after else ""
        missing = Condition("join", False, f"this task has no tasks of the step {awaited}")
        return Explanation(step.name, (missing,), 0, 0, retries)
    verdict = decide_join(workflow, step, children)
    found = [Condition("join", verdict.do in (FIRE, HOLD), f"{verdict.do}: {verdict.why}")]
    if verdict.do not in (FIRE, HOLD):
        return Explanation(step.name, tuple(found), 0, 0, retries)
    keys = (
        key
        for child in children
        if child.view and child.view.source
        for key, joined in joins_of(child.view.source, workflow, prefix)
        if joined.name == step.name
    )
    key = next(keys, f"{prefix}{workflow.name}.{step.name}")
    outcome = plan_join(view, workflow, step, verdict, key, prefix)
    found += [_with_values(one, step, outcome.scope) if outcome.scope else one for one in outcome.conditions]
    return Explanation(step.name, tuple(found), 0, 0, (*retries, *outcome.follow_ups))
