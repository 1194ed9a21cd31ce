"""Decisions about all rows that match a filter: asked for with count and cost, done in batches, watched and stopped."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask import abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.bulk_decisions import cost_of
from app.console import session
from app.console.frame import blueprint, live_part, page, sentence
from app.console.lists import PAGE_ROWS, download, refuse_nul
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.jobs import kinds, queue
from pipeline.operations import bulk_actions
from pipeline.operations.bulk_actions import RUNNING, Action

INLINE_SECONDS = 2.0
"""How long the request itself decides; a worker continues what is left."""
FIELDS = (
    "id",
    "action",
    "filters",
    "actor",
    "state",
    "expected",
    "done",
    "failed",
    "cost",
    "last_error",
    "created_at",
    "completed_at",
)
BACK = {"follow-ups": "console.follow_ups", "deliveries": "console.deliveries", "jobs": "console.jobs"}


@blueprint.get("/bulk-actions")
def bulk_actions_list() -> Response:
    """List bulk actions, newest first."""
    with service().reader.begin() as connection:
        found = bulk_actions.list_actions(
            connection, limit=PAGE_ROWS, cursor=request.args.get("cursor") or None
        )
    if (answer := download(FIELDS, found.rows)) is not None:
        return answer
    return page("bulk_actions.html", "Bulk actions", rows=found.rows, next_cursor=found.next_cursor)


@blueprint.get("/bulk-actions/new/<name>")
def confirm_bulk_action(name: str) -> Response:
    """Show what an action would decide about: filter, count and cost. Nothing is changed yet."""
    session.require_role(OPERATE)
    action = bulk_actions.find_action(name)
    filters = _filters(action)
    with service().reader.begin() as connection:
        keys = bulk_actions.matching_keys(connection, action, filters) if action.has_cost else None
        count = bulk_actions.count_matching(connection, action, filters) if keys is None else len(keys)
    list_name = name.partition(".")[0]
    return page(
        "bulk_action_new.html",
        f"{action.verb} {action.noun}",
        action=action,
        filters=filters,
        count=count,
        cost=None if keys is None else sentence(cost_of(keys).summary),
        command=action.shell_line(filters),
        back=url_for(BACK[list_name], **filters),
        here=f"{request.path}?{urlencode(filters)}",
    )


@blueprint.post("/bulk-actions/new/<name>")
def begin_bulk_action(name: str) -> Response:
    """Begin an action; ask again if more rows match than were shown."""
    session.require_role(OPERATE)
    action = bulk_actions.find_action(name)
    filters = _filters(action)
    expected = request.form.get("expected", type=int)
    if expected is None or not 0 <= expected < 2**31:
        abort(400, "The form names no number of rows. Open the page of the action again.")
    with service().reader.begin() as connection:
        count = bulk_actions.count_matching(connection, action, filters)
    if count > expected:
        flash(f"{count:,} {action.noun} match now, {expected:,} did before. Nothing was changed yet.")
        return redirect(url_for("console.confirm_bulk_action", name=name, **filters))
    with service().engine.begin() as connection:
        action_id = bulk_actions.request_action(
            connection, action, filters, session.actor(), count, request.form.get("cost", "")[:500] or None
        )
    _run_here(action_id)
    return redirect(url_for("console.bulk_action", action_id=action_id))


def _run_here(action_id: UUID) -> None:
    """Decide for a short while, so that small actions are done when the answer comes; let a worker continue at once."""
    has_ended = bulk_actions.run_action(service(), action_id, dispatcher().dispatch, INLINE_SECONDS)
    with service().engine.begin() as connection:
        if has_ended:
            queue.delete_pending(connection, kinds.BULK, [str(action_id)])
            job_ids = []
        else:
            job_ids = queue.enqueue(connection, kinds.BULK, [str(action_id)])
    dispatcher().dispatch(job_ids)


@blueprint.get("/bulk-actions/<uuid:action_id>")
def bulk_action(action_id: UUID) -> Response:
    """Show one action and its progress; `part=live` is what the page asks for while it runs."""
    with service().reader.begin() as connection:
        row = bulk_actions.get_action(connection, action_id)
    action = bulk_actions.find_action(row["action"])
    context: dict[str, Any] = {
        "row": row,
        "action": action,
        "is_running": row["state"] == RUNNING,
        "command": action.shell_line(row["filters"]),
    }
    if request.args.get("part") == "live":
        return live_part("_bulk_action_live.html", **context)
    return page("bulk_action.html", "Bulk action", **context)


@blueprint.post("/bulk-actions/<uuid:action_id>/stop")
def stop_bulk_action(action_id: UUID) -> Response:
    """Stop an action after its present batch."""
    session.require_role(OPERATE)
    with service().engine.begin() as connection:
        bulk_actions.stop_action(connection, action_id, session.actor())
    flash("Stopped.")
    return redirect(url_for("console.bulk_action", action_id=action_id))


def _filters(action: Action) -> dict[str, Any]:
    """Return the filters of the address that the action's list has. Aborts with 400 for text that no row holds."""
    refuse_nul()
    names = bulk_actions.filter_names(action)
    return {name: value for name in names if (value := request.args.get(name, "").strip())}
