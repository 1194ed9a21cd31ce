"""Responses that several views share: JSON, and the content of a stored file."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response, request
from werkzeug.wsgi import wrap_file

from pipeline.artifacts.store import ArtifactStore

CONTENT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-cache",
}
SAFE_MEDIA_TYPES = frozenset(
    (
        "application/json",
        "application/zip",
        "application/pdf",
        "audio/mpeg",
        "audio/wav",
        "image/bmp",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/tiff",
        "image/webp",
        "text/plain",
        "video/mp4",
        "video/ogg",
        "video/webm",
    )
)
"""Media types that a browser cannot execute. Any other content is sent as application/octet-stream."""


def json_response(status: int, content: dict[str, Any]) -> Response:
    """Return `content` as a JSON response."""
    return Response(orjson.dumps(content), status, content_type="application/json")


def send_content(
    store: ArtifactStore,
    sha256: str,
    *,
    media_type: str | None,
    download_name: str | None = None,
    max_age: int | None = None,
) -> Response:
    """Stream a file of the artifact store; range and conditional requests are supported.

    `download_name` makes it an attachment, `max_age` lets private caches keep it for that many seconds.
    Raises FileNotFoundError if the store does not hold the file.
    """
    size = store.size(sha256)
    response = Response(
        wrap_file(request.environ, store.open(sha256)),
        headers=CONTENT_HEADERS,
        mimetype=media_type if media_type in SAFE_MEDIA_TYPES else "application/octet-stream",
        direct_passthrough=True,
    )
    response.content_length = size
    if download_name is not None:
        response.headers.set("Content-Disposition", "attachment", filename=download_name)
    if max_age is not None:
        response.headers["Cache-Control"] = f"private, max-age={max_age}"
    response.set_etag(sha256)
    response.make_conditional(request, accept_ranges=True, complete_length=size)
    return response
