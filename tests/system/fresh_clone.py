"""The first steps of a new user: clone, `make run`, look, Ctrl-C, start again. Installs everything, so only CI runs it:

.venv/bin/pytest tests/system/fresh_clone.py
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.servers import Process, free_port, has_ended, wait_until

ROOT = Path(__file__).parent.parent.parent
NETWORK = re.compile(r"(PIP|UV|SSL|REQUESTS)_\w+|https?_proxy|no_proxy", re.IGNORECASE)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last commit in a new folder."""
    folder = tmp_path_factory.mktemp("fresh") / "weighbridge"
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    return folder


class Terminal(Process):
    """`make run` in a terminal of a user who has set nothing up."""

    def __init__(self, clone: Path, log: Path, web_port: int, sandbox_port: int):
        python = Path(sys.base_prefix) / "bin"
        env = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
        env |= {
            "HOME": str(clone.parent),
            "PATH": f"{python}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONUNBUFFERED": "1",
        }
        env |= {"PORT": str(web_port), "SANDBOX_PORT": str(sandbox_port)}
        super().__init__(["make", "run"], log=log, env=env, cwd=clone)

    def says(self, pattern: str, seconds: float) -> re.Match[str]:
        def said() -> re.Match[str] | None:
            match = re.search(pattern, self.log.read_text())
            assert match or self.running, f"make run ended without {pattern!r}:\n{self.tail(100)}"
            return match

        try:
            return wait_until(said, seconds, pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail(100)}") from None

    def ctrl_c(self) -> int:
        """SIGINT to everything in the foreground, as the terminal sends it; the exit status."""
        assert self.popen is not None
        os.killpg(self.pid, signal.SIGINT)
        return self.popen.wait(20)


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def terminal(clone: Path, ports: tuple[int, int], tmp_path: Path) -> Iterator[Terminal]:
    one = Terminal(clone, tmp_path / "terminal.log", *ports)
    one.start()
    yield one
    one.kill()


def test_make_run_shows_a_follow_up_by_itself(terminal: Terminal) -> None:
    web = terminal.says(r"(http://127\.0\.0\.1:\d+)/api/v1  \(token: (\S+)\)", 300)
    terminal.says(r"Finished in", 60)
    child, parent = (ask(web, f"/tasks/{task['task_id']}") for task in ask(web, "/tasks")["data"])
    assert parent["type"] == "polygonannotation"
    assert child["type"] == "annotation"
    assert child["source"]["task_id"] == parent["task_id"]
    assert child["status"] == parent["status"] == "completed"
    children = terminal.children()
    terminal.ctrl_c()
    wait_until(lambda: all(map(has_ended, children)), 10, "everything ends with Ctrl-C")


def test_make_run_starts_again_with_what_it_had(terminal: Terminal) -> None:
    web = terminal.says(r"(http://127\.0\.0\.1:\d+)/api/v1  \(token: (\S+)\)", 60)
    tasks = wait_until(lambda: ask(web, "/tasks"), 30, "the API answers")
    assert len(tasks["data"]) == 2
    assert "Installing" not in terminal.log.read_text()
    terminal.ctrl_c()


def test_a_taken_port_is_an_error_that_says_what_to_do(
    terminal: Terminal, clone: Path, ports: tuple[int, int], tmp_path: Path
) -> None:
    terminal.says("Sandbox at", 60)
    elsewhere = subprocess.run(
        ["git", "clone", "-q", clone, tmp_path / "second"], check=True, capture_output=True
    )
    assert elsewhere.returncode == 0
    (tmp_path / "second/.venv").symlink_to(clone / ".venv")
    second = Terminal(tmp_path / "second", tmp_path / "second.log", *ports)
    second.start()
    assert second.popen is not None
    assert second.popen.wait(60) != 0
    assert re.search(r"Port \d+ is in use.*PORT=\d+ make run", second.log.read_text(), re.DOTALL)
    terminal.ctrl_c()


def ask(web: re.Match[str], path: str) -> Any:
    """What the API says to the token that `make run` printed; None while nothing listens."""
    try:
        answer = requests.get(
            f"{web[1]}/api/v1{path}", headers={"Authorization": f"Bearer {web[2]}"}, timeout=10
        )
    except requests.ConnectionError:
        return None
    assert answer.status_code == 200, answer.text
    return answer.json()
