"""Tests for the sandbox as a process and for its commands."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from sandbox.annotators import AnnotatorContext
from sandbox.examples import EXAMPLES, example
from sandbox.pytest_plugin import ScaleSandbox, running_sandbox
from scale.envelope import parse_callback
from tests.amounts import amount
from tests.sandbox.callback_receiver import CallbackReceiver
from tests.sandbox.conftest import HOME

RUN = [sys.executable, "-c", "from sandbox.cli import sandbox; sandbox()"]
TASKS = amount(200, 1_000)
Flask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(sandbox: ScaleSandbox) -> Flask:
    """`command("complete", task)` is `weighbridge sandbox complete …`, spoken to the sandbox of the test."""
    port = sandbox.url.rpartition(":")[2]

    def run(*arguments: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RUN, *arguments],
            cwd=HOME,
            env={**os.environ, "SANDBOX_PORT": port, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_data_survives_a_restart(tmp_path: Path, receiver: CallbackReceiver):
    options = ("--database", str(tmp_path / "below" / "sandbox.db"), "--speed", "manual")
    with running_sandbox(HOME, None, *options) as sandbox:
        sandbox.call("POST", "/v1/projects", {"name": "p", "type": "segmentannotation"})
        request = {
            **example("segmentannotation"),
            "callback_url": receiver.url,
            "project": "p",
            "tags": ["t"],
        }
        done = sandbox.create("segmentannotation", **request)["task_id"]
        pending = sandbox.create("segmentannotation", **request, unique_id="u")["task_id"]
        receiver.statuses = [500] * 100
        sandbox.complete(done)
        sandbox.add_fault("dropped", unique_id="unlucky")
        receiver.wait_for(3)
        before = sandbox.tasks()
        path = sandbox.task(done)["response"]["annotations"]["combined"]["image"].removeprefix(sandbox.url)
    receiver.statuses = []
    with running_sandbox(HOME, None, *options) as sandbox:
        after = sandbox.tasks()
        assert [{**task, "callback_succeeded": None} for task in after] == [
            {**task, "callback_succeeded": None} for task in before
        ]
        assert requests.get(sandbox.url + path, timeout=5).content.startswith(b"\x89PNG")
        assert sandbox.call("GET", "/sandbox/api/faults")["rules"][0]["fault"] == "dropped"
        sandbox.wait_for(lambda: sandbox.callbacks(done)[0]["state"] == "succeeded", seconds=30)
        assert sandbox.complete(pending)["unique_id"] == "u"


def test_two_sandboxes_cannot_share_a_file(command: Flask, tmp_path: Path):
    options = ("--database", str(tmp_path / "sandbox.db"))
    with running_sandbox(HOME, None, *options):
        result = command("serve", "--port", "0", *options)
        assert (result.returncode, "in use by another sandbox" in result.stderr) == (1, True)
    with running_sandbox(HOME, None, *options) as sandbox:
        assert sandbox.tasks() == []


def test_the_hits_of_a_fault_rule_survive_a_kill(tmp_path: Path, receiver: CallbackReceiver):
    options = ("--database", str(tmp_path / "sandbox.db"))
    with running_sandbox(HOME, None, *options) as sandbox:
        for fault, limits in (("throttled", {"times": 1}), ("no_key", {"times": 2, "attempts": 1})):
            sandbox.add_fault(fault, **limits)
        with pytest.raises(Exception, match="429"):
            sandbox.create("annotation", **example("annotation"))
        sandbox.create("annotation", **example("annotation"), callback_url=receiver.url)
        receiver.wait_for(1)
        sandbox.process.kill()
        sandbox.process.wait()
    with running_sandbox(HOME, None, *options) as sandbox:
        switches = sandbox.call("GET", "/sandbox/api/faults")["rules"]
        assert [(switch["fault"], switch["hits"]) for switch in switches] == [
            ("throttled", 1),
            ("no_key", 1),
        ]
        assert sandbox.create("annotation", **example("annotation"))


def test_a_task_that_was_due_during_a_kill_is_completed_after_the_restart(tmp_path: Path):
    options = ("--database", str(tmp_path / "sandbox.db"), "--speed", "realistic", "--time-scale", "10")
    with running_sandbox(HOME, None, *options) as sandbox:
        task = sandbox.create("annotation", **example("annotation"))["task_id"]
        sandbox.process.kill()
        sandbox.process.wait()
    with running_sandbox(HOME, None, *options) as sandbox:
        sandbox.wait_for(lambda: sandbox.task(task)["status"] == "completed", seconds=30)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_soon_although_a_receiver_hangs(tmp_path: Path, stop: signal.Signals):
    with socket.create_server(("127.0.0.1", 0)) as silent, running_sandbox(HOME, None, "--memory") as sandbox:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        for _ in range(5):
            sandbox.create("annotation", **example("annotation"), callback_url=url)
        time.sleep(0.3)
        sandbox.process.send_signal(stop)
        assert sandbox.process.wait(10) == 0  # a receiver has 30 s


def test_it_stops_when_its_parent_closes_stdin():
    with running_sandbox(HOME, None, "--memory") as sandbox:
        assert sandbox.process.stdin is not None
        sandbox.process.stdin.close()
        assert sandbox.process.wait(10) == 0


def test_a_port_in_use_is_reported_with_a_way_out(command: Flask, sandbox: ScaleSandbox):
    port = sandbox.url.rpartition(":")[2]
    result = command("serve", "--memory", "--port", port)
    assert result.returncode == 1
    assert f"port {port}" in result.stderr
    assert "--port" in result.stderr


def test_a_database_of_another_version_is_refused_with_a_way_out(command: Flask, tmp_path: Path):
    file = tmp_path / "sandbox.db"
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 999")
    result = command("serve", "--port", "0", "--database", str(file))
    assert (result.returncode, "Delete it" in result.stderr) == (1, True)


def test_an_unusable_database_file_is_reported_in_one_line(command: Flask, tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("no database " * 100)
    for file, why in ((text, "file is not a database"), (text / "sandbox.db", "Cannot create the folder")):
        result = command("serve", "--port", "0", "--database", str(file))
        assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
        assert why in result.stderr


def test_keys_and_callback_keys_come_from_the_environment(receiver: CallbackReceiver):
    env = {
        "SANDBOX_API_KEYS": "live_a,b|test",
        "SCALE_LIVE_CALLBACK_KEYS": "one,two",
        "SCALE_TEST_CALLBACK_KEYS": "three",
    }
    process = subprocess.Popen(
        [*RUN, "serve", "--memory", "--port", "0", "--callback-url", receiver.url],
        cwd=HOME,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[2]
        for key in ("live_a", "b|test", "live_sandbox"):
            answer = requests.post(
                f"{address}/v1/task/chat", json={"callback_url": receiver.url}, auth=(key, ""), timeout=5
            )
            assert answer.status_code == (401 if key == "live_sandbox" else 200)
        keys = {
            one.json["task"]["is_test"]: one.headers["scale-callback-auth"] for one in receiver.wait_for(2)
        }
        assert keys == {False: "one", True: "three"}
    finally:
        process.terminate()
        process.wait(10)


def test_tasks_without_a_callback_url_call_the_default_one(receiver: CallbackReceiver):
    with running_sandbox(HOME, None, "--memory", "--callback-url", receiver.url) as sandbox:
        task = sandbox.create("chat")
        assert "callback_url" not in task
        assert receiver.wait_for(1)[0].json["task_id"] == task["task_id"]


def test_a_task_is_completed_from_the_command_line_with_a_file(
    command: Flask, slow_sandbox: ScaleSandbox, tmp_path: Path
):
    task = slow_sandbox.create("annotation", **example("annotation"))["task_id"]
    assert f"{task}: annotation is pending\n" in command("list").stdout
    file = tmp_path / "answer.json"
    file.write_text('{"annotations": []}')
    result = command("complete", task, "--with", str(file))
    assert (result.returncode, result.stdout) == (0, f"{task}: annotation is completed\n")
    assert slow_sandbox.task(task)["response"] == {"annotations": []}
    assert task not in command("list").stdout
    assert "completed, rejected" in command("audit", task, "rejected", "--comments", "no").stdout
    assert command("resend", task).returncode == 0
    assert "pending" in command("recall", task).stdout
    assert "error" in command("fail", task, "--kind", "message").stdout


def test_a_failing_command_reports_the_reason(command: Flask, slow_sandbox: ScaleSandbox, tmp_path: Path):
    task = slow_sandbox.create("chat")["task_id"]
    assert "pending" in command("recall", task).stderr
    assert "not found" in command("complete", "0" * 24).stderr
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert "not JSON" in command("complete", task, "--with", str(broken)).stderr
    for odd in ("../../reset", "a?b#c"):
        assert "Task with that ID not found" in command("complete", odd).stderr
    unreachable = command("complete", task, "--at", "http://127.0.0.1:9")
    assert unreachable.returncode == 1
    assert "weighbridge sandbox serve" in unreachable.stderr


def test_fault_rules_are_listed_added_and_removed_from_the_command_line(
    command: Flask, sandbox: ScaleSandbox
):
    assert "duplicated" in command("faults").stdout
    assert command("faults", "duplicated", "share=0.5", "type=annotation").returncode == 0
    (switch,) = sandbox.call("GET", "/sandbox/api/faults")["rules"]
    assert (switch["share"], switch["match"]) == (0.5, {"type": "annotation"})
    assert command("faults", "--off").returncode == 0
    assert sandbox.call("GET", "/sandbox/api/faults")["rules"] == []
    assert "must be one of" in command("faults", "flooded").stderr
    assert "share must be a number" in command("faults", "duplicated", "share=NaN").stderr


@pytest.mark.parametrize(
    ("event", "arguments"),
    [("completed", ()), ("accepted", ("--event", "accepted")), ("fixed", ("--event", "fixed", "--test")),
     ("recalled", ("--event", "recalled")), ("error", ("--event", "error"))],
)  # fmt: skip
def test_a_callback_is_triggered_without_a_task(
    command: Flask, sandbox: ScaleSandbox, receiver: CallbackReceiver, event: str, arguments: tuple[str, ...]
):
    result = command(
        "trigger", "annotation", *arguments, PUBLIC_URL=receiver.url.removesuffix("/callback"),
        SCALE_LIVE_CALLBACK_KEYS="a,b", SCALE_TEST_CALLBACK_KEYS="c",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (arrived,) = receiver.arrived
    test = "--test" in arguments
    assert arrived.headers["scale-callback-auth"] == ("c" if test else "a")
    understood = parse_callback(arrived.body, "live")
    assert (understood.event, understood.environment) == (event, "test" if test else "live")
    assert understood.task_id in result.stdout
    assert sandbox.tasks() == []


def test_a_trigger_takes_another_response_and_other_params(
    command: Flask, receiver: CallbackReceiver, tmp_path: Path
):
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"annotations": []}))
    changes = json.dumps({"project": None, "metadata": {"a": 1}, "min_width": 5})
    command("trigger", "annotation", "--to", receiver.url, "--with", str(answer), "--params", changes)
    task = receiver.arrived[0].json["task"]
    assert (task["response"], task["metadata"], task["params"]["min_width"]) == (
        {"annotations": []},
        {"a": 1},
        5,
    )


def test_a_trigger_stores_result_files_in_the_running_sandbox(
    command: Flask, sandbox: ScaleSandbox, receiver: CallbackReceiver
):
    assert command("trigger", "segmentannotation", "--to", receiver.url).returncode == 0
    url = receiver.arrived[0].json["response"]["annotations"]["combined"]["indexedImage"]
    assert url.startswith(sandbox.url)
    assert requests.get(url, timeout=5).content.startswith(b"\x89PNG")


def test_a_rejected_trigger_fails(command: Flask, receiver: CallbackReceiver):
    receiver.statuses = [503]
    result = command("trigger", "chat", "--to", receiver.url)
    assert (result.returncode, "503" in result.stdout) == (1, True)
    assert command("trigger", "chat", "--to", "http://127.0.0.1:9/").returncode == 1
    assert "must be one of" in command("trigger", "paintannotation", "--to", receiver.url).stderr


def test_many_tasks_are_stored_and_call_back(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    session = requests.Session()
    session.trust_env = False
    request = {**example("polygonannotation"), "callback_url": receiver.url}
    for number in range(TASKS):
        answer = session.post(
            f"{sandbox.api_url}/task/polygonannotation",
            json={**request, "unique_id": f"u{number}"},
            auth=(sandbox.live_key, ""),
            timeout=10,
        )
        assert answer.status_code == 200
    receiver.wait_for(TASKS, seconds=60)
    assert len({arrived.json["task_id"] for arrived in receiver.arrived}) == TASKS


def test_every_example_can_be_triggered(sandbox: ScaleSandbox, receiver: CallbackReceiver):
    from sandbox.engine.trigger import trigger

    def put_file(content: bytes, _media_type: str) -> str:
        return f"http://127.0.0.1:9/{len(content)}"

    for type_name in EXAMPLES:
        sent = trigger(
            type_name, "completed", receiver.url, "key", api_key="live_x", context=AnnotatorContext(seed=1, put_file=put_file),
        )  # fmt: skip
        assert sent.outcome.succeeded
    assert {arrived.json["task"]["type"] for arrived in receiver.arrived} == set(EXAMPLES)
