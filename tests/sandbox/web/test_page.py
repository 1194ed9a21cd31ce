"""Tests for sandbox.web.page: forms to complete, audit, recall or fail a task by hand."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import requests

from sandbox.examples import example
from sandbox.pytest_plugin import ScaleSandbox
from sandbox.settings import account_of
from tests.sandbox.callback_receiver import CallbackReceiver

HOSTILE = """"><script>alert('x')</script>{{ 7 * 7 }}"""


@pytest.fixture
def browser(slow_sandbox: ScaleSandbox) -> Callable[..., requests.Response]:
    """`browser(path)` loads a page; `browser(path, form)` submits a form as that page would."""
    session = requests.Session()
    session.trust_env = False

    def go(path: str, form: dict[str, str] | None = None) -> requests.Response:
        if form is None:
            return session.get(slow_sandbox.url + path, timeout=10)
        key = re.search(r'name="form_key" value="([^"]+)"', session.get(slow_sandbox.url, timeout=10).text)
        assert key is not None
        return session.post(slow_sandbox.url + path, data={"form_key": key[1], **form}, timeout=10)

    return go


def make(sandbox: ScaleSandbox, **changes: Any) -> str:
    return sandbox.create("annotation", **{**example("annotation"), **changes})["task_id"]


def test_tasks_of_every_key_are_listed_newest_first(slow_sandbox: ScaleSandbox, browser: Callable[..., Any]):
    assert "No tasks yet" in browser("/").text
    first = make(slow_sandbox)
    second = slow_sandbox.create("chat", key=slow_sandbox.test_key)["task_id"]
    text = browser("/").text
    assert 0 < text.index(second) < text.index(first)


def test_older_tasks_are_on_the_next_page(slow_sandbox: ScaleSandbox, browser: Callable[..., Any]):
    tasks = [slow_sandbox.create("chat")["task_id"] for _ in range(60)]
    newest = browser("/").text
    assert tasks[10] in newest
    assert tasks[9] not in newest
    older = re.search(r'href="([^"]+before=\d+)"', newest)
    assert older is not None
    assert tasks[9] in browser(older[1]).text
    assert browser(f"/?before={2**63}").status_code == 200


def test_a_task_is_completed_audited_recalled_and_failed_by_hand(
    slow_sandbox: ScaleSandbox, browser: Callable[..., Any], receiver: CallbackReceiver
):
    task = make(slow_sandbox, callback_url=receiver.url)
    assert "pending" in browser(f"/tasks/{task}", None).text
    assert "completed" in browser(f"/tasks/{task}/complete", {"response": '{"annotations": []}'}).text
    assert slow_sandbox.task(task)["response"] == {"annotations": []}
    assert "rejected" in browser(f"/tasks/{task}/audit", {"result": "rejected", "comments": "no box"}).text
    assert "fixed" in browser(f"/tasks/{task}/audit", {"result": "fixed", "response": ""}).text
    assert "pending" in browser(f"/tasks/{task}/recall", {}).text
    assert "error" in browser(f"/tasks/{task}/fail", {"kind": "attachments"}).text
    browser(f"/tasks/{task}/resend", {})
    events = [callback["event"] for callback in slow_sandbox.callbacks(task)]
    assert events == ["completed", "rejected", "fixed", "recalled", "error", "resent"]
    receiver.wait_for(6)
    assert "succeeded" in browser(f"/tasks/{task}").text
    other = make(slow_sandbox)
    assert "canceled" in browser(f"/tasks/{other}/cancel", {}).text


def test_errors_are_shown_on_the_page(slow_sandbox: ScaleSandbox, browser: Callable[..., Any]):
    task = make(slow_sandbox)
    assert "The task is pending" in browser(f"/tasks/{task}/recall", {}).text
    for response in ("{", '{"a":' * 300 + "1" + "}" * 300):
        refused = browser(f"/tasks/{task}/complete", {"response": response})
        assert (refused.status_code, "is not valid JSON" in refused.text) == (400, True)
    assert browser(f"/tasks/{task}/dance", {}).status_code == 404
    assert browser("/tasks/none").status_code == 404


def test_an_example_task_is_created_from_the_page(slow_sandbox: ScaleSandbox, browser: Callable[..., Any]):
    account = account_of(slow_sandbox.live_key)
    form = {"type": "polygonannotation", "account": account, "callback_url": "a@example.com"}
    assert "polygonannotation: pending" in browser("/tasks", form).text
    (task,) = slow_sandbox.tasks()
    assert task["callback_url"] == "a@example.com"
    assert browser("/tasks", {**form, "account": "another"}).status_code == 400


def test_speed_and_faults_are_set_from_the_page(slow_sandbox: ScaleSandbox, browser: Callable[..., Any]):
    browser("/speed", {"speed": "instant"})
    assert slow_sandbox.call("GET", "/sandbox/api/state")["speed"] == "instant"
    assert "share 0.25" in browser("/faults", {"fault": "duplicated", "share": "0.25"}).text
    assert browser("/faults", {"fault": "duplicated", "share": "half"}).status_code == 400
    browser("/faults", {"off": "1"})
    assert slow_sandbox.call("GET", "/sandbox/api/faults")["rules"] == []


def test_a_form_of_another_site_changes_nothing(slow_sandbox: ScaleSandbox, browser: Callable[..., Any]):
    task = make(slow_sandbox)
    for cookies, form in (
        ({}, {}),
        ({}, {"form_key": "guess"}),
        ({"sandbox_session": "mine"}, {"form_key": "guess"}),
        ({"sandbox_session": ""}, {"form_key": ""}),
    ):
        answer = requests.post(
            f"{slow_sandbox.url}/tasks/{task}/cancel", data=form, cookies=cookies, timeout=5
        )
        assert answer.status_code == 403
    assert slow_sandbox.task(task)["status"] == "pending"
    cookie = requests.get(slow_sandbox.url, timeout=5).headers["Set-Cookie"]
    assert "SameSite=Strict" in cookie
    assert "HttpOnly" in cookie


def test_outside_text_is_never_markup(slow_sandbox: ScaleSandbox, browser: Callable[..., Any]):
    slow_sandbox.call("POST", "/v1/projects", {"name": HOSTILE, "type": "annotation"})
    task = make(
        slow_sandbox,
        project=HOSTILE,
        unique_id=HOSTILE,
        instruction=HOSTILE,
        metadata={HOSTILE: HOSTILE},
        callback_url=f"http://127.0.0.1:9/{HOSTILE.replace(' ', '')}",
    )
    slow_sandbox.complete(task, {HOSTILE: HOSTILE})
    slow_sandbox.audit(task, "commented", HOSTILE)
    for path in ("/", f"/tasks/{task}", f"/tasks/{task}?message={HOSTILE}"):
        answer = browser(path)
        assert answer.status_code == 200
        assert "<script>" not in answer.text
        assert "{{ 7 * 7 }}" in answer.text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
