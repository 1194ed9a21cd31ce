"""The examples in a workflow file: a payload, and the follow-ups that it must produce. `weighbridge workflows test` runs them.

Only that command reads the files that examples name, never the service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.definition.model import Example, Workflow
from workflows.definition.reading import read_regular_file
from workflows.definition.recipes import displayed, split_files
from workflows.planning.identity import id_segment, unique_id
from workflows.planning.inputs import input_task
from workflows.planning.joins import FIRE, Child, Verdict, plan_join
from workflows.planning.plan import PlannedFollowUp, plan
from workflows.planning.view import Source, View, view

MAX_PAYLOAD_BYTES = 10 * 1024 * 1024

CONTEXT_KEYS: dict[str, tuple[tuple[type, ...], str]] = {
    "payload": ((dict, str), "the body of a callback, or its path"),
    "row": ((dict,), "a mapping"),
    "step": ((str,), "the name of a step"),
    "parent": ((dict, str), "the body of a callback, or its path"),
    "request": ((dict,), "a mapping"),
    "environment": ((str,), "live or test"),
    "depth": ((int,), "a whole number"),
    "recalled": ((bool,), "true or false"),
    "annotations": ((list,), "a list"),
    "join": ((str,), "the name of a step"),
    "results": ((list,), "a list of bodies, or of their paths"),
}
"""Keys of a `given` that is more than the body of a callback: (types, their description)."""


@dataclass(frozen=True)
class ExampleResult:
    """What an example produced. It passed if there are no differences."""

    example: Example
    differences: tuple[str, ...]
    follow_ups: tuple[PlannedFollowUp, ...]


def read_given(written: Any, workflow_path: str) -> Mapping[str, Any]:
    """Return an example's `given` with its payloads read: `{"payload": body, …}`. ValueError or OSError say what is wrong.

    Paths are relative to the folder of the workflow file, and must stay below it.
    """
    if not isinstance(written, dict) or not written.keys() & {"payload", "row"}:
        written = {"payload": written}
    if unknown := [key for key in written if key not in CONTEXT_KEYS]:
        raise ValueError(f"{', '.join(unknown)} is not a known key (known keys: {', '.join(CONTEXT_KEYS)})")
    for key, value in written.items():
        types, description = CONTEXT_KEYS[key]
        if not isinstance(value, types):
            raise ValueError(f"{key}: expected {description}, not {value!r}")
    folder = Path(workflow_path).parent
    bodies: dict[str, Any] = {}
    if "payload" in written:
        bodies["payload"] = _body(written["payload"], folder)
    if "parent" in written:
        bodies["parent"] = _body(written["parent"], folder)
    if "results" in written:
        bodies["results"] = [_body(result, folder) for result in written["results"]]
    return {**written, **bodies}


def _body(written: Any, folder: Path) -> dict[str, Any]:
    body = json.loads(_content(folder, written)) if isinstance(written, str) else written
    if not isinstance(body, dict) or not isinstance(body.get("task"), dict):
        raise ValueError("expected the body of a callback, with `task` and `response`, or its path")
    return body


def _content(folder: Path, written: str) -> bytes:
    try:
        return read_regular_file(folder / written, folder, MAX_PAYLOAD_BYTES)
    except ValueError as error:
        raise ValueError(f"{written} {error}") from None


def run_examples(workflow: Workflow, prefix: str = "") -> list[ExampleResult]:
    """Run every example of a workflow."""
    return [_run(workflow, example, prefix) for example in workflow.examples]


def _run(workflow: Workflow, example: Example, prefix: str) -> ExampleResult:
    try:
        given = read_given(example.given, workflow.path)
    except (OSError, ValueError, RecursionError) as error:
        return ExampleResult(example, (f"given: {error}",), ())
    payload = given.get("payload") or {"task": input_task(workflow.name, "example", given.get("row", {}))}
    seen = _view(workflow, payload, given)
    name = given.get("join")
    if name is None:
        follow_ups = plan(seen, workflow, prefix)
    else:
        follow_ups = _joined(workflow, name, seen, given.get("results", ()), prefix)
    return ExampleResult(example, tuple(_differences(follow_ups, example.expect)), tuple(follow_ups))


def _view(
    workflow: Workflow, body: Mapping[str, Any], context: Mapping[str, Any], created_by: str | None = None
) -> View:
    """Return the view of a callback's body, as the service would have it."""
    task = body["task"]
    response = body.get("response")
    step = created_by or context.get("step")
    source = None
    if step:
        first = unique_id("", workflow.name, step, id_segment(str(task.get("task_id"))))
        request, files = split_files(context.get("request", {}))
        source = Source(workflow.name, step, first, "source", request=request, files=files)
    return view(
        task,
        task.get("response") if response is None else response,
        environment=context.get("environment", "live"),
        annotations=context.get("annotations"),
        recalled=context.get("recalled", False),
        source=source,
        parent=_view(workflow, context["parent"], {}) if "parent" in context else None,
        depth=context.get("depth", 1 if step else 0),
    )


def _joined(
    workflow: Workflow, name: str, seen: View, results: Sequence[Any], prefix: str
) -> list[PlannedFollowUp]:
    """Return the follow-ups of a join over these results of its fan-out."""
    step = workflow.step(name)
    if step is None or step.join is None or step.after is None:
        return []
    source = step.after.step[0]
    children = tuple(
        Child(f"{source}.{number}", "completed", _view(workflow, body, {}, source))
        for number, body in enumerate(results, 1)
    )
    key = unique_id(prefix, workflow.name, name, id_segment(seen.task_id))
    return list(plan_join(seen, workflow, step, Verdict(FIRE, "", children), key, prefix).follow_ups)


def _differences(follow_ups: Sequence[PlannedFollowUp], expected: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    if len(follow_ups) != len(expected):
        steps = ", ".join(follow_up.step for follow_up in follow_ups) or "none"
        found.append(f"expected {len(expected)} follow-ups, not {len(follow_ups)} ({steps})")
    for number, (follow_up, wanted) in enumerate(zip(follow_ups, expected, strict=False), 1):
        found += [f"follow-up {number}: {difference}" for difference in _differences_of(follow_up, wanted)]
    return found


def _differences_of(follow_up: PlannedFollowUp, wanted: Mapping[str, Any]) -> list[str]:
    request = displayed(follow_up.request, follow_up.files)
    values = {
        "step": follow_up.step,
        "type": follow_up.task_type,
        "state": follow_up.state,
        "unique_id": follow_up.unique_id,
        "reason": follow_up.reason,
        **{f"params.{name}": value for name, value in request.items()},
    }
    expected = {key: value for key, value in wanted.items() if key != "params"}
    expected |= {f"params.{name}": value for name, value in wanted.get("params", {}).items()}
    because = f" ({follow_up.reason})" if follow_up.reason and wanted.get("state") != follow_up.state else ""
    return [
        f"{key} is {values.get(key)!r}; expected {value!r}{because if key == 'state' else ''}"
        for key, value in expected.items()
        if values.get(key) != value
    ]
