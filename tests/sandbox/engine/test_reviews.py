"""Tests for the simulated reviewer: sandbox.engine.lifecycle.review_due_task."""

from collections import Counter
from typing import Any

import pytest

from sandbox.pytest_plugin import SandboxError, ScaleSandbox


def create_reviewed(sandbox: ScaleSandbox, count: int) -> list[dict[str, Any]]:
    tasks = [sandbox.create("chat", callback_url=sandbox.callback_url)["task_id"] for _ in range(count)]
    for task in tasks:
        sandbox.wait_for(lambda task=task: "customer_review_status" in sandbox.task(task), seconds=30)
    return [sandbox.task(task) for task in tasks]


def test_a_share_of_the_tasks_is_rejected_with_a_comment_and_the_others_are_accepted(sandbox: ScaleSandbox):
    sandbox.set_rejection_share(0.5)
    tasks = create_reviewed(sandbox, 20)
    counts = Counter(task["customer_review_status"] for task in tasks)
    assert counts.keys() == {"accepted", "rejected"}
    assert all(
        ("customer_review_comments" in task) == (task["customer_review_status"] == "rejected")
        for task in tasks
    )
    events = [callback["event"] for callback in sandbox.callbacks(tasks[0]["task_id"])]
    assert events == ["completed", tasks[0]["customer_review_status"]]


@pytest.mark.parametrize(("share", "status"), [(0, "accepted"), (1, "rejected")])
def test_all_tasks_can_be_accepted_or_rejected(sandbox: ScaleSandbox, share: float, status: str):
    sandbox.set_rejection_share(share)
    assert {task["customer_review_status"] for task in create_reviewed(sandbox, 3)} == {status}


def test_without_a_share_nothing_is_reviewed(sandbox: ScaleSandbox):
    sandbox.set_rejection_share(1)
    create_reviewed(sandbox, 1)
    sandbox.set_rejection_share(None)
    task = sandbox.create("chat", callback_url=sandbox.callback_url)["task_id"]
    sandbox.wait_for(lambda: sandbox.callbacks(task))
    sandbox.wait_for(lambda: sandbox.callbacks(task)[0]["state"] == "succeeded")
    assert [callback["event"] for callback in sandbox.callbacks(task)] == ["completed"]


@pytest.mark.parametrize(
    "state", [{"rejection_share": 2}, {"rejection_share": "half"}, {"confidences": 1}, {"pace": 1}]
)
def test_an_invalid_state_is_refused(sandbox: ScaleSandbox, state: dict[str, Any]):
    with pytest.raises(SandboxError) as refused:
        sandbox.call("POST", "/sandbox/api/state", state)
    assert refused.value.status == 400


def test_documents_have_confidences_on_request(sandbox: ScaleSandbox):
    request = {
        "attachment": "https://example.com/receipt.jpg",
        "features": [{"type": "block", "label": "total"}],
    }

    def blocks() -> list[dict[str, Any]]:
        task = sandbox.create("documenttranscription", key=sandbox.test_key, **request)
        return task["response"]["annotations"]

    assert not any("confidence" in block for block in blocks())
    sandbox.set_confidences(True)
    assert all(0 <= block["confidence"] <= 1 for block in blocks())
