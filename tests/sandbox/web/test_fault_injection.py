"""Tests for faults of API calls as a client sees them."""

from collections.abc import Callable
from typing import Any

import pytest
import requests
from scaleapi.tasks import TaskType

from sandbox.examples import example
from sandbox.pytest_plugin import ScaleSandbox
from scale.client import Client, Conflict, Throttled, TransientError, Unauthorized
from tests.sandbox.conftest import sdk

Ask = Callable[..., requests.Response]


def body(unique_id: str, **changes: Any) -> dict[str, Any]:
    return {**example("annotation"), "unique_id": unique_id, **changes}


def made(sandbox: ScaleSandbox, unique_id: str) -> bool:
    return bool(sandbox.tasks(unique_id=unique_id))


def test_a_throttled_call_has_retry_after(sandbox: ScaleSandbox, http: Ask):
    sandbox.add_fault("throttled", retry_after=7, times=1)
    answer = http("POST", "/v1/task/annotation", json=body("u"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert answer.json()["status_code"] == 429
    assert not made(sandbox, "u")
    assert http("POST", "/v1/task/annotation", json=body("u")).status_code == 200


@pytest.mark.parametrize("status", [401, 402, 503])
def test_the_fault_refused_answers_any_status_in_scales_form(sandbox: ScaleSandbox, http: Ask, status: int):
    sandbox.add_fault("refused", status=status)
    answer = http("POST", "/v1/task/annotation", json=body("u"))
    assert (answer.status_code, answer.json()["status_code"]) == (status, status)


@pytest.mark.parametrize(("fault", "done"), [("error_before", False), ("error_after", True)])
def test_a_500_comes_before_or_after_the_task_is_made(
    sandbox: ScaleSandbox, http: Ask, fault: str, done: bool
):
    sandbox.add_fault(fault, times=1)
    answer = http("POST", "/v1/task/annotation", json=body("u"))
    assert (answer.status_code, answer.json()["status_code"]) == (500, 500)
    assert made(sandbox, "u") == done


@pytest.mark.parametrize(("fault", "done"), [("reset", False), ("reset_after", True)])
def test_a_reset_comes_before_or_after_the_task_is_made(
    sandbox: ScaleSandbox, http: Ask, fault: str, done: bool
):
    sandbox.add_fault(fault, times=1)
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        http("POST", "/v1/task/annotation", json=body("u"))
    assert made(sandbox, "u") == done


@pytest.mark.parametrize(("fault", "done"), [("hang", False), ("hang_after", True)])
def test_a_hang_ends_without_an_answer(sandbox: ScaleSandbox, http: Ask, fault: str, done: bool):
    sandbox.add_fault(fault, seconds=20, times=1)
    with pytest.raises(requests.ReadTimeout):
        http("POST", "/v1/task/annotation", json=body("silence"), timeout=0.5)
    sandbox.clear_faults()
    sandbox.add_fault(fault, seconds=0.1, times=1)
    with pytest.raises(requests.ConnectionError):
        http("POST", "/v1/task/annotation", json=body("end"))
    assert made(sandbox, "silence") == made(sandbox, "end") == done


def test_call_faults_apply_to_task_creation_unless_set_to_any_call(sandbox: ScaleSandbox, http: Ask):
    sandbox.add_fault("error_before")
    assert http("GET", "/v1/tasks").status_code == 200
    assert http("POST", "/v1/projects", json={"name": "p", "type": "chat"}).status_code == 200
    sandbox.clear_faults()
    sandbox.add_fault("error_before", on="any", path="/v1/tasks")
    assert http("GET", "/v1/tasks").status_code == 500
    assert http("GET", "/v1/projects").status_code == 200


def test_a_fault_of_one_key_leaves_the_others_alone(sandbox: ScaleSandbox, http: Ask):
    sandbox.add_fault("throttled", account=sandbox.live_key)
    assert http("POST", "/v1/task/annotation", json=body("u")).status_code == 429
    assert http("POST", "/v1/task/annotation", sandbox.test_key, json=body("u")).status_code == 200


def test_the_client_of_the_service_distinguishes_the_faults(sandbox: ScaleSandbox):
    client = Client(sandbox.api_url, sandbox.live_key, read_timeout=0.3)
    for fault, settings, error in (
        ("throttled", {"retry_after": 3}, Throttled),
        ("refused", {"status": 401}, Unauthorized),
        ("error_after", {}, TransientError),
        ("reset_after", {}, TransientError),
        ("hang_after", {"seconds": 1}, TransientError),
    ):
        sandbox.clear_faults()
        sandbox.add_fault(fault, times=1, **settings)
        with pytest.raises(error):
            client.create_task("annotation", body(f"u-{fault}"))
    sandbox.clear_faults()
    (task,) = sandbox.wait_for(lambda: sandbox.tasks(unique_id="u-error_after"))
    with pytest.raises(Conflict) as refused:
        client.create_task("annotation", body("u-error_after"))
    assert refused.value.existing_task_id == task["task_id"]


def test_the_official_client_reads_a_409_after_a_500_as_success(sandbox: ScaleSandbox):
    # Only over https does it repeat a POST by itself; what it then asks for is what counts here.
    sandbox.add_fault("error_after", times=1)
    client = sdk(sandbox, sandbox.live_key)
    with pytest.raises(Exception, match="Internal Server Error"):
        client.create_task(TaskType.Annotation, **body("u"))
    (found,) = client.tasks(unique_id="u").docs
    assert found.unique_id == "u"


@pytest.mark.parametrize(
    "switch",
    [
        {"fault": []},
        {"fault": "duplicated", "share": "half"},
        {"fault": "duplicated", "share": 1.5},
        {"fault": "duplicated", "times": "2"},
        {"fault": "delayed", "seconds": -1},
        {"fault": "wrong_key", "attempts": "1"},
        {"fault": "huge", "bytes": 1.5},
        {"fault": "throttled", "on": "create_task"},
        {"fault": "refused", "status": 200},
    ],
)
def test_an_invalid_fault_rule_is_refused(sandbox: ScaleSandbox, http: Ask, switch: dict[str, Any]):
    assert http("POST", "/sandbox/api/faults", json=switch).status_code == 400
    assert sandbox.call("GET", "/sandbox/api/faults")["rules"] == []
