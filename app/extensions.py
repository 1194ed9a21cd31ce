"""The objects that views and commands share, kept in `app.extensions`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, current_app

from app.failure_limiter import FailureLimiter
from config import Settings
from config.logging import set_up_logging
from pipeline.bootstrap import build_service
from pipeline.service import Service

if TYPE_CHECKING:
    from workers.dispatcher import JobDispatcher

SERVICE = "weighbridge"
DISPATCHER = "dispatcher"
TOKEN_FAILURES = "token_failures"


def create_bare_app(settings: Settings) -> Flask:
    """Return an application with a service and without routes: what commands run in. Opens no connection."""
    set_up_logging(settings)
    app = Flask("weighbridge", root_path=str(Path(__file__).parent))
    app.secret_key = settings.secret_key
    app.extensions[SERVICE] = build_service(settings, pool_size=settings.connections_per_web_process)
    app.extensions[TOKEN_FAILURES] = FailureLimiter()
    return app


def service() -> Service:
    """Return the service of the current application."""
    found: Service = current_app.extensions[SERVICE]
    return found


def dispatcher() -> JobDispatcher:
    """Return the dispatcher that publishes job ids after a commit. A command makes it when it first has something to publish."""
    if DISPATCHER not in current_app.extensions:
        from workers.dispatcher import JobDispatcher  # with Celery, which few commands need

        current_app.extensions[DISPATCHER] = JobDispatcher(service().settings)
    found: JobDispatcher = current_app.extensions[DISPATCHER]
    return found


def token_failures() -> FailureLimiter:
    """Return the count of failed tokens by address, of the API and the console together."""
    found: FailureLimiter = current_app.extensions[TOKEN_FAILURES]
    return found
