"""Projects: how many tasks of each are in which state, and how many are late."""

from __future__ import annotations

from collections import Counter
from typing import Any

from werkzeug.wrappers import Response

from app.console.frame import blueprint, page
from app.console.lists import download
from app.extensions import service
from pipeline.insights import late_tasks
from pipeline.operations.queries.tasks import counts_by_project


@blueprint.get("/projects")
def projects() -> Response:
    """Show the number of tasks by project and status."""
    with service().reader.begin() as connection:
        counts = service().totals.get("projects", lambda: counts_by_project(connection))
        late_ones = service().totals.get("late tasks", lambda: late_tasks(connection))
    late: Counter[str | None] = Counter()
    for (project, _), number in late_ones.items():
        late[project] += number
    by_project: dict[str | None, dict[str, Any]] = {}
    for row in counts:
        by_project.setdefault(row["project"], {})[row["status"] or "unknown"] = row["count"]
    rows = [
        {"project": name, "tasks": sum(tasks.values()), "statuses": tasks, "late": late[name]}
        for name, tasks in by_project.items()
    ]
    if (answer := download(("project", "tasks", "statuses", "late"), rows)) is not None:
        return answer
    return page("projects.html", "Projects", rows=rows)
