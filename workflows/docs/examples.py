"""Examples inside of a workflow file: given this payload, these requests. What `weighbridge workflows test` tries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.definition.model import Example, Workflow
from workflows.planning.identity import id_segment, unique_id
from workflows.planning.joins import FIRE, Child, Verdict, plan_join
from workflows.planning.plan import PlannedFollowUp, plan
from workflows.planning.view import Source, View, view

# Keys of a `given` that is more than a callback's body: which types each has, in code and in words.
AROUND: dict[str, tuple[tuple[type, ...], str]] = {
    "payload": ((dict, str), "the body of a callback, or the path of one"),
    "step": ((str,), "the name of a step"),
    "parent": ((dict, str), "the body of a callback, or the path of one"),
    "request": ((dict,), "a mapping"),
    "environment": ((str,), "live or test"),
    "depth": ((int,), "a whole number"),
    "recalled": ((bool,), "true or false"),
    "annotations": ((list,), "a list"),
    "join": ((str,), "the name of a step"),
    "results": ((list,), "a list of bodies, or of their paths"),
}


@dataclass(frozen=True)
class ExampleResult:
    """What became of an example: it passed when nothing differs."""

    example: Example
    differences: tuple[str, ...]
    follow_ups: tuple[PlannedFollowUp, ...]


def read_given(written: Any, beside: str) -> Mapping[str, Any]:
    """An example's `given` with its payloads read: `{"payload": body, …}`. ValueError or OSError say what is wrong."""
    if not isinstance(written, dict) or "payload" not in written:
        written = {"payload": written}
    if unknown := [key for key in written if key not in AROUND]:
        raise ValueError(f"{', '.join(unknown)} is not known here (known: {', '.join(AROUND)})")
    for key, value in written.items():
        types, in_words = AROUND[key]
        if not isinstance(value, types):
            raise ValueError(f"{key}: expected {in_words}, not {value!r}")
    bodies: dict[str, Any] = {"payload": _body(written["payload"], beside)}
    if "parent" in written:
        bodies["parent"] = _body(written["parent"], beside)
    if "results" in written:
        bodies["results"] = [_body(result, beside) for result in written["results"]]
    return {**written, **bodies}


def _body(written: Any, beside: str) -> dict[str, Any]:
    body = json.loads((Path(beside).parent / written).read_bytes()) if isinstance(written, str) else written
    if not isinstance(body, dict) or not isinstance(body.get("task"), dict):
        raise ValueError("expected the body of a callback, with `task` and `response`, or the path of one")
    return body


def run_examples(workflow: Workflow, prefix: str = "") -> list[ExampleResult]:
    """Every example of a workflow."""
    return [_tried(workflow, example, prefix) for example in workflow.examples]


def _tried(workflow: Workflow, example: Example, prefix: str) -> ExampleResult:
    seen = _view(workflow, example.given["payload"], example.given)
    name = example.given.get("join")
    if name is None:
        follow_ups = plan(seen, workflow, prefix)
    else:
        follow_ups = _joined(workflow, name, seen, example.given.get("results", ()), prefix)
    return ExampleResult(example, tuple(_differences(follow_ups, example.expect)), tuple(follow_ups))


def _view(
    workflow: Workflow, body: Mapping[str, Any], around: Mapping[str, Any], made_by: str | None = None
) -> View:
    """The view of a callback's body, as a receiver would have it."""
    task = body["task"]
    response = body.get("response")
    step = made_by or around.get("step")
    first = unique_id("", workflow.name, step or "", id_segment(str(task.get("task_id"))))
    return view(
        task,
        task.get("response") if response is None else response,
        environment=around.get("environment", "live"),
        annotations=around.get("annotations"),
        recalled=around.get("recalled", False),
        source=Source(workflow.name, step, first, "source", request=around.get("request", {}))
        if step
        else None,
        parent=_view(workflow, around["parent"], {}) if "parent" in around else None,
        depth=around.get("depth", 1 if step else 0),
    )


def _joined(
    workflow: Workflow, name: str, seen: View, results: Sequence[Any], prefix: str
) -> list[PlannedFollowUp]:
    """What a join makes of these results of its fan-out."""
    step = workflow.step(name)
    if step is None or step.join is None or step.after is None:
        return []
    made_by = step.after.step[0]
    children = tuple(
        Child(f"{made_by}.{number}", "completed", _view(workflow, body, {}, made_by))
        for number, body in enumerate(results, 1)
    )
    key = unique_id(prefix, workflow.name, name, id_segment(seen.task_id))
    return list(plan_join(seen, workflow, step, Verdict(FIRE, "", children), key, prefix).follow_ups)


def _differences(follow_ups: Sequence[PlannedFollowUp], expected: Sequence[Mapping[str, Any]]) -> list[str]:
    said = []
    if len(follow_ups) != len(expected):
        steps = ", ".join(follow_up.step for follow_up in follow_ups) or "none"
        said.append(f"expected {len(expected)} follow-ups, not {len(follow_ups)} ({steps})")
    for number, (follow_up, wanted) in enumerate(zip(follow_ups, expected, strict=False), 1):
        found = {
            "step": follow_up.step,
            "type": follow_up.task_type,
            "state": follow_up.state,
            "unique_id": follow_up.unique_id,
            "reason": follow_up.reason,
        }
        for key, value in wanted.items():
            if key == "params":
                said += [
                    f"follow-up {number}: params.{name} is {follow_up.request.get(name)!r}; expected {inner!r}"
                    for name, inner in value.items()
                    if follow_up.request.get(name) != inner
                ]
            elif found.get(key) != value:
                said.append(f"follow-up {number}: {key} is {found.get(key)!r}; expected {value!r}")
    return said
