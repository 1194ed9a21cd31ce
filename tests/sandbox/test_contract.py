"""Tests that scale/ parses everything the sandbox sends without a warning, and that it has the recorded form."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.examples import EXAMPLES, example
from sandbox.pytest_plugin import ScaleSandbox
from scale.envelope import parse_callback
from scale.task_types import parse_response
from tests.sandbox.callback_receiver import CallbackReceiver

PAYLOADS = Path(__file__).parents[1] / "payloads"
RECORDED = (
    "annotation/boxes_of_2017",
    "annotation/live_form",
    "annotation/accepted",
    "annotation/error_of_an_attachment",
    "categorization/one",
    "comparison/choice_and_fields",
    "imageannotation",
    "segmentannotation/instances",
    "transcription/repeatable_fields",
    "videoannotation/file_of_frames",
)
# Written by hand on old recordings, or on the side of Scale that no customer's request reaches.
NOT_OURS = {
    "callback_succeeded",
    "callback_completed",
    "work_started",
    "postProcessingResults",
    "isProcessed",
    "projectId",
    "processed_attachments",
}
EVENTS = ["completed", "accepted", "rejected", "commented", "fixed", "recalled", "completed"]


def bodies(cases: tuple[str, ...]) -> list[Path]:
    found = [PAYLOADS / f"{case}.json" for case in cases]
    return [
        path
        for one in found
        for path in ([one] if one.exists() else sorted(one.with_suffix("").glob("*.json")))
        if not path.name.endswith(".expected.json")
    ]


def kinds(value: Any) -> Any:
    """The JSON type; integers and fractions are both numbers."""
    names = {bool: "boolean", dict: "object", list: "array", str: "string", int: "number", float: "number"}
    return names.get(type(value), "null")


@pytest.mark.parametrize("type_name", EXAMPLES)
def test_every_event_of_every_type_can_be_parsed(
    slow_sandbox: ScaleSandbox, receiver: CallbackReceiver, type_name: str
):
    request = {
        **example(type_name),
        "callback_url": receiver.url,
        "unique_id": "u",
        "tags": ["t"],
        "metadata": {"m": 1},
    }
    task = slow_sandbox.create(type_name, **request)["task_id"]
    slow_sandbox.complete(task)
    for result in ("accepted", "rejected", "commented", "fixed"):
        slow_sandbox.audit(task, result, "a comment")
    slow_sandbox.recall(task)
    slow_sandbox.complete(task)
    clocks = []
    for event, arrived in zip(EVENTS, receiver.wait_for(len(EVENTS)), strict=True):
        understood = parse_callback(arrived.body, "live")
        assert (understood.event, understood.environment, understood.warnings) == (event, "live", [])
        assert understood.task_id == task
        assert understood.task is not None
        assert (understood.task.type, understood.task.unique_id, understood.task.tags) == (
            type_name,
            "u",
            ["t"],
        )
        assert parse_response(type_name, understood.response, understood.task.params).warnings == []
        clocks.append(understood.clock)
    assert clocks == sorted(set(clocks))


@pytest.mark.parametrize("kind", ["attachments", "frames", "message"])
def test_every_error_can_be_parsed(slow_sandbox: ScaleSandbox, receiver: CallbackReceiver, kind: str):
    task = slow_sandbox.create("videoannotation", **example("videoannotation"), callback_url=receiver.url)[
        "task_id"
    ]
    slow_sandbox.fail(task, kind)
    understood = parse_callback(receiver.wait_for(1)[0].body, "live")
    assert (understood.event, understood.status, understood.warnings) == ("error", "error", [])
    assert parse_response("videoannotation", understood.response, {}).error == understood.response


def test_the_callback_of_a_batch_can_be_parsed(slow_sandbox: ScaleSandbox, receiver: CallbackReceiver):
    slow_sandbox.call("POST", "/v1/projects", {"name": "p", "type": "annotation"})
    slow_sandbox.call("POST", "/v1/batches", {"project": "p", "name": "b", "callback": receiver.url})
    slow_sandbox.call("POST", "/sandbox/api/batches/b/complete")
    understood = parse_callback(receiver.wait_for(1)[0].body, "live")
    assert (understood.event, understood.batch, understood.task_id) == ("batch", "b", None)


@pytest.mark.parametrize("path", bodies(RECORDED), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_request_comes_back_in_the_recorded_envelope(
    slow_sandbox: ScaleSandbox, receiver: CallbackReceiver, path: Path
):
    recorded = json.loads(path.read_bytes())
    was = recorded["task"]
    request = {name: was[name] for name in ("instruction", "metadata", "urgency") if name in was} | was[
        "params"
    ]
    task = slow_sandbox.create(was["type"], **request, callback_url=receiver.url)["task_id"]
    if was["status"] == "error":
        slow_sandbox.fail(task)
    else:
        slow_sandbox.complete(task)
    if "customer_review_status" in was:
        slow_sandbox.audit(task, was["customer_review_status"], "a comment")
    sent = receiver.wait_for(len(slow_sandbox.callbacks(task)))[-1].json
    assert recorded.keys() <= sent.keys() | {"status"}
    assert {name: kinds(value) for name, value in was.items() if name in sent["task"]} == {
        name: kinds(value) for name, value in sent["task"].items() if name in was
    }
    missing = was.keys() - sent["task"].keys() - NOT_OURS
    assert missing <= {"project", "batch", "tags", "unique_id", "priority"}, missing
    assert {name: kinds(value) for name, value in was["params"].items()} == {
        name: kinds(sent["task"]["params"].get(name)) for name in was["params"]
    }
