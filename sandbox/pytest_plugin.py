"""A pytest plugin for projects that work with Scale: the fixture `scale_sandbox`, a stand-in for Scale in a process of its own.

This one file needs nothing but pytest: copy it into your tests, name it in `pytest_plugins`, and set `scale_sandbox_home` in
your pytest settings to the folder that Weighbridge lies in. It only speaks HTTP to the sandbox, so no name of Weighbridge
comes near yours.
"""

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LIVE_KEY, TEST_KEY = "live_sandbox", "test_sandbox"
LIVE_CALLBACK_KEY, TEST_CALLBACK_KEY = "live_callback_sandbox", "test_callback_sandbox"
TIME_SCALE = 3600
STOP_SECONDS = 10.0


class SandboxError(Exception):
    """The sandbox refused: `status` and its words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class ScaleSandbox:
    """A running sandbox. Every call is under the live key unless another one is named.

    `api_url` is what a client of Scale takes as its address, with `live_key` or `test_key` as the API key. Callbacks carry
    `live_callback_key` or `test_callback_key` in `scale-callback-auth`.
    """

    live_key, test_key = LIVE_KEY, TEST_KEY
    live_callback_key, test_callback_key = LIVE_CALLBACK_KEY, TEST_CALLBACK_KEY

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url = url
        self.process = process
        self.api_url = f"{url}/v1"
        self.callback_url = f"{url}/sandbox/receive"
        """Takes every callback and keeps it for `received`: a callback_url while there is no service to test."""

    def call(self, method: str, path: str, body: Any = None, key: str = LIVE_KEY) -> Any:
        """One request to the sandbox; the JSON of its answer. SandboxError for every status but 200."""
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{key}:".encode()).decode())
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with _DIRECT.open(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = json.load(error)
            raise SandboxError(error.code, said["error"]) from None

    def create(self, type: str, *, key: str = LIVE_KEY, **request: Any) -> dict[str, Any]:
        """Create a task as a client would."""
        return self.call("POST", f"/v1/task/{type}", request, key)

    def task(self, task_id: str, key: str = LIVE_KEY) -> dict[str, Any]:
        return self.call("GET", f"/v1/task/{task_id}", key=key)

    def tasks(self, key: str = LIVE_KEY, **filters: str) -> list[dict[str, Any]]:
        """Every task, oldest first; filters are those of Scale's own list: type, status, project, batch, unique_id …"""
        found: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            page = self.call("GET", f"/v1/tasks?{urllib.parse.urlencode({**filters, **token})}", key=key)
            found += page["docs"]
            if not page["has_more"]:
                return found[::-1]
            token = {"next_token": page["next_token"]}

    def complete(self, task_id: str, response: Any = None, key: str = LIVE_KEY) -> dict[str, Any]:
        """Answer a pending task: with this response, or as the sandbox's annotators would."""
        return self._do(task_id, "complete", {} if response is None else {"response": response}, key)

    def audit(
        self,
        task_id: str,
        result: str,
        comments: str | None = None,
        response: Any = None,
        key: str = LIVE_KEY,
    ) -> dict[str, Any]:
        """Review a completed task: accepted, rejected, fixed (with this response, or a slightly changed one) or commented."""
        return self._do(task_id, "audit", {"result": result, "comments": comments, "response": response}, key)

    def recall(self, task_id: str, key: str = LIVE_KEY) -> dict[str, Any]:
        """Take a completed task back; it is pending again and answered anew."""
        return self._do(task_id, "recall", {}, key)

    def fail(self, task_id: str, kind: str = "attachments", key: str = LIVE_KEY) -> dict[str, Any]:
        """End a pending task in error: attachments, frames or message."""
        return self._do(task_id, "fail", {"kind": kind}, key)

    def resend(self, task_id: str, key: str = LIVE_KEY) -> dict[str, Any]:
        return self._do(task_id, "resend", {}, key)

    def original_request(self, task_id: str, key: str = LIVE_KEY) -> dict[str, Any]:
        """The request that created a task, as it came."""
        return self.call("GET", f"/sandbox/api/tasks/{task_id}", key=key)["request"]

    def callbacks(self, task_id: str | None = None, key: str = LIVE_KEY) -> list[dict[str, Any]]:
        """The callbacks that the sandbox sends, oldest first: task_id, event, url, state, tries with status or error."""
        query = f"?task_id={task_id}" if task_id else ""
        return self.call("GET", f"/sandbox/api/callbacks{query}", key=key)["callbacks"]

    def received(self) -> list[dict[str, Any]]:
        """What came to `callback_url`, oldest first: headers in lower case, and the body as JSON."""
        came = self.call("GET", "/sandbox/api/received")["received"]
        return [{**one, "body": json.loads(one["body"])} for one in came]

    def add_fault(self, name: str, **settings: Any) -> dict[str, Any]:
        """Switch a fault on: `add_fault("duplicated", type="annotation", times=1)`. `known_faults()` lists them all."""
        return self.call("POST", "/sandbox/api/faults", {"fault": name, **settings})

    def known_faults(self) -> list[dict[str, Any]]:
        return self.call("GET", "/sandbox/api/faults")["known"]

    def clear_faults(self) -> None:
        self.call("DELETE", "/sandbox/api/faults")

    def set_speed(self, speed: str) -> None:
        """instant, realistic or manual: when tasks of live keys are answered. Those of test keys always are at once."""
        self.call("POST", "/sandbox/api/state", {"speed": speed})

    def reset(self) -> None:
        """Forget every task, project, file and fault."""
        self.call("POST", "/sandbox/api/reset")

    def wait_for(self, seen: Callable[[], Any], seconds: float = 10.0) -> Any:
        """The first true value that `seen` gives. AssertionError after so many seconds."""
        end = time.monotonic() + seconds
        while not (value := seen()):
            if time.monotonic() > end:
                raise AssertionError(f"Not seen within {seconds} s")
            time.sleep(0.02)
        return value

    def _do(self, task_id: str, deed: str, body: Any, key: str) -> dict[str, Any]:
        return self.call("POST", f"/sandbox/api/tasks/{task_id}/{deed}", body, key)


# Settings for proxies in the environment are not meant for an address on this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("scale_sandbox_home", "The folder that Weighbridge lies in", default="")
    parser.addini(
        "scale_sandbox_python", "The Python that has its requirements; default: its .venv", default=""
    )


@contextlib.contextmanager
def running_sandbox(home: Path, python: str | None = None, *options: str) -> Iterator[ScaleSandbox]:
    """A sandbox in a process of its own, with these options of `flask sandbox serve`. It ends with whoever started it."""
    process = subprocess.Popen(
        [
            python or _python_of(home),
            "-c",
            "from sandbox.cli import sandbox; sandbox()",
            "serve",
            "--until-stdin-closes",
            *("--port", "0", "--time-scale", str(TIME_SCALE), *options),
        ],
        cwd=home,
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},  # noqa: TID251
            "SANDBOX_API_KEYS": f"{TEST_KEY},{LIVE_KEY}",
            "SCALE_LIVE_CALLBACK_KEYS": LIVE_CALLBACK_KEY,
            "SCALE_TEST_CALLBACK_KEYS": TEST_CALLBACK_KEY,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        try:
            found = re.search(r"https?://[^\s/]+", process.stdout.readline())
            if found is None:
                raise RuntimeError(f"The sandbox did not start in {home}; what it said stands above.")
            yield ScaleSandbox(found.group(), process)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


@pytest.fixture(scope="session")
def scale_sandbox_process(request: pytest.FixtureRequest) -> Iterator[ScaleSandbox]:
    """The sandbox of this run of the tests, on a free port. It keeps nothing, and ends with the run."""
    home = Path(request.config.getini("scale_sandbox_home") or Path(__file__).resolve().parents[1])
    if not (home / "sandbox" / "cli.py").is_file():
        pytest.fail(
            f"{home} is not the folder that Weighbridge lies in: set scale_sandbox_home in your pytest settings.",
            pytrace=False,
        )
    python = request.config.getini("scale_sandbox_python") or None
    with running_sandbox(home, python, "--memory") as sandbox:
        yield sandbox


@pytest.fixture
def scale_sandbox(scale_sandbox_process: ScaleSandbox) -> ScaleSandbox:
    """An empty stand-in for Scale, without faults, that answers tasks at once."""
    scale_sandbox_process.reset()
    return scale_sandbox_process


def _python_of(home: Path) -> str:
    own = home / ".venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    return str(own) if own.exists() else sys.executable
