"""Tests for one task through Scale's API, with the official client and with plain requests."""

import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
import scaleapi
from scaleapi.exceptions import (
    ScaleDuplicateResource,
    ScaleInvalidRequest,
    ScaleResourceNotFound,
    ScaleUnauthorized,
)
from scaleapi.tasks import TaskType

from sandbox.examples import EXAMPLES, example
from sandbox.pytest_plugin import ScaleSandbox
from tests.sandbox.conftest import arbitrary_name, sdk

Ask = Callable[..., requests.Response]
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CALLBACK = "http://127.0.0.1:9/nobody-listens"


def make(client: scaleapi.ScaleClient, **changes: Any) -> scaleapi.Task:
    request = {**example("annotation"), "callback_url": CALLBACK, **changes}
    return client.create_task(
        TaskType.Annotation, **{name: v for name, v in request.items() if v is not None}
    )


def plain(task: scaleapi.Task) -> dict[str, Any]:
    return task.as_dict()


def without(task: dict[str, Any], *names: str) -> dict[str, Any]:
    """A task apart from these fields, and from what the delivery of its callback writes on it at some time."""
    return {name: value for name, value in task.items() if name not in (*names, "callback_succeeded")}


def test_a_new_live_task_is_pending_and_has_the_values_of_its_request(live: scaleapi.ScaleClient):
    request = {
        **example("annotation"),
        "callback_url": CALLBACK,
        "metadata": {"a": {"b": [1, None]}},
        "tags": ["t2", "t1"],
        "unique_id": "u 1",
        "urgency": "express",
        "priority": 20,
    }
    task = plain(live.create_task(TaskType.Annotation, **request))
    assert re.fullmatch(r"[0-9a-f]{24}", task["task_id"])
    for name in ("callback_url", "instruction", "metadata", "tags", "unique_id", "urgency", "priority"):
        assert task[name] == request[name]
        assert name not in task["params"]
    assert task["params"] == {k: v for k, v in example("annotation").items() if k != "instruction"}
    assert (task["type"], task["status"], task["is_test"]) == ("annotation", "pending", False)
    assert ISO.fullmatch(task["created_at"])
    assert task["created_at"] == task["updated_at"]
    assert task.keys().isdisjoint({"completed_at", "response", "batch", "customer_review_status"})
    assert plain(live.get_task(task["task_id"])) == task


def test_a_bare_task_has_metadata_but_neither_tags_nor_unique_id(live: scaleapi.ScaleClient):
    task = plain(live.create_task(TaskType.Chat))
    assert task["metadata"] == {}
    assert task.keys().isdisjoint({"tags", "unique_id", "batch", "callback_url", "instruction"})


@pytest.mark.parametrize("type_name", EXAMPLES)
def test_a_test_task_of_every_type_is_completed_in_the_answer(sandbox: ScaleSandbox, type_name: str):
    task = sandbox.create(type_name, key=sandbox.test_key, **example(type_name))
    assert (task["status"], task["is_test"]) == ("completed", True)
    assert isinstance(task["response"], dict)
    assert ISO.fullmatch(task["completed_at"])
    assert sandbox.task(task["task_id"], key=sandbox.test_key) == task


@pytest.mark.parametrize("type_name", EXAMPLES)
def test_a_live_task_of_every_type_is_completed_soon(sandbox: ScaleSandbox, type_name: str):
    task = sandbox.create(type_name, **example(type_name))
    assert task["status"] == "pending"
    done = sandbox.wait_for(lambda: (now := sandbox.task(task["task_id"]))["status"] == "completed" and now)
    assert done["response"]
    assert done["created_at"] == task["created_at"] <= done["completed_at"] == done["updated_at"]


def test_result_files_need_no_key(sandbox: ScaleSandbox):
    request = example("segmentannotation")
    task = sandbox.create("segmentannotation", key=sandbox.test_key, **request)
    url = task["response"]["annotations"]["combined"]["indexedImage"]
    answer = requests.get(url, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert answer.content.startswith(b"\x89PNG")


def test_live_and_test_keys_have_separate_accounts(
    live: scaleapi.ScaleClient, test_client: scaleapi.ScaleClient
):
    task = make(live, unique_id="same")
    assert make(test_client, unique_id="same").id != task.id
    with pytest.raises(ScaleResourceNotFound):
        test_client.get_task(task.id)


def test_an_unknown_key_is_refused_for_every_call(sandbox: ScaleSandbox, http: Ask):
    with pytest.raises(ScaleUnauthorized):
        sdk(sandbox, "live_of_another").tasks()
    for path in ("/v1/tasks", "/v1/nothing", "/v2/projects", "/sandbox/api/state"):
        for options in ({"auth": ("nobody", "")}, {"auth": None}, {"auth": ("", sandbox.live_key)}):
            answer = http("GET", path, **options)
            assert answer.status_code == 401
            assert answer.json() == {
                "status_code": 401,
                "error": "Your API key does not correspond to a registered user.",
            }


@pytest.mark.parametrize("path", ["/v1/tasks", "/v2/projects"])
def test_basic_and_bearer_work_in_both_versions(sandbox: ScaleSandbox, http: Ask, path: str):
    assert http("GET", path).status_code == 200
    bearer = {"Authorization": f"Bearer {sandbox.test_key}"}
    assert http("GET", path, auth=lambda r: r, headers=bearer).status_code == 200


def test_an_unknown_path_is_404_and_a_wrong_method_405_in_scales_form(http: Ask):
    for method, path, status in (
        ("GET", "/v1/nothing/here", 404),
        ("GET", "/v1//tasks", 404),
        ("GET", "/v1/task/no-hex-at-all", 404),
        ("GET", f"/v1/task/{'a' * 24}", 404),
        ("PATCH", "/v1/tasks", 405),
        ("POST", "/v1/task/paintannotation", 400),
    ):
        answer = http(method, path)
        assert answer.status_code == status
        assert answer.json()["status_code"] == status
        assert isinstance(answer.json()["error"], str)
    assert http("GET", "/v1/task/x").json()["error"] == "Task with that ID not found."


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    ],
    ids=lambda b: repr(b[:8]),
)
def test_a_body_that_is_no_json_object_is_400(http: Ask, body: bytes):
    answer = http("POST", "/v1/task/annotation", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize("depth", [200, 240, 250, 253])
def test_an_accepted_request_of_any_depth_can_be_returned_and_sent(
    sandbox: ScaleSandbox, http: Ask, depth: int
):
    deep: Any = 1
    for _ in range(depth):
        deep = {"a": deep}
    request = {**example("annotation"), "callback_url": f"{sandbox.url}/sandbox/receive", "deep": deep}
    for key in (sandbox.live_key, sandbox.test_key):
        answer = http("POST", "/v1/task/annotation", key, json=request)
        assert answer.status_code == (200 if depth <= 240 else 400)
    if depth <= 240:
        sandbox.wait_for(lambda: len(sandbox.received()) == 2)


def test_unknown_parameters_are_echoed_and_null_ones_left_out(live: scaleapi.ScaleClient):
    params = plain(make(live, force=True, something={"x": 1}))["params"]
    assert (params["force"], params["something"]) == (True, {"x": 1})
    nulls = live.create_task(
        TaskType.Annotation, **example("annotation"), layers=None, project=None, tags=None
    )
    assert "layers" not in plain(nulls)["params"]


def test_a_form_is_accepted_like_json(http: Ask):
    form = [
        ("callback_url", CALLBACK),
        ("attachment_type", "website"),
        ("attachment", "http://example.com/"),
        ("fields[title]", "Title of Webpage"),
        ("fields[top_result]", "Title of the top result"),
        ("metadata[from]", "form"),
        ("tags", "one"),
    ]
    task = http("POST", "/v1/task/transcription", data=form).json()
    assert task["params"]["fields"] == {"title": "Title of Webpage", "top_result": "Title of the top result"}
    assert (task["metadata"], task["tags"]) == ({"from": "form"}, ["one"])
    boxes = [
        ("attachment", "http://example.com/1.jpg"),
        ("objects_to_annotate", "car"),
        ("with_labels", "true"),
    ]
    params = http("POST", "/v1/task/annotation", data=boxes).json()["params"]
    assert (params["objects_to_annotate"], params["with_labels"]) == (["car"], True)
    two = http(
        "POST", "/v1/task/annotation", data=[*boxes, ("objects_to_annotate", "bus"), ("min_width", "30")]
    )
    assert (two.json()["params"]["objects_to_annotate"], two.json()["params"]["min_width"]) == (
        ["car", "bus"],
        30,
    )


def test_a_taken_unique_id_is_409_and_names_the_task_that_has_it(live: scaleapi.ScaleClient, http: Ask):
    unique_id = 's3://bucket/(odd) "name".png'
    first = make(live, unique_id=unique_id)
    with pytest.raises(ScaleDuplicateResource) as refused:
        live.create_task(TaskType.Chat, unique_id=unique_id)
    assert f'The unique_id ("{unique_id}") is already used for a different task ({first.id}).' in str(
        refused.value
    )
    answer = http("POST", "/v1/task/chat", json={"unique_id": unique_id})
    assert (answer.status_code, answer.json()["status_code"]) == (409, 409)


def test_a_unique_id_is_changed_kept_and_cleared(live: scaleapi.ScaleClient):
    first, second = make(live, unique_id="a"), make(live, unique_id="b")
    with pytest.raises(ScaleDuplicateResource):
        live.update_task_unique_id(second.id, "a")
    assert plain(live.update_task_unique_id(second.id, "b"))["unique_id"] == "b"
    assert plain(live.update_task_unique_id(second.id, "c"))["unique_id"] == "c"
    assert make(live, unique_id="b").id
    assert "unique_id" not in plain(live.clear_task_unique_id(first.id))
    assert "unique_id" not in plain(live.clear_task_unique_id(first.id))
    assert make(live, unique_id="a").id != first.id


@pytest.mark.parametrize("key", [ScaleSandbox.live_key, ScaleSandbox.test_key])
def test_of_concurrent_creations_with_one_unique_id_one_succeeds(http: Ask, key: str):
    request = {**example("annotation"), "unique_id": "raced"}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: http("POST", "/v1/task/annotation", key, json=request), range(32)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 31
    (made,) = [answer.json()["task_id"] for answer in answers if answer.status_code == 200]
    assert all(made in answer.json()["error"] for answer in answers if answer.status_code == 409)


def test_metadata_is_replaced_whole_and_an_empty_body_empties_it(live: scaleapi.ScaleClient):
    task = make(live, metadata={"old": 1})
    assert plain(live.set_task_metadata(task.id, {"new": {"deep": [1]}}))["metadata"] == {
        "new": {"deep": [1]}
    }
    assert plain(live.get_task(task.id))["metadata"] == {"new": {"deep": [1]}}
    assert plain(live.set_task_metadata(task.id, {}))["metadata"] == {}


def test_metadata_of_more_than_10_kilobytes_is_refused_everywhere(live: scaleapi.ScaleClient):
    task, much = make(live), {"much": "x" * 10_240}
    for refused in (lambda: live.set_task_metadata(task.id, much), lambda: make(live, metadata=much)):
        with pytest.raises(ScaleInvalidRequest):
            refused()


def test_tags_are_set_added_and_removed_in_order(live: scaleapi.ScaleClient):
    task = make(live)
    assert plain(live.set_task_tags(task.id, ["b", "a"]))["tags"] == ["b", "a"]
    assert plain(live.add_task_tags(task.id, ["a", "ü/1", "c"]))["tags"] == ["b", "a", "ü/1", "c"]
    assert plain(live.delete_task_tags(task.id, ["a", "never"]))["tags"] == ["b", "ü/1", "c"]
    assert plain(live.set_task_tags(task.id, ["z"]))["tags"] == ["z"]
    assert "tags" not in plain(live.delete_task_tags(task.id, ["z"]))


def test_a_task_takes_five_tags_and_no_more(live: scaleapi.ScaleClient):
    task = make(live, tags=list("abcd"))
    assert len(plain(live.add_task_tags(task.id, ["e", "a"]))["tags"]) == 5
    with pytest.raises(ScaleInvalidRequest):
        live.add_task_tags(task.id, ["f"])
    assert plain(live.get_task(task.id))["tags"] == list("abcde")


def test_a_canceled_task_stays_canceled(live: scaleapi.ScaleClient, sandbox: ScaleSandbox):
    task = make(live, unique_id="kept")
    canceled = plain(live.cancel_task(task.id))
    assert (canceled["status"], canceled["unique_id"]) == ("canceled", "kept")
    assert plain(live.cancel_task(task.id)) == canceled
    assert "unique_id" not in plain(live.cancel_task(task.id, clear_unique_id=True))
    assert make(live, unique_id="kept").id != task.id
    with pytest.raises(Exception, match="canceled"):
        sandbox.complete(task.id)


def test_a_task_is_canceled_and_its_unique_id_cleared_in_one_call(live: scaleapi.ScaleClient):
    task = live.cancel_task(make(live, unique_id="gone").id, clear_unique_id=True)
    assert (task.status, "unique_id" in plain(task)) == ("canceled", False)


def test_a_completed_task_cannot_be_canceled(test_client: scaleapi.ScaleClient):
    task = make(test_client)
    with pytest.raises(ScaleInvalidRequest, match=r"The task was already completed and cannot be canceled\."):
        task.cancel()


def test_every_change_moves_updated_at_and_none_moves_created_at(live: scaleapi.ScaleClient):
    task = plain(make(live))
    seen = [task["updated_at"]]
    for change in (
        lambda: live.set_task_metadata(task["task_id"], {"a": 1}),
        lambda: live.set_task_tags(task["task_id"], ["t"]),
        lambda: live.update_task_unique_id(task["task_id"], "u"),
        lambda: live.clear_task_unique_id(task["task_id"]),
        lambda: live.cancel_task(task["task_id"]),
    ):
        changed = plain(change())
        assert changed["created_at"] == task["created_at"]
        seen.append(changed["updated_at"])
    assert seen == sorted(set(seen))


def test_an_audit_writes_a_review_and_a_new_one_is_added(live: scaleapi.ScaleClient, sandbox: ScaleSandbox):
    task = make(live)
    with pytest.raises(ScaleInvalidRequest):
        task.audit(True)
    sandbox.complete(task.id)
    task.audit(False, comments="The left one is missing.")
    task.refresh()
    assert task.customer_review_status == "rejected"
    assert task.customer_review_comments == ["The left one is missing."]
    task.audit(True)
    task.refresh()
    assert (task.status, task.customer_review_status) == ("completed", "accepted")
    assert [audit["audit_result"] for audit in task.audits] == ["rejected", "accepted"]
    assert all(
        ISO.fullmatch(audit["audited_at"]) and audit["audit_source"] == "customer" for audit in task.audits
    )


@pytest.mark.parametrize(
    "body", [{}, {"accepted": "perhaps"}, {"accepted": None}, {"accepted": True, "comments": 5}]
)
def test_an_audit_without_a_result_is_400(
    sandbox: ScaleSandbox, test_client: scaleapi.ScaleClient, http: Ask, body: dict[str, Any]
):
    task = make(test_client)
    assert http("POST", f"/v1/task/{task.id}/audit", key=sandbox.test_key, json=body).status_code == 400


def test_calls_for_an_unknown_task_are_404(http: Ask):
    for method, path, body in (
        ("POST", "cancel", None),
        ("POST", "unique_id", {"unique_id": "u"}),
        ("DELETE", "unique_id", None),
        ("POST", "setMetadata", {}),
        ("POST", "tags", []),
        ("PUT", "tags", ["a"]),
        ("DELETE", "tags", ["a"]),
        ("POST", "audit", {"accepted": True}),
        ("POST", "send_callback", None),
    ):
        assert http(method, f"/v1/task/{'0' * 24}/{path}", json=body).status_code == 404


def test_an_unknown_batch_or_project_is_404(live: scaleapi.ScaleClient):
    for changes in ({"project": "none"}, {"batch": "none"}):
        with pytest.raises(ScaleResourceNotFound):
            make(live, **changes)


def test_a_task_belongs_to_the_project_of_its_batch(live: scaleapi.ScaleClient, chance: random.Random):
    project, other, batch = arbitrary_name(chance), arbitrary_name(chance), arbitrary_name(chance)
    for name in (project, other):
        live.create_project(name, TaskType.Annotation)
    live.create_batch(project, batch)
    for changes in ({"batch": batch}, {"batch": batch, "project": project}):
        task = make(live, **changes)
        assert (task.project, task.batch) == (project, batch)
    with pytest.raises(ScaleInvalidRequest):
        make(live, batch=batch, project=other)


def test_the_creation_time_of_a_task_is_in_utc(live: scaleapi.ScaleClient):
    before = datetime.now(UTC)
    made = datetime.fromisoformat(make(live).created_at)
    assert before - timedelta(milliseconds=1) <= made <= datetime.now(UTC)
