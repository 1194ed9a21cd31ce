"""What can be done about one task: replay its newest delivery, have Scale send its callback again, or cancel it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flask import abort, flash, redirect, url_for
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.follow_ups import decisions
from pipeline.operations.queries import Record
from pipeline.operations.queries.deliveries import list_deliveries
from pipeline.operations.queries.tasks import get_task
from pipeline.operations.scale_calls import change_at_scale
from pipeline.receive import replay
from pipeline.receive.receive import DatabaseBusy
from scale.client import Client, ScaleError


@blueprint.post("/tasks/<task_id>/replay")
def replay_task(task_id: str) -> Response:
    """Apply the newest delivery of the task again with the current code."""
    _find(task_id)
    with service().reader.begin() as connection:
        rows = list_deliveries(connection, {"task_id": task_id}, limit=1).rows
    if not rows:
        abort(409, "No delivery of this task is stored.")
    try:
        done = replay.replay(service(), rows[0]["id"], session.actor())
    except DatabaseBusy:
        abort(503, "The task is locked; try again.")
    dispatcher().dispatch(done.receipt.jobs)
    flash(f"Replayed the newest delivery; changed: {', '.join(done.changed) or 'nothing'}.")
    return _back(task_id)


@blueprint.post("/tasks/<task_id>/resend")
def resend_task(task_id: str) -> Response:
    """Let Scale send the callback of the task again."""
    client = _client(_find(task_id))
    _call("resend", task_id, client.resend_callback)
    flash("Scale sends the callback again.")
    return _back(task_id)


@blueprint.post("/tasks/<task_id>/cancel")
def cancel_task(task_id: str) -> Response:
    """Cancel the task at Scale: as the decision about its follow-up where a workflow created it."""
    task = _find(task_id)
    if task["source"] is not None:
        with service().engine.begin() as connection:
            job_ids = decisions.cancel(connection, task["source"]["unique_id"], session.actor())
        dispatcher().dispatch(job_ids)
        flash("The follow-up of this task is canceled at Scale by a job.")
        return _back(task_id)
    _call("cancel", task_id, _client(task).cancel_task)
    flash("Canceled at Scale. The status changes with its callback.")
    return _back(task_id)


def _find(task_id: str) -> Record:
    session.require_role(OPERATE)
    with service().reader.begin() as connection:
        return get_task(connection, task_id)


def _client(task: Record) -> Client:
    client = service().client(task["environment"])
    if client is None:
        abort(409, f"No API key for {task['environment']} tasks is set, so Scale cannot be called.")
    return client


def _call(action: str, task_id: str, call: Callable[[str], object]) -> None:
    try:
        change_at_scale(service(), session.actor(), action, task_id, partial(call, task_id))
    except ScaleError as error:
        abort(502, f"Scale refused: {error}")


def _back(task_id: str) -> Response:
    return redirect(url_for("console.task", task_id=task_id))
