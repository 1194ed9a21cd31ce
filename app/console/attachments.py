"""Attachments of tasks, fetched by the guarded client, so that a page loads nothing from elsewhere."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Response, abort, send_file
from PIL import Image, ImageOps

from app.console.frame import blueprint
from app.extensions import service
from app.responses import CONTENT_HEADERS, SAFE_MEDIA_TYPES
from pipeline.datasets.attachments import attachments
from pipeline.datasets.images import NoImage, copy
from pipeline.operations.queries.tasks import get_task
from scale.images import open_image

MAX_SIDE = 2048
"""Pixels of a preview's longer side."""
PREVIEW_FROM_BYTES = 1_000_000
MAX_AGE_SECONDS = 3600
MEDIA_BY_SUFFIX = {
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".ogg": "video/ogg",
}


@blueprint.get("/attachments/<task_id>/<int:number>")
def attachment(task_id: str, number: int) -> Response:
    """Send an attachment of a task, counted from 0; a large image as a smaller preview."""
    with service().reader.begin() as connection:
        task = get_task(connection, task_id)
    addresses = attachments(task["params"] or {})
    if number >= len(addresses):
        abort(404, f"Task {task_id} names no attachment {number}.")
    with tempfile.TemporaryDirectory(prefix="attachment-", dir=_folder()) as folder:
        path = Path(folder) / "content"
        try:
            size = copy(service(), addresses[number], path)
        except NoImage as reason:
            abort(502, f"The attachment cannot be fetched: {reason}. Its address may have expired.")
        suffix = Path(addresses[number].partition("?")[0]).suffix.lower()
        return _respond(path, size.media_type if size else MEDIA_BY_SUFFIX.get(suffix))


def _folder() -> str | None:
    """Return var/ where it exists: the only writable folder of a container with a read-only root."""
    return "var" if Path("var").is_dir() else None


def _respond(path: Path, media_type: str | None) -> Response:
    if media_type and media_type.startswith("image/") and path.stat().st_size > PREVIEW_FROM_BYTES:
        with contextlib.suppress(OSError, ValueError, Image.DecompressionBombError):
            _shrink(path)
            media_type = "image/jpeg"
    is_safe = media_type in SAFE_MEDIA_TYPES
    response = send_file(path.open("rb"), mimetype=media_type if is_safe else "application/octet-stream")
    response.headers.update({**CONTENT_HEADERS, "Cache-Control": f"private, max-age={MAX_AGE_SECONDS}"})
    return response


def _shrink(path: Path) -> None:
    """Replace an image by a preview: upright, JPEG, at most MAX_SIDE pixels wide and high."""
    with open_image(path) as image:
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((MAX_SIDE, MAX_SIDE))
        upright.convert("RGB").save(path, "JPEG", quality=80)


def addresses_of(task: Mapping[str, Any]) -> list[str]:
    """Return the attachments of a task, in order."""
    return attachments(task["params"] or {})
