"""The web process: Flask around the callback door, the REST API, the console and the commands."""

from __future__ import annotations

from flask import Flask

from app import api, callbacks, files, health, metrics
from app.commands import register
from config import Settings, load_settings
from config.logging import set_up_logging
from pipeline.service import Service
from workers.dispatcher import JobDispatcher


def create_app(settings: Settings | None = None) -> Flask:
    """The application for `settings`, those of the environment by default. Opens no connection."""
    settings = settings or load_settings()
    set_up_logging(settings)
    app = Flask("weighbridge", root_path=__path__[0])
    app.secret_key = settings.secret_key
    app.extensions["weighbridge"] = Service.open(settings, pool_size=settings.connections_per_web_process)
    app.extensions["dispatcher"] = JobDispatcher(settings)
    app.register_blueprint(callbacks.blueprint)
    app.register_blueprint(files.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(metrics.blueprint)
    api.register(app)
    register(app)
    return app
