"""Projects: how many tasks of each are in which state."""

from __future__ import annotations

from werkzeug.wrappers import Response

from app.console.frame import blueprint, page
from app.extensions import service
from pipeline.operations.queries.tasks import counts_by_project


@blueprint.get("/projects")
def projects() -> Response:
    """Show the number of tasks by project and status."""
    with service().reader.begin() as connection:
        rows = counts_by_project(connection)
    return page("projects.html", "Projects", rows=rows)
