"""Quarantine: deliveries that could not be parsed or applied, grouped by reason, and what is done about them."""

from __future__ import annotations

from werkzeug.wrappers import Response

from app.console.frame import blueprint, page
from app.console.lists import download
from app.extensions import service
from pipeline.operations.queries import deliveries as queries

NEWEST = 20


@blueprint.get("/quarantine")
def quarantine() -> Response:
    """Show each reason with its number of deliveries and the newest of them."""
    with service().reader.begin() as connection:
        reasons = queries.quarantine_reasons(connection)
        newest = queries.list_deliveries(
            connection, {"status": "quarantined", "dismissed": False}, limit=NEWEST
        )
    if (answer := download(("reason", "count", "since"), reasons)) is not None:
        return answer
    return page("quarantine.html", "Quarantine", reasons=reasons, rows=newest.rows)
