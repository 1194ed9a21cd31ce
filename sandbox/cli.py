"""`weighbridge sandbox …`: run a simulation of Scale and act on its tasks from the command line."""

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import requests

from config import Settings, load_settings
from sandbox.settings import (
    LIVE_CALLBACK_KEY,
    SPEEDS,
    TEST_CALLBACK_KEY,
    SandboxSettings,
    is_test_key,
)

REQUEST_TIMEOUT_SECONDS = 60
url_option = click.option(
    "--at",
    "sandbox_url",
    metavar="URL",
    help="Use the sandbox at this URL. Default: the one on SANDBOX_PORT.",
)


@click.group()
def sandbox() -> None:
    """Run a simulation of Scale: its API, its annotators and its callbacks."""


@sandbox.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Listen on this port; 0 selects a free one. Default: SANDBOX_PORT, 8001.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address.")
@click.option("--memory", is_flag=True, help="Use an in-memory database.")
@click.option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("var/sandbox.db"),
    show_default=True,
    help="Store data in this SQLite file.",
)
@click.option(
    "--speed",
    type=click.Choice(SPEEDS),
    help="Set when tasks of live keys are completed; those of test keys are completed at once."
    " Default: SANDBOX_SPEED, instant.",
)
@click.option(
    "--rejection-share",
    type=click.FloatRange(0, 1),
    help="Reject this share of completed tasks and accept the others. Default: SANDBOX_REJECTION_SHARE, no reviews.",
)
@click.option("--confidences", is_flag=True, help="Add a confidence to the blocks of document responses.")
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Set how many of Scale's seconds pass in one second; at 3600, the 24 hours of retries take 24 s.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for responses and faults.")
@click.option(
    "--callback-url", metavar="URL", help="Send the callbacks of tasks without a callback_url here."
)
@click.option("--public-url", metavar="URL", help="Set the URL under which other machines reach the sandbox.")
@click.option("--until-stdin-closes", is_flag=True, help="Stop when the parent process closes stdin.")
def serve(
    port: int | None,
    host: str,
    memory: bool,
    database: Path,
    speed: str | None,
    rejection_share: float | None,
    callback_url: str | None,
    public_url: str | None,
    until_stdin_closes: bool,
    **options: Any,
) -> None:
    """Serve until stopped. The first line of the output names the URL."""
    gc.disable()  # importing makes objects that stay: no collection has to look at them, now or later
    from sandbox.storage.store import UnusableDatabase
    from sandbox.web.server import PortUnavailable
    from sandbox.web.server import serve as serve_until_stopped

    gc.freeze()
    gc.enable()
    settings = load_settings()
    sandbox_settings = SandboxSettings(
        api_keys=settings.sandbox_api_keys,
        live_callback_key=_callback_key(settings, is_test=False),
        test_callback_key=_callback_key(settings, is_test=True),
        database=None if memory else database,
        speed=speed or settings.sandbox_speed,
        rejection_share=settings.sandbox_rejection_share if rejection_share is None else rejection_share,
        callback_url=callback_url,
        service_url=callback_url or settings.callback_url,
        **options,
    )
    port = settings.sandbox_port if port is None else port
    try:
        serve_until_stopped(sandbox_settings, host, port, public_url, until_stdin_closes)
    except PortUnavailable as error:
        raise click.ClickException(f"{error} Choose another port with --port.") from None
    except UnusableDatabase as error:
        raise click.ClickException(str(error)) from None


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@click.option(
    "--with",
    "file",
    type=click.File(),
    help="Read the response from this JSON file. Default: the response of the simulated annotators.",
)
@url_option
def complete(task_id: str, file: Any, sandbox_url: str | None) -> None:
    """Complete a pending task."""
    body = {} if file is None else {"response": _read_json(file)}
    _print_task(_call_with_any_key(sandbox_url, _task_path(task_id, "complete"), body))


@sandbox.command("list")
@click.option("--status", default="pending", show_default=True, help="Status of the tasks, or `all`.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Tasks of each account."
)
@url_option
def list_tasks(status: str, limit: int, sandbox_url: str | None) -> None:
    """List the tasks of every account, the newest first."""
    settings = load_settings()
    chosen = {"limit": limit} | ({} if status == "all" else {"status": status})
    for api_key in settings.sandbox_api_keys:
        for task in _call(settings, sandbox_url, "v1/tasks", api_key, "GET", params=chosen)["docs"]:
            _print_task(task)


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@click.argument("result", type=click.Choice(("accepted", "rejected", "fixed", "commented")))
@click.option("--comments", help="Add a comment to the review.")
@click.option("--with", "file", type=click.File(), help="Read the response of a fix from this JSON file.")
@url_option
def audit(task_id: str, result: str, comments: str | None, file: Any, sandbox_url: str | None) -> None:
    """Review a completed task."""
    body = {"result": result, "comments": comments}
    response = {} if file is None else {"response": _read_json(file)}
    _print_task(_call_with_any_key(sandbox_url, _task_path(task_id, "audit"), {**body, **response}))


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@url_option
def recall(task_id: str, sandbox_url: str | None) -> None:
    """Recall a completed task for more work."""
    _print_task(_call_with_any_key(sandbox_url, _task_path(task_id, "recall"), {}))


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@click.option(
    "--kind",
    type=click.Choice(("attachments", "frames", "message")),
    default="attachments",
    show_default=True,
    help="Choose the kind of error.",
)
@url_option
def fail(task_id: str, kind: str, sandbox_url: str | None) -> None:
    """End a pending task in error."""
    _print_task(_call_with_any_key(sandbox_url, _task_path(task_id, "fail"), {"kind": kind}))


@sandbox.command()
@click.argument("task_id", metavar="TASK")
@url_option
def resend(task_id: str, sandbox_url: str | None) -> None:
    """Send the callback of a task again."""
    _print_task(_call_with_any_key(sandbox_url, _task_path(task_id, "resend"), {}))


@sandbox.command()
@click.argument("fault", required=False)
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]…")
@click.option("--off", is_flag=True, help="Remove all fault rules.")
@url_option
def faults(fault: str | None, settings: tuple[str, ...], off: bool, sandbox_url: str | None) -> None:
    """List faults, or inject one: `faults duplicated share=0.5 type=annotation`."""
    if off:
        _call_with_any_key(sandbox_url, "faults", None, "DELETE")
    if fault is not None:
        options = dict(setting.partition("=")[::2] for setting in settings)
        rule = {"fault": fault, **{name: _parse_value(text) for name, text in options.items()}}
        _call_with_any_key(sandbox_url, "faults", rule)
    answer = _call_with_any_key(sandbox_url, "faults", None, "GET")
    for active in answer["rules"]:
        click.echo(f"active: {json.dumps(active)}")
    for known in answer["known"] if fault is None and not off else ():
        defaults = ", ".join(f"{name}={value}" for name, value in known["options"].items())
        click.echo(f"{known['name']:22}{known['summary']}" + (f" ({defaults})" if defaults else ""))


@sandbox.command()
@click.option("--speed", type=click.Choice(SPEEDS), help="Set when tasks of live keys are completed.")
@click.option(
    "--rejection-share",
    type=click.FloatRange(0, 1),
    help="Reject this share of completed tasks and accept the others.",
)
@click.option("--no-reviews", is_flag=True, help="Review no tasks.")
@click.option("--confidences/--no-confidences", default=None, help="Add a confidence to document responses.")
@url_option
def behavior(
    speed: str | None,
    rejection_share: float | None,
    no_reviews: bool,
    confidences: bool | None,
    sandbox_url: str | None,
) -> None:
    """Show or change how a running sandbox annotates and reviews."""
    given = {"speed": speed, "rejection_share": rejection_share, "confidences": confidences}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if no_reviews:
        changes["rejection_share"] = None
    state = _call_with_any_key(sandbox_url, "state", changes or None, "POST" if changes else "GET")
    for name in given:
        click.echo(f"{name}: {json.dumps(state[name])}")


TRIGGER_EVENTS = ("completed", "accepted", "rejected", "fixed", "commented", "recalled", "error")


@sandbox.command()
@click.argument("type_name", metavar="TYPE")
@click.option(
    "--event",
    type=click.Choice(TRIGGER_EVENTS),
    default="completed",
    show_default=True,
    help="Choose the event that the callback reports.",
)
@click.option(
    "--to",
    "url",
    metavar="URL",
    help="Send the callback to this URL. Default: the callback endpoint of this installation.",
)
@click.option("--test", "is_test", is_flag=True, help="Send the callback of a test task.")
@click.option("--with", "file", type=click.File(), help="Read the response from this JSON file.")
@click.option("--params", metavar="JSON", help="Override parameters of the example task.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for the response.")
@url_option
def trigger(
    type_name: str,
    event: str,
    url: str | None,
    is_test: bool,
    file: Any,
    params: str | None,
    seed: int,
    sandbox_url: str | None,
) -> None:
    """Send one callback about an example task that does not exist."""
    from sandbox.annotators import AnnotatorContext
    from sandbox.engine.trigger import trigger as send_callback
    from sandbox.errors import ScaleError

    settings = load_settings()
    own_url = settings.callback_url or f"http://127.0.0.1:{settings.port}/callbacks/scale"
    api_key = _first_key(settings, is_test)
    url = url or own_url

    def put_file(content: bytes, media_type: str) -> str:
        """Store a file in a running sandbox, so that the receiver can fetch it."""
        headers = {"Content-Type": media_type}
        answer = _call(settings, sandbox_url, "files", api_key, data=content, headers=headers)
        return str(answer["url"])

    try:
        sent = send_callback(
            type_name,
            event,
            url,
            _callback_key(settings, is_test) if url == own_url else _default_callback_key(is_test),
            api_key=api_key,
            context=AnnotatorContext(seed=seed, put_file=put_file),
            response=None if file is None else _read_json(file),
            changes=_parse_object(params),
        )
    except ScaleError as error:
        raise click.ClickException(error.message) from None
    outcome = sent.outcome.status or sent.outcome.error
    click.echo(f"{event} {type_name} task {sent.task_id} ({len(sent.body)} bytes) to {url}: {outcome}")
    if not sent.outcome.succeeded:
        raise click.exceptions.Exit(1)


def _first_key(settings: Settings, is_test: bool) -> str:
    """Return the first API key of an environment."""
    keys = (key for key in settings.sandbox_api_keys if is_test_key(key) == is_test)
    return next(keys, "test_sandbox" if is_test else "live_sandbox")


def _callback_key(settings: Settings, is_test: bool) -> str:
    """Return the first key with which this installation accepts callbacks of an environment."""
    keys = settings.scale_test_callback_keys if is_test else settings.scale_live_callback_keys
    return keys[0].decode() if keys else _default_callback_key(is_test)


def _default_callback_key(is_test: bool) -> str:
    """Return the callback key of every sandbox: URLs other than the installation's own receive no other."""
    return TEST_CALLBACK_KEY if is_test else LIVE_CALLBACK_KEY


def _task_path(task_id: str, action: str) -> str:
    return f"tasks/{quote(task_id, safe='')}/{action}"


def _call_with_any_key(
    sandbox_url: str | None, path: str, body: Mapping[str, Any] | None, method: str = "POST"
) -> Any:
    """Call a running sandbox with each of its keys until one of them finds the resource."""
    settings = load_settings()
    for api_key in settings.sandbox_api_keys[:-1]:
        try:
            return _call(settings, sandbox_url, path, api_key, method, json=body)
        except _NotFound:
            continue
    try:
        return _call(settings, sandbox_url, path, settings.sandbox_api_keys[-1], method, json=body)
    except _NotFound as error:
        raise click.ClickException(error.message) from None


class _NotFound(click.ClickException):
    """Raised when the account of the key has no such resource."""


def _call(
    settings: Settings,
    sandbox_url: str | None,
    path: str,
    api_key: str,
    method: str = "POST",
    **request: Any,
) -> Any:
    """Call the control API of a running sandbox, or its Scale API (`v1/…`), and return the JSON object of its answer."""
    url = (sandbox_url or f"http://127.0.0.1:{settings.sandbox_port}").rstrip("/")
    try:
        answer = requests.request(
            method,
            f"{url}/{path if path.startswith('v1/') else f'sandbox/api/{path}'}",
            auth=(api_key, ""),
            timeout=REQUEST_TIMEOUT_SECONDS,
            **request,
        )
    except requests.RequestException:
        raise click.ClickException(
            f"No sandbox answers at {url}. Start one with `weighbridge sandbox serve`, or pass its URL with --at."
        ) from None
    try:
        body = answer.json()
        if not isinstance(body, dict):
            raise ValueError
    except ValueError:
        raise click.ClickException(f"The server at {url} is not a sandbox.") from None
    message = str(body.get("error", f"The sandbox answered {answer.status_code}."))
    if answer.status_code == 404:
        raise _NotFound(message)
    if answer.status_code != 200:
        raise click.ClickException(message)
    return body


def _print_task(task: Mapping[str, Any]) -> None:
    review = task.get("customer_review_status")
    unique_id = f" ({task['unique_id']})" if task.get("unique_id") else ""
    state = f"{task['status']}, {review}" if review else task["status"]
    click.echo(f"{task['task_id']}: {task['type']}{unique_id} is {state}")


def _read_json(file: Any) -> Any:
    try:
        return json.load(file)
    except ValueError as error:
        raise click.ClickException(f"{file.name} is not JSON: {error}") from None


def _parse_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise click.ClickException("--params takes a JSON object.")
    return value


def _parse_value(text: str) -> Any:
    """Return a number if the text is a JSON number, else the text, including NaN and Infinity."""
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text
