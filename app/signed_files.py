"""`GET /files/{signed}` and `GET /results/{signed}`: a file that was made for a request, and the result that an event links to,
for anyone with the signed URL while it is valid."""

from __future__ import annotations

import time

from flask import Blueprint, Response

from app.extensions import service
from app.responses import CONTENT_HEADERS, json_response, send_content
from pipeline.events import results
from pipeline.follow_ups.signed_urls import parse_signed

blueprint = Blueprint("files", __name__)


@blueprint.get("/files/<string:signed>")
def signed_file(signed: str) -> Response:
    """Return the file. 404 for a URL that this service did not sign, 410 for an expired one."""
    found = parse_signed(service().settings, signed)
    if found is None:
        return json_response(404, {"error": "No such file."})
    seconds = int(found.until - time.time())
    if seconds < 0:
        return json_response(410, {"error": "This URL has expired."})
    try:
        return send_content(service().store, found.sha256, media_type=found.media_type, max_age=seconds)
    except FileNotFoundError:
        return json_response(410, {"error": "The file has been deleted."})


@blueprint.get("/results/<string:signed>")
def signed_result(signed: str) -> Response:
    """Return the result of a response version. 404 for a URL that this service did not sign, 410 if it is gone."""
    try:
        found = results.parse_link(service().settings, signed)
    except results.LinkExpired:
        return json_response(410, {"error": "This URL has expired."})
    if found is None:
        return json_response(404, {"error": "No such result."})
    with service().reader.begin() as connection:
        version = results.find_version(connection, *found)
    if version is None:
        return json_response(410, {"error": "The result has been deleted."})
    return Response(
        results.stream(service().reader, version), headers=CONTENT_HEADERS, mimetype="application/json"
    )
