"""A folder like a clone of the project, with its own var/ and free ports, for commands as real processes."""

import os
import re
import signal
import subprocess
from pathlib import Path

from tests.servers import Process, free_port, has_ended, wait_until
from tests.service import BIN, ROOT

OWN = {"var", ".git", ".env", ".venv"}


class Folder:
    """`run` runs a command there to its end; `start` leaves it running."""

    def __init__(self, path: Path, **env: str) -> None:
        self.path = path
        for entry in ROOT.iterdir():
            if entry.name not in OWN and not entry.name.endswith("_cache"):
                (path / entry.name).symlink_to(entry)
        self.ports = free_port(), free_port()
        self.env = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(path),
            "PORT": str(self.ports[0]),
            "SANDBOX_PORT": str(self.ports[1]),
            "PYTHONUNBUFFERED": "1",
            **env,
        }

    def run(self, *command: str, seconds: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.path,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def start(self, *command: str, **env: str) -> "Terminal":
        log = self.path / f"terminal-{len(list(self.path.glob('terminal-*')))}.log"
        terminal = Terminal(list(command), log=log, env={**self.env, **env}, cwd=self.path)
        terminal.start()
        return terminal


class Terminal(Process):
    """A command in the foreground of a terminal of its own."""

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """The first match of `pattern` in what was printed, waited for."""

        def said() -> re.Match[str] | None:
            match = re.search(pattern, self.text)
            assert match or self.running, f"it ended without {pattern!r}:\n{self.text}"
            return match

        try:
            found: re.Match[str] = wait_until(said, seconds, pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None
        return found

    def ends_after(self, number: int, seconds: float) -> int:
        """Send a signal to the whole group, as a terminal does; its exit code within `seconds`, and nothing left behind."""
        assert self.popen is not None
        children = self.children()
        os.killpg(self.pid, number)
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running {seconds} s after signal {number}:\n{self.tail()}") from None
        left = [child for child in children if not has_ended(child)]
        assert not left, f"{left} outlived it:\n{self.tail()}"
        return code

    def close(self) -> None:
        if self.running:
            self.send(signal.SIGCONT)
            self.kill()
