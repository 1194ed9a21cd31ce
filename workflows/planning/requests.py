"""The requests of a step: one for each element of its fan-out and each copy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from scale.envelope import storable
from scale.parameters import UNKNOWN, problems
from workflows.definition.crops import crop_rect
from workflows.definition.expressions import ExpressionError
from workflows.definition.model import Create, Step
from workflows.definition.python_steps import load_function
from workflows.definition.recipes import (
    RECIPES,
    Cut,
    RequestFile,
    mirror_of,
    mirrored,
    replace_at,
    split_files,
)
from workflows.definition.templates import names_in, render, replaced
from workflows.definition.validation.requests import CLEAR_UNIQUE_ID_REFUSED
from workflows.planning.identity import annotation_key, digest_of, id_segment
from workflows.planning.reasons import MissingFile, Reason, ReasonCode
from workflows.planning.view import StepScope, View


class TaskRequest(NamedTuple):
    """One task that a step creates: its identity within its source, and its request."""

    key: tuple[str, ...]  # segments of the unique_id
    element: str | None
    task_type: str
    request: dict[str, Any]  # null in place of each file
    files: tuple[RequestFile, ...] = ()
    notes: tuple[str, ...] = ()
    fault: str | None = None  # why it cannot be sent
    held: Reason | None = None  # why it must wait


class FanOutElement(NamedTuple):
    """One element of a fan-out."""

    key: str | None  # its identity; None in a step without `for_each`
    names: dict[str, Any]  # what it adds to the view
    omitted: int = 0  # values of the same identity that it does not contain
    omitted_note: str = ""


def skipped_request(step: Step, fault: str) -> TaskRequest:
    """Return a request that cannot be sent: the follow-up is stored as skipped, so that it is visible."""
    return TaskRequest((), None, step.create.type if step.create else "", {}, fault=fault)


def held_request(
    step: Step, missing: MissingFile, key: tuple[str, ...] = (), element: str | None = None
) -> TaskRequest:
    """Return the request of a step that depends on a missing file. It is planned again when the file is there."""
    task_type = step.create.type if step.create else ""
    return TaskRequest(key, element, task_type, {}, held=Reason(ReasonCode.INCOMPLETE, str(missing)))


def requests(view: View, step: Step, own: Mapping[str, Any]) -> Iterator[TaskRequest]:
    """Yield the requests of a step with `create`, each with another identity. Raises ExpressionError."""
    if step.create is None:
        return
    used = names_in(step.create.params).union(*map(names_in, step.variants))
    copies = step.copies or 1
    for element in elements(view, step, own):
        if step.where is not None and not step.where.holds(StepScope(view, element.names)):
            continue
        for copy in range(1, copies + 1):
            numbered = (str(copy),) if copies > 1 or step.variants else ()
            key = (*((element.key,) if element.key is not None else ()), *numbered)
            yield _request(view, step, step.create, used, key, element, {**element.names, "copy": copy})


def elements(view: View, step: Step, own: Mapping[str, Any] = {}) -> Iterator[FanOutElement]:
    """Yield each element that a step fans out over, by identity; one without identity in a step without `for_each`."""
    match step.for_each and step.for_each.kind:
        case None:
            yield FanOutElement(None, {**own})
        case "annotation":
            for key, (annotation, omitted) in view.elements.items():
                names = {**own, "annotation": annotation, "item": annotation}
                yield FanOutElement(key, names, omitted, _omitted_annotations(annotation, omitted))
        case "label":
            labels = dict.fromkeys(annotation.get("label") for annotation in view.annotations)
            for label in (label for label in labels if isinstance(label, str)):
                yield FanOutElement(digest_of(label), {**own, "label": label, "item": label})
        case "frame":
            for frame in _frames(view):
                yield FanOutElement(str(frame), {**own, "frame": frame, "item": frame})
        case _:
            yield from _list_elements(view, step, own)


def _list_elements(view: View, step: Step, own: Mapping[str, Any]) -> Iterator[FanOutElement]:
    assert step.for_each is not None
    assert step.for_each.list is not None
    values = step.for_each.list.evaluate(StepScope(view, own))
    if values is not None and not isinstance(values, list):
        raise ExpressionError(f"for_each: `{step.for_each.list.source}` is not a list")
    found: dict[str, tuple[Any, int]] = {}
    for value in values or ():
        key = annotation_key(value) if isinstance(value, dict) else digest_of(value)
        first, omitted = found.get(key, (value, -1))
        found[key] = (first, omitted + 1)
    for key, (value, omitted) in found.items():
        note = f"{omitted} more items of the same identity are left out" if omitted else ""
        yield FanOutElement(key, {**own, "item": value}, omitted, note)


def _omitted_annotations(annotation: Mapping[str, Any], omitted: int) -> str:
    if not omitted:
        return ""
    if annotation.get("uuid"):
        return f"{omitted} more annotations of this object, in other frames, are left out"
    return f"{omitted} more annotations, equal to this one, are left out"


def _frames(view: View) -> list[int]:
    """Return all frames of a video that was sent as images, else those with annotations."""
    frames = {annotation.get("frame") for annotation in view.annotations}
    params = view.task.get("params")
    images = params.get("attachments") if isinstance(params, dict) else None
    if view.type == "videoannotation" and isinstance(images, list):
        frames |= set(range(len(images)))
    return sorted(frame for frame in frames if isinstance(frame, int))


def _request(
    view: View, step: Step, create: Create, used: frozenset[str], key: tuple[str, ...], element: FanOutElement, own: dict[str, Any],
) -> TaskRequest:  # fmt: skip
    """Return one request. `used`: the names of the view in its template."""
    request: dict[str, Any] = {}
    files: tuple[RequestFile, ...] = ()
    try:
        if step.crop is not None:
            rect = crop_rect(own["annotation"], step.crop)
            if rect is None:
                raise ExpressionError("the annotation has no place in the image, so there is nothing to cut")
            own["crop"] = rect._asdict()
        params = replaced(create.params, step.variants[own["copy"] - 1]) if step.variants else create.params
        rendered = render(params, StepScope(view, own))
        if not isinstance(rendered, dict):
            raise ExpressionError("params are not a mapping")
        rendered = {name: value for name, value in rendered.items() if value is not None}
        if step.crop is not None and rect is not None:
            rendered["attachment"] = Cut(mirror_of(_image(view, rendered)), rect)
        request, files = split_files(mirrored(rendered, step.mirror))
        notes = _notes(view, used, request)
    except ExpressionError as error:
        return TaskRequest(key, element.key, create.type, request, files, fault=str(error))
    except MissingFile as missing:
        return held_request(step, missing, key, element.key)
    notes += [element.omitted_note] if element.omitted_note else []
    fault = rejection_reason(create.type, request, files)
    return TaskRequest(key, element.key, create.type, request, files, tuple(notes), fault)


def rejection_reason(
    task_type: str, request: Mapping[str, Any], files: Iterable[RequestFile] = ()
) -> str | None:
    """Return why a request is not sent: what Scale would refuse, or that a retry could pay again. None: nothing is known."""
    if request.get("clear_unique_id_on_error"):
        return f"clear_unique_id_on_error {CLEAR_UNIQUE_ID_REFUSED}"
    refused = problems(task_type, replace_at(dict(request), ((file.path, UNKNOWN) for file in files)))
    return f"Scale would refuse the request: {'; '.join(refused)}" if refused else None


def _image(view: View, request: Mapping[str, Any]) -> str:
    """Return the URL of the image to cut: the request's own attachment, else that of the source task."""
    params = view.task.get("params")
    image = request.get("attachment") or (params.get("attachment") if isinstance(params, dict) else None)
    if not isinstance(image, str):
        raise ExpressionError("there is no attachment to cut")
    return image


def _notes(view: View, used: frozenset[str], request: dict[str, Any]) -> list[str]:
    """Return what of the result could not be sent. ExpressionError if nothing of it could."""
    if "layers" in used and not view.layers and view.layer_notes:
        raise ExpressionError(f"there is nothing to send: {'; '.join(view.layer_notes)}")
    for name in ("hypothesis", "base_annotations"):
        if name in used and not getattr(view, name):
            raise ExpressionError(
                f"there is nothing to send: this {view.type} result cannot be sent as {name}"
            )
    notes = list(view.layer_notes) if "layers" in used else []
    if request.get("layers") == {}:
        del request["layers"]
        notes.append("sent without layers, because there are none")
    return notes


def names_used(step: Step) -> frozenset[str]:
    """Return every name of the view that the step's expressions use."""
    values = step.for_each.list if step.for_each else None
    names = frozenset[str]().union(*(one.names for one in (step.when, step.where, values) if one is not None))
    return names.union(names_in(step.create.params) if step.create else (), *map(names_in, step.variants))


# Requests of a `python:` function.


def requests_from_python(view: View, step: Step) -> Iterator[TaskRequest]:
    """Yield the requests that a `python:` function returns: mappings with type, params and, if there are several, a key."""
    try:
        found = [_checked(request) for request in load_function(step.python or "")(deepcopy(view)) or ()]
    except MissingFile:
        raise
    # Code of the operator's own: report whatever it raises.
    except (Exception, SystemExit) as error:
        raise ExpressionError(f"{step.python} raised {type(error).__name__}: {error}") from error
    keys = {one.key for one in found if one.key}
    if 1 < len(found) != len(keys):
        raise ExpressionError(f"{step.python} returned {len(found)} tasks; each needs another `key`")
    for one in found:
        request, files = split_files(mirrored(one.request, step.mirror))
        yield one._replace(
            request=request, files=files, fault=rejection_reason(one.task_type, request, files)
        )


def _checked(returned: Any) -> TaskRequest:
    if not isinstance(returned, Mapping):
        raise ValueError(f"expected a list of mappings with type, params and key; it contains {returned!r}")
    if unknown := set(returned) - {"type", "params", "key"}:
        raise ValueError(f"{', '.join(sorted(unknown))} is not a known key (known keys: type, params, key)")
    if not isinstance(returned.get("type"), str):
        raise ValueError(f"expected a task type as `type`, not {returned.get('type')!r}")
    if not isinstance(returned.get("params"), Mapping):
        raise ValueError(f"expected a mapping as `params`, not {returned.get('params')!r}")
    key = None if returned.get("key") is None else id_segment(str(returned["key"]))
    params = storable(_json(returned["params"]))
    return TaskRequest((key,) if key else (), key, returned["type"], params)


def _json(value: Any) -> Any:
    """Return a copy of a value that is JSON, or contains recipes. ValueError for anything else."""
    if isinstance(value, Mapping):
        return {str(key): _json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a number in JSON")
    if value is None or isinstance(value, (str, bool, int, float, *RECIPES)):
        return value
    raise ValueError(f"expected JSON, not {type(value).__name__}")
