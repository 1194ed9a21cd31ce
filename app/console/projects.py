"""Projects: how many tasks of each are in which state."""

from __future__ import annotations

from werkzeug.wrappers import Response

from app.console.frame import blueprint, page
from app.console.lists import download
from app.extensions import service
from pipeline.operations.queries.tasks import counts_by_project


@blueprint.get("/projects")
def projects() -> Response:
    """Show the number of tasks by project and status."""
    with service().reader.begin() as connection:
        rows = service().totals.get("projects", lambda: counts_by_project(connection))
    if (answer := download(("project", "status", "count"), rows)) is not None:
        return answer
    return page("projects.html", "Projects", rows=rows)
