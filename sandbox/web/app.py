"""Build the sandbox as a Flask application: both versions of the API, the control API and the page."""

from typing import Any

import orjson
from flask import Flask, request
from flask.json.provider import JSONProvider

from sandbox.engine.sandbox import Sandbox
from sandbox.engine.scheduler import Scheduler
from sandbox.settings import SandboxSettings
from sandbox.web import cross_site_protection
from sandbox.web.api import fault_injection
from sandbox.web.api.batches import batches
from sandbox.web.api.control import control, receiver
from sandbox.web.api.files import files
from sandbox.web.api.projects import projects
from sandbox.web.api.request_context import authenticate
from sandbox.web.api.tasks import tasks
from sandbox.web.api.team import team
from sandbox.web.api.v2 import v2
from sandbox.web.errors import register_error_handlers
from sandbox.web.page import page
from sandbox.web.paths import EncodedSlashMiddleware, NameConverter

BLUEPRINTS = (tasks, batches, projects, files, team, v2, control, receiver, page)
AUTHENTICATED_PREFIXES = ("/v1/", "/v2/", "/sandbox/api/")


def create_app(settings: SandboxSettings) -> Flask:
    """Build the application. Its scheduler, `app.extensions["scheduler"]`, is not started yet."""
    app = Flask(__name__)
    app.json = _OrjsonProvider(app)
    app.url_map.converters["name"] = NameConverter
    app.url_map.merge_slashes = False  # answer 404 to an unknown path instead of redirecting to another one
    sandbox = Sandbox(settings)
    app.extensions["sandbox"] = sandbox
    app.extensions["scheduler"] = Scheduler(sandbox)
    register_error_handlers(app)

    @app.before_request
    def _authenticate_and_inject() -> Any:
        cross_site_protection.check_host(settings.url)
        cross_site_protection.check_origin()
        if not request.path.startswith(AUTHENTICATED_PREFIXES):
            return None
        authenticate()
        return fault_injection.inject_before()

    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    fault_injection.install(app)
    app.wsgi_app = EncodedSlashMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    return app


class _OrjsonProvider(JSONProvider):
    """Write and read JSON with orjson."""

    def dumps(self, obj: Any, **_options: Any) -> str:
        """Return JSON text."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **_options: Any) -> Any:
        """Return the value of a JSON text."""
        return orjson.loads(s)
