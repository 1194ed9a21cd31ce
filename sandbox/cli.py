"""`flask sandbox …`: run a stand-in for Scale, and be its people from the command line."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import requests

from config import Settings, load_settings
from sandbox.settings import SPEEDS, SandboxSettings, is_test_key

TRIGGER_EVENTS = ("completed", "accepted", "rejected", "fixed", "commented", "recalled", "error")
AT = click.option("--at", metavar="URL", help="The sandbox to speak to. Default: the one on SANDBOX_PORT.")


@click.group()
def sandbox() -> None:
    """A stand-in for Scale: its API, its people, its callbacks."""


@sandbox.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Default: SANDBOX_PORT, 8001. 0 takes a free one."
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--memory", is_flag=True, help="Keep nothing beyond this run.")
@click.option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("var/sandbox.db"),
    show_default=True,
)
@click.option(
    "--speed",
    type=click.Choice(SPEEDS),
    default="instant",
    show_default=True,
    help="When tasks of live keys are answered; those of test keys always are at once.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How many of Scale's seconds pass in one: the 24 hours of retries take 24 s at 3600.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of answers, and of faults by chance.")
@click.option("--callback-url", metavar="URL", help="For tasks that name none.")
@click.option("--public-url", metavar="URL", help="Where others reach the sandbox, if not where it listens.")
@click.option("--until-stdin-closes", is_flag=True, help="Stop when whoever started this is gone.")
def serve(
    port: int | None,
    host: str,
    memory: bool,
    database: Path,
    speed: str,
    time_scale: float,
    seed: int,
    callback_url: str | None,
    public_url: str | None,
    until_stdin_closes: bool,
) -> None:
    """Serve until stopped. The first line says where."""
    from sandbox.storage.store import UnusableFile
    from sandbox.web.server import PortTaken
    from sandbox.web.server import serve as serve_until_stopped

    settings = load_settings()
    started_with = SandboxSettings(
        api_keys=settings.sandbox_api_keys,
        live_callback_key=_callback_key(settings, "live"),
        test_callback_key=_callback_key(settings, "test"),
        database=None if memory else database,
        speed=speed,
        time_scale=time_scale,
        seed=seed,
        callback_url=callback_url,
    )
    port = settings.sandbox_port if port is None else port
    try:
        serve_until_stopped(started_with, host, port, public_url, until_stdin_closes)
    except PortTaken as error:
        raise click.ClickException(f"{error} Name another one with --port.") from None
    except UnusableFile as error:
        raise click.ClickException(str(error)) from None


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@click.option(
    "--with", "file", type=click.File(), help="JSON: the response. Without it the annotators answer."
)
@AT
def complete(task_id: str, file: Any, at: str | None) -> None:
    """Answer a pending task."""
    _tell(_ask(at, _of(task_id, "complete"), {} if file is None else {"response": _json(file)}))


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@click.argument("result", type=click.Choice(("accepted", "rejected", "fixed", "commented")))
@click.option("--comments")
@click.option("--with", "file", type=click.File(), help="JSON: the response that a fix makes.")
@AT
def audit(task_id: str, result: str, comments: str | None, file: Any, at: str | None) -> None:
    """Review a completed task."""
    response = {} if file is None else {"response": _json(file)}
    _tell(_ask(at, _of(task_id, "audit"), {"result": result, "comments": comments, **response}))


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@AT
def recall(task_id: str, at: str | None) -> None:
    """Take a completed task back for more work."""
    _tell(_ask(at, _of(task_id, "recall"), {}))


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@click.option(
    "--kind",
    type=click.Choice(("attachments", "frames", "message")),
    default="attachments",
    show_default=True,
)
@AT
def fail(task_id: str, kind: str, at: str | None) -> None:
    """End a pending task in error."""
    _tell(_ask(at, _of(task_id, "fail"), {"kind": kind}))


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@AT
def resend(task_id: str, at: str | None) -> None:
    """Send the callback of a task again."""
    _tell(_ask(at, _of(task_id, "resend"), {}))


@sandbox.command()
@click.argument("fault", required=False)
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]…")
@click.option("--off", is_flag=True, help="Switch every fault off.")
@AT
def faults(fault: str | None, settings: tuple[str, ...], off: bool, at: str | None) -> None:
    """Show the faults, or switch one on: `faults duplicated share=0.5 type=annotation`."""
    if off:
        _ask(at, "faults", None, "DELETE")
    if fault is not None:
        named = dict(setting.partition("=")[::2] for setting in settings)
        _ask(at, "faults", {"fault": fault, **{name: _value(text) for name, text in named.items()}})
    answer = _ask(at, "faults", None, "GET")
    for switch in answer["rules"]:
        click.echo(f"on: {json.dumps(switch)}")
    for known in answer["known"] if fault is None and not off else ():
        options = ", ".join(f"{name}={value}" for name, value in known["options"].items())
        click.echo(f"{known['name']:22}{known['summary']}" + (f" ({options})" if options else ""))


@sandbox.command()
@click.argument("type_name", metavar="TYPE")
@click.option("--event", type=click.Choice(TRIGGER_EVENTS), default="completed", show_default=True)
@click.option("--to", "url", metavar="URL", help="Default: the callback endpoint of this installation.")
@click.option("--test", is_flag=True, help="As for a task of a test key.")
@click.option("--with", "file", type=click.File(), help="JSON: the response.")
@click.option("--params", metavar="JSON", help="Parameters of the task, over those of the example.")
@click.option("--seed", type=int, default=0, show_default=True)
@AT
def trigger(
    type_name: str,
    event: str,
    url: str | None,
    test: bool,
    file: Any,
    params: str | None,
    seed: int,
    at: str | None,
) -> None:
    """Send one real callback about an example task, which exists nowhere."""
    from sandbox.engine.trigger import trigger as send_one
    from sandbox.errors import ScaleError

    settings = load_settings()
    environment = "test" if test else "live"
    url = url or settings.callback_url or f"http://127.0.0.1:{settings.port}/callbacks/scale"
    keys = [key for key in settings.sandbox_api_keys if is_test_key(key) == test] or [
        f"{environment}_sandbox"
    ]

    def put_file(content: bytes, media_type: str) -> str:
        """Only a running sandbox can keep a file so that the receiver may fetch it."""
        answer = _call(settings, at, "files", keys[0], data=content, headers={"Content-Type": media_type})
        return str(answer["url"])

    try:
        sent = send_one(
            type_name,
            event,
            url,
            _callback_key(settings, environment),
            api_key=keys[0],
            seed=seed,
            put_file=put_file,
            response=None if file is None else _json(file),
            changes=_object(params),
        )
    except ScaleError as error:
        raise click.ClickException(error.message) from None
    said = sent.outcome.status or sent.outcome.error
    click.echo(f"{event} {type_name} task {sent.task_id} ({len(sent.body)} bytes) to {url}: {said}")
    if not sent.outcome.succeeded:
        raise click.exceptions.Exit(1)


def _callback_key(settings: Settings, environment: str) -> str:
    """The first key that this installation takes callbacks of that environment with."""
    keys = settings.scale_test_callback_keys if environment == "test" else settings.scale_live_callback_keys
    return keys[0].decode() if keys else f"{environment}_callback_sandbox"


def _of(task_id: str, deed: str) -> str:
    return f"tasks/{quote(task_id, safe='')}/{deed}"


def _ask(at: str | None, path: str, body: dict[str, Any] | None, method: str = "POST") -> Any:
    """Ask a running sandbox, under whichever of its keys knows what is asked for."""
    settings = load_settings()
    for api_key in settings.sandbox_api_keys[:-1]:
        try:
            return _call(settings, at, path, api_key, method, json=body)
        except _NotFound:
            continue
    try:
        return _call(settings, at, path, settings.sandbox_api_keys[-1], method, json=body)
    except _NotFound as error:
        raise click.ClickException(error.message) from None


class _NotFound(click.ClickException):
    """Another key may know it."""


def _call(
    settings: Settings, at: str | None, path: str, api_key: str, method: str = "POST", **request: Any
) -> Any:
    address = (at or f"http://127.0.0.1:{settings.sandbox_port}").rstrip("/")
    try:
        answer = requests.request(
            method, f"{address}/sandbox/api/{path}", auth=(api_key, ""), timeout=60, **request
        )
    except requests.RequestException:
        raise click.ClickException(
            f"No sandbox answers at {address}. Start one with `flask sandbox serve`, or name it with --at."
        ) from None
    try:
        body = answer.json()
        if not isinstance(body, dict):
            raise ValueError
    except ValueError:
        raise click.ClickException(f"What answers at {address} is no sandbox.") from None
    said = str(body.get("error", f"The sandbox answered {answer.status_code}."))
    if answer.status_code == 404:
        raise _NotFound(said)
    if answer.status_code != 200:
        raise click.ClickException(said)
    return body


def _tell(task: dict[str, Any]) -> None:
    review = task.get("customer_review_status")
    click.echo(f"{task['task_id']}: {task['type']} is {task['status']}" + (f", {review}" if review else ""))


def _json(file: Any) -> Any:
    try:
        return json.load(file)
    except ValueError as error:
        raise click.ClickException(f"{file.name} is not JSON: {error}") from None


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise click.ClickException("--params takes a JSON object.")
    return value


def _value(text: str) -> Any:
    """Numbers as numbers, the rest as text, also what JSON has no number for."""
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text
