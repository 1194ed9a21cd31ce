"""`flask up`, which `make run` calls: the whole service with a sandbox in Scale's place, in one terminal."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from sqlalchemy import exists, select

from app.commands.database import upgrade_database
from app.commands.group import Command
from config import Settings, SettingsError, load_settings
from config.development import AlreadyRunning, development_environment, running_with
from models import Delivery
from pipeline.service import Service

PROCESSES = Path("Procfile.dev")
DEMO = "demo"
STOP_SECONDS = 4


@click.command(cls=Command)
def up() -> None:
    """Start web, worker and sandbox here, on SQLite and without a broker. Ctrl-C stops them."""
    environment = development_environment()
    try:
        settings = load_settings(environment)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    try:
        with running_with(environment):
            refuse_taken_ports(settings)
            of = Service.open(settings)
            click.echo(upgrade_database(of))
            first = is_empty(of)
            of.engine.dispose()
            asked: list[int] = []
            for number in (signal.SIGINT, signal.SIGTERM):
                # A handler that raised would do so anywhere, also where it is lost.
                signal.signal(number, lambda number, _: asked.append(number))
            greet(settings)
            code = run(environment, asked, demonstrate=first)
    except AlreadyRunning:
        raise click.ClickException(
            "Weighbridge runs in this folder already. Stop that one with Ctrl-C, or use it:"
            " `flask demo` sends a task through it."
        ) from None
    sys.exit(code)


def refuse_taken_ports(settings: Settings) -> None:
    """Raises ClickException for a port that another program listens on, naming the setting that moves it."""
    if settings.port == settings.sandbox_port:
        raise click.ClickException(
            f"PORT and SANDBOX_PORT are both {settings.port}. Set one of them to another port."
        )
    for name, port in (("PORT", settings.port), ("SANDBOX_PORT", settings.sandbox_port)):
        try:
            with socket.create_server(("127.0.0.1", port)):
                pass
        except OSError as error:
            taken = " another program listens there. Stop it, or" if error.errno == errno.EADDRINUSE else ""
            raise click.ClickException(
                f"Port {port} can't be had ({error.strerror}):{taken} choose another port with {name}:"
                f" `{name}={free_port()} make run`."
            ) from None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def is_empty(of: Service) -> bool:
    """Whether nothing was ever received here."""
    with of.reader.begin() as connection:
        return not connection.scalar(select(exists(select(Delivery.id))))


def greet(settings: Settings) -> None:
    """The addresses and keys to use."""
    web = f"http://127.0.0.1:{settings.port}"
    sandbox = f"http://127.0.0.1:{settings.sandbox_port}"
    callback_key = settings.scale_live_callback_keys[0].decode()
    lines = (
        ("Web", web),
        ("Callbacks", f"{settings.callback_url}  (scale-callback-auth: {callback_key})"),
        ("API", f"{web}/api/v1  (token: {settings.api_token})"),
        ("Sandbox", f"{sandbox}/v1  (API keys: {settings.scale_api_key}, {settings.scale_test_api_key})"),
        ("Creating tasks", f"at {settings.scale_api_url}"),
    )
    click.echo()
    for name, value in lines:
        click.echo(f"  {name:<15} {value}")
    click.echo(f"\n  curl -H 'Authorization: Bearer {settings.api_token}' {web}/api/v1/tasks\n")
    click.echo("Ctrl-C stops everything.\n")


def run(environment: Mapping[str, str], asked: Sequence[int], *, demonstrate: bool) -> int:
    """Run the processes of Procfile.dev until a signal, or until one of them ends; the exit code.

    `asked` are the signals that came before there was anything to stop. `demonstrate` adds the demonstration, which may
    end without ending the others.
    """
    from honcho import manager
    from honcho.environ import parse_procfile
    from honcho.printer import Printer

    class Processes(manager.Manager):  # type: ignore[misc]
        """Honcho's manager, with three differences: the demonstration may end; a signal that comes before or while
        processes are being started is obeyed once they are; and what is gone with the terminal is not written to."""

        stopping = False

        def _start(self) -> None:
            super()._start()
            for number in asked:
                os.kill(os.getpid(), number)

        def terminate(self) -> None:
            self.stopping = True
            if self._all_started():
                super().terminate()

        def _any_stopped(self) -> bool:
            return self.stopping or any(
                "returncode" in process for name, process in self._processes.items() if name != DEMO
            )

        def ended(self) -> dict[str, int]:
            return {name: process["returncode"] for name, process in self._processes.items()}

    class Terminal(Printer):  # type: ignore[misc]
        def write(self, message: Any) -> None:
            # RuntimeError: a signal came amid a line, and its handler wrote as well.
            with contextlib.suppress(OSError, RuntimeError):
                super().write(message)

    manager.KILL_WAIT = STOP_SECONDS
    processes = Processes(Terminal(sys.stdout))
    commands = parse_procfile(PROCESSES.read_text()).processes
    if demonstrate:
        commands[DEMO] = "flask demo"
    for name, command in commands.items():
        processes.add_process(name, command, env=dict(environment))
    # A terminal that is closed ends what runs in it, and these processes have sessions of their own.
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    processes.loop()
    if processes.returncode in (130, 143):  # asked to stop
        return 0
    for name, code in processes.ended().items():
        if code not in (0, -signal.SIGTERM, 143) and name != DEMO:
            click.echo(
                f"{name} ended with {code}, so everything was stopped; its last lines say why.", err=True
            )
    return 1
