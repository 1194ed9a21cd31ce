"""The whole service as real processes (web, worker, sandbox) on free ports, for tests that kill, freeze and count."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from tests.servers import Process, free_port, wait_until

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

KEYS = {
    "SCALE_API_KEY": "live_sandbox",
    "SCALE_TEST_API_KEY": "test_sandbox",
    "SCALE_LIVE_CALLBACK_KEYS": "live_callback_key",
    "SCALE_TEST_CALLBACK_KEYS": "test_callback_key",
    "API_TOKEN": "api-token",
    "SECRET_KEY": "secret-key",
}


class Service:
    """A running Weighbridge. `processes` names the processes: web, worker, sandbox."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        redis_url: str | None = None,
        env: Mapping[str, str] | None = None,
        processes: tuple[str, ...] = ("sandbox", "web", "worker"),
    ):
        self.folder = folder
        self.web_port, self.sandbox_port = free_port(), free_port()
        self.web_url = f"http://127.0.0.1:{self.web_port}"
        self.sandbox_url = f"http://127.0.0.1:{self.sandbox_port}/v1"
        # Nothing of the shell that runs the tests gets in, and a blank value hides what a .env file says.
        self.env = {
            **{name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ},
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            **KEYS,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url or "",
            "PORT": str(self.web_port),
            "SANDBOX_PORT": str(self.sandbox_port),
            "PUBLIC_URL": self.web_url,
            "SCALE_API_URL": self.sandbox_url,
            "ARTIFACT_STORE": str(folder / "artifacts"),
            "ARTIFACT_HOSTS": f"127.0.0.1:{self.sandbox_port}",
            "WEB_CONCURRENCY": "1",
            "WORKFLOWS_DIR": str(ROOT / "tests/workflows/files"),
            **(env or {}),
        }
        pool = ["-c", self.env.get("WORKER_CONCURRENCY", "2"), *([] if redis_url else ["-P", "threads"])]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        commands = {
            "web": [f"{BIN}/gunicorn", "wsgi:app"],
            "worker": [f"{BIN}/celery", "-A", "workers.celery_app", "worker", *pool, *quiet],
            "sandbox": [f"{BIN}/flask", "sandbox", "serve", "--port", str(self.sandbox_port), "--memory"],
        }
        self.processes = {
            name: Process(commands[name], log=folder / f"{name}.log", env=self.env, cwd=ROOT)
            for name in processes
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.popen:
                process.kill()

    def start(self, *names: str) -> None:
        """Start the named processes, or all, and wait until those that listen answer."""
        names = names or tuple(self.processes)
        for name in names:
            self.processes[name].start()
        for name in names:
            if name == "web":
                self._answers(name, f"{self.web_url}/livez")
            elif name == "sandbox":
                self._answers(name, f"{self.sandbox_url}/tasks")

    def _answers(self, name: str, url: str) -> None:
        def answers() -> bool:
            if not self.processes[name].running:
                raise AssertionError(f"{name} ended at once:\n{self.processes[name].tail()}")
            try:
                requests.get(url, timeout=2)
            except requests.RequestException:
                return False
            return True

        wait_until(answers, 30, f"{name} answers at {url}")

    def kill(self, name: str) -> None:
        """Send SIGKILL to the process and all its children."""
        self.processes[name].kill()

    def kill_child(self, name: str, number: int = 0) -> None:
        """Send SIGKILL to one child: a gunicorn worker or a process of Celery's pool."""

        def killed() -> bool:  # one look, since a child may be replaced at any moment
            process = self.processes[name]
            assert process.running, f"{name} has ended:\n{process.tail()}"
            children = process.children()
            if len(children) > number:
                with contextlib.suppress(psutil.NoSuchProcess):
                    children[number].kill()
                    return True
            return False

        wait_until(killed, 60, f"{name} has children")

    def freeze(self, name: str) -> None:
        self.processes[name].freeze()

    def thaw(self, name: str) -> None:
        self.processes[name].thaw()

    def restart(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Stop (if it still runs) and start again on the same port; `env` changes its environment."""
        self.processes[name].stop()
        self.processes[name].env = self.env = {**self.env, **(env or {})}
        self.start(name)

    def start_second(self, name: str, code: Path) -> Process:
        """Start a process of other code next to the one that runs. Return the former, which goes on until it is stopped.

        Web processes share their port if GUNICORN_CMD_ARGS says --reuse-port.
        """
        former = self.processes[name]
        log = self.folder / f"{name}-{len(list(self.folder.glob(f'{name}*.log')))}.log"
        env = {**self.env, "PYTHONPATH": str(code)}
        newer = self.processes[name] = Process(former.command, log=log, env=env, cwd=code)
        newer.start()
        has_started = re.compile(r"Booting worker|\[queues\]|worker waits")
        wait_until(lambda: has_started.search(log.read_text()) or not newer.running, 60, f"another {name}")
        assert newer.running, newer.tail()
        return former

    def stop(self, *names: str, seconds: float = 30) -> None:
        """Send SIGTERM to the named processes, or all, and wait until they have ended."""
        chosen = [self.processes[name] for name in names or self.processes]
        for process in chosen:
            if process.running:
                process.thaw()
                os.kill(process.pid, signal.SIGTERM)
        for process in chosen:  # signaled once: a second SIGTERM would end what is about to end in order
            try:
                if process.popen is not None:
                    process.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()

    def logs(self, lines: int = 40) -> str:
        """Return the end of the log of every process."""
        return "\n".join(f"--- {name} ---\n{process.tail(lines)}" for name, process in self.processes.items())

    def api(self, path: str, **params: Any) -> Any:
        """Return the JSON of GET /api/v1{path}. Raises AssertionError unless the status is 200."""
        answer = requests.get(
            f"{self.web_url}/api/v1{path}",
            params=params,
            headers={"Authorization": f"Bearer {self.env['API_TOKEN']}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post_callback(
        self, body: bytes, key: str | None = None, timeout: float = 60, **options: Any
    ) -> requests.Response:
        """POST a body to the callback endpoint as Scale does."""
        key = key or self.env["SCALE_LIVE_CALLBACK_KEYS"].split(",")[0]
        headers = {"scale-callback-auth": key, "Content-Type": "application/json"}
        return requests.post(
            f"{self.web_url}/callbacks/scale", data=body, headers=headers, timeout=timeout, **options
        )
