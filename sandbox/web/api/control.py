"""Endpoints of /sandbox/api, which Scale does not have: act as labeler or reviewer, inject faults, inspect callbacks."""

import hmac
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import func, select
from sqlalchemy.orm import undefer

from sandbox.engine import batch_actions, lifecycle, received
from sandbox.engine.faults import FAULTS
from sandbox.engine.tasks import find_task, task_object
from sandbox.errors import ScaleError
from sandbox.settings import LIVE_CALLBACK_KEY, TEST_CALLBACK_KEY
from sandbox.storage import clock
from sandbox.storage.store import Delivery, Task
from sandbox.web.api.batches import batch_object
from sandbox.web.api.request_context import current_account, current_sandbox, query_value
from sandbox.web.bodies import read_bytes, read_object

control = Blueprint("control", __name__, url_prefix="/sandbox/api")
receiver = Blueprint("receiver", __name__, url_prefix="/sandbox/receive")


@control.get("/state")
def get_state() -> dict[str, Any]:
    """Return the behavior of the sandbox, and the number of the account's tasks and callbacks by state."""
    sandbox, account = current_sandbox(), current_account()
    with sandbox.store.read() as session:
        tasks = session.execute(
            select(Task.status, func.count()).where(Task.account == account).group_by(Task.status)
        )
        callbacks = session.execute(
            select(Delivery.state, func.count()).where(Delivery.account == account).group_by(Delivery.state)
        )
        counts = {
            "tasks": {row[0]: row[1] for row in tasks},
            "callbacks": {row[0]: row[1] for row in callbacks},
        }
    settings = sandbox.settings
    return {
        "speed": sandbox.speed,
        "rejection_share": sandbox.rejection_share,
        "confidences": sandbox.confidences,
        "seed": settings.seed,
        "time_scale": settings.time_scale,
        **counts,
    }


@control.post("/state")
def set_state() -> dict[str, Any]:
    """Change the `speed`, which pending tasks follow, the `rejection_share`, or `confidences`. Raises ScaleError (400)."""
    sandbox, body = current_sandbox(), read_object(request)
    if unknown := body.keys() - {"speed", "rejection_share", "confidences"}:
        raise ScaleError(
            400, f"The state has no {sorted(unknown)[0]}; it has speed, rejection_share, confidences"
        )
    if "rejection_share" in body:
        sandbox.set_rejection_share(body["rejection_share"])
    if "confidences" in body:
        sandbox.set_confidences(body["confidences"])
    if "speed" in body:
        sandbox.set_speed(str(body["speed"]))
        lifecycle.reschedule(sandbox)
    return get_state()


@control.post("/reset")
def reset() -> dict[str, Any]:
    """Delete everything, of all accounts."""
    current_sandbox().reset()
    return get_state()


@control.get("/faults")
def list_faults() -> dict[str, Any]:
    """List the active fault rules and the known faults with their options."""
    known = [{**fault._asdict(), "options": dict(fault.options)} for fault in FAULTS]
    return {"rules": current_sandbox().faults.rules(), "known": known}


@control.post("/faults")
def add_fault_rule() -> dict[str, Any]:
    """Add a fault rule."""
    return current_sandbox().faults.add_rule(read_object(request))


@control.delete("/faults")
@control.delete("/faults/<int(max=9223372036854775807):number>")
def remove_fault_rules(number: int | None = None) -> dict[str, Any]:
    """Remove one fault rule, or all of them."""
    current_sandbox().faults.remove_rules(number)
    return {"rules": current_sandbox().faults.rules()}


@control.get("/responses")
def list_responses() -> dict[str, Any]:
    """List the rules for scripted responses."""
    return {"rules": current_sandbox().responses.rules()}


@control.post("/responses")
def add_response_rule() -> dict[str, Any]:
    """Give matching tasks a fixed `response`."""
    return current_sandbox().responses.add_rule(read_object(request))


@control.delete("/responses")
def remove_response_rules() -> dict[str, Any]:
    """Remove all rules for scripted responses."""
    current_sandbox().responses.clear()
    return {"rules": []}


@control.get("/tasks/<name:task_id>")
def get_task(task_id: str) -> dict[str, Any]:
    """Return a task, the unchanged request that created it, and its callbacks."""
    with current_sandbox().store.read() as session:
        task = find_task(session, current_account(), task_id)
        shown = {"task": task_object(task), "request": task.request}
    return {**shown, "callbacks": _list_deliveries(task_id)}


@control.post("/tasks/<name:task_id>/complete")
def complete_task(task_id: str) -> dict[str, Any]:
    """Complete a pending task: with the `response` of the body, else as the annotators would."""
    body = read_object(request)
    return lifecycle.complete(
        current_sandbox(), current_account(), task_id, body.get("response"), has_response="response" in body
    )


@control.post("/tasks/<name:task_id>/audit")
def audit_task(task_id: str) -> dict[str, Any]:
    """Review a completed task with a `result`: accepted, rejected, fixed (with a `response`) or commented."""
    body = read_object(request)
    return lifecycle.audit(
        current_sandbox(),
        current_account(),
        task_id,
        str(body.get("result")),
        body.get("comments"),
        body.get("response"),
        str(body.get("source", "customer")),
    )


@control.post("/tasks/<name:task_id>/recall")
def recall_task(task_id: str) -> dict[str, Any]:
    """Recall a completed task."""
    return lifecycle.recall(current_sandbox(), current_account(), task_id)


@control.post("/tasks/<name:task_id>/fail")
def fail_task(task_id: str) -> dict[str, Any]:
    """End a pending task in error: of a `kind` (attachments, frames, message), or with this `response`."""
    body = read_object(request)
    kind = str(body.get("kind", "attachments"))
    return lifecycle.fail(current_sandbox(), current_account(), task_id, kind, body.get("response"))


@control.post("/tasks/<name:task_id>/resend")
def resend_callback(task_id: str) -> dict[str, Any]:
    """Send the callback of a task again."""
    return lifecycle.resend(current_sandbox(), current_account(), task_id)


@control.post("/batches/<name:batch>/complete")
def complete_batch(batch: str) -> dict[str, Any]:
    """Complete a batch, whatever the status of its tasks."""
    with current_sandbox().store.write() as session:
        found = batch_actions.find_batch(session, current_account(), batch)
        lifecycle.finish_batch(session, current_sandbox().faults, found)
        shown = batch_object(found)
    current_sandbox().work_available.set()
    return shown


@control.get("/callbacks")
def list_callbacks() -> dict[str, Any]:
    """List the account's callbacks, oldest first, with each attempt; filter by `task_id` and `state`."""
    return {"callbacks": _list_deliveries(query_value("task_id"), query_value("state"))}


@control.get("/callbacks/<int(max=9223372036854775807):number>/body")
def get_callback_body(number: int) -> Response:
    """Return the body of a callback."""
    with current_sandbox().store.read() as session:
        delivery = session.get(Delivery, number, options=[undefer(Delivery.body)])
    if delivery is None or delivery.account != current_account():
        raise ScaleError(404, "Callback with that number not found.")
    return Response(delivery.body, content_type="application/json")


@control.post("/files")
def store_file() -> dict[str, str]:
    """Store the body as a result file and return its URL."""
    media_type = request.mimetype or "application/octet-stream"
    return {"url": current_sandbox().files.put(request.get_data(), media_type)}


@control.get("/received")
def list_received() -> dict[str, Any]:
    """List the callbacks that /sandbox/receive accepted, oldest first."""
    return {"received": received.list_callbacks(current_sandbox())}


@receiver.post("")
@receiver.post("/<path:path>")
def receive(path: str = "") -> dict[str, bool]:
    """Accept a callback of a sandbox, for tasks that have no service yet. Raises ScaleError (401) for another key."""
    key = request.headers.get("scale-callback-auth", "").encode()
    if not any(hmac.compare_digest(key, known.encode()) for known in (LIVE_CALLBACK_KEY, TEST_CALLBACK_KEY)):
        raise ScaleError(401, "Missing or unknown scale-callback-auth.")
    headers = {name.lower(): value for name, value in request.headers.items()}
    received.store_callback(current_sandbox(), path, headers, read_bytes(request, received.MAX_BODY_BYTES))
    return {"received": True}


def _list_deliveries(task_id: str | None, state: str | None = None) -> list[dict[str, Any]]:
    selected = select(Delivery).where(Delivery.account == current_account()).order_by(Delivery.number)
    if task_id is not None:
        selected = selected.where(Delivery.task_id == task_id)
    if state is not None:
        selected = selected.where(Delivery.state == state)
    with current_sandbox().store.read() as session:
        return [delivery_object(delivery) for delivery in session.scalars(selected)]


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    """Return a callback with its state and attempts."""
    next_attempt_at = delivery.next_attempt_at
    return {
        "number": delivery.number,
        "task_id": delivery.task_id,
        "batch": delivery.batch,
        "event": delivery.event,
        "url": delivery.url,
        "state": delivery.state,
        "faults": delivery.faults,
        "attempts": delivery.attempts,
        "next_attempt_at": None if next_attempt_at is None else clock.format_timestamp(next_attempt_at),
    }
