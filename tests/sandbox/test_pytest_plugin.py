"""Tests for the pytest plugin in an unrelated project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox.pytest_plugin
from tests.sandbox.conftest import HOME

THEIR_TESTS = """
import config, models, sandbox, app  # their own, of the same names as ours
import urllib.request

def test_a_task_calls_back(scale_sandbox):
    task = scale_sandbox.create("categorization", instruction="i", attachment_type="text", attachment="tomato",
                                categories=["red", "blue"], callback_url=scale_sandbox.callback_url)
    (callback,) = scale_sandbox.wait_for(scale_sandbox.received)
    assert callback["headers"]["scale-callback-auth"] == scale_sandbox.live_callback_key
    assert callback["body"]["task_id"] == task["task_id"]
    assert callback["body"]["response"]["category"] in ("red", "blue")
    assert scale_sandbox.original_request(task["task_id"])["attachment"] == "tomato"

def test_the_next_test_finds_it_empty(scale_sandbox):
    assert scale_sandbox.tasks() == []
    assert scale_sandbox.received() == []

def test_faults_and_actions(scale_sandbox):
    scale_sandbox.set_speed("manual")
    scale_sandbox.add_fault("duplicated", times=1)
    task = scale_sandbox.create("chat", callback_url=scale_sandbox.callback_url)["task_id"]
    scale_sandbox.complete(task, {"responses": []})
    scale_sandbox.wait_for(lambda: len(scale_sandbox.received()) == 2)
    scale_sandbox.audit(task, "accepted")
    scale_sandbox.wait_for(lambda: len(scale_sandbox.received()) == 3)
    assert [callback["event"] for callback in scale_sandbox.callbacks(task)] == ["completed", "accepted"]
    assert scale_sandbox.recall(task)["status"] == "pending"
    assert scale_sandbox.fail(task)["status"] == "error"

def test_test_keys_too(scale_sandbox):
    assert scale_sandbox.create("chat", key=scale_sandbox.test_key)["status"] == "completed"
    assert len(scale_sandbox.tasks(key=scale_sandbox.test_key, status="completed")) == 1
"""


def test_the_plugin_works_in_a_project_with_modules_of_the_same_names(tmp_path: Path):
    result = _run(tmp_path, f"scale_sandbox_home = {HOME}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 passed" in result.stdout


@pytest.mark.parametrize("setting", ["", "scale_sandbox_home = /nowhere"])
def test_a_missing_setting_of_the_folder_is_reported(tmp_path: Path, setting: str):
    result = _run(tmp_path, setting)
    assert result.returncode == 1
    assert "Set scale_sandbox_home" in result.stdout
    assert "Traceback" not in result.stdout


def test_the_plugin_needs_nothing_but_pytest():
    source = Path(sandbox.pytest_plugin.__file__).read_text()
    imported = {
        line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))
    }
    assert imported - set(sys.stdlib_module_names) == {"pytest"}


def _run(tmp_path: Path, setting: str) -> subprocess.CompletedProcess[str]:
    for name in ("config", "models", "sandbox", "app"):
        (tmp_path / f"{name}.py").write_text(f"THEIRS = {name!r}\n")
    plugin = Path(sandbox.pytest_plugin.__file__)
    (tmp_path / "scale_sandbox_plugin.py").write_text(plugin.read_text())
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["scale_sandbox_plugin"]\n')
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = .\n{setting}\n")
    (tmp_path / "test_theirs.py").write_text(THEIR_TESTS)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
