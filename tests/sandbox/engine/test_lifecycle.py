"""Tests for sandbox.engine.lifecycle: complete, audit, fix, recall, fail, and dependents."""

import io
from datetime import datetime, timedelta
from typing import Any

import pytest
from PIL import Image

from sandbox.examples import EXAMPLES, example
from sandbox.pytest_plugin import SandboxError, ScaleSandbox
from tests.fake_server import FakeServer, reply
from tests.sandbox.callback_receiver import CallbackReceiver

BOXES = {"annotations": [{"label": "car", "left": 1, "top": 2, "width": 30, "height": 40}]}


def make(sandbox: ScaleSandbox, type_name: str = "annotation", **changes: Any) -> str:
    return sandbox.create(type_name, **{**example(type_name), **changes})["task_id"]


def test_at_manual_speed_a_task_stays_pending(slow_sandbox: ScaleSandbox):
    task = make(slow_sandbox)
    with pytest.raises(AssertionError):
        slow_sandbox.wait_for(lambda: slow_sandbox.task(task)["status"] == "completed", seconds=0.3)
    done = slow_sandbox.complete(task, BOXES)
    assert (done["status"], done["response"]) == ("completed", BOXES)
    assert slow_sandbox.task(task) == done
    with pytest.raises(SandboxError, match="completed"):
        slow_sandbox.complete(task)


def test_a_task_can_be_completed_without_a_response(slow_sandbox: ScaleSandbox):
    # As the recorded answer of a point annotation under a test key was.
    task = make(slow_sandbox)
    slow_sandbox.call("POST", f"/sandbox/api/tasks/{task}/complete", {"response": None})
    assert "response" not in slow_sandbox.task(task)


def test_waiting_tasks_follow_the_speed_when_it_changes(slow_sandbox: ScaleSandbox):
    tasks = [make(slow_sandbox) for _ in range(3)]
    slow_sandbox.set_speed("instant")
    for task in tasks:
        slow_sandbox.wait_for(lambda task=task: slow_sandbox.task(task)["status"] == "completed")


def test_at_realistic_speed_a_task_takes_its_time(sandbox: ScaleSandbox):
    sandbox.set_speed("realistic")
    tasks = [make(sandbox) for _ in range(20)]
    for task in tasks:
        sandbox.wait_for(lambda task=task: sandbox.task(task)["status"] == "completed")
    # 3 to 30 seconds of Scale's, an hour of which passes in a second here.
    took = [
        datetime.fromisoformat(task["completed_at"]) - datetime.fromisoformat(task["created_at"])
        for task in sandbox.tasks()
    ]
    assert min(took) >= timedelta(milliseconds=1)
    assert len({*took}) > 1


def test_the_same_request_gets_the_same_response(sandbox: ScaleSandbox):
    one, other = (
        sandbox.create("polygonannotation", key=sandbox.test_key, **example("polygonannotation"))
        for _ in "12"
    )
    assert one["response"] == other["response"]


@pytest.mark.parametrize("type_name", EXAMPLES)
def test_a_fix_of_any_type_changes_the_response_and_keeps_the_earlier_one(
    slow_sandbox: ScaleSandbox, receiver: CallbackReceiver, type_name: str
):
    task = make(slow_sandbox, type_name, callback_url=receiver.url)
    before = slow_sandbox.complete(task)["response"]
    fixed = slow_sandbox.audit(task, "fixed", "see the left one")
    assert fixed["customer_review_status"] == "fixed"
    assert fixed["response"] != before
    assert fixed["response"]["is_customer_fix"] is True
    assert fixed["prior_responses"] == [before]
    assert fixed["audits"][-1]["audit_result"] == "fixed"
    _completed, announced = receiver.wait_for(2)
    assert announced.json["task"] == fixed


def test_a_fix_can_have_a_given_response(slow_sandbox: ScaleSandbox):
    task = make(slow_sandbox)
    slow_sandbox.complete(task)
    assert slow_sandbox.audit(task, "fixed", response=BOXES)["response"] == {**BOXES, "is_customer_fix": True}


def test_each_audit_sends_a_callback(slow_sandbox: ScaleSandbox, receiver: CallbackReceiver):
    task = make(slow_sandbox, callback_url=receiver.url)
    with pytest.raises(SandboxError, match="pending"):
        slow_sandbox.audit(task, "accepted")
    slow_sandbox.complete(task, BOXES)
    for number, result in enumerate(("rejected", "commented", "accepted"), 2):
        slow_sandbox.audit(task, result, f"because {result}")
        announced = receiver.wait_for(number)[-1].json
        assert announced["task"]["customer_review_status"] == result
        assert announced["task"]["customer_review_comments"][-1] == f"because {result}"
        assert announced["response"] == BOXES
    with pytest.raises(SandboxError):
        slow_sandbox.audit(task, "approved")


def test_a_recalled_task_is_pending_without_a_response_and_completed_again(
    slow_sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    task = make(slow_sandbox, callback_url=receiver.url)
    first = slow_sandbox.complete(task)
    slow_sandbox.audit(task, "rejected")
    recalled = slow_sandbox.recall(task)
    assert recalled["status"] == "pending"
    assert recalled.keys().isdisjoint({"response", "completed_at", "customer_review_status", "audits"})
    announced = receiver.wait_for(3)[-1].json
    assert announced["task"] == recalled
    assert "response" not in announced
    second = slow_sandbox.complete(task)
    assert second["response"] != first["response"]
    assert second["completed_at"] > first["completed_at"]
    with pytest.raises(SandboxError):
        slow_sandbox.recall(make(slow_sandbox))


def test_at_instant_speed_a_recalled_task_is_completed_again(sandbox: ScaleSandbox):
    task = make(sandbox)
    sandbox.wait_for(lambda: sandbox.task(task)["status"] == "completed")
    sandbox.recall(task)
    sandbox.wait_for(lambda: sandbox.task(task)["status"] == "completed")


@pytest.mark.parametrize("kind", ["attachments", "frames", "message"])
def test_a_task_is_failed_by_hand(slow_sandbox: ScaleSandbox, kind: str):
    broken = slow_sandbox.fail(make(slow_sandbox, "videoannotation", unique_id="u"), kind)
    assert broken["status"] == "error"
    assert broken["response"]["error"]
    assert (broken["unique_id"], "completed_at" in broken) == ("u", False)
    assert "unique_id" not in slow_sandbox.fail(
        make(slow_sandbox, unique_id="v", clear_unique_id_on_error=True)
    )
    with pytest.raises(SandboxError):
        slow_sandbox.fail(make(slow_sandbox), "weather")


def test_a_completed_task_is_followed_by_its_dependents(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    dependents = {
        "defs": [
            {"type": "lidarlinking", "instruction": "Link them.", "callback_url": f"{receiver.url}/linked"},
            {"type": "lidarsegmentation"},
        ]
    }
    root = make(sandbox, "lidarannotation", callback_url=receiver.url, dependents=dependents)
    arrived = receiver.wait_for(3)
    by_type = {one.json["task"]["type"]: one for one in arrived}
    assert by_type.keys() == {"lidarannotation", "lidarlinking", "lidarsegmentation"}
    assert by_type["lidarlinking"].path == "/callback/linked"
    linked = by_type["lidarlinking"].json["task"]
    assert (linked["instruction"], linked["params"]["lidar_task"]) == ("Link them.", root)
    assert linked["params"]["attachments"] == EXAMPLES["lidarannotation"]["attachments"]


def test_dependents_that_require_an_audit_wait_for_it(sandbox: ScaleSandbox):
    dependents = {"defs": [{"type": "lidarlinking"}], "require_audit": True}
    root = make(sandbox, "lidarannotation", dependents=dependents)
    sandbox.wait_for(lambda: sandbox.task(root)["status"] == "completed")
    assert len(sandbox.tasks()) == 1
    sandbox.audit(root, "rejected")
    assert len(sandbox.tasks()) == 1
    sandbox.audit(root, "accepted")
    sandbox.wait_for(lambda: len(sandbox.tasks(status="completed")) == 2)


def test_a_batch_is_finished_by_hand(slow_sandbox: ScaleSandbox, receiver: CallbackReceiver):
    slow_sandbox.call("POST", "/v1/projects", {"name": "p", "type": "annotation"})
    slow_sandbox.call("POST", "/v1/batches", {"project": "p", "name": "b/1", "callback": receiver.url})
    done = slow_sandbox.call("POST", "/sandbox/api/batches/b%2F1/complete")
    assert done["status"] == "completed"
    assert receiver.wait_for(1)[0].json["batch"] == "b/1"


def test_a_document_has_the_size_of_its_pages(sandbox: ScaleSandbox):
    task = sandbox.create("documenttranscription", key=sandbox.test_key, **example("documenttranscription"))
    assert task["document_pages"][0].keys() >= {"width", "height"}


def test_a_text_collection_with_several_responses_has_attempts(sandbox: ScaleSandbox):
    request = {**example("textcollection"), "responses_required": 3}
    task = sandbox.create("textcollection", key=sandbox.test_key, **request)
    assert len(task["attempts"]) == 3


def test_attachments_of_live_tasks_are_downloaded(slow_sandbox: ScaleSandbox):
    picture = io.BytesIO()
    Image.new("RGB", (40, 30)).save(picture, "PNG")
    with FakeServer(lambda asked: reply(picture.getvalue(), Content_Type="image/png")) as web:
        task = make(slow_sandbox, attachment=f"{web.url}/picture.png")
        boxes = slow_sandbox.complete(task)["response"]["annotations"]
    assert boxes
    assert all(box["left"] + box["width"] <= 40 and box["top"] + box["height"] <= 30 for box in boxes)


def test_comments_of_a_review_must_be_text(sandbox: ScaleSandbox):
    task = make(sandbox, "chat", key=sandbox.test_key)
    with pytest.raises(SandboxError, match="comments"):
        sandbox.audit(task, "rejected", 5, key=sandbox.test_key)  # type: ignore[arg-type]
    assert "customer_review_status" not in sandbox.task(task, key=sandbox.test_key)
