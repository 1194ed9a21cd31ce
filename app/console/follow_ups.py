"""Follow-ups: the tasks that workflows create, and decisions about them, one by one or for all that match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import abort, flash, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response

from app.bulk_decisions import DECISIONS, cost_of, decide_many, preview_replan, replan_many
from app.console import session
from app.console.frame import blueprint, page
from app.console.lists import PAGE_ROWS, Filter, Listing, read_filters
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries import Page
from pipeline.operations.queries import follow_ups as queries

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
FILTERS = (
    Filter("state", "State", queries.STATES),
    Filter("workflow", "Workflow"),
    Filter("step", "Step"),
    Filter("source_task_id", "Source task"),
    Filter("environment", "Environment", ("live", "test")),
)


def _read(connection: Connection, filters: Mapping[str, Any], cursor: str | None) -> Page:
    return queries.list_follow_ups(connection, filters, limit=PAGE_ROWS, cursor=cursor)


LISTING = Listing("follow_ups.html", "Follow-ups", FILTERS, FIELDS, _read, queries.count_follow_ups)


@blueprint.get("/follow-ups")
def follow_ups() -> Response:
    """List follow-ups, the most recently planned first."""
    return LISTING.respond()


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


@blueprint.get("/follow-ups/approve")
def confirm_approval() -> Response:
    """Show how many held follow-ups match a filter, before all of them are approved."""
    session.require_role(OPERATE)
    chosen = _held(read_filters(FILTERS))
    unique_ids = _matching(chosen)
    return page(
        "follow_ups_approve.html",
        "Approve held follow-ups",
        chosen=chosen,
        count=len(unique_ids),
        cost=cost_of(unique_ids).summary,
    )


@blueprint.post("/follow-ups/approve")
def approve_all() -> Response:
    """Approve every held follow-up that matches; ask again if more match than were shown."""
    session.require_role(OPERATE)
    chosen = _held(read_filters(FILTERS))
    unique_ids = _matching(chosen)
    expected = request.form.get("expected", type=int)
    if expected is None:
        abort(400, "The form names no number of follow-ups. Open the approval page again.")
    if len(unique_ids) > expected:
        flash(f"{len(unique_ids)} follow-ups match now, {expected} did before. Nothing was approved yet.")
        return redirect(url_for("console.confirm_approval", _external=False, **chosen))
    approved, _ = decide_many("approve", unique_ids, session.actor(), dispatcher().dispatch)
    flash(f"Approved {len(approved)} of {len(unique_ids)} follow-ups.")
    return redirect(url_for("console.follow_ups"))


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


def _held(chosen: dict[str, str]) -> dict[str, str]:
    return {**chosen, "state": "held"}


def _matching(chosen: Mapping[str, str]) -> list[str]:
    with service().reader.begin() as connection:
        return list(queries.matching_unique_ids(connection, chosen, ("held",)))
