"""`/livez`: this process answers. `/readyz`: callbacks can be kept, and what else is not as it should be."""

from __future__ import annotations

from flask import Blueprint, Response, current_app
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.callbacks import answer
from pipeline.operations.health import degradations
from pipeline.service import Service

blueprint = Blueprint("health", __name__)


@blueprint.get("/livez")
def livez() -> Response:
    return answer(200, {"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """503 when the database is down: no callback could be kept. 200 with `degraded` when only later work suffers."""
    service: Service = current_app.extensions["weighbridge"]
    try:
        with service.reader.begin() as connection:
            connection.execute(text("SELECT 1 FROM deliveries LIMIT 1"))
            problems = degradations(service, connection)
    except SQLAlchemyError as fault:
        return answer(503, {"status": "unavailable", "problems": [f"database: {type(fault).__name__}"]})
    if not current_app.extensions["dispatcher"].reachable():
        problems.append("broker: it cannot be reached; work waits for the worker's sweep")
    return answer(200, {"status": "degraded" if problems else "ok", "problems": problems})
