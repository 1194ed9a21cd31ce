"""Decides which tasks follow a result. Pure and deterministic: the same view and workflow give the same follow-ups.

Stands where a result is whole, before pipeline/follow_ups.py records what is decided here.
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from scale.envelope import response_digest
from scale.parameters import problems
from workflows.crop import around
from workflows.expressions import ExpressionError, names_in, render
from workflows.files import mirrored, recipe
from workflows.view import View
from workflows.workflow import (
    ACCEPTED,
    COMPLETED,
    DEPTH,
    ERROR,
    FIXED,
    RECALLED,
    REJECTED,
    Create,
    Step,
    Workflow,
)

PLANNED, HELD, SKIPPED = "planned", "held", "skipped"

LONGEST = 120  # characters of a unique_id


@dataclass(frozen=True, slots=True)
class FollowUp:
    """One task that a step asks for."""

    unique_id: str
    workflow: str
    digest: str  # of the workflow's file
    step: str
    source_task_id: str
    source_annotation: (
        str | None
    )  # uuid or digest of the annotation, digest of the label or item, or the frame
    source_response: str | None  # digest of the response
    task_type: str
    request: dict[
        str, Any
    ]  # the body without callback_url and unique_id; a file to be made stands there as a recipe
    state: str  # planned | held | skipped
    reason: str | None = None
    depth: int = 1  # tasks from the first one to this, itself included


class Condition(NamedTuple):
    """One thing that a step asks of a result, and whether it is so."""

    name: str  # "after.type", "when", "sample", …
    held: bool | None  # None: it could not be evaluated
    why: str


class Names:
    """The view of a result, and what a step adds to it."""

    __slots__ = ("_own", "_view")

    def __init__(self, view: View, own: Mapping[str, Any]) -> None:
        self._view = view
        self._own = own

    def get(self, name: str) -> Any:
        return self._own[name] if name in self._own else self._view.get(name)


def plan(view: View, workflow: Workflow, prefix: str = "") -> list[FollowUp]:
    """The follow-ups of one result, in the order of the file; no two have the same unique_id.

    `prefix` is UNIQUE_ID_PREFIX. A step with a `join` looks at many results together: see workflows/join.py.
    """
    found: dict[str, FollowUp] = {}
    for step in workflow.steps:
        for follow_up in follow_ups_of(view, workflow, step, prefix):
            found.setdefault(follow_up.unique_id, follow_up)
    return list(found.values())


def follow_ups_of(view: View, workflow: Workflow, step: Step, prefix: str = "") -> Iterator[FollowUp]:
    """What one step wants of a result."""
    yield from _retried(view, workflow, step)
    if step.join is not None:
        return
    key = (workflow.name, step.name, part(view.task_id))
    for condition in conditions(view, workflow, step):
        if condition.held is None:
            yield _skipped(view, workflow, step, prefix, key, f"{condition.name}: {condition.why}")
        if not condition.held:
            return
    yield from asked_for(view, workflow, step, prefix, key)


def asked_for(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], own: Mapping[str, Any] = {}, held: str | None = None,
) -> Iterator[FollowUp]:  # fmt: skip
    """The follow-ups of a step whose conditions hold, for each element and copy. `key` begins their identity; `own` are
    names that the step has beside the view; `held` makes them wait, with that reason."""
    try:
        wanted = list(_proposed(view, step) if step.python else _rendered(view, step, own))
    except ExpressionError as error:
        yield _skipped(view, workflow, step, prefix, key, str(error))
        return
    repeated = (response_part(view.digest),) if step.each_response else ()
    for one in wanted:
        state, reason = _state(workflow, step, view.depth + 1, held or view.held)
        if one.fault:
            state, reason = SKIPPED, one.fault
        else:
            reason = "; ".join([*([reason] if reason else []), *one.notes]) or None
        yield FollowUp(
            unique_id=unique_id(prefix, *key, *one.key, *repeated),
            workflow=workflow.name,
            digest=workflow.digest,
            step=step.name,
            source_task_id=view.task_id,
            source_annotation=one.element,
            source_response=view.digest,
            task_type=one.task_type,
            request=one.request,
            state=state,
            reason=reason,
            depth=view.depth + 1,
        )


def _skipped(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], reason: str
) -> FollowUp:
    """A step that wanted to follow and could not: kept, so that it is seen."""
    return FollowUp(
        unique_id=unique_id(prefix, *key),
        workflow=workflow.name,
        digest=workflow.digest,
        step=step.name,
        source_task_id=view.task_id,
        source_annotation=None,
        source_response=view.digest,
        task_type=step.create.type if step.create else "",
        request={},
        state=SKIPPED,
        reason=reason,
        depth=view.depth + 1,
    )


def _state(workflow: Workflow, step: Step, depth: int, held: str | None) -> tuple[str, str | None]:
    most = step.limits.depth or workflow.limits.depth or DEPTH
    if step.dry_run:
        return SKIPPED, "dry run"
    if depth > most:
        return HELD, f"it would be {depth} tasks away from the first one, and the limit is {most}"
    return (HELD, held or "waits for approval") if held or step.hold else (PLANNED, None)


# What a step asks of a result.


def conditions(
    view: View, workflow: Workflow, step: Step, joined: Names | None = None
) -> Iterator[Condition]:
    """Each thing that a step asks of a result, in the order in which plan() looks: it stops at the first that fails.

    `joined`: names of a join that fires; whom it looks at was asked of its children then, not of the view.
    """
    if joined is None and _started_by_error(view, workflow, step):
        yield Condition("on_error", True, f"a task of the step {_maker(view, workflow)} ended in an error")
    elif joined is None:
        yield from _after(view, workflow, step)
    if step.when is not None:
        try:
            yield Condition("when", step.when.holds(joined or view), step.when.source)
        except ExpressionError as error:
            yield Condition("when", None, str(error))
    if step.sample is not None:
        drawn = _drawn(workflow.name, step.name, view.task_id)
        yield Condition("sample", drawn < step.sample, f"drew {drawn:.4f}; below {step.sample:g} is taken")


def _after(view: View, workflow: Workflow, step: Step) -> Iterator[Condition]:
    after, task, maker = step.after, view.task, _maker(view, workflow)
    if after is None:
        yield Condition("after", False, "only an `on_error` starts this step")
        return
    itself = maker == step.name
    if itself and step.name not in after.step:
        yield Condition("after", False, "this step made the task, and does not name itself")
    if after.type:
        yield _one_of("after.type", view.type, after.type)
    if others := [name for name in after.step if name != step.name]:
        yield _one_of("after.step", maker, after.step if itself else tuple(others))
    if after.project:
        yield _one_of("after.project", task.get("project"), after.project)
    if after.batch:
        yield _one_of("after.batch", task.get("batch"), after.batch)
    if after.environment:
        yield _one_of("after.environment", view.environment, (after.environment,))
    if after.tags:
        tags = task["tags"] if isinstance(task.get("tags"), list) else []
        missing = [tag for tag in after.tags if tag not in tags]
        yield Condition(
            "after.tags", not missing, f"without {', '.join(missing)}" if missing else "all there"
        )
    metadata = task.get("metadata")
    for key, wanted in after.metadata.items():
        value = metadata.get(key) if isinstance(metadata, dict) else None
        yield _one_of(
            f"after.metadata.{key}", value, tuple(wanted) if isinstance(wanted, list) else (wanted,)
        )
    states = levels(view)
    why = f"it is {', '.join(sorted(states)) or 'none of the states'}; wanted {' or '.join(after.state)}"
    yield Condition("after.state", bool(states & set(after.state)), why)


def _one_of(name: str, value: Any, wanted: tuple[Any, ...]) -> Condition:
    held = any(value == word and isinstance(value, bool) == isinstance(word, bool) for word in wanted)
    return Condition(name, held, f"it is {value!r}; wanted {' or '.join(map(repr, wanted))}")


def _maker(view: View, workflow: Workflow) -> str | None:
    """The step of this workflow that made the task."""
    return view.source.step if view.source and view.source.workflow == workflow.name else None


def _started_by_error(view: View, workflow: Workflow, step: Step) -> bool:
    maker = workflow.step(_maker(view, workflow) or "")
    return maker is not None and maker.on_error.step == step.name and ERROR in levels(view)


def levels(view: View) -> frozenset[str]:
    """The states that hold of a result. Levels, not events: whatever came first, they say how it stands now."""
    if view.recalled:
        return frozenset({RECALLED})
    found = {view.review} & {ACCEPTED, REJECTED, FIXED}
    if view.error is not None or view.task.get("status") == "error":
        found.add(ERROR)
    elif view.response is not None and view.task.get("status") != "canceled":
        found.add(COMPLETED)
    return frozenset(state for state in found if state)


def _drawn(workflow: str, step: str, task_id: str) -> float:
    """A number from 0 to 1 that a task always draws at this step: two steps draw independently."""
    return int.from_bytes(hashlib.sha256(f"{workflow}.{step}.{task_id}".encode()).digest()[:8]) / 2**64


def to_cancel(view: View, workflow: Workflow) -> list[str]:
    """The steps whose follow-ups of this task are to be canceled, since it was recalled."""
    if RECALLED not in levels(view):
        return []
    return [step.name for step in workflow.steps if step.on_recall == "cancel"]


# Who a follow-up is.


def digest_of(value: Any) -> str:
    """A short digest of any JSON value: the same for the same value, in whatever order its keys come."""
    return response_digest(value)[:16]


def annotation_key(annotation: Mapping[str, Any]) -> str:
    """The annotation's uuid, or a digest of it when it has none that can stand in a unique_id."""
    uuid = annotation.get("uuid")
    return part(uuid) if isinstance(uuid, str) and uuid else digest_of(annotation)


def part(word: str) -> str:
    """A word as a part of a unique_id; one that could not stand there gives its digest."""
    return word if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", word) else digest_of(word)


def response_part(digest: str | None) -> str:
    """A response's digest as a part of a unique_id."""
    return (digest or "none")[:16]


def unique_id(prefix: str, workflow: str, step: str, *parts: str) -> str:
    """`<workflow>.<step>.<source>` after the prefix, at most 120 characters of [A-Za-z0-9._-]."""
    source = ".".join(parts)
    whole = f"{prefix}{workflow}.{step}.{source}"
    return whole if len(whole) <= LONGEST else f"{prefix}{workflow}.{step}.{response_digest(source)[:32]}"


# What it asks for.


class _Wanted(NamedTuple):
    """One task of a step: who it is beside its source, and its request."""

    key: tuple[str, ...]
    element: str | None
    task_type: str
    request: dict[str, Any]
    notes: list[str] = []
    fault: str | None = None  # why it can't be sent


def _rendered(view: View, step: Step, own: Mapping[str, Any]) -> Iterator[_Wanted]:
    """One request for each element of the fan-out and each copy. Each identity comes once."""
    if step.create is None:
        return
    seen: set[str | None] = set()
    for element, names in elements(view, step, own):
        if element in seen or (step.where is not None and not step.where.holds(Names(view, names))):
            continue  # a uuid can come again, as an object of a video does in each frame: it is asked about once
        seen.add(element)
        for copy in range(1, (step.copies or 1) + 1):
            numbered = (str(copy),) if (step.copies or 1) > 1 else ()
            key = (*((element,) if element is not None else ()), *numbered)
            yield _asked(view, step, step.create, key, element, {**names, "copy": copy})


def elements(
    view: View, step: Step, own: Mapping[str, Any] = {}
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """(identity, names) of each element that a step fans out over; one without identity where it does not."""
    names = Names(view, own)
    match step.for_each and step.for_each.kind:
        case None:
            yield None, {**own}
        case "annotation":
            for annotation in view.annotations:
                yield annotation_key(annotation), {**own, "annotation": annotation, "item": annotation}
        case "label":
            labels = dict.fromkeys(annotation.get("label") for annotation in view.annotations)
            for label in (label for label in labels if isinstance(label, str)):
                yield digest_of(label), {**own, "label": label, "item": label}
        case "frame":
            for frame in _frames(view):
                yield str(frame), {**own, "frame": frame, "item": frame}
        case _:
            assert step.for_each is not None
            assert step.for_each.list is not None
            values = step.for_each.list.evaluate(names)
            if values is not None and not isinstance(values, list):
                raise ExpressionError(f"for_each: `{step.for_each.list.source}` is no list")
            for value in values or ():
                yield (
                    annotation_key(value) if isinstance(value, dict) else digest_of(value),
                    {**own, "item": value},
                )


def _frames(view: View) -> list[int]:
    """All frames of a video that was sent as images; else those that have annotations."""
    frames = {annotation.get("frame") for annotation in view.annotations}
    params = view.task.get("params")
    images = params.get("attachments") if isinstance(params, dict) else None
    if view.type == "videoannotation" and isinstance(images, list):
        frames |= set(range(len(images)))
    return sorted(frame for frame in frames if isinstance(frame, int))


def _asked(
    view: View, step: Step, create: Create, key: tuple[str, ...], element: str | None, own: dict[str, Any]
) -> _Wanted:
    """One request, and what must be said about it."""
    request: dict[str, Any] = {}
    try:
        if step.crop is not None:
            rect = around(own["annotation"], step.crop)
            if rect is None:
                raise ExpressionError("the annotation has no place in the image that could be cut out")
            own["crop"] = rect._asdict()
        rendered = render(create.params, Names(view, own))
        if not isinstance(rendered, dict):
            raise ExpressionError("params are no mapping")
        request = {name: value for name, value in rendered.items() if value is not None}
        if step.crop is not None:
            request["attachment"] = recipe("crop", of=_image(view, request), **own["crop"])
        request = mirrored(request, step.mirror)
        notes = _notes(view, names_in(create.params), request)
    except ExpressionError as error:
        return _Wanted(key, element, create.type, request, fault=str(error))
    refused = problems(create.type, request)
    fault = f"Scale would refuse it: {'; '.join(refused)}" if refused else None
    return _Wanted(key, element, create.type, request, notes, fault)


def _image(view: View, request: Mapping[str, Any]) -> str:
    """The address of the image that is cut: the request's own attachment, else that of the source task."""
    params = view.task.get("params")
    image = request.get("attachment") or (params.get("attachment") if isinstance(params, dict) else None)
    if not isinstance(image, str):
        raise ExpressionError("there is no attachment that could be cut")
    return image


def _notes(view: View, names: frozenset[str], request: dict[str, Any]) -> list[str]:
    """What of the result could not be sent on, in sentences; ExpressionError when that was all of it."""
    if "layers" in names and not view.layers and view.layer_notes:
        raise ExpressionError(f"nothing is left to send: {'; '.join(view.layer_notes)}")
    for name in ("hypothesis", "base_annotations"):
        if name in names and not getattr(view, name):
            raise ExpressionError(
                f"nothing is left to send: no {name} can be made of this {view.type} result"
            )
    notes = list(view.layer_notes) if "layers" in names else []
    if request.get("layers") == {}:
        del request["layers"]
        notes.append("sent without layers: there are none")
    return notes


def _proposed(view: View, step: Step) -> Iterator[_Wanted]:
    """What a `python:` function asks for: a list of mappings with type, params and, where there are several, a key."""
    try:
        proposals = handler(step.python or "")(view)
        for proposal in proposals or ():
            unknown = set(proposal) - {"type", "params", "key"}
            task_type, request, key = proposal["type"], dict(proposal["params"]), proposal.get("key")
            if unknown or (key is None and len(proposals) > 1):
                raise ExpressionError(
                    f"{step.python}: {', '.join(unknown) or 'a key for each of several tasks'}"
                )
            refused = problems(task_type, request)
            yield _Wanted(
                () if key is None else (part(str(key)),),
                None if key is None else part(str(key)),
                task_type,
                mirrored(request, step.mirror),
                fault=f"Scale would refuse it: {'; '.join(refused)}" if refused else None,
            )
    except ExpressionError:
        raise
    except Exception as error:  # the function is not ours: whatever it raises is said, and stops nothing
        raise ExpressionError(f"{step.python} raised {type(error).__name__}: {error}") from error


def handler(name: str) -> Any:
    """The function that `module:function` names. ImportError or AttributeError when there is none."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


# After an error.

_RETRY = re.compile(r"\.retry-([0-9]+)\Z")


def first_try(unique_id: str) -> tuple[str, int]:
    """The unique_id of the follow-up that was tried first, and which retry this one is (0: the first itself)."""
    found = _RETRY.search(unique_id)
    return (unique_id[: found.start()], int(found[1])) if found else (unique_id, 0)


def _retried(view: View, workflow: Workflow, step: Step) -> Iterator[FollowUp]:
    """The request of a failed task once more, as `on_error` wants it: a follow-up of the same source."""
    source, on_error = view.source, step.on_error
    if (
        source is None
        or _maker(view, workflow) != step.name
        or on_error.do != "retry"
        or ERROR not in levels(view)
    ):
        return
    first, retries = first_try(source.unique_id)
    if retries >= on_error.times:
        return
    request: dict[str, Any] = {}
    fault: str | None = None
    try:
        changes = {} if on_error.params is None else render(on_error.params, view)
        if not isinstance(changes, dict):
            raise ExpressionError("params are no mapping")
        request = mirrored({**source.request, **changes}, on_error.mirror)
        if refused := problems(view.type or "", request):
            fault = f"Scale would refuse it: {'; '.join(refused)}"
    except ExpressionError as error:
        fault = f"on_error: {error}"
    state, reason = (SKIPPED, fault) if fault else _state(workflow, step, view.depth, view.held)
    yield FollowUp(
        unique_id=f"{first}.retry-{retries + 1}",
        workflow=workflow.name,
        digest=workflow.digest,
        step=step.name,
        source_task_id=source.task_id,
        source_annotation=source.annotation,
        source_response=source.response,
        task_type=view.type or "",
        request=request,
        state=state,
        reason=reason or f"retry {retries + 1} of {on_error.times}",
        depth=view.depth,
    )
