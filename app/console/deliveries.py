"""Deliveries: every callback as it was received, what it changed, and its replay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
    reader = service().reader
    with reader.begin() as connection:
        row = queries.get_delivery(connection, _uuid(delivery_id))
        versions = versions_of_delivery(connection, row["task_id"], row["id"]) if row["task_id"] else []
    place = None if row["purged_at"] else _broken_at(row)
    size = row["size_bytes"]
    start = max(0, place - MAX_SHOWN_BYTES // 2) if place is not None and size > MAX_SHOWN_BYTES else 0
    shown = b"" if row["purged_at"] else next(queries.stream_body(reader, row["id"], start))[:MAX_SHOWN_BYTES]
    cut = len(shown) if place is None else min(place - start, len(shown))
    return page(
        "delivery.html",
        "Delivery",
        row=row,
        before=shown[:cut].decode("utf-8", "replace"),
        broken=shown[cut : cut + 1].decode("utf-8", "replace"),
        after=shown[cut + 1 :].decode("utf-8", "replace"),
        place=place,
        start=start,
        is_cut=size > MAX_SHOWN_BYTES,
        versions=versions,
        preview=_preview(row) if "preview" in request.args else None,
        callback_url=service().settings.callback_url,
    )


def _broken_at(row: Mapping[str, Any]) -> int | None:
    """Return the byte at which the body of a delivery could not be parsed, as far as the reason names it."""
    found = PLACE.search(row["reason"] or "")
    line, column = (int(found[1]), int(found[2])) if found else (0, 0)
    if not line or not column:
        return None
    start = _start_of_line(queries.stream_body(service().reader, row["id"]), line)
    return min(start + column - 1, int(row["size_bytes"]))


def _start_of_line(chunks: Iterator[bytes], line: int) -> int:
    """Return the byte at which a line begins, the first one being 1; the last line for one that is not there."""
    start = position = 0
    for chunk in chunks:
        at = -1
        while line > 1 and (at := chunk.find(b"\n", at + 1)) >= 0:
            start = position + at + 1
            line -= 1
        if line == 1:
            break
        position += len(chunk)
    return start


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
