"""Insights: how many tasks are open, late and rejected, how long they take, how good they are and what they cost."""

from __future__ import annotations

from typing import Any

from flask import abort, request, url_for
from marshmallow import ValidationError
from werkzeug.wrappers import Response

from app.api.insights import InsightsQuery, read_insights
from app.console.frame import blueprint, page
from app.console.lists import download
from pipeline.operations.insights import DEFINITIONS, GROUPS

FILTERED = ("project", "workflow", "step", "type", "batch", "status")
"""Groups that the list of tasks can be filtered by."""
MAX_BARS = 40
BAR_HEIGHT, BAR_WIDTH, LABEL_WIDTH = 22, 480, 280


@blueprint.get("/insights")
def insights() -> Response:
    """Show the numbers of each group, a chart of them, and the definition of each number."""
    given = {name: value for name, value in request.args.items() if value and name in InsightsQuery().fields}
    try:
        query = InsightsQuery().load(given)
    except ValidationError as error:
        abort(400, f"The address cannot be read: {error}")
    found = read_insights(query)
    names = found["group_by"]
    if (answer := download((*names, *DEFINITIONS), found["data"])) is not None:
        return answer
    rows = [{**row, "name": _name(row, names), "address": _address(row, names)} for row in found["data"]]
    return page(
        "insights.html",
        "Insights",
        rows=rows,
        names=names,
        found=found,
        given=given,
        groups=GROUPS,
        bars=_bars(rows),
        bar_height=BAR_HEIGHT,
        width=LABEL_WIDTH + BAR_WIDTH,
    )


def _name(row: dict[str, Any], names: list[str]) -> str:
    return " · ".join(str(row[name]) for name in names if row[name]) or "none"


def _address(row: dict[str, Any], names: list[str]) -> str | None:
    """Return the list of the tasks that a row counts; None if they cannot be filtered."""
    if any(name not in FILTERED or row[name] is None for name in names):
        return None
    return url_for("console.tasks", **{name: row[name] for name in names})


def _bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of a bar for each group: completed, open, and the rest, in pixels."""
    most = max((row["created"] for row in rows), default=0) or 1
    bars = []
    for index, row in enumerate(rows[:MAX_BARS]):
        completed, open_ = (BAR_WIDTH * row[name] / most for name in ("completed", "open"))
        bars.append(
            {
                "y": index * BAR_HEIGHT,
                "name": row["name"][:40],
                "completed": round(completed, 1),
                "open": round(open_, 1),
                "x": LABEL_WIDTH,
                "open_x": round(LABEL_WIDTH + completed, 1),
            }
        )
    return bars
