"""The sandbox's page: its tasks, and forms to answer, audit, recall or break one by hand. For people on this machine."""

import hmac
import json
import secrets
from typing import Any

from flask import Blueprint, Response, abort, make_response, redirect, render_template, request, url_for
from sqlalchemy import select
from werkzeug.wrappers import Response as AnyResponse

from sandbox.engine import lifecycle
from sandbox.engine.creation import create
from sandbox.engine.faults import FAULTS
from sandbox.engine.tasks import task_object
from sandbox.errors import ScaleError
from sandbox.examples import EXAMPLES, example
from sandbox.settings import SPEEDS, is_test_key
from sandbox.storage.store import Delivery, Task
from sandbox.web.api.calls import current_sandbox
from sandbox.web.api.control import delivery_object
from sandbox.web.bodies import parse

page = Blueprint("page", __name__, template_folder="templates")

TASKS_A_PAGE = 50
COOKIE = "sandbox_form"


@page.get("/")
def list_tasks() -> Response:
    here = current_sandbox()
    newest_first = select(Task).order_by(Task.number.desc()).limit(TASKS_A_PAGE + 1)
    if (before := request.args.get("before", type=int)) is not None and abs(before) < 2**63:
        newest_first = newest_first.where(Task.number < before)
    with here.store.read() as session:
        found = list(session.scalars(newest_first))
    return _rendered(
        "tasks.html",
        tasks=found[:TASKS_A_PAGE],
        older=found[TASKS_A_PAGE - 1].number if len(found) > TASKS_A_PAGE else None,
        switches=here.faults.rules(),
        faults=FAULTS,
        speed=here.speed,
        speeds=SPEEDS,
        types=EXAMPLES,
        callback_url=here.settings.callback_url,
        api_keys=[_shown_key(key) for key in here.settings.api_keys],
    )


@page.get("/tasks/<name:task_id>")
def show_task(task_id: str) -> Response:
    task = _task(task_id)
    with current_sandbox().store.read() as session:
        sent = select(Delivery).where(Delivery.task_id == task_id).order_by(Delivery.number)
        deliveries = [delivery_object(delivery) for delivery in session.scalars(sent)]
    shown = task_object(task)
    return _rendered(
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
    """A task from the example of its type, with a callback to the address that was typed."""
    _check_form()
    here = current_sandbox()
    api_key = next(
        (key for key in here.settings.api_keys if _shown_key(key) == request.form.get("api_key")), None
    )
    type_name = request.form.get("type", "")
    if api_key is None or type_name not in EXAMPLES:
        abort(400)
    body = {**example(type_name), "callback_url": request.form.get("callback_url") or None}
    return _did(lambda: create(here, api_key, type_name, body), None)


@page.post("/tasks/<name:task_id>/<name:deed>")
def do(task_id: str, deed: str) -> AnyResponse:
    _check_form()
    task, form, here = _task(task_id), request.form, current_sandbox()
    response = _typed_json(form.get("response"))
    if deed == "complete":
        given = response is not None
        return _did(lambda: lifecycle.complete(here, task.account, task_id, response, given), task_id)
    if deed == "audit":
        result, comments = form.get("result", ""), form.get("comments")
        return _did(lambda: lifecycle.audit(here, task.account, task_id, result, comments, response), task_id)
    if deed == "fail":
        return _did(lambda: lifecycle.fail(here, task.account, task_id, form.get("kind", "")), task_id)
    if deed == "recall":
        return _did(lambda: lifecycle.recall(here, task.account, task_id), task_id)
    if deed == "resend":
        return _did(lambda: lifecycle.resend(here, task.account, task_id), task_id)
    if deed == "cancel":
        return _did(lambda: lifecycle.cancel(here, task.account, task_id), task_id)
    abort(404)


@page.post("/faults")
def switch_fault() -> AnyResponse:
    _check_form()
    here = current_sandbox()
    if request.form.get("off"):
        here.faults.remove_rules()
    else:
        here.faults.add_rule(
            {"fault": request.form.get("fault", ""), "share": _share(request.form.get("share"))}
        )
    return redirect(url_for("page.list_tasks"), 303)


@page.post("/speed")
def set_speed() -> AnyResponse:
    _check_form()
    current_sandbox().set_speed(request.form.get("speed", ""))
    lifecycle.reschedule(current_sandbox())
    return redirect(url_for("page.list_tasks"), 303)


@page.errorhandler(ScaleError)
def show_error(error: ScaleError) -> Response:
    """A person reads this one; the API answers in JSON."""
    answer = _rendered("error.html", message=error.message)
    answer.status_code = error.status
    return answer


def _did(deed: Any, task_id: str | None) -> AnyResponse:
    """Do it, and show the task with what came of it."""
    try:
        task_id, message = deed()["task_id"], None
    except ScaleError as error:
        message = error.message
        if task_id is None:
            raise
    return redirect(url_for("page.show_task", task_id=task_id, message=message), 303)


def _task(task_id: str) -> Task:
    with current_sandbox().store.read() as session:
        task = session.scalar(select(Task).where(Task.task_id == task_id))
    if task is None:
        raise ScaleError(404, "Task with that ID not found.")
    return task


def _rendered(template: str, **values: Any) -> Response:
    """A page whose forms carry what its cookie does: another site can send neither, nor frame or script this one."""
    form_key = request.cookies.get(COOKIE) or secrets.token_urlsafe(24)
    response = make_response(
        render_template(f"sandbox/{template}", form_key=form_key, is_test_key=is_test_key, **values)
    )
    response.set_cookie(COOKIE, form_key, httponly=True, samesite="Strict")
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _check_form() -> None:
    cookie, field = request.cookies.get(COOKIE, ""), request.form.get("form_key", "")
    if not cookie or not hmac.compare_digest(cookie.encode(), field.encode()):
        raise ScaleError(403, "This form is too old, or not the sandbox's own. Load the page again.")


def _typed_json(text: str | None) -> Any:
    if not text or not text.strip():
        return None
    try:
        return parse(text.encode())
    except ValueError as error:
        raise ScaleError(400, f"The response is not valid JSON: {error}") from None


def _share(text: str | None) -> float:
    try:
        return float(text or 1)
    except ValueError:
        raise ScaleError(400, "The share must be a number from 0 to 1.") from None


def _shown_key(api_key: str) -> str:
    """Enough of a key to tell it from the others."""
    return api_key if len(api_key) <= 14 else f"{api_key[:10]}…{api_key[-3:]}"


def _pretty(value: Any) -> str | None:
    return None if value is None else json.dumps(value, indent=2, ensure_ascii=False)
