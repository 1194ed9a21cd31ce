"""The sandbox as a Flask application: one world, its API in both versions, its page and its switches."""

from typing import Any

import orjson
from flask import Flask, request
from flask.json.provider import JSONProvider

from sandbox.engine.sandbox import Sandbox
from sandbox.engine.scheduler import Scheduler
from sandbox.errors import register_error_handlers
from sandbox.settings import SandboxSettings
from sandbox.web.api import fault_injection
from sandbox.web.api.batches import batches
from sandbox.web.api.calls import authenticate
from sandbox.web.api.control import control, receiver
from sandbox.web.api.files import files
from sandbox.web.api.projects import projects
from sandbox.web.api.tasks import tasks
from sandbox.web.api.team import team
from sandbox.web.api.v2 import v2
from sandbox.web.page import page
from sandbox.web.paths import NameConverter, WholeSegments

ROOMS = (tasks, batches, projects, files, team, v2, control, receiver, page)


def create_sandbox(settings: SandboxSettings) -> Flask:
    """A sandbox whose office is closed: `app.extensions["sandbox_office"].open()` sets its people to work."""
    app = Flask(__name__)
    app.json = _Orjson(app)
    app.url_map.converters["name"] = NameConverter
    app.url_map.merge_slashes = False  # an unknown path is a 404, not a redirect to another one
    world = Sandbox(settings)
    app.extensions["sandbox"] = world
    app.extensions["sandbox_office"] = Scheduler(world)
    register_error_handlers(app)

    @app.before_request
    def _enter() -> Any:
        if not request.path.startswith(("/v1/", "/v2/", "/sandbox/api/")):
            return None
        authenticate()
        return fault_injection.strike_before()

    for room in ROOMS:
        app.register_blueprint(room)
    fault_injection.install(app)
    app.wsgi_app = WholeSegments(app.wsgi_app)  # type: ignore[method-assign]
    return app


class _Orjson(JSONProvider):
    def dumps(self, obj: Any, **_options: Any) -> str:
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **_options: Any) -> Any:
        return orjson.loads(s)
