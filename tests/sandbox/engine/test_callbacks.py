"""Tests for callbacks as a receiver sees them: envelope, header, attempts, and every fault."""

import random
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from sandbox.engine.callbacks import MAX_ATTEMPTS, wait_before_attempt
from sandbox.engine.faults import FAULTS
from sandbox.examples import example
from sandbox.pytest_plugin import SandboxError, ScaleSandbox, running_sandbox
from tests.sandbox.callback_receiver import CallbackReceiver
from tests.sandbox.conftest import HOME


def make(
    sandbox: ScaleSandbox, receiver: CallbackReceiver, key: str | None = None, **changes: Any
) -> dict[str, Any]:
    request = {**example("annotation"), "callback_url": receiver.url, **changes}
    return sandbox.create("annotation", key=key or sandbox.live_key, **request)


def settled(sandbox: ScaleSandbox, task: dict[str, Any], count: int = 1) -> list[dict[str, Any]]:
    """Return the task's callbacks once there are that many and each is finished."""

    def seen() -> list[dict[str, Any]] | None:
        key = sandbox.test_key if task["is_test"] else sandbox.live_key
        sent = sandbox.callbacks(task["task_id"], key=key)
        return sent if len(sent) >= count and all(one["state"] != "pending" for one in sent) else None

    found: list[dict[str, Any]] = sandbox.wait_for(seen)
    return found


@pytest.mark.parametrize("environment", ["live", "test"])
def test_a_completed_task_calls_back_with_the_key_of_its_environment(
    sandbox: ScaleSandbox, receiver: CallbackReceiver, environment: str
):
    key = getattr(sandbox, f"{environment}_key")
    task = make(sandbox, receiver, key, metadata={"ä": "ö"})
    (arrived,) = receiver.wait_for(1)
    assert arrived.headers["scale-callback-auth"] == getattr(sandbox, f"{environment}_callback_key")
    assert arrived.headers["content-type"] == "application/json"
    assert arrived.headers["content-length"] == str(len(arrived.body))
    body = arrived.json
    assert body["task_id"] == body["task"]["task_id"] == task["task_id"]
    assert body["response"] == body["task"]["response"]
    assert (body["task"]["status"], body["task"]["metadata"]) == ("completed", {"ä": "ö"})
    assert "callback_succeeded" not in body["task"]
    settled(sandbox, task)
    now = sandbox.task(task["task_id"], key=key)
    assert {**now, "callback_succeeded": None} == {**body["task"], "callback_succeeded": None}
    assert now["callback_succeeded"] is True


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_ends_the_attempts(sandbox: ScaleSandbox, receiver: CallbackReceiver, status: int):
    receiver.statuses = [status]
    (sent,) = settled(sandbox, make(sandbox, receiver))
    assert (sent["state"], [one["status"] for one in sent["attempts"]]) == ("succeeded", [status])


def test_any_other_status_is_retried_with_the_same_bytes(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    receiver.statuses = [500, 404, 302, 503]
    task = make(sandbox, receiver)
    arrived = receiver.wait_for(5)
    assert len({one.body for one in arrived}) == 1
    (sent,) = settled(sandbox, task)
    assert [one["status"] for one in sent["attempts"]] == [500, 404, 302, 503, 200]
    assert sandbox.task(task["task_id"])["callback_succeeded"] is True


def test_a_callback_fails_after_20_attempts():
    waits = [wait_before_attempt(number) for number in range(1, MAX_ATTEMPTS + 1)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert 0.95 * 24 * 3600 < sum(waits) <= 24 * 3600


def test_a_task_reports_a_failed_callback_after_the_20th_attempt(receiver: CallbackReceiver):
    # A day in less than a second.
    with running_sandbox(HOME, None, "--memory", "--time-scale", "100000") as sandbox:
        receiver.statuses = [500] * 30
        task = make(sandbox, receiver)
        receiver.wait_for(5)
        assert "callback_succeeded" not in sandbox.task(task["task_id"])
        (sent,) = settled(sandbox, task)
        assert (sent["state"], [one["status"] for one in sent["attempts"]]) == ("failed", [500] * 20)
        assert sandbox.task(task["task_id"])["callback_succeeded"] is False


def test_an_email_address_gets_no_post(sandbox: ScaleSandbox):
    task = sandbox.create("chat", callback_url="team@example.com")
    (sent,) = settled(sandbox, task)
    assert (sent["state"], sent["attempts"]) == ("mailed", [])


def test_a_task_without_an_address_has_no_callback(sandbox: ScaleSandbox):
    task = sandbox.create("chat", key=sandbox.test_key)
    assert sandbox.callbacks(task["task_id"], key=sandbox.test_key) == []


def test_a_redirect_is_not_followed(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    receiver.statuses = [307]
    make(sandbox, receiver)
    first, second = receiver.wait_for(2)
    assert first.path == second.path == "/callback"


def test_the_query_of_a_url_is_sent_unchanged(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    url = f"{receiver.url}/a%20b?token=x&y=%2F"
    make(sandbox, receiver, callback_url=url)
    (arrived,) = receiver.wait_for(1)
    assert arrived.path == "/callback/a%20b?token=x&y=%2F"


def test_a_url_is_encoded_only_where_necessary(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    make(sandbox, receiver, callback_url=f"{receiver.url}/ü ö/a%2Fb?n=漢&m=%20+x")
    (arrived,) = receiver.wait_for(1)
    assert arrived.path == "/callback/%C3%BC%20%C3%B6/a%2Fb?n=%E6%BC%A2&m=%20+x"


def test_callbacks_of_one_task_arrive_in_the_order_of_its_events(
    sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    sandbox.set_speed("manual")
    receiver.before_answer = lambda arrived: time.sleep(0.05)
    task = make(sandbox, receiver)["task_id"]
    sandbox.complete(task)
    sandbox.audit(task, "rejected", "no")
    sandbox.audit(task, "accepted")
    sandbox.recall(task)
    sandbox.complete(task)
    receiver.wait_for(5)
    seen = [
        (one.json["task"]["status"], one.json["task"].get("customer_review_status"))
        for one in receiver.about(task)
    ]
    assert seen == [
        ("completed", None),
        ("completed", "rejected"),
        ("completed", "accepted"),
        ("pending", None),
        ("completed", None),
    ]


def test_a_callback_can_come_before_the_creation_is_answered(
    sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    sandbox.add_fault("callback_first", type="annotation")
    for key in (sandbox.live_key, sandbox.test_key):
        before = len(receiver.arrived)
        task = make(sandbox, receiver, key, unique_id=f"u {key}")
        # It has arrived already.
        (arrived,) = receiver.arrived[before:]
        assert arrived.json["task_id"] == task["task_id"]
        assert arrived.json["task"]["unique_id"] == f"u {key}"
        assert task["status"] == "completed"


def test_the_receiver_may_read_the_task_during_the_callback(
    sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    sandbox.add_fault("callback_first")
    asked = []
    receiver.before_answer = lambda arrived: asked.append(sandbox.task(arrived.json["task_id"]))
    task = make(sandbox, receiver)
    assert asked == [task]


def test_the_receiver_may_create_a_task_during_the_callback(
    sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    sandbox.add_fault("callback_first", times=1)
    made = []

    def chain(arrived: Any) -> None:
        if not made:
            made.append(make(sandbox, receiver, unique_id="child"))

    receiver.before_answer = chain
    parent = make(sandbox, receiver)
    receiver.wait_for(2)
    assert [task["task_id"] for task in sandbox.tasks()] == [parent["task_id"], made[0]["task_id"]]


def test_a_callback_is_sent_again_on_demand(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    task = make(sandbox, receiver)
    settled(sandbox, task)
    sandbox.call("POST", f"/v1/task/{task['task_id']}/send_callback")
    _first, again = receiver.wait_for(2)
    assert again.json["task"]["callback_succeeded"] is True
    sandbox.set_speed("manual")
    pending = make(sandbox, receiver)["task_id"]
    with pytest.raises(SandboxError, match="pending"):
        sandbox.resend(pending)


def test_a_duplicated_callback_sends_the_same_bytes_twice(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    sandbox.add_fault("duplicated")
    (sent,) = settled(sandbox, make(sandbox, receiver))
    one, other = receiver.wait_for(2)
    assert one.body == other.body
    assert (sent["state"], len(sent["attempts"])) == ("succeeded", 2)


def test_a_delayed_callback_arrives_late(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    sandbox.add_fault("delayed", seconds=0.1, times=1)
    (sent,) = settled(sandbox, make(sandbox, receiver))
    assert (sent["state"], len(receiver.arrived)) == ("succeeded", 1)
    sandbox.add_fault("delayed", seconds=3600)
    task = make(sandbox, receiver)["task_id"]
    (waiting,) = sandbox.wait_for(lambda: sandbox.callbacks(task))
    assert (waiting["state"], waiting["attempts"]) == ("pending", [])
    late = datetime.fromisoformat(waiting["next_attempt_at"]) - datetime.fromisoformat(
        sandbox.task(task)["completed_at"]
    )
    assert late >= timedelta(hours=1)


def test_a_reordered_callback_arrives_after_the_next(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    sandbox.set_speed("manual")
    sandbox.add_fault("reordered", event="completed", seconds=30)
    task = make(sandbox, receiver)["task_id"]
    sandbox.complete(task)
    sandbox.audit(task, "accepted")
    receiver.wait_for(2)
    reviews = [one.json["task"].get("customer_review_status") for one in receiver.about(task)]
    assert reviews == ["accepted", None]


def test_a_dropped_callback_never_arrives(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    sandbox.add_fault("dropped")
    task = make(sandbox, receiver)
    (sent,) = settled(sandbox, task)
    assert (sent["state"], sent["attempts"], receiver.arrived) == ("dropped", [], [])
    assert sandbox.task(task["task_id"])["callback_succeeded"] is False


@pytest.mark.parametrize("fault", ["wrong_key", "no_key"])
def test_a_wrong_or_missing_key_comes_first_and_the_right_one_after(
    sandbox: ScaleSandbox, receiver: CallbackReceiver, fault: str
):
    sandbox.add_fault(fault, attempts=2)
    receiver.statuses = [401, 401]
    make(sandbox, receiver)
    keys = [one.headers.get("scale-callback-auth") for one in receiver.wait_for(3)]
    assert keys[2] == sandbox.live_callback_key
    assert sandbox.live_callback_key not in keys[:2]
    assert (None in keys) == (fault == "no_key")


def test_a_repeated_callback_sends_the_same_bytes_after_a_2xx(
    sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    sandbox.add_fault("repeated", repeats=3)
    (sent,) = settled(sandbox, make(sandbox, receiver))
    assert len({one.body for one in receiver.wait_for(4)}) == 1
    assert len(sent["attempts"]) == 4


def test_a_volatile_callback_repeats_the_response_with_other_bytes(
    sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    sandbox.add_fault("volatile", repeats=2)
    settled(sandbox, make(sandbox, receiver))
    bodies = [one.body for one in receiver.wait_for(3)]
    assert len(set(bodies)) == 3
    assert len({str(one.json["response"]) for one in receiver.arrived}) == 1
    assert len({one.json["task"]["updated_at"] for one in receiver.arrived}) == 3


def test_a_reset_after_sending_is_retried(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    sandbox.add_fault("reset_after_sending", attempts=2)
    task = make(sandbox, receiver)
    (sent,) = settled(sandbox, task)
    assert [one["status"] for one in sent["attempts"]] == [None, None, 200]
    assert len(receiver.arrived) >= 1


def test_a_slow_body_comes_in_pieces_and_arrives_whole(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    sandbox.add_fault("slow_body", seconds=1)
    task = make(sandbox, receiver)
    (arrived,) = receiver.wait_for(1)
    assert arrived.pieces > 1
    assert arrived.json["task_id"] == task["task_id"]


def test_a_chunked_body_arrives_whole_without_a_length(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    sandbox.add_fault("chunked")
    sandbox.add_fault("huge", bytes=300_000)
    make(sandbox, receiver)
    (arrived,) = receiver.wait_for(1)
    assert arrived.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in arrived.headers
    assert arrived.json["task"]["filler"] == "x" * 300_000


def test_a_huge_body_is_still_a_callback(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    sandbox.add_fault("huge", bytes=3_000_000)
    task = make(sandbox, receiver)
    (arrived,) = receiver.wait_for(1)
    assert len(arrived.body) > 3_000_000
    assert arrived.json["task"]["task_id"] == task["task_id"]


@pytest.mark.parametrize("kind", ["attachments", "frames", "message"])
def test_a_fault_ends_a_task_in_error(sandbox: ScaleSandbox, receiver: CallbackReceiver, kind: str):
    sandbox.add_fault(kind)
    request = {
        **example("videoannotation"),
        "callback_url": receiver.url,
        "unique_id": "u",
        "clear_unique_id_on_error": True,
    }
    sandbox.create("videoannotation", **request)
    (arrived,) = receiver.wait_for(1)
    task = arrived.json["task"]
    assert (task["status"], arrived.json["status"]) == ("error", "error")
    assert task.keys().isdisjoint({"completed_at", "unique_id"})
    assert isinstance(task["response"]["error"], str)
    assert (kind in task["response"]) == (kind != "message")


def test_a_fault_rule_applies_only_to_matching_callbacks_and_within_its_limit(
    sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    sandbox.add_fault("dropped", unique_id="unlucky")
    sandbox.add_fault("duplicated", type="annotation", event="completed", times=2)
    lucky = [make(sandbox, receiver, unique_id=f"u{number}") for number in range(3)]
    unlucky = make(sandbox, receiver, unique_id="unlucky")
    chat = sandbox.create("chat", callback_url=receiver.url)
    assert settled(sandbox, unlucky)[0]["state"] == "dropped"
    assert len(settled(sandbox, chat)[0]["attempts"]) == 1
    struck = [[fault["fault"] for fault in settled(sandbox, task)[0]["faults"]] for task in (*lucky, unlucky)]
    assert sum("duplicated" in faults for faults in struck) == 2
    assert ["dropped" in faults for faults in struck] == [False, False, False, True]
    sandbox.clear_faults()
    assert len(settled(sandbox, make(sandbox, receiver))[0]["attempts"]) == 1


def test_the_same_seed_selects_the_same_callbacks(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    def run() -> list[str]:
        sandbox.reset()
        sandbox.add_fault("dropped", share=0.3)
        tasks = [make(sandbox, receiver, unique_id=f"u{number}") for number in range(40)]
        return [settled(sandbox, task)[0]["state"] for task in tasks]

    first = run()
    assert 3 <= first.count("dropped") <= 25
    assert run() == first


def test_an_unknown_fault_or_setting_is_refused(sandbox: ScaleSandbox):
    for request in ({"fault": "flooded"}, {"fault": "duplicated", "seconds": 1}, {}):
        with pytest.raises(SandboxError) as refused:
            sandbox.call("POST", "/sandbox/api/faults", request)
        assert refused.value.status == 400
    assert {fault["name"] for fault in sandbox.known_faults()} == {fault.name for fault in FAULTS}


def test_under_every_callback_fault_all_of_two_hundred_tasks_arrive(
    sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    chance = random.Random(5)
    for name in (
        "duplicated",
        "delayed",
        "reordered",
        "wrong_key",
        "repeated",
        "volatile",
        "reset_after_sending",
        "chunked",
    ):
        sandbox.add_fault(name, share=0.2, **({"seconds": 0.2} if name in ("delayed", "reordered") else {}))
    wrong = 0

    def guard(arrived: Any) -> None:
        nonlocal wrong
        if arrived.headers.get("scale-callback-auth") != sandbox.live_callback_key:
            wrong += 1
            receiver.statuses.append(401)
        elif chance.random() < 0.1:
            receiver.statuses.append(503)

    receiver.before_answer = guard
    tasks = [make(sandbox, receiver, unique_id=f"u{number}") for number in range(200)]
    for task in tasks:
        assert settled(sandbox, task)[0]["state"] == "succeeded"
    assert wrong > 10
    arrived = {one.json["task_id"] for one in receiver.arrived}
    assert arrived == {task["task_id"] for task in tasks}
    assert len(receiver.arrived) > 220
