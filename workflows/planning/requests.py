"""What a step asks for: one request for each element that it fans out over and each copy, with what must be said about it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from scale.envelope import storable
from scale.parameters import problems
from workflows.definition.crops import crop_rect
from workflows.definition.expressions import ExpressionError, names_in, render
from workflows.definition.model import Create, Step
from workflows.definition.recipes import mirrored, recipe
from workflows.planning.identity import annotation_key, digest_of, id_segment
from workflows.planning.reasons import MissingFile, Reason, ReasonCode
from workflows.planning.view import StepScope, View

CLEAR_UNIQUE_ID_REFUSED = "is refused: it would let a repeat pay again"  # of clear_unique_id_on_error


class TaskRequest(NamedTuple):
    """One task of a step: who it is beside its source, and its request."""

    key: tuple[str, ...]
    element: str | None
    task_type: str
    request: dict[str, Any]
    notes: list[str] = []
    fault: str | None = None  # why it can't be sent
    held: Reason | None = None  # why it must wait


def skipped_request(step: Step, fault: str) -> TaskRequest:
    """A step that wanted to follow and could not say what: kept as skipped, so that it is seen."""
    return TaskRequest((), None, step.create.type if step.create else "", {}, fault=fault)


def held_request(
    step: Step, missing: MissingFile, key: tuple[str, ...] = (), element: str | None = None
) -> TaskRequest:
    """Return the request of a step that depends on a missing file: it is planned again once the file is there."""
    task_type = step.create.type if step.create else ""
    return TaskRequest(key, element, task_type, {}, held=Reason(ReasonCode.INCOMPLETE, str(missing)))


def requests(view: View, step: Step, own: Mapping[str, Any]) -> Iterator[TaskRequest]:
    """One request for each element of the fan-out and each copy. Each identity comes once."""
    if step.create is None:
        return
    asked = names_in(step.create.params)
    seen: set[str | None] = set()
    for element, names in elements(view, step, own):
        if element in seen or (step.where is not None and not step.where.holds(StepScope(view, names))):
            continue  # a uuid can come again, as an object of a video does in each frame: it is asked about once
        seen.add(element)
        for copy in range(1, (step.copies or 1) + 1):
            numbered = (str(copy),) if (step.copies or 1) > 1 else ()
            key = (*((element,) if element is not None else ()), *numbered)
            yield _request(view, step, step.create, asked, key, element, {**names, "copy": copy})


def elements(
    view: View, step: Step, own: Mapping[str, Any] = {}
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """(identity, names) of each element that a step fans out over; one without identity where it does not."""
    names = StepScope(view, own)
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


def _request(
    view: View, step: Step, create: Create, asked: frozenset[str], key: tuple[str, ...], element: str | None, own: dict[str, Any],
) -> TaskRequest:  # fmt: skip
    """One request, and what must be said about it. `asked`: the names of the view that it asks for."""
    request: dict[str, Any] = {}
    try:
        if step.crop is not None:
            rect = crop_rect(own["annotation"], step.crop)
            if rect is None:
                raise ExpressionError("the annotation has no place in the image that could be cut out")
            own["crop"] = rect._asdict()
        rendered = render(create.params, StepScope(view, own))
        if not isinstance(rendered, dict):
            raise ExpressionError("params are no mapping")
        request = {name: value for name, value in rendered.items() if value is not None}
        if step.crop is not None:
            request["attachment"] = recipe("crop", of=_image(view, request), **own["crop"])
        request = mirrored(request, step.mirror)
        notes = _notes(view, asked, request)
    except ExpressionError as error:
        return TaskRequest(key, element, create.type, request, fault=str(error))
    except MissingFile as missing:
        return held_request(step, missing, key, element)
    return TaskRequest(key, element, create.type, request, notes, rejection_reason(create.type, request))


def rejection_reason(task_type: str, request: Mapping[str, Any]) -> str | None:
    """Why a request is not sent: what Scale would say against it, or that it could be paid for twice. None: nothing is known."""
    if request.get("clear_unique_id_on_error"):
        return f"clear_unique_id_on_error {CLEAR_UNIQUE_ID_REFUSED}"
    refused = problems(task_type, request)
    return f"Scale would refuse it: {'; '.join(refused)}" if refused else None


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


def names_used(step: Step) -> frozenset[str]:
    """Return every name of the view that the step's expressions use."""
    values = step.for_each.list if step.for_each else None
    names = frozenset[str]().union(*(one.names for one in (step.when, step.where, values) if one is not None))
    return names | (names_in(step.create.params) if step.create else frozenset())


def requests_from_python(view: View, step: Step) -> Iterator[TaskRequest]:
    """What a `python:` function asks for: a list of mappings with type, params and, where there are several, a key."""
    try:
        wanted = [_checked(proposal) for proposal in load_handler(step.python or "")(deepcopy(view)) or ()]
    except MissingFile:
        raise
    # The function is not ours: what it raises is said, and stops nothing.
    except (Exception, SystemExit) as error:
        raise ExpressionError(f"{step.python} raised {type(error).__name__}: {error}") from error
    keys = {one.key for one in wanted if one.key}
    if 1 < len(wanted) != len(keys):
        raise ExpressionError(
            f"{step.python} asks for {len(wanted)} tasks, and not each has a `key` of its own"
        )
    for one in wanted:
        request = mirrored(one.request, step.mirror)
        yield one._replace(request=request, fault=rejection_reason(one.task_type, request))


def _checked(proposal: Any) -> TaskRequest:
    if not isinstance(proposal, Mapping):
        raise ValueError(f"expected a list of mappings with type, params and key, and in it is {proposal!r}")
    if unknown := set(proposal) - {"type", "params", "key"}:
        raise ValueError(f"{', '.join(sorted(unknown))} is not known here (known: type, params, key)")
    if not isinstance(proposal.get("type"), str):
        raise ValueError(f"expected a task type as `type`, not {proposal.get('type')!r}")
    if not isinstance(proposal.get("params"), Mapping):
        raise ValueError(f"expected a mapping as `params`, not {proposal.get('params')!r}")
    key = None if proposal.get("key") is None else id_segment(str(proposal["key"]))
    params = storable(
        json.loads(json.dumps(dict(proposal["params"]), allow_nan=False))
    )  # nothing but JSON is sent
    return TaskRequest((key,) if key else (), key, proposal["type"], params)


def load_handler(name: str) -> Any:
    """The function that `module:function` names. ImportError or AttributeError when there is none."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
