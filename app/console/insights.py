"""Insights: how many tasks are open, late and rejected, how long they take, how good they are and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import abort, request, url_for
from marshmallow import Schema
from werkzeug.wrappers import Response

from app.api.insights import CountedTasksQuery, InsightsQuery, read_insights, selection
from app.console.frame import blueprint, page
from app.console.lists import Filter, download, load_query, read_filters, refuse_nul
from app.extensions import service
from pipeline.insights import KEYS, MAX_TASKS, TABLES, tasks_counted
from pipeline.insights.numbers import COUNTS
from pipeline.insights.numbers import DEFINITIONS as OF_GROUPS
from pipeline.insights.tasks import GROUPS, TooManyChanges
from pipeline.operations.queries import Record
from workflows.definition.money import SYMBOLS

SECTIONS = {
    "Tasks": (
        "created", "open", "late", "completed", "canceled", "error", "open_median_seconds", "median_seconds",
        "p90_seconds",
    ),
    "Reviews": ("reviewed", "accepted", "rejected", "fixed", "first_pass_rate", "rejection_rate", "fix_rate"),
    "Cost": (
        "cost", "cost_per_accepted", "accepted_annotations", "lineage_cost", "cost_per_accepted_annotation",
    ),
}  # fmt: skip
"""Title → numbers of one table of the groups."""
HEADINGS = {
    "open_median_seconds": "Median age of open", "median_seconds": "Median time", "p90_seconds": "90 % within",
    "first_pass_rate": "First-pass acceptance", "cost_per_accepted": "Per accepted task",
    "cost_per_accepted_annotation": "Per accepted annotation", "category_percent": "Same category",
    "alpha": "Krippendorff's alpha", "shape_f1": "F1 of shapes", "shape_iou": "Mean IoU", "agreed_percent": "Agreed",
}  # fmt: skip
COUNTED_BY = {
    "open_median_seconds": "open", "median_seconds": "completed", "p90_seconds": "completed",
    "first_pass_rate": "first_pass", "rejection_rate": "rejected", "fix_rate": "fixed", "cost": "completed",
    "cost_per_accepted": "accepted", "accepted_annotations": "accepted",
}  # fmt: skip
"""Number → the count whose tasks it is computed from."""
FILTERS = (*(Filter(name, name.capitalize()) for name in ("project", "workflow", "step", "type", "batch")),)
MAX_LISTED = 1_000
MAX_BARS = 40
MAX_MATRIX = 12
BAR_HEIGHT, BAR_WIDTH, LABEL_WIDTH = 22, 480, 280
CHART_HEIGHT, WEEK_WIDTH, MAX_WEEKS, MAX_COLORS = 160, 44, 26, 6
TASK_FIELDS = (
    "task_id", "type", "status", "project", "batch", "workflow", "step", "review_status", "created_at", "completed_at",
    "annotation_count",
)  # fmt: skip


@blueprint.get("/insights")
def insights() -> Response:
    """Show the numbers of each group, charts of them, and the definition of each number."""
    query = _load(InsightsQuery())
    found = read_insights(query)
    names = found["group_by"]
    table = request.args.get("table", "data")
    if table not in TABLES:
        abort(400, f"No table is called {table}; known: {', '.join(TABLES)}.")
    columns = (*(names if table == "data" else KEYS[table]), *TABLES[table])
    if (answer := download(columns, found[table])) is not None:
        return answer
    rows = [{**row, "name": _name(row, names), "of": _of(row, names)} for row in found["data"]]
    return page(
        "insights.html",
        "Insights",
        rows=rows,
        names=names,
        found=found,
        given=request.args,
        max_tasks=MAX_TASKS,
        filters=FILTERS,
        chosen=read_filters(FILTERS),
        groups=GROUPS,
        sections=SECTIONS,
        tables=TABLES,
        heading=heading,
        show=lambda name, value: show_number(name, value, found["currency"]),
        link=_link,
        bars=_bars(rows),
        bar_height=BAR_HEIGHT,
        width=LABEL_WIDTH + BAR_WIDTH,
        matrix=_matrix(found["label_changes"]),
        chart=_labels_chart(found["labels"]),
    )


@blueprint.get("/insights/tasks")
def insights_tasks() -> Response:
    """List the tasks that one number counts."""
    number = request.args.get("number", "")
    if number not in COUNTS:
        abort(400, f"No count is called {number}; known: {', '.join(COUNTS)}.")
    chosen = selection(_load(CountedTasksQuery()))
    label = request.args.get("label")

    def read() -> list[Record]:
        with service().reader.begin() as connection:
            return tasks_counted(connection, number, label=label, newest=MAX_TASKS, **chosen)

    try:
        rows = service().totals.get(f"insights tasks {number} {label} {chosen}", read)
    except TooManyChanges as error:
        abort(400, str(error))
    if (answer := download(TASK_FIELDS, rows)) is not None:
        return answer
    filters = {name: "none" if value is None else value for name, value in chosen["filters"].items()}
    return page(
        "insights_tasks.html",
        "Tasks of a number",
        number=number,
        definition=OF_GROUPS[number],
        count=len(rows),
        rows=rows[:MAX_LISTED],
        filters=filters,
        label=label,
        as_of=chosen["as_of"],
    )


def _load(schema: Schema) -> Record:
    """Return the parameters of the address that the schema knows. Aborts with 400."""
    refuse_nul()
    given = {name: value for name, value in request.args.items() if value and name in schema.fields}
    return load_query(schema, given)


def heading(name: str) -> str:
    """Return the heading of a column."""
    return HEADINGS.get(name, name.replace("_", " ").capitalize())


def show_number(name: str, value: Any, currency: str) -> str:
    """Return a number as text, by what its name says it is."""
    if value is None:
        return "undefined" if name == "alpha" else "–"
    if name.endswith("_seconds"):
        return _duration(value)
    if name.endswith("_rate"):
        return f"{value * 100:.1f} %"
    if name.endswith("_percent"):
        return f"{value:.1f} %"
    if "cost" in name or name in ("most", "used", "left"):
        symbol = next((sign for sign, code in SYMBOLS.items() if code == currency), "")
        return f"{symbol}{value:,.4g}" if 0 < value < 0.1 else f"{symbol}{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _name(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return " · ".join(str(row[name]) for name in names if row[name]) or "none"


def _of(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Return the parameters that select the tasks of a group."""
    without = ",".join(name for name in names if row[name] is None)
    return {name: row[name] for name in names if row[name] is not None} | (
        {"without": without} if without else {}
    )


def _link(number: str, of: Mapping[str, str]) -> str | None:
    """Return the list of the tasks that a number counts; None for one that counts no tasks of the group alone."""
    count = number if number in COUNTS else COUNTED_BY.get(number)
    if count is None:
        return None
    names = (*GROUPS, "since", "until", "as_of")
    kept = {name: value for name in names if (value := request.args.get(name))}
    selected: dict[str, Any] = {**kept, **of, "number": count}
    return url_for("console.insights_tasks", **selected)


def _bars(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of a bar for each group: completed, and open, in pixels."""
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


def _matrix(changes: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return {labels, counts} of the most frequent labels: (before, after) → annotations; None without changes."""
    if not changes:
        return None
    total: Counter[str | None] = Counter()
    for row in changes:
        for label in {row["before"], row["after"]}:
            total[label] += row["changes"]
    labels = sorted(label for label, _ in total.most_common(MAX_MATRIX + 1) if label is not None)[:MAX_MATRIX]
    counts = {(row["before"], row["after"]): row["changes"] for row in changes}
    return {"labels": labels, "counts": counts, "is_whole": len(labels) >= len(total.keys() - {None})}


def _labels_chart(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return a stacked bar for each week: its most frequent labels in colors of their own, the others together."""
    if not rows:
        return None
    total: Counter[str | None] = Counter()
    by_week: dict[str, Counter[str | None]] = {}
    for row in rows:
        total[row["label"]] += row["annotations"]
        by_week.setdefault(row["week"], Counter())[row["label"]] += row["annotations"]
    labels = [label for label, _ in total.most_common(MAX_COLORS)]
    weeks = sorted(by_week)[-MAX_WEEKS:]
    most = max(counts.total() for counts in by_week.values())
    bars = [
        {**segment, "x": index * WEEK_WIDTH}
        for index, week in enumerate(weeks)
        for segment in _segments(by_week[week], labels, most)
    ]
    legend = [(number, "no label" if label is None else label) for number, label in enumerate(labels)]
    if len(total) > len(labels):
        legend.append((MAX_COLORS, "other labels"))
    return {
        "weeks": weeks,
        "bars": bars,
        "legend": legend,
        "width": max(len(weeks), 4) * WEEK_WIDTH,
        "height": CHART_HEIGHT,
        "step": WEEK_WIDTH,
    }


def _segments(
    counts: Mapping[str | None, int], labels: Sequence[str | None], most: int
) -> Iterator[dict[str, float]]:
    parts = [counts.get(label, 0) for label in labels]
    top = float(CHART_HEIGHT)
    for color, count in enumerate([*parts, sum(counts.values()) - sum(parts)]):
        height = CHART_HEIGHT * count / most
        top -= height
        if count:
            yield {"color": color, "y": round(top, 1), "height": round(height, 1)}
