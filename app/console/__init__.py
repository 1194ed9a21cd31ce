"""The console at /console/: screens rendered on the server, over the same functions as the REST API and the commands.

A screen is one module and the template next to it with the same name. frame.py and lists.py hold what all of them share.
"""

from __future__ import annotations

from flask import Flask, redirect
from werkzeug.wrappers import Response

from app.console import (  # noqa: F401  each screen adds its routes to the blueprint
    attachments,
    audit,
    backfills,
    batches,
    bulk_actions,
    compare,
    dataset_compare,
    datasets,
    deliveries,
    exports,
    follow_ups,
    frame,
    insights,
    jobs,
    overview,
    projects,
    quarantine,
    session,
    settings,
    sign_in,
    start,
    subscribers,
    task,
    task_actions,
    tasks,
    tokens,
    workflow,
    workflows,
)


def register(app: Flask) -> None:
    """Add the console to the application. / leads to it."""
    session.configure(app)
    app.register_blueprint(frame.blueprint)
    app.add_url_rule("/", "root", _root)


def _root() -> Response:
    return redirect("/console/")
