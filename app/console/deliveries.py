"""Deliveries: every callback as it was received, what it changed, and its replay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import abort, flash, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint, page
from app.console.lists import PAGE_ROWS, Filter, Listing
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.operations import dismissals
from pipeline.operations.bulk_actions import DISMISSED
from pipeline.operations.queries import Page
from pipeline.operations.queries import deliveries as queries
from pipeline.operations.queries.responses import versions_of_delivery
from pipeline.receive import replay
from pipeline.receive.receive import DatabaseBusy
from pipeline.receive.replay import BodyPurged
from scale.environments import ENVIRONMENTS

MAX_SHOWN_BYTES = 80_000
PLACE = re.compile(r"line (\d+),? column (\d+)")
FIELDS = (
    "id",
    "received_at",
    "status",
    "reason",
    "event",
    "task_id",
    "environment",
    "kind",
    "size_bytes",
    "duplicates",
    "clock",
)


def _searched(filters: Mapping[str, Any]) -> dict[str, Any]:
    return {**filters, "search": request.args.get("q", "").strip() or None}


def _read(connection: Connection, filters: Mapping[str, Any], cursor: str | None) -> Page:
    return queries.list_deliveries(connection, _searched(filters), limit=PAGE_ROWS, cursor=cursor)


def _count(connection: Connection, filters: Mapping[str, Any]) -> int:
    return queries.count_deliveries(connection, _searched(filters))


LISTING = Listing(
    "deliveries.html",
    "Deliveries",
    (
        Filter("status", "Status", queries.STATUSES),
        Filter("task_id", "Task"),
        Filter("environment", "Environment", ENVIRONMENTS),
        Filter("event", "Event"),
        Filter("kind", "Kind", queries.KINDS),
    ),
    FIELDS,
    _read,
    _count,
    "_deliveries_live.html",
)


@blueprint.get("/deliveries")
def deliveries() -> Response:
    """List deliveries, newest first."""
    return LISTING.respond(search=request.args.get("q", "").strip())


@blueprint.get("/deliveries/<delivery_id>")
def delivery(delivery_id: str) -> Response:
    """Show one delivery with its body, headers and the command that sends it again."""
    with service().reader.begin() as connection:
        row = queries.get_delivery(connection, _uuid(delivery_id))
        body = b"" if row["purged_at"] else queries.get_body(connection, row["id"])
        versions = versions_of_delivery(connection, row["task_id"], row["id"]) if row["task_id"] else []
    place = _broken_at(row["reason"], body)
    start = max(0, place - MAX_SHOWN_BYTES // 2) if place is not None and len(body) > MAX_SHOWN_BYTES else 0
    end = start + MAX_SHOWN_BYTES
    cut = min(max(place if place is not None else end, start), end)
    return page(
        "delivery.html",
        "Delivery",
        row=row,
        before=body[start:cut].decode("utf-8", "replace"),
        broken=body[cut : cut + 1].decode("utf-8", "replace") if place is not None else "",
        after=body[cut + 1 : end].decode("utf-8", "replace") if place is not None else "",
        place=place,
        start=start,
        is_cut=len(body) > MAX_SHOWN_BYTES,
        versions=versions,
        preview=_preview(row) if "preview" in request.args else None,
        callback_url=service().settings.callback_url,
    )


def _broken_at(reason: str | None, body: bytes) -> int | None:
    """Return the byte at which a body could not be parsed, as far as the reason names it."""
    found = PLACE.search(reason or "")
    if found is None:
        return None
    line, column = int(found[1]), int(found[2])
    starts = [0, *(match.end() for match in re.finditer(b"\n", body))]
    return min(starts[min(line, len(starts)) - 1] + column - 1, len(body)) if line and column else None


def _preview(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a replay would change: name → (before, after)."""
    session.require_role(OPERATE)
    try:
        return replay.preview_replay(service(), row["id"]).changed
    except DatabaseBusy:
        abort(503, "The task is locked; try again.")
    except BodyPurged as error:
        abort(409, f"{error}.")


@blueprint.post("/deliveries/<delivery_id>/replay")
def replay_delivery(delivery_id: str) -> Response:
    """Apply the stored body again with the current code."""
    session.require_role(OPERATE)
    row_id = _uuid(delivery_id)
    with service().reader.begin() as connection:
        queries.get_delivery(connection, row_id)
    try:
        done = replay.replay(service(), row_id, session.actor())
    except DatabaseBusy:
        abort(503, "The task is locked; try again.")
    except BodyPurged as error:
        abort(409, f"{error}.")
    dispatcher().dispatch(done.receipt.jobs)
    changed = ", ".join(done.changed or ()) or "nothing"
    flash(f"Replayed: the delivery is {done.receipt.status}; changed: {changed}.")
    return redirect(url_for("console.delivery", delivery_id=delivery_id))


@blueprint.post("/deliveries/<delivery_id>/dismiss")
def dismiss_delivery(delivery_id: str) -> Response:
    """Take a quarantined delivery out of the warnings; it stays stored."""
    session.require_role(OPERATE)
    with service().engine.begin() as connection:
        dismissals.dismiss_delivery(connection, _uuid(delivery_id), session.actor(), DISMISSED)
    flash("Dismissed: the delivery stays stored, and checks stop warning about it.")
    return redirect(url_for("console.delivery", delivery_id=delivery_id))


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        abort(404, f"No delivery {text} is known.")
