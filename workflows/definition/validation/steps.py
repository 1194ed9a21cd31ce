"""Rules for the parts of a step: which belong together, which exclude each other, and whether what they name exists."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from workflows.definition.expressions import suggestion
from workflows.definition.model import MAX_UNIQUE_ID_LENGTH
from workflows.definition.python_steps import is_allowed, load_function
from workflows.definition.reducers import REDUCERS, find_reducer
from workflows.definition.validation.finding import Fields, Finding, Steps, error_starter


def check(
    workflow: str, name: str, written: Fields, steps: Steps, python_modules: Collection[str]
) -> Iterator[Finding]:
    """Yield the findings of one step. `written`: its fields, null where the schema refused them."""
    fields = steps[name]
    yield from _after(name, written, steps)
    yield from _action(written)
    yield from _fan_out(written)
    yield from _on_error(name, fields, steps)
    yield from _join(fields)
    yield from _python(fields, python_modules)
    yield from _unique_id(workflow, name, fields)


def _after(name: str, written: Fields, steps: Steps) -> Iterator[Finding]:
    starters = {"after", "start"} & written.keys()
    if not starters and not any(error_starter(other) == name for other in steps.values()):
        yield Finding(("after",), "is required: it says which results trigger the step; or add `start`")
    if "start" in written and (excluded := [key for key in ("after", "join", "repeat") if key in written]):
        yield Finding(("start",), f"cannot be combined with `{excluded[0]}`; remove one of them")
    for other in (written.get("after") or {}).get("step", ()):
        if other not in steps:
            yield Finding(("after", "step"), f"there is no step {other!r}{suggestion(other, steps)}")
        elif steps[other].keys() >= {"join", "after"} and not steps[other].keys() & {"create", "python"}:
            yield Finding(("after", "step"), f"the step {other!r} creates no tasks, so nothing follows it")


def _action(written: Fields) -> Iterator[Finding]:
    if not written.keys() & {"create", "python", "join"}:
        yield Finding((), "has no action; add `create`")
    if "create" in written and "python" in written:
        yield Finding(("python",), "cannot be combined with `create`; remove one of them")


def _fan_out(written: Fields) -> Iterator[Finding]:
    each = written.get("for_each")
    if "where" in written and "for_each" not in written:
        yield Finding(
            ("where",), "filters the elements of `for_each`, which is missing; use `when` to filter results"
        )
    if "crop" in written and (each.kind != "annotation" if each else "for_each" not in written):
        yield Finding(("crop",), "cuts around an annotation; add `for_each: annotation`")
    needs_create = [key for key in ("for_each", "crop", "copies") if key in written]
    create = written.get("create") or {}
    if isinstance(written.get("copies"), list) and not isinstance(create.get("params", {}), dict):
        yield Finding(("copies",), "changes fields of `params`, which is one expression; use a number")
    if "create" not in written and needs_create and written.keys() & {"python", "join"}:
        yield Finding((needs_create[0],), "needs `create`")


def _on_error(name: str, fields: Fields, steps: Steps) -> Iterator[Finding]:
    start = error_starter(fields)
    if start == name:
        yield Finding(("on_error", "start"), "is this step itself; use `retry` to send the request again")
    elif start is not None and start not in steps:
        yield Finding(("on_error", "start"), f"there is no step {start!r}{suggestion(start, steps)}")


def _join(fields: Fields) -> Iterator[Finding]:
    join, after = fields.get("join"), fields.get("after", {})
    if join is None:
        return
    if len(after.get("step", ())) != 1:
        yield Finding(("join",), "joins the tasks of one step; add `after: {step: …}` with its name")
    for key in ("type", "project", "batch", "tags", "metadata", "environment"):
        if key in after:
            yield Finding(
                ("after", key), "cannot be combined with `join`; only `step` and `state` select its tasks"
            )
    if "repeat" in fields:
        yield Finding(
            ("repeat",), "cannot be combined with `join`; move it to the step whose tasks are joined"
        )
    if (reduce := join.get("reduce")) is not None:
        yield from _reducer(reduce.by, reduce.options)


def _reducer(name: str, options: Fields) -> Iterator[Finding]:
    reducer = find_reducer(name)
    if reducer is None:
        names = [known.name for known in REDUCERS]
        yield Finding(
            ("join", "reduce"),
            f"there is no reducer {name!r}{suggestion(name, names)} (reducers: {', '.join(names)})",
        )
        return
    for option, value in options.items():
        if option not in reducer.options:
            known = ", ".join(reducer.options) or "none"
            yield Finding(
                ("join", "reduce", option), f"is not an option of {reducer.name} (options: {known})"
            )
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            yield Finding(("join", "reduce", option), f"expected a number from 0 to 1, not {value!r}")


def _python(fields: Fields, python_modules: Collection[str]) -> Iterator[Finding]:
    if (name := fields.get("python")) is None:
        return
    module = name.partition(":")[0]
    if not is_allowed(name, python_modules):
        yield Finding(
            ("python",),
            f"the module {module} is not allowed; add it to PYTHON_STEPS if you trust everyone who can edit it",
        )
        return
    try:
        load_function(name)
    except (Exception, SystemExit) as error:  # importing it runs the operator's own code
        yield Finding(("python",), f"cannot import {name}: {type(error).__name__}: {error}")


_TASK_ID, _INPUT, _UUID, _DIGEST, _FRAME, _RETRY = 24, 40, 36, 16, 6, len(".retry-1")


def _unique_id(workflow: str, name: str, fields: Fields) -> Iterator[Finding]:
    """Check the longest unique_id of a step: Scale's task_ids have 24 characters, uuids 36."""
    each, copies = fields.get("for_each"), fields.get("copies", 1)
    copies = len(copies) if isinstance(copies, list) else copies
    can_retry = any("retry" in (fields.get(end) or {}) for end in ("on_error", "on_rejected"))
    longest = len(workflow) + 1 + len(name) + 1 + (_INPUT if "start" in fields else _TASK_ID)
    if each is not None:
        longest += 1 + {"annotation": _UUID, "frame": _FRAME, "list": _UUID}.get(each.kind, _DIGEST)
    longest += 1 + len(str(copies)) if copies > 1 else 0
    longest += 1 + _DIGEST if "repeat" in fields else 0
    longest += _RETRY if can_retry else 0
    if longest > MAX_UNIQUE_ID_LENGTH:
        excess = longest - MAX_UNIQUE_ID_LENGTH
        yield Finding(
            (),
            f"its unique_ids can have {longest} characters, at most {MAX_UNIQUE_ID_LENGTH} are possible;"
            f" shorten the names by {excess}",
        )
