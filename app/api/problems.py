"""Errors of the API as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import Any

import flask_smorest
import orjson
from apispec import APISpec
from flask import Flask, Response, request
from marshmallow import Schema, fields
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.wrappers import Response as AnyResponse

from app.memory_limits import BUSY, TOO_LARGE
from pipeline.db.memory_budget import ReadersBusy, ReadTooLarge
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries import Gone, InvalidCursor, NotFound

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER = "5"


class ProblemDetails(Schema):
    """The body of an error response."""

    type = fields.String(
        required=True, metadata={"description": "`about:blank`: the status identifies the problem."}
    )
    title = fields.String(required=True, metadata={"description": "The phrase of the HTTP status."})
    status = fields.Integer(required=True, metadata={"description": "The HTTP status."})
    detail = fields.String(required=True, metadata={"description": "What is wrong, and what to do."})
    errors = fields.Dict(
        keys=fields.String(),
        metadata={"description": "Messages by the name of the parameter or field at fault."},
    )


class ProblemError(Exception):
    """Raised when a request cannot be fulfilled: an HTTP status and a sentence that says what to do instead."""

    def __init__(
        self, status: int, detail: str, errors: dict[str, Any] | None = None, **headers: str
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, errors
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def problem_response(
    status: int, detail: str, errors: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Return an error response."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        content["errors"] = errors
    written = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)  # positions in a list are numbers
    return Response(written, status, headers, content_type=CONTENT_TYPE)


class Api(flask_smorest.Api):
    """flask-smorest with problem+json errors, also in the OpenAPI document.

    The document is written when it is first asked for: that takes as long as everything else that the application does at
    its start, and few processes are asked.
    """

    ERROR_SCHEMA = ProblemDetails
    spec: APISpec

    def __init__(self, app: Flask) -> None:
        self._undescribed: list[flask_smorest.Blueprint] = []
        self._lock = threading.Lock()
        self._document: bytes | None = None
        super().__init__(app)

    def register_blueprint(self, blueprint: flask_smorest.Blueprint) -> None:
        """Add the routes of a blueprint to the application."""
        self._app.register_blueprint(blueprint)
        self._undescribed.append(blueprint)

    def _openapi_json(self) -> Response:
        with self._lock:
            if self._document is None:
                self._document = self._describe()
        return Response(self._document, content_type="application/json")

    def _describe(self) -> bytes:
        for blueprint in self._undescribed:
            blueprint.register_views_in_doc(self, self._app, self.spec, name=blueprint.name, parameters=None)
            self.spec.tag({"name": blueprint.name, "description": blueprint.description})
        return orjson.dumps(self.spec.to_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)

    def _register_error_handlers(self) -> None:
        app: Flask = self._app
        app.register_error_handler(HTTPException, http_error)
        app.register_error_handler(ProblemError, problem_error)
        app.register_error_handler(NotFound, not_found)
        app.register_error_handler(Gone, gone)
        app.register_error_handler(InvalidCursor, invalid_cursor)
        app.register_error_handler(InvalidTransition, invalid_transition)
        app.register_error_handler(ReadTooLarge, read_too_large)
        app.register_error_handler(ReadersBusy, readers_busy)
        app.register_error_handler(SQLAlchemyError, database_error)

    def _register_etag_headers(self) -> None:
        """Register no response headers: neither pages nor ETags use any."""

    _register_pagination_header = _register_etag_headers

    def _register_responses(self) -> None:
        content = {CONTENT_TYPE: {"schema": self.ERROR_SCHEMA}}
        for status in HTTPStatus:
            response = {"description": status.phrase, "content": content}
            self.spec.components.response(status.name, response, lazy=True)
        default = {"description": "An error: what is wrong, and what to do.", "content": content}
        self.spec.components.response(self.DEFAULT_ERROR_RESPONSE_NAME, default, lazy=True)


def problem_error(error: ProblemError) -> Response:
    """Return the response of a ProblemError."""
    return problem_response(error.status, error.detail, error.errors, error.headers)


def not_found(error: NotFound) -> Response:
    """Return 404, with the list that names the known ids."""
    collection = "/".join(request.path.split("/")[:4])
    return problem_response(404, f"{error}; GET {collection} lists the known ones.")


def invalid_transition(error: InvalidTransition) -> Response:
    """Return 409 for a decision that does not fit the state of its object."""
    return problem_response(409, str(error))


def gone(error: Gone) -> Response:
    """Return 410: the row is there, and its content was purged."""
    return problem_response(410, f"{error}; its identity, digest and counts stay.")


def read_too_large(error: ReadTooLarge) -> Response:
    """Return 409 for values that are too large for one answer."""
    return problem_response(409, TOO_LARGE)


def readers_busy(error: ReadersBusy) -> Response:
    """Return 503: another large request of this process is being answered."""
    return problem_response(503, BUSY, headers={"Retry-After": RETRY_AFTER})


def invalid_cursor(error: InvalidCursor) -> Response:
    """Return 400 for a cursor of another list."""
    return problem_response(400, str(error), {"cursor": ["Invalid cursor."]})


def http_error(error: HTTPException) -> AnyResponse | HTTPException:
    """Return what Flask and webargs raise as a problem. Errors outside /api stay as they are."""
    if not request.path.startswith("/api/"):
        return error
    if error.response is not None:
        return error.response  # type: ignore[return-value]
    errors: dict[str, Any] | None = None
    detail = error.description or HTTPStatus(error.code or 500).phrase
    if error.code == 404:
        detail = f"No resource at {request.path}. See /api/openapi.json."
    elif error.code == 500:
        detail = "Internal error. See the server log."
    elif messages := getattr(error, "data", {}).get("messages"):
        errors = _errors_by_field(messages, error.data["schema"])  # type: ignore[attr-defined]
        detail = "; ".join(f"{name}: {' '.join(map(str, wrong))}" for name, wrong in errors.items())
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    return problem_response(error.code or 500, detail, errors, headers)


def _errors_by_field(messages: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Flatten webargs' messages, which are grouped by location, and list the allowed names for an unknown one."""
    errors = {
        name: wrong
        for location, found in messages.items()
        for name, wrong in (found if isinstance(found, dict) else {location: found}).items()
    }
    for name, wrong in errors.items():
        if "Unknown field." in wrong:
            errors[name] = [*wrong, f"Allowed: {', '.join(sorted(schema.load_fields))}."]
    return errors


def database_error(error: SQLAlchemyError) -> AnyResponse:
    """Return 503: the database is unavailable or busy, and the same request may succeed later."""
    if not request.path.startswith("/api/"):
        raise error
    unavailable = ServiceUnavailable(
        "The database did not answer; send the request again.", retry_after=int(RETRY_AFTER)
    )
    return http_error(unavailable)  # type: ignore[return-value]
