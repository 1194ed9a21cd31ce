"""Rules for requests: what Scale would refuse, and what the source's result can never supply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scale.layers import LAYER_KEYS
from scale.parameters import UNKNOWN, check_parameters
from scale.task_types import CREATABLE, TaskType, task_type
from scale.task_types.request import Parameters
from workflows.definition.expressions import suggestion
from workflows.definition.templates import (
    Constant,
    Fields,
    Items,
    Template,
    compile_template,
    names_in,
)
from workflows.definition.validation.finding import Fields as StepFields
from workflows.definition.validation.finding import Finding, Path, Steps

CLEAR_UNIQUE_ID_REFUSED = "is refused, because a retry would pay again; remove it"
"""About clear_unique_id_on_error."""
_ADDED = {
    "callback_url": "is added by the service; remove it",
    "unique_id": "is added by the service; remove it",
    "clear_unique_id_on_error": CLEAR_UNIQUE_ID_REFUSED,
}


def check(name: str, fields: StepFields, steps: Steps) -> Iterator[Finding]:
    """Yield the findings in the requests of one step."""
    create = fields.get("create") or {}
    for end in ("on_error", "on_rejected"):
        changes = (fields.get(end) or {}).get("params")
        if isinstance(changes, dict):
            yield from _added(compile_template(changes)[0], (end, "params"))
    for known in fields.get("after", {}).get("type", ()):
        yield from _task_type(("after", "type"), known, is_warning=True)
    if "type" in create:
        wrong = list(_task_type(("create", "type"), create["type"], is_warning=False))
        yield from wrong
        if not wrong and "params" in create:
            copies = fields.get("copies")
            yield from _request(
                name,
                fields,
                steps,
                compile_template(create["params"])[0],
                [compile_template(one)[0] for one in (copies if isinstance(copies, list) else ())],
            )


def _task_type(path: Path, written: str, *, is_warning: bool) -> Iterator[Finding]:
    """Check a task type. One that is unknown here may be new at Scale; one that resembles a known type is a mistake."""
    if "{{" in written or "${" in written:
        yield Finding(
            path,
            f"expected the name of a task type, not the expression {written!r}; write one step for each type",
        )
        return
    close = suggestion(written, [known.name for known in CREATABLE])
    if close and task_type(written).name != written:
        yield Finding(path, f"there is no task type {written!r}{close}", is_warning)


def _request(
    name: str, fields: StepFields, steps: Steps, template: Template, variants: Sequence[Template]
) -> Iterator[Finding]:
    """Yield the findings of the request of a step, and of what its copies change."""
    at: Path = ("create", "params")
    yield from _added(template, at)
    for number, variant in enumerate(variants):
        yield from _added(variant, ("copies", number))
    if not isinstance(template, Fields):
        return  # one expression gives the whole request: checked when it has a value
    target = fields["create"]["type"]
    request = _known_part(template)
    if "crop" in fields:
        request.setdefault("attachment", UNKNOWN)
    if variants:
        yield from _variants(target, request, variants)
        request |= {field: UNKNOWN for variant in variants for field in _known_part(variant)}
    for field in fields.get("mirror", ()):
        if field not in request:
            yield Finding(("mirror",), f"the request has no field {field!r}{suggestion(field, request)}")
    for field, message, is_warning in check_parameters(target, request):
        yield Finding((*at, *_path(field)), message, is_warning)
    sources = _source_types(name, fields, steps)
    for key, inner in template.items:
        if reason := _missing_in_source(key, names_in(inner), sources, target):
            yield Finding((*at, key), reason)


def _variants(target: str, request: Mapping[str, Any], variants: Sequence[Template]) -> Iterator[Finding]:
    """Yield what is wrong in the fields that copies change, and what one of them lacks that another one has."""
    changes = [_known_part(variant) for variant in variants]
    changed = {field for one in changes for field in one}
    for number, one in enumerate(changes):
        for field, message, is_warning in check_parameters(target, {**request, **one}):
            path = _path(field)
            if path and path[0] in one:
                yield Finding(("copies", number, *path), message, is_warning)
            elif path and path[0] in changed - request.keys():
                yield Finding(("copies", number), f"{field} {message}", is_warning)


def _added(template: Template, at: Path) -> Iterator[Finding]:
    for key in (key for key, _ in template.items if key in _ADDED) if isinstance(template, Fields) else ():
        yield Finding((*at, key), _ADDED[key])


def _known_part(template: Template) -> Any:
    """Return the value of a template as far as it is known without a result."""
    match template:
        case Constant(value):
            return value
        case Fields(items):
            return {key: _known_part(inner) for key, inner in items}
        case Items(items):
            return [_known_part(inner) for inner in items]
        case _:
            return UNKNOWN


def _path(field: str) -> Path:
    return tuple(int(word) if word.isdigit() else word for word in field.split(".")) if field else ()


def _source_types(name: str, fields: StepFields, steps: Steps) -> list[TaskType]:
    """Return the task types that trigger a step; empty if that is not known."""
    after = fields.get("after", {})
    if "type" in after:
        names = list(after["type"])
    else:
        sources = [steps.get(other, {}) for other in after.get("step", ()) if other != name]
        names = [(source.get("create") or {}).get("type") for source in sources]
        if None in names or "join" in fields:
            return []
    types = [task_type(known) for known in names]
    return [] if any(known.name == "generic" for known in types) else types


def _missing_in_source(key: str, names: frozenset[str], sources: list[TaskType], target: str) -> str | None:
    """Return why the source's result can never supply a field of the request, or None."""
    if not sources:
        return None
    given = " or ".join(source.name for source in sources)
    takes = task_type(target).request or Parameters()
    if key == "layers" and "layers" in names and takes.layers:
        return _missing_layers(sources, given, target, takes.layers)
    if key in ("hypothesis", "base_annotations") and key in names:
        form = takes.hypothesis
        if form and not any(_fits(source, form) for source in sources):
            return f"a {given} result does not have the form that {target} takes as its {key}"
    return None


def _missing_layers(sources: list[TaskType], given: str, target: str, form: str) -> str | None:
    shapes = list(dict.fromkeys(shape for source in sources for shape in source.yields))
    if not LAYER_KEYS.keys() & set(shapes):
        return f"Scale's layers have no key for the annotations of {given} ({', '.join(shapes) or 'it has none'})"
    takes_file = form == "file"
    if takes_file and all(source.result_form != "file" for source in sources):
        return (
            f"{target} takes a file with layers for each frame, and a {given} result has those of one image"
        )
    if not takes_file and all(source.result_form == "file" for source in sources):
        return (
            f"{target} takes the layers of one image, and a {given} result has a file with many;"
            " choose a frame: as_layers(at_frame(annotations, `0`))"
        )
    return None


def _fits(source: TaskType, form: str) -> bool:
    """Return whether the result of a task type has a form of hypothesis."""
    match form:
        case "segmentation":
            return source.name == "segmentannotation"
        case "file":
            return source.result_form == "file" and source.name.startswith("video")
        case _:
            return (
                source.result_form == "inline" and source.name != "segmentannotation" and bool(source.yields)
            )
