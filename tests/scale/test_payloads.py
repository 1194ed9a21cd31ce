"""Each recorded body is parsed as its expectation says: `<case>.json` and `<case>.expected.json`."""

import json
from pathlib import Path
from typing import Any

import pytest

from scale.envelope import ABSENT, parse_callback
from scale.layers import base_annotations, flatten, hypothesis, layers
from scale.task_types import TASK_TYPES, parse_response

PAYLOADS = Path(__file__).parents[1] / "payloads"
BODIES = sorted(
    path
    for path in PAYLOADS.glob("*/*.json")
    if not path.name.endswith(".expected.json") and path.with_suffix(".expected.json").exists()
)


def what_it_becomes(body: bytes) -> dict[str, Any]:
    """What is understood of a body, as JSON; what is empty is left out."""
    callback = parse_callback(body, "live")
    task = callback.task
    type_name, params = (task.type, task.params) if task else (None, None)
    result = parse_response(type_name, callback.response, params)
    found, without_layer = layers(flatten(type_name, callback.response, params))
    seen = {
        "environment": callback.environment,
        "event": callback.event,
        "clock": callback.clock and callback.clock.isoformat(),
        "status": callback.status,
        "batch": callback.batch,
        "review": task and task.review_status,
        "review_comments": task and task.review_comments,
        "reviewed_at": task and task.reviewed_at and task.reviewed_at.isoformat(),
        "without_response": callback.response is ABSENT,
        "warnings": callback.warnings,
        "annotations": [
            {k: v for k, v in row._asdict().items() if v is not None} for row in result.annotations
        ],
        "artifacts": [list(artifact) for artifact in result.artifacts],
        "answer": result.answer,
        "error": result.error,
        "global_attributes": result.global_attributes,
        "result_warnings": result.warnings,
        "layers": found,
        "without_layer": without_layer,
        "hypothesis": None if result.error else hypothesis(callback.response, type_name, params),
        "base_annotations": None if result.error else base_annotations(callback.response, type_name, params),
    }
    return {key: value for key, value in seen.items() if value not in (None, [], {}, False)}


@pytest.mark.parametrize("path", BODIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_body_becomes_what_is_next_to_it(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expected.json").read_text())
    assert json.loads(json.dumps(what_it_becomes(path.read_bytes()))) == expected


def test_every_recorded_body_has_its_expectation() -> None:
    bodies = {path for path in PAYLOADS.glob("*/*.json") if b"task_id" in path.read_bytes()}
    assert {path.name for path in bodies if ".expected" not in path.name} - {
        path.name for path in BODIES
    } == set()


def test_every_task_type_has_a_recorded_body() -> None:
    assert {known.name for known in TASK_TYPES} <= {path.parent.name for path in BODIES}
