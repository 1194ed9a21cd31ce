"""The sandbox's page: its tasks, and forms to complete, audit, recall or fail one by hand."""

import json
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, abort, make_response, redirect, render_template, request, url_for
from sqlalchemy import select
from werkzeug.wrappers import Response as AnyResponse

from sandbox.engine import lifecycle
from sandbox.engine.creation import create_task
from sandbox.engine.faults import FAULTS
from sandbox.engine.sandbox import Sandbox
from sandbox.engine.tasks import task_object
from sandbox.errors import ScaleError
from sandbox.examples import EXAMPLES, example
from sandbox.settings import SPEEDS, SandboxSettings, is_test_account
from sandbox.storage.store import Delivery, Task
from sandbox.web import cross_site_protection
from sandbox.web.api.control import delivery_object
from sandbox.web.api.request_context import current_sandbox
from sandbox.web.bodies import parse_json

page = Blueprint("page", __name__, template_folder="templates")
page.before_request(cross_site_protection.check_form)

TASKS_PER_PAGE = 50
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"


@page.get("/")
def list_tasks() -> Response:
    """Show the tasks of all accounts, newest first, and the forms for new tasks, speed and faults."""
    sandbox = current_sandbox()
    newest_first = select(Task).order_by(Task.number.desc()).limit(TASKS_PER_PAGE + 1)
    if (before := request.args.get("before", type=int)) is not None and abs(before) < 2**63:
        newest_first = newest_first.where(Task.number < before)
    with sandbox.store.read() as session:
        found = list(session.scalars(newest_first))
    return _render(
        "tasks.html",
        tasks=found[:TASKS_PER_PAGE],
        older=found[TASKS_PER_PAGE - 1].number if len(found) > TASKS_PER_PAGE else None,
        rules=sandbox.faults.rules(),
        faults=FAULTS,
        speed=sandbox.speed,
        speeds=SPEEDS,
        types=EXAMPLES,
        callback_url=sandbox.settings.callback_url,
        accounts=_account_names(sandbox.settings),
    )


@page.get("/tasks/<name:task_id>")
def show_task(task_id: str) -> Response:
    """Show a task, its callbacks and the forms that its status allows."""
    task = _find_task(task_id)
    with current_sandbox().store.read() as session:
        sent = select(Delivery).where(Delivery.task_id == task_id).order_by(Delivery.number)
        deliveries = [delivery_object(delivery) for delivery in session.scalars(sent)]
    shown = task_object(task)
    return _render(
        "task.html",
        task=task,
        response=_pretty(shown.pop("response", None)),
        shown=_pretty(shown),
        deliveries=deliveries,
        results=lifecycle.AUDIT_RESULTS,
        kinds=lifecycle.ERROR_KINDS,
        message=request.args.get("message"),
    )


@page.post("/tasks")
def create_example() -> AnyResponse:
    """Create the example task of a type."""
    sandbox, account = current_sandbox(), request.form.get("account", "")
    type_name = request.form.get("type", "")
    if account not in sandbox.settings.accounts.values() or type_name not in EXAMPLES:
        abort(400)
    body = {**example(type_name), "callback_url": request.form.get("callback_url") or None}
    task = create_task(sandbox, account, type_name, body)
    return redirect(url_for("page.show_task", task_id=task["task_id"]), 303)


@page.post("/tasks/<name:task_id>/<name:action>")
def act_on_task(task_id: str, action: str) -> AnyResponse:
    """Act on a task as a labeler, reviewer or customer, then show it with any error."""
    task, response, message = _find_task(task_id), _form_json("response"), None
    if action not in _ACTIONS:
        abort(404)
    try:
        _ACTIONS[action](current_sandbox(), task, response)
    except ScaleError as error:
        message = error.message
    return redirect(url_for("page.show_task", task_id=task_id, message=message), 303)


def _complete(sandbox: Sandbox, task: Task, response: Any) -> None:
    has_response = response is not None
    lifecycle.complete(sandbox, task.account, task.task_id, response, has_response=has_response)


def _audit(sandbox: Sandbox, task: Task, response: Any) -> None:
    result, comments = request.form.get("result", ""), request.form.get("comments")
    lifecycle.audit(sandbox, task.account, task.task_id, result, comments, response)


def _fail(sandbox: Sandbox, task: Task, _response: Any) -> None:
    lifecycle.fail(sandbox, task.account, task.task_id, request.form.get("kind", ""))


_ACTIONS: dict[str, Callable[[Sandbox, Task, Any], Any]] = {
    "complete": _complete,
    "audit": _audit,
    "fail": _fail,
    "recall": lambda sandbox, task, _: lifecycle.recall(sandbox, task.account, task.task_id),
    "resend": lambda sandbox, task, _: lifecycle.resend(sandbox, task.account, task.task_id),
    "cancel": lambda sandbox, task, _: lifecycle.cancel(sandbox, task.account, task.task_id),
}


@page.post("/faults")
def change_faults() -> AnyResponse:
    """Add a fault rule, or remove all of them."""
    faults = current_sandbox().faults
    if request.form.get("off"):
        faults.remove_rules()
    else:
        faults.add_rule(
            {"fault": request.form.get("fault", ""), "share": _parse_share(request.form.get("share"))}
        )
    return redirect(url_for("page.list_tasks"), 303)


@page.post("/speed")
def set_speed() -> AnyResponse:
    """Set when live tasks are completed."""
    current_sandbox().set_speed(request.form.get("speed", ""))
    lifecycle.reschedule(current_sandbox())
    return redirect(url_for("page.list_tasks"), 303)


@page.errorhandler(ScaleError)
def show_error(error: ScaleError) -> Response:
    """Show an error as a page; the API answers in JSON."""
    answer = _render("error.html", message=error.message)
    answer.status_code = error.status
    return answer


def _find_task(task_id: str) -> Task:
    with current_sandbox().store.read() as session:
        task = session.scalar(select(Task).where(Task.task_id == task_id))
    if task is None:
        raise ScaleError(404, "Task with that ID not found.")
    return task


def _render(template: str, **values: Any) -> Response:
    """Render a page that other sites can neither frame nor script, with a form key for its session."""
    session_id = cross_site_protection.current_session_id()
    response = make_response(
        render_template(
            f"sandbox/{template}",
            form_key=cross_site_protection.form_key(session_id),
            is_test_account=is_test_account,
            **values,
        )
    )
    cross_site_protection.set_session_cookie(response, session_id)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _form_json(field: str) -> Any:
    """Return the JSON value of a form field, None if it is blank. Raises ScaleError (400)."""
    text = request.form.get(field)
    if not text or not text.strip():
        return None
    try:
        return parse_json(text.encode())
    except ValueError as error:
        raise ScaleError(400, f"The {field} is not valid JSON: {error}") from None


def _parse_share(text: str | None) -> float:
    try:
        return float(text or 1)
    except ValueError:
        raise ScaleError(400, "The share must be a number from 0 to 1.") from None


def _account_names(settings: SandboxSettings) -> dict[str, str]:
    """Return a name for each account: the key if it is a default one, else its environment and a part of the digest."""
    return {
        account: key if key in SandboxSettings.api_keys else f"{account[:4]} key {account[5:11]}"
        for key, account in settings.accounts.items()
    }


def _pretty(value: Any) -> str | None:
    return None if value is None else json.dumps(value, indent=2, ensure_ascii=False)
