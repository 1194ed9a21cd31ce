"""`GET /files/{signed}`: a file that was made for a request, for whoever has its address: Scale, for as long as it lasts."""

from __future__ import annotations

import time

from flask import Blueprint, Response, current_app, request
from werkzeug.wsgi import wrap_file

from app.callbacks import answer
from pipeline.follow_ups.signed_urls import parse_signed
from pipeline.service import Service

blueprint = Blueprint("files", __name__)

SHOWN_AS_THEY_ARE = ("image/jpeg", "image/png", "image/gif", "image/webp", "image/bmp", "image/tiff", "application/json",
                     "application/pdf", "video/mp4", "video/webm", "video/ogg", "audio/mpeg", "audio/wav", "text/plain")  # fmt: skip
"""Anything else could run in a browser, under this service's name."""


@blueprint.get("/files/<string:signed>")
def signed_file(signed: str) -> Response:
    """The bytes; ranges are answered. 404 for an address that was never given, 410 for one that has expired."""
    service: Service = current_app.extensions["weighbridge"]
    found = parse_signed(service.settings, signed)
    if found is None:
        return answer(404, {"error": "there is no such file"})
    if found.until < time.time():
        return answer(410, {"error": "this address has expired"})
    try:
        size = service.store.size(found.sha256)
        file = service.store.open(found.sha256)
    except FileNotFoundError:
        return answer(410, {"error": "the file has been deleted"})
    response = Response(wrap_file(request.environ, file), direct_passthrough=True)
    response.mimetype = (
        found.media_type if found.media_type in SHOWN_AS_THEY_ARE else "application/octet-stream"
    )
    response.content_length = size
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.cache_control.private = True
    response.cache_control.max_age = int(found.until - time.time())
    response.set_etag(found.sha256)
    return response.make_conditional(request, accept_ranges=True, complete_length=size)
