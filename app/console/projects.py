"""Projects: how many tasks of each are in which state, and how many are late."""

from __future__ import annotations

from typing import Any

from werkzeug.wrappers import Response

from app.console.frame import blueprint, page
from app.console.lists import download
from app.extensions import service
from pipeline.insights import late_by
from pipeline.operations.queries.tasks import counts_by_project


@blueprint.get("/projects")
def projects() -> Response:
    """Show the number of tasks by project and status."""
    with service().reader.begin() as connection:
        counts = service().totals.get("projects", lambda: counts_by_project(connection))
        late = service().totals.get("late projects", lambda: late_by(connection, "project"))
    by_project: dict[str | None, dict[str, Any]] = {}
    for row in counts:
        by_project.setdefault(row["project"], {})[row["status"] or "unknown"] = row["count"]
    rows = [
        {"project": name, "tasks": sum(tasks.values()), "statuses": tasks, "late": late.get(name, 0)}
        for name, tasks in by_project.items()
    ]
    if (answer := download(("project", "tasks", "statuses", "late"), rows)) is not None:
        return answer
    return page("projects.html", "Projects", rows=rows)
