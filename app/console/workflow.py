"""One workflow: its graph with live counts, its file with errors, its limits and joins, and what it would create."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import abort, request
from markupsafe import Markup
from werkzeug.wrappers import Response

from app.api.previews import planned_here
from app.console.frame import blueprint, live_part, page
from app.console.workflows import find_workflow
from app.extensions import service
from pipeline.db.ids import utcnow
from pipeline.db.memory_budget import ReadTooLarge
from pipeline.follow_ups import pauses
from pipeline.follow_ups.limits import AnyLimit, key_of, read_used
from pipeline.follow_ups.preview import Preview, explanations
from pipeline.follow_ups.prices import Cost, project_of
from pipeline.operations.queries import Record
from pipeline.operations.queries import follow_ups as queries
from pipeline.operations.queries.backfills import list_backfills
from pipeline.operations.queries.views import MAX_CHARACTERS, get_view, views_since
from workflows.definition.loader import MAX_FILE_BYTES
from workflows.definition.model import InvalidWorkflow, Limit, Workflow, limits_for
from workflows.definition.money import format_amount, from_micros
from workflows.definition.reading import read_regular_file
from workflows.docs.graph import svg
from workflows.planning.inputs import takes_inputs

MAX_SHOWN_BYTES = 64 * 1024
DRY_RUN_DAYS = 7
MAX_DRY_RUN_SECONDS = 5.0
"""How long a dry run may occupy a web process, which also receives callbacks."""
MAX_PREVIEWED = 20
MAX_BACKFILLS = 20


@blueprint.get("/workflows/<name>")
def workflow(name: str) -> Response:
    """Show one workflow. `task` is a task to run it on, `days` runs it on the last seven; nothing is written."""
    found = find_workflow(name)
    context = {"workflow": found, "is_valid": isinstance(found, Workflow), **_live(name, found)}
    if request.args.get("part") == "live":
        return live_part("_workflow_live.html", **context)
    task_id = request.args.get("task", "").strip()
    return page(
        "workflow.html",
        f"Workflow {name}",
        **context,
        limits=_limits(found),
        takes_inputs=isinstance(found, Workflow) and takes_inputs(found),
        task_id=task_id,
        dry_run=_dry_run(found, task_id) if task_id and isinstance(found, Workflow) else None,
        week=_dry_week(found) if "days" in request.args and isinstance(found, Workflow) else None,
        lines=_text(found).splitlines(),
    )


def _live(name: str, found: Workflow | InvalidWorkflow) -> dict[str, Any]:
    with service().reader.begin() as connection:
        is_paused = name in pauses.paused(connection)
        counts = service().totals.get(f"steps of {name}", lambda: queries.counts_by_step(connection, name))
        joins = queries.list_joins(connection, name)
        backfills = list_backfills(connection, {"workflow": name}, limit=MAX_BACKFILLS).rows
    by_step: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in counts:
        by_step[row["step"]][row["state"]] = row["count"]
    drawing = svg(found, styled=False, counts=by_step) if isinstance(found, Workflow) else ""
    return {
        "is_paused": is_paused,
        "counts": counts,
        "joins": joins,
        "backfills": backfills,
        "drawing": Markup(drawing),  # escaped by the graph itself
    }


def _limits(found: Workflow | InvalidWorkflow) -> list[Record]:
    """Return {counter, period, most, used} of each limit of a workflow and its steps; both amounts as text."""
    if isinstance(found, InvalidWorkflow):
        return []
    limits = dict.fromkeys(limit for step in found.steps for limit in limits_for(found, step))
    with service().reader.begin() as connection:
        used = read_used(connection, limits)
    now = utcnow()
    return [_limit(limit, used.get(key_of(limit, now), 0)) for limit in limits]


def _limit(limit: AnyLimit, granted: int) -> Record:
    if isinstance(limit, Limit):
        most, used = f"{limit.most:,}", f"{granted:,}"
    else:
        most, used = str(limit.most), format_amount(from_micros(granted), limit.most.currency)
    return {"counter": limit.counter, "period": limit.period, "most": most, "used": used}


def _dry_run(found: Workflow, task_id: str) -> Record:
    """Return the conditions of each step for one task, and the follow-ups that it would create."""
    if "\0" in task_id:
        abort(400, "A task id contains no NUL character.")
    shown: list[Record] = []
    planned: list[Record] = []
    with planned_here(task_id):
        with service().reader.begin() as connection:
            view = get_view(connection, task_id, MAX_CHARACTERS)
            steps = explanations(connection, service(), view, [found])
        for one in Preview(service(), [found]).of(view):
            planned.append(_counted(one))
            if len(shown) < MAX_PREVIEWED:
                shown.append(one)
    return {"steps": steps, "count": len(planned), "planned": shown, **_summary(planned)}


def _dry_week(found: Workflow) -> Record:
    """Return what the workflow would create from the tasks of the last days, as far as the time allows."""
    deadline = time.monotonic() + MAX_DRY_RUN_SECONDS
    preview = Preview(service(), [found])
    planned: list[Record] = []
    tasks, is_complete = 0, True
    for view in views_since(service().reader, utcnow() - timedelta(days=DRY_RUN_DAYS)):
        if time.monotonic() > deadline:
            is_complete = False
            break
        if view is None:
            is_complete = False
            continue
        try:
            counted = [*map(_counted, preview.of(view))]
        except ReadTooLarge:
            is_complete = False
            continue
        tasks += 1
        planned += counted
    return {"tasks": tasks, "is_complete": is_complete, **_summary(planned)}


def _counted(planned: Record) -> Record:
    """Return what is counted of a planned follow-up, without its request, which may be large."""
    return {name: planned[name] for name in ("step", "type", "state")} | {
        "project": project_of(planned["request"])
    }


def _summary(planned: Sequence[Record]) -> Record:
    """Return the planned follow-ups by step, type and state, and the cost of those that would be created."""
    cost = Cost(service().prices)
    for one in planned:
        if one["state"] == "created":
            cost.add(one["type"], one["project"])
    rows = Counter((one["step"], one["type"], one["state"]) for one in planned)
    return {"rows": sorted(rows.items()), "cost": cost.summary}


def _text(found: Workflow | InvalidWorkflow) -> str:
    path = Path(found.path)
    try:
        return read_regular_file(path, path.parent, MAX_FILE_BYTES)[:MAX_SHOWN_BYTES].decode(
            "utf-8", "replace"
        )
    except (OSError, ValueError) as error:
        return f"The file cannot be read: {error}"
