"""The application without routes: what commands run in, and what the web process adds its routes to."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from app.extensions import SERVICE, TOKEN_FAILURES
from app.failure_limiter import FailureLimiter
from config import Settings
from config.logging import set_up_logging
from pipeline.bootstrap import build_service


def create_bare_app(settings: Settings) -> Flask:
    """Return an application with the objects that views and commands share. Opens no connection."""
    set_up_logging(settings)
    app = Flask("weighbridge", root_path=str(Path(__file__).parent))
    app.secret_key = settings.secret_key
    app.extensions[SERVICE] = build_service(settings, pool_size=settings.connections_per_web_process)
    app.extensions[TOKEN_FAILURES] = FailureLimiter()
    return app
