"""The web process and the commands: Flask around the callback endpoint, the REST API and `weighbridge …`."""

from __future__ import annotations

from flask import Flask

from app import api, callbacks, console, extensions, files, health, metrics, security_headers
from app.commands import register
from config import Settings, load_settings
from config.logging import set_up_logging
from pipeline.bootstrap import build_service
from workers.dispatcher import JobDispatcher


def create_app(settings: Settings | None = None) -> Flask:
    """Return the application for `settings`, by default those of the environment. Opens no connection."""
    settings = settings or load_settings()
    set_up_logging(settings)
    app = Flask("weighbridge", root_path=__path__[0])
    app.secret_key = settings.secret_key
    service = build_service(settings, pool_size=settings.connections_per_web_process)
    security_headers.install(app)
    extensions.install(app, service, JobDispatcher(settings))
    # No redirect corrects a path: it would name the host that the sender chose.
    app.url_map.merge_slashes = app.url_map.strict_slashes = False
    app.register_blueprint(callbacks.blueprint)
    app.register_blueprint(files.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(metrics.blueprint)
    api.register(app, settings.public_url)
    console.register(app)
    register(app)
    return app
