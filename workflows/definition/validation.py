"""What can be known of a workflow before it costs money: its names, what starts what, and what Scale would refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from scale.layers import LAYER_KEYS
from scale.parameters import UNKNOWN, check_parameters
from scale.task_types import CREATABLE, task_type
from scale.task_types.request import Parameters
from workflows.definition.expressions import (
    FAN_OUT_ROOTS,
    JOIN_ROOTS,
    ROOTS,
    Constant,
    Expression,
    Fields,
    Items,
    Template,
    compile_template,
    expressions_in,
    suggestion,
)
from workflows.definition.reducers import REDUCERS, find_reducer
from workflows.planning.identity import MAX_UNIQUE_ID_LENGTH
from workflows.planning.requests import CLEAR_UNIQUE_ID_REFUSED, load_handler

Path = tuple[str | int, ...]
Found = Iterator[tuple[Path, str]]
Steps = Mapping[str, Mapping[str, Any]]  # step → its fields, as far as the schema took them


class Finding(NamedTuple):
    path: Path
    message: str
    warning: bool = False
    line: int | None = None  # None: where the path is written


def check(name: str, written: Steps, refused: Sequence[Finding] = ()) -> list[Finding]:
    """What is wrong beyond what the schema has `refused`, and what is perhaps not meant (`warning`)."""
    steps = {
        step: {key: value for key, value in fields.items() if value is not None}
        for step, fields in written.items()
    }
    found = [
        Finding(("steps", step, *path), message)
        for step, fields in steps.items()
        for path, message in (
            *_says_what_to_do(step, written[step], steps),
            *_expressions(fields),
            *_create(step, fields, steps),
            *_join(fields, steps),
            *_on_error(step, fields, steps),
            *_python(fields),
            *_unique_id(name, step, fields),
        )
    ]
    wrong = [finding.path for finding in (*refused, *found)]
    if not any(path[:1] == ("steps",) and path[2:3] in ((), ("after",), ("on_error",)) for path in wrong):
        found += [Finding(("steps", step, "after"), message) for step, message in _never_started(steps)]
    found += [
        Finding(("steps", step, *path), message, warning=True)
        for step, fields in steps.items()
        for path, message in _undocumented(fields)
    ]
    if not wrong:
        found += [
            Finding(("steps", step, "after"), message, warning=True) for step, message in _circles(steps)
        ]
    return found


# What a step is made of.


def _says_what_to_do(step: str, fields: Mapping[str, Any], steps: Steps) -> Found:
    """`fields` as they are written: also those with a value that the schema refused."""
    started = any(_started(other) == step for other in steps.values())
    if "after" not in fields and not started:
        yield ("after",), "is required: which results does the step look at?"
    for other in (fields.get("after") or {}).get("step", ()):
        if other not in steps:
            yield ("after", "step"), f"there is no step {other!r}{suggestion(other, steps)}"
        elif steps[other].keys() >= {"join", "after"} and not steps[other].keys() & {"create", "python"}:
            yield ("after", "step"), f"the step {other!r} creates no tasks"
    if not fields.keys() & {"create", "python", "join"}:
        yield (), "does nothing: `create` is required"
    if "create" in fields and "python" in fields:
        yield ("python",), "stands beside `create`: expected one of them"
    each = fields.get("for_each")
    if "where" in fields and "for_each" not in fields:
        yield ("where",), "filters a `for_each`, and there is none"
    if "crop" in fields and (each.kind != "annotation" if each else "for_each" not in fields):
        yield ("crop",), "cuts around an annotation: expected `for_each: annotation`"
    with_create = [key for key in ("for_each", "crop", "copies") if key in fields]
    if "create" not in fields and with_create and fields.keys() & {"python", "join"}:
        yield (with_create[0],), "stands with `create`"


def _started(fields: Mapping[str, Any]) -> str | None:
    """The step that this one's on_error starts."""
    start: str | None = (fields.get("on_error") or {}).get("start")
    return start


def _on_error(step: str, fields: Mapping[str, Any], steps: Steps) -> Found:
    on_error = fields.get("on_error") or {}
    start = on_error.get("start")
    if start == step:
        yield ("on_error", "start"), "is this step itself: `retry` asks again"
    elif start is not None and start not in steps:
        yield ("on_error", "start"), f"there is no step {start!r}{suggestion(start, steps)}"
    if "params" in on_error:
        if not isinstance(on_error["params"], dict):
            yield ("on_error", "params"), "expected a mapping: the fields that change"
            return
        template, errors = compile_template(on_error["params"])
        for path, message in errors.items():
            yield ("on_error", "params", *path), message
        for path, expression in expressions_in(template):
            yield from _unknown_names(("on_error", "params", *path), expression, list(ROOTS))
        yield from _added(template, ("on_error", "params"))


def _join(fields: Mapping[str, Any], steps: Steps) -> Found:
    join, after = fields.get("join"), fields.get("after", {})
    if join is None:
        return
    if len(after.get("step", ())) != 1:
        yield ("join",), "waits for the tasks of one step: expected `after: {step: …}` with its name"
    for key in ("type", "project", "batch", "tags", "metadata", "environment"):
        if key in after:
            yield ("after", key), "stands beside `join`: its tasks are told by `step` and `state` alone"
    if "repeat" in fields:
        yield ("repeat",), "stands beside `join`: put it at the step whose tasks are joined"
    if (reduce := join.get("reduce")) is None:
        return
    found = find_reducer(reduce.by)
    if found is None:
        names = [one.name for one in REDUCERS]
        yield (
            ("join", "reduce"),
            f"there is no reducer {reduce.by!r}{suggestion(reduce.by, names)} (there is {', '.join(names)})",
        )
        return
    for option, value in reduce.options.items():
        if option not in found.options:
            known = ", ".join(found.options) or "none"
            yield ("join", "reduce", option), f"is no option of {found.name} (it has {known})"
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            yield ("join", "reduce", option), f"expected a number from 0 to 1, not {value!r}"


def _python(fields: Mapping[str, Any]) -> Found:
    if (name := fields.get("python")) is None:
        return
    try:
        if not callable(load_handler(name)):
            yield ("python",), f"{name} is no function"
    except Exception as error:  # importing it runs code of the operator's own
        yield ("python",), f"{name} can't be imported: {type(error).__name__}: {error}"


_TASK_ID, _UUID, _DIGEST, _FRAME, _RETRY = 24, 36, 16, 6, len(".retry-1")


def _unique_id(name: str, step: str, fields: Mapping[str, Any]) -> Found:
    """The longest unique_id of a step: Scale's task_ids have 24 characters, uuids 36."""
    each = fields.get("for_each")
    copies, on_error = fields.get("copies", 1), fields.get("on_error") or {}
    longest = len(name) + 1 + len(step) + 1 + _TASK_ID
    if each is not None:
        longest += 1 + {"annotation": _UUID, "frame": _FRAME, "list": _UUID}.get(each.kind, _DIGEST)
    longest += 1 + len(str(copies)) if copies > 1 else 0
    longest += 1 + _DIGEST if "repeat" in fields else 0
    longest += _RETRY if "retry" in on_error else 0
    if longest > MAX_UNIQUE_ID_LENGTH:
        yield (
            (),
            f"its unique_ids could have {longest} characters, and {MAX_UNIQUE_ID_LENGTH} is the most: shorten the names by {longest - MAX_UNIQUE_ID_LENGTH}",
        )


# What its expressions ask for.


def _expressions(fields: Mapping[str, Any]) -> Found:
    """Names that the view of this step does not have; and, in the request, what is wrong with an expression itself."""
    join = tuple(JOIN_ROOTS) if "join" in fields else ()
    each = fields.get("for_each")
    element = () if each is None else ("item",) if each.kind == "list" else ("item", each.kind)
    crop = ("crop",) if "crop" in fields else ()
    copy = ("copy",) if "copies" in fields else ()
    if isinstance(fields.get("when"), Expression):
        yield from _unknown_names(("when",), fields["when"], [*ROOTS, *join])
    if each is not None and each.list is not None:
        yield from _unknown_names(("for_each",), each.list, [*ROOTS, *join])
    if isinstance(fields.get("where"), Expression):
        yield from _unknown_names(("where",), fields["where"], [*ROOTS, *join, *element])
    if "params" in (create := fields.get("create") or {}):
        template, errors = compile_template(create["params"])
        for path, message in errors.items():
            yield ("create", "params", *path), message
        for path, expression in expressions_in(template):
            known = [*ROOTS, *join, *element, *crop, *copy]
            yield from _unknown_names(("create", "params", *path), expression, known)


def _unknown_names(path: Path, expression: Expression, known: list[str]) -> Found:
    for word in sorted(expression.names - set(known)):
        if there := FAN_OUT_ROOTS.get(word) or JOIN_ROOTS.get(word):
            yield path, f"`{expression.source}`: `{word}` is only there {there[1]}"
        else:
            yield (
                path,
                f"`{expression.source}`: there is no `{word}`{suggestion(word, known)} (there is {', '.join(known)})",
            )


# What Scale would refuse.

_ADDED = {
    "callback_url": "is added by the service: leave it out",
    "unique_id": "is added by the service: leave it out",
    "clear_unique_id_on_error": CLEAR_UNIQUE_ID_REFUSED,
}


def _added(template: Template, at: Path) -> Found:
    for key in (key for key, _ in template.items if key in _ADDED) if isinstance(template, Fields) else ():
        yield (*at, key), _ADDED[key]


def _create(step: str, fields: Mapping[str, Any], steps: Steps) -> Found:
    create = fields.get("create") or {}
    close = suggestion(create.get("type", ""), [known.name for known in CREATABLE])
    if close and task_type(create["type"]).name != create["type"]:  # a type that is new at Scale is taken
        yield ("create", "type"), f"there is no task type {create['type']!r}{close}"
        return
    if not {"type", "params"} <= create.keys():
        return
    template, _ = compile_template(create["params"])
    at: Path = ("create", "params")
    yield from _added(template, at)
    if not isinstance(template, Fields):
        return  # one expression gives it all: looked at when it has a value
    request = _known_request(fields)
    for name in fields.get("mirror", ()):
        if name not in request:
            yield ("mirror",), f"the request has no {name!r}{suggestion(name, request)}"
    for field, message, warning in check_parameters(create["type"], request):
        if not warning:
            yield (*at, *_path(field)), message
    sources = _sources(step, fields, steps)
    for key, inner in template.items:
        names = {name for _, expression in expressions_in(inner) for name in expression.names}
        if reason := _lost_on_the_way(key, names, sources, create["type"]):
            yield (*at, key), reason


def _undocumented(fields: Mapping[str, Any]) -> Found:
    """Parameters of the request that Scale's documentation does not list: perhaps new, perhaps misspelled."""
    create = fields.get("create") or {}
    if not {"type", "params"} <= create.keys():
        return
    for field, message, warning in check_parameters(create["type"], _known_request(fields)):
        if warning:
            yield ("create", "params", *_path(field)), message


def _known_request(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request of a step as far as it is known without a result; {} if one expression gives it all."""
    template, _ = compile_template(fields["create"]["params"])
    if not isinstance(template, Fields):
        return {}
    request: dict[str, Any] = _known(template)
    if "crop" in fields:
        request.setdefault("attachment", UNKNOWN)
    return request


def _known(template: Template) -> Any:
    """The value of a template as far as it is known without a result."""
    match template:
        case Constant(value):
            return value
        case Fields(items):
            return {key: _known(inner) for key, inner in items}
        case Items(items):
            return [_known(inner) for inner in items]
        case _:
            return UNKNOWN


def _path(field: str) -> Path:
    return tuple(int(word) if word.isdigit() else word for word in field.split(".")) if field else ()


def _sources(step: str, fields: Mapping[str, Any], steps: Steps) -> list[str]:
    """The task types whose results a step looks at; empty when that can't be told."""
    after = fields.get("after", {})
    if "type" in after:
        return list(after["type"])
    types = [
        (steps.get(name, {}).get("create") or {}).get("type")
        for name in after.get("step", ())
        if name != step
    ]
    return [] if None in types or "join" in fields else [name for name in types if name]


def _lost_on_the_way(key: str, names: set[str], sources: list[str], target: str) -> str | None:
    """Why what a request asks of its source's result can never be there."""
    known = [task_type(name) for name in sources]
    if not known or any(source.name == "generic" for source in known):
        return None
    table = task_type(target).request or Parameters()
    told = " or ".join(sources)
    if key == "layers" and "layers" in names and table.layers:
        shapes = list(dict.fromkeys(shape for source in known for shape in source.yields))
        if not LAYER_KEYS.keys() & set(shapes):
            return f"Scale's layers have no key for what {told} gives ({', '.join(shapes) or 'no shapes'})"
        if table.layers == "file" and all(source.result_form != "file" for source in known):
            return f"{target} takes a file of layers, one a frame, and {told} gives those of one image"
        if table.layers != "file" and all(source.result_form == "file" for source in known):
            return f"{target} takes the layers of one image, and {told} gives a file of many: as_layers(at_frame(annotations, `0`))"
    if key in ("hypothesis", "base_annotations") and key in names:
        form = table.hypothesis
        if form and not any(_fits(source.name, source.result_form, source.yields, form) for source in known):
            return f"{told} does not give what {target} takes as its {key}"
    return None


def _fits(name: str, result_form: str, yields: tuple[str, ...], form: str) -> bool:
    match form:
        case "segmentation":
            return name == "segmentannotation"
        case "file":
            return result_form == "file" and name.startswith("video")
        case _:
            return result_form == "inline" and name != "segmentannotation" and bool(yields)


# What starts what.


def _never_started(steps: Steps) -> Iterator[tuple[str, str]]:
    """Steps that wait for each other, and nothing from outside starts any of them."""
    started: set[str] = set()
    while True:
        more = {
            step
            for step, fields in steps.items()
            if step not in started
            and (
                ("after" in fields and not (others := set(fields["after"].get("step", ())) - {step}))
                or ("after" in fields and others & started)
                or any(_started(steps[other]) == step for other in started)
            )
        }
        if not more:
            break
        started |= more
    for step in steps:
        if step not in started:
            yield step, "nothing starts this step: it waits for steps that wait for it"


def _circles(steps: Steps) -> Iterator[tuple[str, str]]:
    """Steps that take each other's results by their type alone: the depth limit would be what ends them."""
    follows = {
        step: [other for other, fields in steps.items() if other != step and _takes(fields, steps[step])]
        for step in steps
    }
    for step, others in follows.items():
        for other in others:
            if step in follows[other] and step < other:
                yield (
                    step,
                    f"`{step}` and `{other}` take each other's results until the depth limit: narrow `after`, or name the steps",
                )


def _takes(fields: Mapping[str, Any], made_by: Mapping[str, Any]) -> bool:
    """Whether a step would look at the tasks of another, which it does not name."""
    after, create = fields.get("after"), made_by.get("create") or {}
    if after is None or after.get("step") or create.get("type") not in after.get("type", ()):
        return False
    params = create.get("params")
    project = params.get("project") if isinstance(params, dict) else None
    return not ("project" in after and isinstance(project, str) and project not in after["project"])
