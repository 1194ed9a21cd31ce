"""What every resource of the API is made with: its token is looked at first, its arguments are taken by one parser."""

from __future__ import annotations

from typing import Any

import flask_smorest
from flask import Request, current_app, g
from flask.json.provider import DefaultJSONProvider
from marshmallow import RAISE, Schema
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from app.api.problems import ProblemError
from app.api.tokens import authenticate
from pipeline.db.json import dumps
from pipeline.service import Service
from workers.dispatcher import JobDispatcher


class Arguments(FlaskParser):
    """Blank parameters count as absent; ones that are not known are refused, since a misspelt filter finds everything."""

    DEFAULT_VALIDATION_STATUS = 400
    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": RAISE}

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        given = MultiDict((name, value) for name, value in req.args.items(multi=True) if value)
        if "\0" in "".join(given.values()):
            raise ProblemError(400, "a parameter holds a NUL character; nothing that is kept does")
        return self._makeproxy(given, schema)


class Blueprint(flask_smorest.Blueprint):
    ARGUMENTS_PARSER = Arguments()

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, __name__, url_prefix="/api/v1", description=description)
        self.before_request(authenticate)


class Json(DefaultJSONProvider):
    """Answers are written by orjson: a page of annotations is large."""

    def response(self, *args: Any, **kwargs: Any) -> Response:
        content = self._prepare_response_obj(args, kwargs)
        return self._app.response_class(dumps(content), mimetype=self.mimetype)


def service() -> Service:
    found: Service = current_app.extensions["weighbridge"]
    return found


def dispatcher() -> JobDispatcher:
    found: JobDispatcher = current_app.extensions["dispatcher"]
    return found


def actor() -> str:
    """The name of the token that this request came with."""
    name: str = g.actor
    return name
