"""Endpoints of /v1/files, and the content of files below /files, which needs no key."""

import re
from typing import Any

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from sandbox.errors import ScaleError, invalid
from sandbox.settings import is_test_account
from sandbox.storage import clock
from sandbox.storage.store import StoredFile
from sandbox.web.api.request_context import current_account, current_sandbox
from sandbox.web.bodies import read_object

files = Blueprint("files", __name__)


@files.post("/v1/files/upload")
def upload_file() -> dict[str, Any]:
    """Store an uploaded file."""
    part = request.files.get("file")
    if part is None:
        raise invalid('"file" is required')
    media_type = part.mimetype or "application/octet-stream"
    return file_object(
        current_sandbox().files.add(
            part.read(), media_type, current_account(), project_names=_project_names(request.form)
        )
    )


@files.post("/v1/files/import")
def import_file() -> dict[str, Any]:
    """Store the URL of a file without downloading it: Scale does that later."""
    body = read_object(request)
    url = body.get("file_url")
    if not isinstance(url, str) or not url:
        raise invalid('"file_url" is required')
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", url):
        raise invalid('"file_url" must be a valid uri')
    file = current_sandbox().files.add(
        None, "application/octet-stream", current_account(), url, _project_names(body)
    )
    return file_object(file)


@files.get("/v1/files/<name:file_id>/content")
def get_own_content(file_id: str) -> AnyResponse:
    """Return the content of a file, with an API key."""
    return get_content(file_id)


@files.get("/files/<name:file_id>")
def get_content(file_id: str) -> AnyResponse:
    """Return the content of a file, or redirect to that of an import."""
    file = current_sandbox().files.get(file_id)
    if file is None:
        raise ScaleError(404, "File with that ID not found.")
    if file.content is None:
        return redirect(file.url or "")
    # Uploads may be HTML; their scripts must not run in the origin of the sandbox.
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
    return Response(file.content, content_type=file.media_type, headers=headers)


def _project_names(fields: Any) -> list[str]:
    name = fields.get("project_name")
    return [name] if isinstance(name, str) and name else []


def file_object(file: StoredFile) -> dict[str, Any]:
    """Return a file in the form of version 1. Tasks accept `attachment_url` as an attachment."""
    environment = "test" if is_test_account(file.account or "") else "live"
    return {
        "id": file.id,
        "attachment_url": f"scaledata://{environment}/{file.id}",
        "created_at": clock.format_timestamp(file.created_at),
        "updated_at": clock.format_timestamp(file.created_at),
        "mime_type": file.media_type,
        "size": file.size or 0,
        "project_names": file.project_names,
    }
