"""Tests for sandbox.engine.responses: scripted responses."""

from typing import Any

import pytest

from sandbox.examples import example
from sandbox.pytest_plugin import SandboxError, ScaleSandbox

RED, BLUE = {"category": "red"}, {"category": "blue"}


def create(sandbox: ScaleSandbox, **changes: Any) -> Any:
    """Create a test task, which is completed at once, and return its response."""
    request = {**example("categorization"), **changes}
    return sandbox.create("categorization", key=sandbox.test_key, **request).get("response")


def test_a_matching_task_gets_the_scripted_response(sandbox: ScaleSandbox):
    answer = {"category": "neither of them"}
    sandbox.add_response(answer, unique_id="order-*")
    assert create(sandbox, unique_id="order-1") == answer
    assert create(sandbox, unique_id="return-1") != answer
    assert create(sandbox) != answer


def test_the_newest_matching_rule_wins_until_it_is_used_up(sandbox: ScaleSandbox):
    sandbox.add_response(RED, type="categorization")
    sandbox.add_response(BLUE, type="categorization", times=2)
    assert [create(sandbox) for _ in range(4)] == [BLUE, BLUE, RED, RED]


def test_a_rule_of_one_account_leaves_the_others_alone(sandbox: ScaleSandbox):
    answer = {"category": "green"}
    sandbox.add_response(answer, account=sandbox.live_key)
    assert create(sandbox) != answer
    task = sandbox.create("categorization", **example("categorization"))["task_id"]
    sandbox.wait_for(lambda: sandbox.task(task)["status"] == "completed")
    assert sandbox.task(task)["response"] == answer


def test_scripted_responses_are_removed(sandbox: ScaleSandbox):
    answer = {"category": "green"}
    sandbox.add_response(answer)
    sandbox.clear_responses()
    assert create(sandbox) != answer
    sandbox.add_response(answer)
    sandbox.reset()
    assert create(sandbox) != answer


@pytest.mark.parametrize(
    "rule",
    [{}, {"response": {}, "times": 0}, {"response": {}, "times": "2"}, {"response": {}, "label": "car"}],
)
def test_an_invalid_rule_is_refused(sandbox: ScaleSandbox, rule: dict[str, Any]):
    with pytest.raises(SandboxError) as refused:
        sandbox.call("POST", "/sandbox/api/responses", rule)
    assert refused.value.status == 400
    assert sandbox.call("GET", "/sandbox/api/responses") == {"rules": []}
