"""Answer errors in the form that Scale's clients read: `{"status_code": 404, "error": "…"}`."""

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException

from sandbox.errors import ScaleError


def register_error_handlers(app: Flask) -> None:
    """Answer every exception of the application in Scale's form."""

    @app.errorhandler(ScaleError)
    def _scale_error(error: ScaleError) -> tuple[Response, int]:
        return _error_body(error.status, error.message)

    @app.errorhandler(HTTPException)
    def _http_error(error: HTTPException) -> tuple[Response, int]:
        return _error_body(error.code or 500, error.description or error.name)

    @app.errorhandler(Exception)
    def _unexpected_error(error: Exception) -> tuple[Response, int]:
        app.logger.exception("unexpected error in the sandbox")
        return _error_body(500, "Internal error of the sandbox. See its log.")


def _error_body(status: int, message: str) -> tuple[Response, int]:
    return jsonify(status_code=status, error=message), status
