"""`/livez`: this process answers. `/readyz`: callbacks can be stored, and which parts are degraded."""

from __future__ import annotations

import hmac

from flask import Blueprint, Response, request

from app.extensions import readiness, service
from app.responses import json_response
from pipeline.operations.checks import OK, SKIPPED, Check

blueprint = Blueprint("health", __name__)

HARMLESS = ("quarantine", "follow-ups", "API tokens")
"""Warnings about single objects: `weighbridge doctor` shows them, a platform need not react."""


@blueprint.get("/livez")
def livez() -> Response:
    """Return 200 while the process answers."""
    return json_response(200, {"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """Return 503 if no callback can be stored, else 200 with `ok` or `degraded` and the problems.

    Only requests with API_TOKEN or METRICS_TOKEN see the messages: they may name files, people and Scale's answers.
    """
    problems = [
        check
        for check in readiness().get()
        if check.state not in (OK, SKIPPED) and check.name not in HARMLESS and not is_file_warning(check)
    ]
    described = [describe(check) for check in problems]
    if any(check.name in ("database", "migrations") for check in problems):
        return json_response(503, {"status": "unavailable", "problems": described})
    return json_response(200, {"status": "degraded" if problems else "ok", "problems": described})


def is_file_warning(check: Check) -> bool:
    """Return whether a check is a warning about a file that is loaded."""
    return check.name in ("workflows", "prices") and check.state == "warning"


def describe(check: Check) -> str:
    """Return a problem as text, with its message for authenticated requests."""
    if is_authenticated():
        return f"{check.name}: {check.message}"
    return f"{check.name}: {check.state}; `weighbridge doctor` shows details"


def is_authenticated() -> bool:
    """Return whether the request carries API_TOKEN or METRICS_TOKEN."""
    sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    known = (service().settings.api_token, service().settings.metrics_token)
    return any(hmac.compare_digest(sent, f"Bearer {token}".encode()) for token in known if token)
