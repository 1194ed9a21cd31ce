"""/v1/files, and the addresses below /files where their content, and that of results, can be read by anyone."""

import re
from typing import Any

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from sandbox.errors import ScaleError, invalid
from sandbox.settings import is_test_key
from sandbox.storage import clock
from sandbox.storage.store import StoredFile
from sandbox.web.api.calls import account, current_sandbox
from sandbox.web.bodies import read_object

files = Blueprint("files", __name__)


@files.post("/v1/files/upload")
def upload_file() -> dict[str, Any]:
    part = request.files.get("file")
    if part is None:
        raise invalid('"file" is required')
    media_type = part.mimetype or "application/octet-stream"
    return file_object(
        current_sandbox().files.keep(
            part.read(), media_type, account(), project_names=_projects(request.form)
        )
    )


@files.post("/v1/files/import")
def import_file() -> dict[str, Any]:
    """Take an address without fetching it: Scale does that later."""
    body = read_object(request)
    url = body.get("file_url")
    if not isinstance(url, str) or not url:
        raise invalid('"file_url" is required')
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", url):
        raise invalid('"file_url" must be a valid uri')
    kept = current_sandbox().files.keep(None, "application/octet-stream", account(), url, _projects(body))
    return file_object(kept)


@files.get("/v1/files/<name:file_id>/content")
def own_content(file_id: str) -> AnyResponse:
    return content(file_id)


@files.get("/files/<name:file_id>")
def content(file_id: str) -> AnyResponse:
    file = current_sandbox().files.get(file_id)
    if file is None:
        raise ScaleError(404, "File with that ID not found.")
    if file.content is None:
        return redirect(file.url or "")
    # Uploads may be HTML: nothing of them may run under the sandbox's own address.
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
    return Response(file.content, content_type=file.media_type, headers=headers)


def _projects(named: Any) -> list[str]:
    name = named.get("project_name")
    return [name] if isinstance(name, str) and name else []


def file_object(file: StoredFile) -> dict[str, Any]:
    """The file as v1 shows it. `attachment_url` is what a task takes as its attachment."""
    world_name = "test" if is_test_key(file.account or "") else "live"
    return {
        "id": file.id,
        "attachment_url": f"scaledata://{world_name}/{file.id}",
        "created_at": clock.iso(file.created_at),
        "updated_at": clock.iso(file.created_at),
        "mime_type": file.media_type,
        "size": file.size or 0,
        "project_names": file.project_names,
    }
