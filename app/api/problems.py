"""Every error under /api as `application/problem+json` (RFC 9457): what is wrong, and what to do instead."""

from __future__ import annotations

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

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER = "5"


class ProblemDetails(Schema):
    type = fields.String(required=True, metadata={"description": "about:blank: the status says it all"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    errors = fields.Dict(
        keys=fields.String(),
        metadata={"description": "Parameter or field → what is wrong with it"},
    )


class ProblemError(Exception):
    """Nothing is wrong with the service: the request cannot be done. (status, a sentence that says what to do)."""

    def __init__(
        self, status: int, detail: str, errors: dict[str, Any] | None = None, **headers: str
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, errors
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def problem_response(
    status: int, detail: str, errors: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Response:
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        content["errors"] = errors
    written = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)  # places in a list are numbers
    return Response(written, status, headers, content_type=CONTENT_TYPE)


class Api(flask_smorest.Api):
    """flask-smorest, with its errors in our form, also in the OpenAPI document."""

    ERROR_SCHEMA = ProblemDetails
    spec: APISpec

    def _register_error_handlers(self) -> None:
        app: Flask = self._app
        app.register_error_handler(HTTPException, http_error)
        app.register_error_handler(
            ProblemError, lambda it: problem_response(it.status, it.detail, it.errors, it.headers)
        )
        app.register_error_handler(SQLAlchemyError, database_error)

    def _register_etag_headers(self) -> None:
        """None of ours: nothing here is paged or tagged in its headers."""

    _register_pagination_header = _register_etag_headers

    def _register_responses(self) -> None:
        content = {CONTENT_TYPE: {"schema": self.ERROR_SCHEMA}}
        for status in HTTPStatus:
            response = {"description": status.phrase, "content": content}
            self.spec.components.response(status.name, response, lazy=True)
        default = {"description": "What is wrong, and what to do instead", "content": content}
        self.spec.components.response(self.DEFAULT_ERROR_RESPONSE_NAME, default, lazy=True)


def http_error(error: HTTPException) -> AnyResponse | HTTPException:
    """What Flask and webargs raise. Outside /api it stays as it is."""
    if not request.path.startswith("/api/"):
        return error
    if error.response is not None:
        return error.response
    errors: dict[str, Any] | None = None
    detail = error.description or HTTPStatus(error.code or 500).phrase
    if error.code == 404:
        detail = f"there is nothing at {request.path}; /api/openapi.json says what there is"
    elif error.code == 500:
        detail = "this failed; the log says why"
    elif messages := getattr(error, "data", {}).get("messages"):
        errors = {
            name: wrong
            for place, said in messages.items()
            for name, wrong in (said if isinstance(said, dict) else {place: said}).items()
        }
        for name, wrong in errors.items():
            if "Unknown field." in wrong:
                known = error.data["schema"].load_fields  # type: ignore[attr-defined]
                errors[name] = [*wrong, f"Known are {', '.join(sorted(known))}."]
        detail = "; ".join(f"{name}: {' '.join(map(str, wrong))}" for name, wrong in errors.items())
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    return problem_response(error.code or 500, detail, errors, headers)


def database_error(error: SQLAlchemyError) -> AnyResponse:
    """The database is away or busy: the same request may succeed a little later."""
    if not request.path.startswith("/api/"):
        raise error
    return http_error(
        ServiceUnavailable("the database did not answer; try again", retry_after=int(RETRY_AFTER))
    )  # type: ignore[return-value]
