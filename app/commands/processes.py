"""Run the processes of Procfile.dev in one terminal until a signal, or until one of them ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from honcho import manager
from honcho.environ import parse_procfile
from honcho.printer import Printer

from config.development import sandbox_environment, uses_sandbox

PROCFILE = Path("Procfile.dev")
DEMO = "demo"
SANDBOX = "sandbox"
STOP_TIMEOUT_SECONDS = 4


class Processes(manager.Manager):
    """Honcho's manager with two differences: the demonstration may end, and early signals are obeyed.

    A signal that arrives before all processes are started is handled once they are.
    """

    def __init__(self, printer: Printer, pending_signals: Sequence[int]) -> None:
        super().__init__(printer)
        self._pending_signals = pending_signals
        self._is_stopping = False

    def _start(self) -> None:
        super()._start()
        for number in self._pending_signals:
            os.kill(os.getpid(), number)

    def terminate(self) -> None:
        """Stop all processes."""
        self._is_stopping = True
        if self._all_started():
            super().terminate()

    def _any_stopped(self) -> bool:
        return self._is_stopping or any(
            "returncode" in process for name, process in self._processes.items() if name != DEMO
        )

    def exit_codes(self) -> dict[str, int]:
        """Return the exit code of each process by its name."""
        return {name: process["returncode"] for name, process in self._processes.items()}


class TerminalPrinter(Printer):
    """Honcho's printer, which ignores a terminal that is gone."""

    def write(self, message: Any) -> None:
        """Print one line."""
        # RuntimeError: a signal interrupted a line, and its handler wrote as well.
        with contextlib.suppress(OSError, RuntimeError):
            super().write(message)


def run(environment: Mapping[str, str], pending_signals: Sequence[int], *, demonstrate: bool) -> int:
    """Run the processes and return the exit code. `demonstrate` adds the demonstration.

    The sandbox runs only if tasks are created there, and without the other processes' secrets.
    """
    manager.KILL_WAIT = STOP_TIMEOUT_SECONDS
    processes = Processes(TerminalPrinter(sys.stdout), pending_signals)
    commands = parse_procfile(PROCFILE.read_text()).processes
    if not uses_sandbox(environment):
        del commands[SANDBOX]
    elif demonstrate:
        commands[DEMO] = "weighbridge demo"
    for name, command in commands.items():
        own = sandbox_environment(environment) if name == SANDBOX else dict(environment)
        processes.add_process(name, command, env=own)
    # Closing the terminal stops the processes: they have sessions of their own and would outlive it.
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    processes.loop()
    if processes.returncode in (130, 143):  # stopped by a signal
        return 0
    for name, code in processes.exit_codes().items():
        if code not in (0, -signal.SIGTERM, 143) and name != DEMO:
            click.echo(f"{name} exited with {code}, so everything was stopped; see its last lines.", err=True)
    return 1
