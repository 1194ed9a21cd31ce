"""Quarantine: deliveries that could not be parsed or applied, grouped by reason, and their replay."""

from __future__ import annotations

from itertools import islice

from flask import abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint, page
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.operations.queries import deliveries as queries
from pipeline.receive import replay
from pipeline.receive.receive import DatabaseBusy

MAX_REPLAYED = 200
"""Deliveries of one click: the answer must not take longer than a web process may."""


@blueprint.get("/quarantine")
def quarantine() -> Response:
    """Show each reason with its number of deliveries and the newest of them."""
    with service().reader.begin() as connection:
        reasons = queries.quarantine_reasons(connection)
        newest = queries.list_deliveries(connection, {"status": "quarantined"}, limit=20)
    return page("quarantine.html", "Quarantine", reasons=reasons, rows=newest.rows)


@blueprint.post("/quarantine/replay")
def replay_quarantined() -> Response:
    """Replay the deliveries of one reason, or all, oldest first."""
    session.require_role(OPERATE)
    reason = request.form.get("reason")
    filters = {"status": "quarantined", **({"reason": reason} if reason else {})}
    if "\0" in (reason or ""):
        abort(400, "The reason contains a NUL character; no stored value does.")
    counts: dict[str, int] = {}
    replays = replay.replay_many(service(), session.actor(), *queries.conditions(filters))
    for _, done in islice(replays, MAX_REPLAYED):
        if isinstance(done, DatabaseBusy):
            counts["locked"] = counts.get("locked", 0) + 1
            continue
        counts[done.receipt.status] = counts.get(done.receipt.status, 0) + 1
        dispatcher().dispatch(done.receipt.jobs)
    outcome = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none matched"
    flash(
        f"Replayed: {outcome}."
        + (" Click again for the rest." if sum(counts.values()) == MAX_REPLAYED else "")
    )
    return redirect(url_for("console.quarantine"))
