"""A workflow as it was read from its file: values that plan() goes through, in the file's own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from workflows.definition.crops import Crop
from workflows.definition.document import FileProblem
from workflows.definition.expressions import Expression, Template, names_in

COMPLETED, ACCEPTED, REJECTED, FIXED, ERROR, RECALLED = STATES = (
    "completed", "accepted", "rejected", "fixed", "error", "recalled",
)  # fmt: skip

# Guards that are always on, for each workflow, unless its `limits` say otherwise.
DEFAULT_MAX_DEPTH = 5
DEFAULT_MAX_PER_DAY = 10_000


@dataclass(frozen=True, slots=True)
class After:
    """Which results a step looks at. An empty tuple asks for nothing."""

    type: tuple[str, ...] = ()
    project: tuple[str, ...] = ()
    batch: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()  # all of them
    metadata: Mapping[str, Any] = field(default_factory=dict)  # a list: one of its values
    environment: str | None = None
    state: tuple[str, ...] = (COMPLETED,)
    step: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Create:
    type: str
    params: Template


@dataclass(frozen=True, slots=True)
class ForEach:
    kind: str  # annotation | label | frame | list
    list: Expression | None = None


@dataclass(frozen=True, slots=True)
class Reduce:
    by: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Join:
    wait: int | None = None  # that many results; None: all, or the quorum
    quorum: float | None = None  # share of the children, 0 to 1
    within: int | None = None  # seconds after the fan-out was planned
    on_deadline: str = "hold"  # continue | hold | stop
    over: str = "all"  # all children of a source task, or the copies of each of its items
    reduce: Reduce | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file says under `limits`. None: it does not say."""

    per_day: int | None = None
    total: int | None = None
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class OnError:
    do: str = "stop"  # stop | retry | start
    times: int = 0
    params: Template | None = None
    mirror: tuple[str, ...] = ()
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    after: After | None = None  # None: only an on_error starts it
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
    sample: float | None = None
    each_response: bool = False  # `repeat: each_response`
    hold: bool = False
    dry_run: bool = False
    limits: Limits = Limits()
    on_error: OnError = OnError()
    on_recall: str = "keep"  # keep | cancel


@dataclass(frozen=True, slots=True)
class Example:
    """A payload, and the requests that the workflow must make of it."""

    name: str
    given: Mapping[str, Any]
    expect: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Workflow:
    name: str
    path: str
    digest: str  # sha256 of the file, hex: which text planned a follow-up
    steps: tuple[Step, ...]
    description: str | None = None
    limits: Limits = Limits()
    examples: tuple[Example, ...] = ()
    warnings: tuple[FileProblem, ...] = ()  # not wrong, but perhaps not meant

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)


@dataclass(frozen=True)
class InvalidWorkflow:
    """A file that is set aside whole until it is mended; receiving and the other workflows go on."""

    path: str
    name: str | None
    errors: tuple[FileProblem, ...]


@dataclass(frozen=True)
class Workflows:
    loaded: tuple[Workflow, ...] = ()
    invalid: tuple[InvalidWorkflow, ...] = ()

    def workflow(self, name: str) -> Workflow | None:
        return next((workflow for workflow in self.loaded if workflow.name == name), None)

    @cached_property
    def types(self) -> frozenset[str] | None:
        """The task types that some step could look at; None when any type could be one."""
        if self.invalid:
            return None  # once mended, it may want what arrives now
        found: set[str] = set()
        for workflow in self.loaded:
            for step in workflow.steps:
                looked_at = _source_types(workflow, step)
                if looked_at is None:
                    return None
                found |= looked_at
        return frozenset(found)

    @cached_property
    def needs_parents(self) -> bool:
        """Whether some step could look at the task that a task followed: only then must a view have its `parent`."""
        return any(_uses_parent(step) for workflow in self.loaded for step in workflow.steps)


def _uses_parent(step: Step) -> bool:
    conditions = (step.when, step.where, step.for_each.list if step.for_each else None)
    templates = (*(one for one in conditions if one), *([step.create.params] if step.create else []))
    on_error = (step.on_error.params,) if step.on_error.params else ()
    return step.python is not None or any("parent" in names_in(one) for one in (*templates, *on_error))


def _source_types(workflow: Workflow, step: Step) -> set[str] | None:
    """The types of the tasks that a step looks at: those it follows, and its own where it answers to their errors."""
    found: set[str] = set()
    if step.after is not None:
        made_by = [workflow.step(name) for name in step.after.step if name != step.name]
        types = step.after.type or tuple(source.create.type for source in made_by if source and source.create)
        if not types or (not step.after.type and len(types) < len(made_by)):
            return None
        found.update(types)
    if step.on_error.do != "stop":
        if step.create is None:
            return None
        found.add(step.create.type)
    return found


class Limit(NamedTuple):
    """A counter of created follow-ups, and how far it may go."""

    counter: str  # "<workflow>" or "<workflow>.<step>"
    period: str  # day (UTC) | ever
    most: int


def limits_for(workflow: Workflow, step: Step) -> tuple[Limit, ...]:
    """Every counter that a follow-up of this step must pass; beyond one of them it is held.

    A step that names its own `per_day` is not counted by the workflow's guard of 10,000, only by a `per_day` that the
    workflow itself names.
    """
    guard = None if step.limits.per_day else DEFAULT_MAX_PER_DAY
    name = f"{workflow.name}.{step.name}"
    every = (
        (workflow.name, "day", workflow.limits.per_day or guard),
        (workflow.name, "ever", workflow.limits.total),
        (name, "day", step.limits.per_day),
        (name, "ever", step.limits.total),
    )
    return tuple(Limit(counter, period, most) for counter, period, most in every if most is not None)


def has_workflow_for(workflows: Workflows, task_type: str | None) -> bool:
    """Whether a result of this type could be followed by anything: asked before a job of planning is written."""
    return workflows.types is None or task_type is None or task_type in workflows.types
