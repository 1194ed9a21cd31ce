"""The blueprint of every API resource: it authenticates first and parses arguments strictly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import flask_smorest
import orjson
from flask import Request, Response, g, request
from flask.json.provider import DefaultJSONProvider
from marshmallow import RAISE, Schema, missing
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import MultiDict

from app.api.problems import ProblemError
from app.api.tokens import authenticate
from pipeline.db.json import dumps

MAX_BODY_BYTES = 1024 * 1024

View = TypeVar("View", bound=Callable[..., Any])


class ArgumentsParser(FlaskParser):
    """Treat blank query parameters as absent and reject unknown ones: a misspelled filter would match every row."""

    DEFAULT_VALIDATION_STATUS = 400
    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": RAISE}

    def load_json(self, req: Request, schema: Schema) -> Any:
        """Parse the body with orjson, which bounds nesting and numbers and rejects lone surrogates."""
        if not req.is_json:
            return missing
        body = req.get_data()
        if not body:
            return missing
        if len(body) >= MAX_BODY_BYTES:  # werkzeug cuts a chunked body off at the limit
            raise ProblemError(413, f"The body is larger than {MAX_BODY_BYTES:,} bytes.")
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ProblemError(400, f"The body is not valid JSON: {error}.") from None
        check_text(parsed)
        return parsed

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        """Return the parameters that are not blank. Raises ProblemError for a NUL character."""
        given = MultiDict((name, value) for name, value in req.args.items(multi=True) if value)
        if "\0" in "".join(given.values()):
            raise ProblemError(400, "A query parameter contains a NUL character; no stored value does.")
        return self._makeproxy(given, schema)


def check_text(value: Any) -> None:
    """Raise ProblemError for a NUL character anywhere in a parsed body: PostgreSQL cannot store it."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            if "\0" in one:
                raise ProblemError(400, "The body contains a NUL character, which cannot be stored.")
        elif isinstance(one, dict):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            pending += one


def limit_body() -> None:
    """Bound the body of a request to the API, declared or chunked."""
    request.max_content_length = MAX_BODY_BYTES


class Blueprint(flask_smorest.Blueprint):
    """A resource of /api/v1. The operationId of each call is the name of its view function."""

    ARGUMENTS_PARSER = ArgumentsParser()

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, __name__, url_prefix="/api/v1", description=description)
        self.before_request(authenticate)
        self.before_request(limit_body)

    def route(self, rule: str, **options: Any) -> Callable[[View], View]:
        """Register a view, with its name as the operationId of the call."""
        register = super().route(rule, **options)

        def with_operation_id(view: View) -> View:
            register(self.doc(operationId=view.__name__)(view))
            return view

        return with_operation_id


class OrjsonProvider(DefaultJSONProvider):
    """Serialize responses with orjson: a page of annotations is large."""

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a JSON response, written by orjson."""
        content = self._prepare_response_obj(args, kwargs)
        return Response(dumps(content), mimetype=self.mimetype)


def actor() -> str:
    """Return the name of the token that authenticated this request, for the audit log."""
    name: str = g.actor
    return name
