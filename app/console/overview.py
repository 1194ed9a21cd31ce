"""The overview: what comes in, what waits, what is wrong and how to fix it. It refreshes itself."""

from __future__ import annotations

from typing import Any

from flask import request
from werkzeug.wrappers import Response

from app.console.frame import blueprint, live_part, page
from app.extensions import dispatcher, service
from pipeline.operations.checks import Context, run_readiness_checks
from pipeline.operations.queries import deliveries, follow_ups
from pipeline.operations.queries.metrics import work_counts

LATEST = 10


@blueprint.get("/")
def overview() -> Response:
    """Show the overview; `part=live` is what the page asks for every few seconds."""
    if request.args.get("part") == "live":
        return live_part("_overview_live.html", **_live())
    return page("overview.html", "Overview", **_live())


def _live() -> dict[str, Any]:
    with service().reader.begin() as connection:
        totals = service().totals
        hours = totals.get("hours", lambda: deliveries.received_by_hour(connection))
        latest = deliveries.list_deliveries(connection, {}, limit=LATEST).rows
        held = follow_ups.list_follow_ups(connection, {"state": "held"}, limit=LATEST).rows
        counts = totals.get("work", lambda: work_counts(connection))
    checks = totals.get("checks", lambda: run_readiness_checks(Context(service(), dispatcher().fault)))
    problems = [check for check in checks if check.state in ("warning", "problem")]
    return {
        "hours": hours,
        "busiest": max((count for _, count in hours), default=0) or 1,
        "latest": latest,
        "held": held,
        "counts": counts,
        "problems": problems,
        "waiting": sum(count for (_, state), count in counts.jobs.items() if state == "ready"),
        "dead": sum(count for (_, state), count in counts.jobs.items() if state == "dead"),
    }
