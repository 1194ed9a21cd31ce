"""The application of the web process: every route."""

from __future__ import annotations

from flask import Flask

from app import callbacks, console, extensions, health, memory_limits, metrics, security_headers, signed_files
from app.api import resources
from app.bare_app import create_bare_app
from app.commands import make_commands
from app.failure_limiter import FailureLimiter
from config import Settings, load_settings
from pipeline.operations.checks import Context, run_readiness_checks
from pipeline.timed_cache import TimedCache
from workers.dispatcher import JobDispatcher

READINESS_SECONDS = 1.0
METRICS_SECONDS = 1.0


def create_app(settings: Settings | None = None) -> Flask:
    """Return the application for `settings`, by default those of the environment. Opens no connection."""
    settings = settings or load_settings()
    app = create_bare_app(settings)
    app.extensions[extensions.DISPATCHER] = dispatcher = JobDispatcher(settings)
    app.extensions[extensions.KEY_FAILURES] = FailureLimiter()
    service = app.extensions[extensions.SERVICE]
    context = Context(service, dispatcher.fault)
    app.extensions[extensions.READINESS] = TimedCache(
        lambda: run_readiness_checks(context), READINESS_SECONDS
    )
    app.extensions[extensions.METRICS] = TimedCache(lambda: metrics.read_all(service), METRICS_SECONDS)
    security_headers.install(app)
    memory_limits.install(app)
    # No redirect corrects a path: it would name the host that the sender chose.
    app.url_map.merge_slashes = app.url_map.strict_slashes = False
    app.register_blueprint(callbacks.blueprint)
    app.register_blueprint(signed_files.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(metrics.blueprint)
    resources.register(app, settings.public_url)
    console.register(app)
    app.cli = make_commands()
    return app
