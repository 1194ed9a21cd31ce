"""The values of a loaded workflow file, one frozen dataclass for each section, and what follows from them directly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from workflows.definition.crops import Crop
from workflows.definition.document import FileProblem
from workflows.definition.expressions import Expression
from workflows.definition.money import Money, Prices
from workflows.definition.templates import Template, expressions_in

COMPLETED, ACCEPTED, REJECTED, FIXED, ERROR, RECALLED = STATES = (
    "completed", "accepted", "rejected", "fixed", "error", "recalled",
)  # fmt: skip

DEFAULT_MAX_DEPTH = 5
DEFAULT_MAX_PER_DAY = 10_000
"""The limits of a workflow whose file names no others."""

MAX_UNIQUE_ID_LENGTH = 120
"""Characters of a unique_id, without UNIQUE_ID_PREFIX."""


@dataclass(frozen=True, slots=True)
class After:
    """Which results trigger a step. An empty tuple matches everything."""

    type: tuple[str, ...] = ()
    project: tuple[str, ...] = ()
    batch: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()  # all of them
    metadata: Mapping[str, Any] = field(default_factory=dict)  # a list: one of its values
    environment: str | None = None
    state: tuple[str, ...] = (COMPLETED,)
    step: tuple[str, ...] = ()


INPUT = "input"
"""Type of the rows that stand for the inputs of a workflow: they have no task at Scale."""


@dataclass(frozen=True, slots=True)
class Start:
    """A step that begins with inputs, not with results."""

    columns: tuple[str, ...] = ()  # that each input must have


@dataclass(frozen=True, slots=True)
class Create:
    """The task that a step creates."""

    type: str
    params: Template


@dataclass(frozen=True, slots=True)
class ForEach:
    """The elements that a step fans out over."""

    kind: str  # annotation | label | frame | list
    list: Expression | None = None


@dataclass(frozen=True, slots=True)
class Reduce:
    """A reducer by name, and its options."""

    by: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Join:
    """When and how a step joins the tasks of a fan-out."""

    wait: int | None = None  # number of results; None: all, or the quorum
    quorum: float | None = None  # fraction of the children, 0 to 1
    within: int | None = None  # seconds after the fan-out was planned
    on_deadline: str = "hold"  # continue | hold | stop
    over: str = "all"  # all children of a source task, or the copies of each of its items
    reduce: Reduce | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The section `limits` of a file or a step, or of the installation. None: not given."""

    per_day: int | None = None
    total: int | None = None
    depth: int | None = None
    spend_per_day: Money | None = None
    spend_total: Money | None = None


@dataclass(frozen=True, slots=True)
class OnEnd:
    """What to do when a task of a step ends in an error, or is rejected."""

    key: str = "on_error"  # on_error | on_rejected
    do: str = "stop"  # stop | retry | start
    times: int = 0
    params: Template | None = None
    mirror: tuple[str, ...] = ()
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a workflow."""

    name: str
    after: After | None = None  # None: inputs start it, or only the on_error of another step
    start: Start | None = None
    create: Create | None = None
    python: str | None = None  # module:function, instead of create
    description: str | None = None
    when: Expression | None = None
    for_each: ForEach | None = None
    where: Expression | None = None
    crop: Crop | None = None
    mirror: tuple[str, ...] = ()
    join: Join | None = None
    copies: int | None = None
    variants: tuple[Template, ...] = ()  # what each copy changes in the request, if copies differ
    sample: float | None = None
    each_response: bool = False  # `repeat: each_response`
    hold: bool = False
    dry_run: bool = False
    limits: Limits = Limits()
    on_error: OnEnd = OnEnd()
    on_rejected: OnEnd = OnEnd("on_rejected")
    on_recall: str = "keep"  # keep | cancel

    @property
    def templates(self) -> tuple[Template, ...]:
        """The templates of every request that the step makes."""
        first = (self.create.params,) if self.create else ()
        retries = (end.params for end in (self.on_error, self.on_rejected) if end.params is not None)
        return (*first, *self.variants, *retries)

    @property
    def retries(self) -> Mapping[str, OnEnd]:
        """State of a task → what to do, for the states after which a request is sent again."""
        ends = {ERROR: self.on_error, REJECTED: self.on_rejected}
        return {state: end for state, end in ends.items() if end.do == "retry"}


@dataclass(frozen=True, slots=True)
class Example:
    """A payload, and the follow-ups that the workflow must plan from it."""

    name: str
    given: Any  # as written; docs/examples.py reads the files that it names
    expect: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Workflow:
    """A valid workflow file."""

    name: str
    path: str
    digest: str  # SHA-256 of the file, hex
    steps: tuple[Step, ...]
    description: str | None = None
    limits: Limits = Limits()
    examples: tuple[Example, ...] = ()
    warnings: tuple[FileProblem, ...] = ()  # valid, but probably not intended

    def step(self, name: str) -> Step | None:
        """Return the step of that name, or None."""
        return next((step for step in self.steps if step.name == name), None)


@dataclass(frozen=True)
class InvalidWorkflow:
    """A workflow file with errors. It is not loaded; the other workflows run."""

    path: str
    name: str | None
    errors: tuple[FileProblem, ...]


@dataclass(frozen=True)
class Workflows:
    """The workflow files of an installation."""

    loaded: tuple[Workflow, ...] = ()
    invalid: tuple[InvalidWorkflow, ...] = ()
    prices: Prices = field(default_factory=Prices)
    limits: InstallationLimits = field(default_factory=lambda: InstallationLimits())

    def workflow(self, name: str) -> Workflow | None:
        """Return the loaded workflow of that name, or None."""
        return next((workflow for workflow in self.loaded if workflow.name == name), None)

    @cached_property
    def types(self) -> frozenset[str] | None:
        """Return the task types that a step could match; None if any type could match."""
        if self.invalid:
            return None  # once fixed, the file may match what arrives now
        found: set[str] = set()
        for workflow in self.loaded:
            for step in workflow.steps:
                types = _source_types(workflow, step)
                if types is None:
                    return None
                found |= types
        return frozenset(found)

    @cached_property
    def needs_parents(self) -> bool:
        """Return whether some step uses the task that a task followed. Only then a view needs its `parent`."""
        return any(_uses_parent(step) for workflow in self.loaded for step in workflow.steps)


def _uses_parent(step: Step) -> bool:
    conditions = (step.when, step.where, step.for_each.list if step.for_each else None)
    used = [one for one in conditions if one]
    used += [expression for one in step.templates for _, expression in expressions_in(one)]
    return step.python is not None or any(map(_reads_parent, used))


def _reads_parent(expression: Expression) -> bool:
    """Return whether an expression uses `parent`, or the annotation of its `source`, which is one of the parent's."""
    names = expression.names
    return bool(names & {"parent", "row"}) or (
        "source" in names and _SOURCE_ANNOTATION.search(expression.source) is not None
    )


_SOURCE_ANNOTATION = re.compile(
    r"\bsource\b(?!\s*\.\s*(?:workflow|step|unique_id|task_id|element|attempt|request)\b)"
)
"""`source` with anything but a field of the follow-up's own row."""


def _source_types(workflow: Workflow, step: Step) -> set[str] | None:
    """Return the types of the tasks that trigger a step, its own included if it handles their errors; None: any type."""
    found: set[str] = {INPUT} if step.start else set()
    if step.after is not None:
        made_by = [workflow.step(name) for name in step.after.step if name != step.name]
        types = step.after.type or tuple(source.create.type for source in made_by if source and source.create)
        if not types or (not step.after.type and len(types) < len(made_by)):
            return None
        found.update(types)
    if step.on_error.do != "stop" or step.on_rejected.do != "stop":
        if step.create is None:
            return None
        found.add(step.create.type)
    return found


class Limit(NamedTuple):
    """A counter of created follow-ups, and its maximum."""

    counter: str  # "<workflow>", "<workflow>.<step>" or INSTALLATION
    period: str  # day (UTC) | ever
    most: int


class SpendLimit(NamedTuple):
    """A counter of the expected cost of created follow-ups, and its maximum."""

    counter: str
    period: str
    most: Money


INSTALLATION = "*"
"""The counter of everything that an installation creates. No workflow has this name."""


@dataclass(frozen=True)
class InstallationLimits:
    """The limits of everything that an installation creates."""

    path: str = ""
    limits: Limits = Limits()
    problems: tuple[FileProblem, ...] = ()  # while there are any, nothing is created

    @property
    def counters(self) -> tuple[Limit | SpendLimit, ...]:
        """The counters of these limits."""
        return (*_counts(INSTALLATION, self.limits), *_amounts(INSTALLATION, self.limits))


def limits_for(workflow: Workflow, step: Step) -> tuple[Limit | SpendLimit, ...]:
    """Return the limits of a step. A follow-up beyond any of them is held.

    A step with its own `per_day` is not counted by the default of its workflow, only by a `per_day` in the file.
    """
    default = None if step.limits.per_day else DEFAULT_MAX_PER_DAY
    of_workflow = replace(workflow.limits, per_day=workflow.limits.per_day or default)
    name = f"{workflow.name}.{step.name}"
    return (
        *_counts(workflow.name, of_workflow),
        *_counts(name, step.limits),
        *_amounts(workflow.name, workflow.limits),
        *_amounts(name, step.limits),
    )


def _counts(counter: str, limits: Limits) -> Iterator[Limit]:
    for period, most in (("day", limits.per_day), ("ever", limits.total)):
        if most is not None:
            yield Limit(counter, period, most)


def _amounts(counter: str, limits: Limits) -> Iterator[SpendLimit]:
    for period, most in (("day", limits.spend_per_day), ("ever", limits.spend_total)):
        if most is not None:
            yield SpendLimit(counter, period, most)


def has_workflow_for(workflows: Workflows, task_type: str | None) -> bool:
    """Return whether a step could match a result of this type. If not, no planning job is enqueued."""
    return workflows.types is None or task_type is None or task_type in workflows.types
