"""A pytest plugin with the fixture `scale_sandbox`: a simulation of Scale that runs as a process.

This file needs nothing but pytest. Copy it into your tests, name it in `pytest_plugins`, and set `scale_sandbox_home` in your
pytest settings to the folder of Weighbridge. It talks to the sandbox by HTTP and imports nothing of Weighbridge.
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
STOP_TIMEOUT_SECONDS = 10.0
REQUEST_TIMEOUT_SECONDS = 60


class SandboxError(Exception):
    """Raised when the sandbox answers a call with an error; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the status of the answer."""
        super().__init__(f"{status}: {message}")
        self.status = status


class ScaleSandbox:
    """Control a running sandbox. Every call uses the live key unless another one is passed.

    `api_url` is the URL to configure in a client of Scale, with `live_key` or `test_key` as the API key. Callbacks have
    `live_callback_key` or `test_callback_key` in `scale-callback-auth`.
    """

    live_key, test_key = LIVE_KEY, TEST_KEY
    live_callback_key, test_callback_key = LIVE_CALLBACK_KEY, TEST_CALLBACK_KEY

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        """Use the sandbox at `url`, which `process` serves."""
        self.url = url
        self.process = process
        self.api_url = f"{url}/v1"
        self.callback_url = f"{url}/sandbox/receive"
        """Stores callbacks for `received()`: a callback_url while there is no service to test."""

    def call(self, method: str, path: str, body: Any = None, key: str = LIVE_KEY) -> Any:
        """Send a request to the sandbox and return the JSON of its answer. Raises SandboxError unless it is 200."""
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{key}:".encode()).decode())
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with _DIRECT.open(request, timeout=REQUEST_TIMEOUT_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                message = json.load(error)["error"]
            raise SandboxError(error.code, message) from None

    def create(self, type: str, *, key: str = LIVE_KEY, **request: Any) -> dict[str, Any]:
        """Create a task as a client would, and return it."""
        return self._call_object("POST", f"/v1/task/{type}", request, key)

    def task(self, task_id: str, key: str = LIVE_KEY) -> dict[str, Any]:
        """Return a task."""
        return self._call_object("GET", f"/v1/task/{task_id}", key=key)

    def tasks(self, key: str = LIVE_KEY, **filters: str) -> list[dict[str, Any]]:
        """Return all tasks, oldest first. Filters are those of Scale's list, such as type, status, batch or unique_id."""
        found: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            page = self.call("GET", f"/v1/tasks?{urllib.parse.urlencode({**filters, **token})}", key=key)
            found += page["docs"]
            if not page["has_more"]:
                return found[::-1]
            token = {"next_token": page["next_token"]}

    def complete(self, task_id: str, response: Any = None, key: str = LIVE_KEY) -> dict[str, Any]:
        """Complete a pending task: with this response, or with that of the simulated annotators."""
        return self._act_on_task(task_id, "complete", {} if response is None else {"response": response}, key)

    def audit(
        self,
        task_id: str,
        result: str,
        comments: str | None = None,
        response: Any = None,
        key: str = LIVE_KEY,
    ) -> dict[str, Any]:
        """Review a completed task: accepted, rejected, fixed (with this response, or a slightly changed one) or commented."""
        return self._act_on_task(
            task_id, "audit", {"result": result, "comments": comments, "response": response}, key
        )

    def recall(self, task_id: str, key: str = LIVE_KEY) -> dict[str, Any]:
        """Recall a completed task: it becomes pending and is completed again."""
        return self._act_on_task(task_id, "recall", {}, key)

    def fail(self, task_id: str, kind: str = "attachments", key: str = LIVE_KEY) -> dict[str, Any]:
        """End a pending task in error: attachments, frames or message."""
        return self._act_on_task(task_id, "fail", {"kind": kind}, key)

    def resend(self, task_id: str, key: str = LIVE_KEY) -> dict[str, Any]:
        """Send the callback of a task again."""
        return self._act_on_task(task_id, "resend", {}, key)

    def original_request(self, task_id: str, key: str = LIVE_KEY) -> dict[str, Any]:
        """Return the unchanged request that created a task."""
        request: dict[str, Any] = self._call_object("GET", f"/sandbox/api/tasks/{task_id}", key=key)[
            "request"
        ]
        return request

    def callbacks(self, task_id: str | None = None, key: str = LIVE_KEY) -> list[dict[str, Any]]:
        """Return the callbacks that the sandbox sends, oldest first: task_id, event, url, state and attempts."""
        query = f"?task_id={task_id}" if task_id else ""
        callbacks: list[dict[str, Any]] = self.call("GET", f"/sandbox/api/callbacks{query}", key=key)[
            "callbacks"
        ]
        return callbacks

    def received(self) -> list[dict[str, Any]]:
        """Return the callbacks sent to `callback_url`, oldest first: headers in lower case, the body as JSON."""
        received = self.call("GET", "/sandbox/api/received")["received"]
        return [{**callback, "body": json.loads(callback["body"])} for callback in received]

    def add_fault(self, name: str, **settings: Any) -> dict[str, Any]:
        """Inject a fault: `add_fault("duplicated", type="annotation", times=1)`. `known_faults()` lists all faults."""
        return self._call_object("POST", "/sandbox/api/faults", {"fault": name, **settings})

    def known_faults(self) -> list[dict[str, Any]]:
        """Return all faults with their options."""
        known: list[dict[str, Any]] = self.call("GET", "/sandbox/api/faults")["known"]
        return known

    def clear_faults(self) -> None:
        """Remove all fault rules."""
        self.call("DELETE", "/sandbox/api/faults")

    def set_speed(self, speed: str) -> None:
        """Set when live tasks are completed: instant, realistic or manual. Test tasks are completed at once."""
        self.call("POST", "/sandbox/api/state", {"speed": speed})

    def set_rejection_share(self, share: float | None) -> None:
        """Reject this share of completed tasks and accept the others; None: review none."""
        self.call("POST", "/sandbox/api/state", {"rejection_share": share})

    def set_confidences(self, confidences: bool) -> None:
        """Set whether the blocks of document responses have a confidence."""
        self.call("POST", "/sandbox/api/state", {"confidences": confidences})

    def add_response(self, response: Any, *, times: int | None = None, **match: str) -> dict[str, Any]:
        """Give tasks this response when they are completed: `add_response({...}, unique_id="order-*", times=1)`.

        `match` names unique_id, type, project, batch, task_id or account (an API key); values may contain `*` and `?`.
        The newest matching rule wins.
        """
        body = {"response": response, **({} if times is None else {"times": times}), **match}
        return self._call_object("POST", "/sandbox/api/responses", body)

    def clear_responses(self) -> None:
        """Remove the responses of `add_response`."""
        self.call("DELETE", "/sandbox/api/responses")

    def reset(self) -> None:
        """Delete all tasks, projects, files and fault rules."""
        self.call("POST", "/sandbox/api/reset")

    def wait_for(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Return the first true value of `condition()`. Raises AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"The condition was not met within {seconds} s")
            time.sleep(0.02)
        return value

    def _act_on_task(self, task_id: str, action: str, body: Any, key: str) -> dict[str, Any]:
        return self._call_object("POST", f"/sandbox/api/tasks/{task_id}/{action}", body, key)

    def _call_object(self, method: str, path: str, body: Any = None, key: str = LIVE_KEY) -> dict[str, Any]:
        answer: dict[str, Any] = self.call(method, path, body, key)
        return answer


# Proxy settings of the environment do not apply to this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the settings of the plugin."""
    parser.addini("scale_sandbox_home", "The folder of Weighbridge", default="")
    parser.addini(
        "scale_sandbox_python",
        "The Python interpreter that has its requirements. Default: that of its .venv",
        default="",
    )


@contextlib.contextmanager
def running_sandbox(home: Path, python: str | None = None, *options: str) -> Iterator[ScaleSandbox]:
    """Run a sandbox as a process, with these options of `weighbridge sandbox serve`. It stops when this process ends."""
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
            # Blank, so that neither the environment nor a .env file supplies a key of Scale.
            "SCALE_API_KEY": "",
            "SCALE_TEST_API_KEY": "",
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
            match = re.search(r"https?://[^\s/]+", process.stdout.readline())
            if match is None:
                raise RuntimeError(f"The sandbox did not start in {home}. See its output above.")
            yield ScaleSandbox(match.group(), process)
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_SECONDS)


@pytest.fixture(scope="session")
def scale_sandbox_process(request: pytest.FixtureRequest) -> Iterator[ScaleSandbox]:
    """Run one in-memory sandbox on a free port for the whole test session."""
    home = Path(request.config.getini("scale_sandbox_home") or Path(__file__).resolve().parents[1])
    if not (home / "sandbox" / "cli.py").is_file():
        pytest.fail(
            f"{home} is not the folder of Weighbridge. Set scale_sandbox_home in your pytest settings.",
            pytrace=False,
        )
    python = request.config.getini("scale_sandbox_python") or None
    with running_sandbox(home, python, "--memory") as sandbox:
        yield sandbox


@pytest.fixture
def scale_sandbox(scale_sandbox_process: ScaleSandbox) -> ScaleSandbox:
    """Return an empty sandbox without faults that completes tasks at once."""
    scale_sandbox_process.reset()
    return scale_sandbox_process


def _python_of(home: Path) -> str:
    """Return the interpreter of the folder's .venv, else the current one."""
    own = home / ".venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    return str(own) if own.exists() else sys.executable
