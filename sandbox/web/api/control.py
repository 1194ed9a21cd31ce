"""/sandbox/api: what no API of Scale's has. Be its people, switch its faults, see what was sent. With an API key, too."""

from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import func, select
from sqlalchemy.orm import undefer

from sandbox.engine import batch_actions as deeds
from sandbox.engine import lifecycle
from sandbox.engine.faults import FAULTS
from sandbox.engine.tasks import find_task, task_object
from sandbox.errors import ScaleError
from sandbox.storage import clock
from sandbox.storage.store import Delivery, Received, Task
from sandbox.web.api.batches import batch_object
from sandbox.web.api.calls import account, current_sandbox, query
from sandbox.web.bodies import read_object

control = Blueprint("control", __name__, url_prefix="/sandbox/api")
receiver = Blueprint("receiver", __name__, url_prefix="/sandbox/receive")


@control.get("/state")
def get_state() -> dict[str, Any]:
    here = current_sandbox()
    with here.store.read() as session:
        tasks = session.execute(
            select(Task.status, func.count()).where(Task.account == account()).group_by(Task.status)
        )
        callbacks = session.execute(
            select(Delivery.state, func.count()).where(Delivery.account == account()).group_by(Delivery.state)
        )
        counts = {"tasks": dict(tasks.all()), "callbacks": dict(callbacks.all())}
    settings = here.settings
    return {"speed": here.speed, "seed": settings.seed, "time_scale": settings.time_scale, **counts}


@control.post("/state")
def set_state() -> dict[str, Any]:
    """`speed` is what can be changed while the sandbox runs; pending tasks follow it."""
    current_sandbox().set_speed(str(read_object(request).get("speed")))
    lifecycle.reschedule(current_sandbox())
    return get_state()


@control.post("/reset")
def reset() -> dict[str, Any]:
    """Forget everything, for all keys."""
    current_sandbox().reset()
    return get_state()


@control.get("/faults")
def list_faults() -> dict[str, Any]:
    known = [{**fault._asdict(), "options": dict(fault.options)} for fault in FAULTS]
    return {"rules": current_sandbox().faults.rules(), "known": known}


@control.post("/faults")
def switch_fault_on() -> dict[str, Any]:
    return current_sandbox().faults.add_rule(read_object(request))


@control.delete("/faults")
@control.delete("/faults/<int(max=9223372036854775807):number>")
def switch_fault_off(number: int | None = None) -> dict[str, Any]:
    current_sandbox().faults.remove_rules(number)
    return {"rules": current_sandbox().faults.rules()}


@control.get("/tasks/<name:task_id>")
def get_task(task_id: str) -> dict[str, Any]:
    """The task, the request that created it as it came, and what became of its callbacks."""
    with current_sandbox().store.read() as session:
        task = find_task(session, account(), task_id)
        shown = {"task": task_object(task), "request": task.request}
    return {**shown, "callbacks": _deliveries(task_id)}


@control.post("/tasks/<name:task_id>/complete")
def complete_task(task_id: str) -> dict[str, Any]:
    """Answer a pending task: with `response` if it is in the body, else as the annotators would."""
    body = read_object(request)
    return lifecycle.complete(
        current_sandbox(), account(), task_id, body.get("response"), given="response" in body
    )


@control.post("/tasks/<name:task_id>/audit")
def audit_task(task_id: str) -> dict[str, Any]:
    """`result` is accepted, rejected, fixed or commented; `response` is what a fix makes of the task's."""
    body = read_object(request)
    return lifecycle.audit(
        current_sandbox(),
        account(),
        task_id,
        str(body.get("result")),
        body.get("comments"),
        body.get("response"),
        str(body.get("source", "customer")),
    )


@control.post("/tasks/<name:task_id>/recall")
def recall_task(task_id: str) -> dict[str, Any]:
    return lifecycle.recall(current_sandbox(), account(), task_id)


@control.post("/tasks/<name:task_id>/fail")
def fail_task(task_id: str) -> dict[str, Any]:
    """End a pending task in error: of a `kind` (attachments, frames, message), or with this `response`."""
    body = read_object(request)
    return lifecycle.fail(
        current_sandbox(), account(), task_id, str(body.get("kind", "attachments")), body.get("response")
    )


@control.post("/tasks/<name:task_id>/resend")
def resend_callback(task_id: str) -> dict[str, Any]:
    return lifecycle.resend(current_sandbox(), account(), task_id)


@control.post("/batches/<name:batch>/complete")
def complete_batch(batch: str) -> dict[str, Any]:
    """Finish a batch by hand, whatever its tasks."""
    with current_sandbox().store.write() as session:
        found = deeds.find_batch(session, account(), batch)
        lifecycle.finish_batch(session, current_sandbox().faults, found)
        shown = batch_object(found)
    current_sandbox().wake()
    return shown


@control.get("/callbacks")
def list_callbacks() -> dict[str, Any]:
    """Every callback of this key, oldest first, with each try; `task_id` and `state` filter."""
    return {"callbacks": _deliveries(query("task_id"), query("state"))}


@control.get("/callbacks/<int(max=9223372036854775807):number>/body")
def get_callback_body(number: int) -> Response:
    with current_sandbox().store.read() as session:
        delivery = session.get(Delivery, number, options=[undefer(Delivery.body)])
    if delivery is None or delivery.account != account():
        raise ScaleError(404, "Callback with that number not found.")
    return Response(delivery.body, content_type="application/json")


@control.post("/files")
def keep_file() -> dict[str, str]:
    """Keep the body as a result file."""
    return {
        "url": current_sandbox().files.put(request.get_data(), request.mimetype or "application/octet-stream")
    }


@control.get("/received")
def list_received() -> dict[str, Any]:
    """What came to /sandbox/receive, oldest first."""
    with current_sandbox().store.read() as session:
        return {
            "received": [
                {
                    "path": received.path,
                    "headers": received.headers,
                    "body": received.body.decode("utf-8", "replace"),
                    "received_at": clock.iso(received.received_at),
                }
                for received in session.scalars(select(Received).order_by(Received.number))
            ]
        }


@receiver.post("")
@receiver.post("/<path:path>")
def receive(path: str = "") -> dict[str, bool]:
    """Take any callback: the address to give to tasks while there is no service yet."""
    received = Received(
        path=path,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=request.get_data(),
        received_at=clock.now(),
    )
    with current_sandbox().store.write() as session:
        session.add(received)
    return {"received": True}


def _deliveries(task_id: str | None, state: str | None = None) -> list[dict[str, Any]]:
    mine = select(Delivery).where(Delivery.account == account()).order_by(Delivery.number)
    if task_id is not None:
        mine = mine.where(Delivery.task_id == task_id)
    if state is not None:
        mine = mine.where(Delivery.state == state)
    with current_sandbox().store.read() as session:
        return [delivery_object(delivery) for delivery in session.scalars(mine)]


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    return {
        "number": delivery.number,
        "task_id": delivery.task_id,
        "batch": delivery.batch,
        "event": delivery.event,
        "url": delivery.url,
        "state": delivery.state,
        "faults": delivery.faults,
        "tries": delivery.tries,
        "next_try_at": None if delivery.next_try_at is None else clock.iso(delivery.next_try_at),
    }
