"""Follow-ups: the tasks that workflows create, and decisions about them, one by one or for all that match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import flash, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response

from app.bulk_decisions import DECISIONS, preview_replan, replan_many
from app.console import session
from app.console.frame import blueprint, page
from app.console.lists import PAGE_ROWS, Filter, Listing
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.follow_ups.replan import STATES
from pipeline.operations.queries import Page
from pipeline.operations.queries import follow_ups as queries
from scale.environments import ENVIRONMENTS

FIELDS = (
    "unique_id",
    "workflow",
    "step",
    "state",
    "reason",
    "environment",
    "source_task_id",
    "task_type",
    "task_id",
    "planned_at",
    "created_at",
)
BULK = {
    "approve": ("held",),
    "cancel": ("held", "planned", "created"),
    "retry": ("failed",),
    "replan": STATES,
}
"""Decision → the states that it takes."""
FILTERS = (
    Filter("state", "State", queries.STATES),
    Filter("workflow", "Workflow"),
    Filter("step", "Step"),
    Filter("source_task_id", "Source task"),
    Filter("environment", "Environment", ENVIRONMENTS),
)


def _read(connection: Connection, filters: Mapping[str, Any], cursor: str | None) -> Page:
    return queries.list_follow_ups(connection, filters, limit=PAGE_ROWS, cursor=cursor)


LISTING = Listing("follow_ups.html", "Follow-ups", FILTERS, FIELDS, _read, queries.count_follow_ups)


@blueprint.get("/follow-ups")
def follow_ups() -> Response:
    """List follow-ups, the most recently planned first."""
    return LISTING.respond(may_bulk=BULK)


@blueprint.post("/follow-ups/<unique_id>/<any(approve, cancel, retry):verb>")
def decide(unique_id: str, verb: str) -> Response:
    """Approve, cancel or retry one follow-up."""
    session.require_role(OPERATE)
    with service().engine.begin() as connection:
        queries.get_follow_up(connection, unique_id)
        job_ids = DECISIONS[verb].decide(connection, unique_id, session.actor())
    dispatcher().dispatch(job_ids)
    flash(f"{DECISIONS[verb].past} {unique_id}.")
    return redirect(
        session.local_path(request.form.get("next", ""))
        if "next" in request.form
        else url_for("console.follow_ups")
    )


@blueprint.get("/follow-ups/<unique_id>/replan")
def confirm_replan(unique_id: str) -> Response:
    """Show how the request of a follow-up would change, before it is planned again."""
    session.require_role(OPERATE)
    with service().reader.begin() as connection:
        queries.get_follow_up(connection, unique_id)
    (preview,), cost = preview_replan([unique_id])
    return page("follow_ups_replan.html", "Plan a follow-up again", preview=preview, cost=cost.summary)


@blueprint.post("/follow-ups/<unique_id>/replan")
def replan(unique_id: str) -> Response:
    """Plan a follow-up again with today's workflow file."""
    session.require_role(OPERATE)
    with service().reader.begin() as connection:
        queries.get_follow_up(connection, unique_id)
    (done,) = replan_many([unique_id], session.actor(), dispatcher().dispatch)
    if done["refused"] is not None:
        raise InvalidTransition(done["refused"])
    flash(f"Planned {unique_id} again.")
    return redirect(url_for("console.follow_ups"))
