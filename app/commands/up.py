"""`weighbridge up`, which `make run` calls: the whole service with a sandbox instead of Scale, in one terminal."""

from __future__ import annotations

import errno
import signal
import socket
import sys

import click

from app.commands.group import Command
from app.commands.processes import run
from config import Settings, SettingsError, load_settings
from config.development import (
    callback_keys,
    development_environment,
    printable_token,
    running_with,
    uses_sandbox,
)
from config.environment import EnvFileError, own_environment
from config.running import AlreadyRunning
from pipeline.access.tokens import issue_link
from pipeline.bootstrap import build_service
from pipeline.operations.queries.deliveries import latest_id
from pipeline.operations.upgrade import upgrade_database
from workers.dispatcher import JobDispatcher


@click.command(cls=Command)
def up() -> None:
    """Start web, worker and sandbox on this machine. Ctrl-C stops them."""
    try:
        environment = development_environment(own_environment())
        settings = load_settings(environment)
    except (EnvFileError, SettingsError) as error:
        raise click.UsageError(str(error)) from None
    try:
        with running_with(environment):
            check_ports(settings, uses_sandbox(environment))
            is_new, link = prepare_database(settings)
            warn_about_broker(settings)
            signals = record_signals()
            greet(settings, uses_sandbox(environment), link)
            # Slower annotators would keep the demonstration waiting.
            demonstrate = is_new and settings.sandbox_speed == "instant"
            code = run(environment, signals, demonstrate=demonstrate)
    except AlreadyRunning:
        raise click.ClickException(
            "Weighbridge is already running in this folder. Stop it with Ctrl-C, or use it:"
            " `weighbridge demo` sends a task through it."
        ) from None
    sys.exit(code)


def prepare_database(settings: Settings) -> tuple[bool, str]:
    """Upgrade the database; return whether nothing was ever received, and a token for a one-time sign-in link."""
    service = build_service(settings)
    click.echo(str(upgrade_database(service)))
    with service.reader.begin() as connection:
        is_new = latest_id(connection) is None
    with service.engine.begin() as connection:
        link = issue_link(connection)
    service.engine.dispose()
    return is_new, link


def warn_about_broker(settings: Settings) -> None:
    """Say that REDIS_URL cannot be used. The service starts nevertheless: its worker then runs the jobs by itself."""
    if fault := JobDispatcher(settings).fault():
        click.echo(f"Warning: REDIS_URL: {fault.message}. {fault.fix}", err=True)


def record_signals() -> list[int]:
    """Record SIGINT and SIGTERM instead of raising: an exception during the start could be lost."""
    pending: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: pending.append(number))
    return pending


def check_ports(settings: Settings, with_sandbox: bool) -> None:
    """Raise ClickException for a port that cannot be used, naming the setting that changes it."""
    if settings.port == settings.sandbox_port:
        raise click.ClickException(
            f"PORT and SANDBOX_PORT are both {settings.port}. Set one of them to another port."
        )
    ports = [("PORT", settings.port), *([("SANDBOX_PORT", settings.sandbox_port)] if with_sandbox else [])]
    for name, port in ports:
        try:
            with socket.create_server(("127.0.0.1", port)):
                pass
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            problem = (
                "is in use: another program listens there. Stop it, or" if in_use else "is not permitted:"
            )
            raise click.ClickException(
                f"Port {port} {problem} choose another port with {name}: `{name}={free_port()} make run`."
            ) from None


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def greet(settings: Settings, with_sandbox: bool, link: str) -> None:
    """Print the addresses and keys to use. Of a key that the user has set, only the name of the setting is printed."""
    web = f"http://127.0.0.1:{settings.port}"
    token, callback_key = printable_token(settings), settings.scale_live_callback_keys[0].decode()
    if callback_key != callback_keys(settings.secret_key)["SCALE_LIVE_CALLBACK_KEYS"]:
        callback_key = "$SCALE_LIVE_CALLBACK_KEYS"
    lines = [
        ("Console", f"{web}/console/sign-in?once={link}  (signs you in once)"),
        ("API", f"{web}/api/v1  (token: {token})"),
        ("API docs", f"{web}/api/docs"),
        ("Callbacks", f"{settings.callback_url}  (scale-callback-auth: {callback_key})"),
        ("Creating tasks", f"at {settings.scale_api_url}"),
    ]
    if with_sandbox:
        keys = ", ".join(key for key in (settings.scale_api_key, settings.scale_test_api_key) if key)
        lines.insert(4, ("Sandbox", f"http://127.0.0.1:{settings.sandbox_port}/v1  (API keys: {keys})"))
    click.echo()
    for name, value in lines:
        click.echo(f"  {name:<15} {value}")
    click.echo(f'\n  curl -H "Authorization: Bearer {token}" {web}/api/v1/tasks\n')
    click.echo("Ctrl-C stops everything.\n")
