"""Attachments of tasks, fetched by the guarded client, so that a page loads nothing from elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Response, abort, send_file
from PIL import Image, ImageOps
from werkzeug.exceptions import HTTPException

from app.console.frame import blueprint
from app.extensions import service
from app.responses import CONTENT_HEADERS, SAFE_MEDIA_TYPES
from pipeline.datasets.attachment_cache import cached, derived
from pipeline.datasets.attachments import numbered
from pipeline.datasets.images import NoImage, size_of_file
from pipeline.datasets.points import camera_image
from pipeline.db.memory_budget import ReadersBusy, ReadTooLarge, charge
from pipeline.operations.queries.tasks import get_task
from scale.images import open_image

MAX_SIDE = 2048
"""Pixels of a preview's longer side."""
THUMBNAIL_SIDE = 160
PREVIEW_FROM_BYTES = 1_000_000
NO_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="48"><rect width="64" height="48" fill="#888"/>'
    '<path d="M16 12L48 36M48 12L16 36" stroke="#fff" stroke-width="3"/></svg>'
)
UNREADABLE = (OSError, ValueError, Image.DecompressionBombError, ReadTooLarge, ReadersBusy)
"""What Pillow raises for a file that it cannot draw, and what is raised for one that is too large for a web process now."""
ONE_BYTE_MODES = ("1", "L", "P")
"""Pillow's modes with one byte for a pixel; the others have up to four."""
MAX_AGE_SECONDS = 3600
MAX_POINT_FILE_BYTES = 64 * 1024 * 1024
MEDIA_BY_SUFFIX = {
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".ogg": "video/ogg",
    ".pdf": "application/pdf",
}


@blueprint.get("/attachments/<task_id>/<int:number>")
def attachment(task_id: str, number: int) -> Response:
    """Send an attachment of a task, counted from 0; a large image as a smaller preview."""
    return _send(*copy_of(task_id, number))


@blueprint.get("/cameras/<task_id>/<int:frame>/<int:camera>")
def camera_picture(task_id: str, frame: int, camera: int) -> Response:
    """Send the image of a camera that the file of a lidar frame names."""
    with service().reader.begin() as connection:
        found = get_task(connection, task_id)
    try:
        address = camera_address(found, frame, camera)
        if address is None:
            abort(404, f"Frame {frame} of task {task_id} has no image of camera {camera}.")
        return _send(cached(service(), address), address)
    except NoImage as reason:
        abort(502, f"The image cannot be fetched: {reason}. Its address may have expired.")


def _send(path: Path, address: str) -> Response:
    size = size_of_file(path)
    suffix = Path(address.partition("?")[0]).suffix.lower()
    media_type = size.media_type if size else MEDIA_BY_SUFFIX.get(suffix)
    if size and path.stat().st_size > PREVIEW_FROM_BYTES:
        with contextlib.suppress(*UNREADABLE):
            return _respond(_shrunk(path, MAX_SIDE), "image/jpeg")
    return _respond(path, media_type)


@blueprint.get("/attachments/<task_id>/thumbnail")
def thumbnail(task_id: str) -> Response:
    """Send a tiny picture of a task's first attachment; a sign for one that is no image or cannot be fetched."""
    with contextlib.suppress(HTTPException, *UNREADABLE):
        return _respond(_shrunk(copy_of(task_id, 0)[0], THUMBNAIL_SIDE), "image/jpeg")
    return Response(NO_PICTURE, mimetype="image/svg+xml")


def copy_of(task_id: str, number: int) -> tuple[Path, str]:
    """Return a copy of a task's attachment, and its address. Aborts with 404 or 502."""
    with service().reader.begin() as connection:
        addresses = addresses_of(get_task(connection, task_id))
    address = addresses[number] if number < len(addresses) else None
    if address is None:
        abort(404, f"Task {task_id} names no attachment {number}.")
    try:
        return cached(service(), address), address
    except NoImage as reason:
        abort(502, f"The attachment cannot be fetched: {reason}. Its address may have expired.")


def _respond(path: Path, media_type: str | None) -> Response:
    is_safe = media_type in SAFE_MEDIA_TYPES
    response = send_file(
        path.absolute(), mimetype=media_type if is_safe else "application/octet-stream", conditional=True
    )
    response.headers.update({**CONTENT_HEADERS, "Cache-Control": f"private, max-age={MAX_AGE_SECONDS}"})
    return response


def _shrunk(path: Path, side: int) -> Path:
    """Return a preview of an image: upright, JPEG, at most `side` pixels wide and high."""
    preview = derived(path, f"{side}.jpg")
    if preview.exists():
        return preview
    with open_image(path) as image:
        image.draft("RGB", (side, side))
        charge(image.width * image.height * (1 if image.mode in ONE_BYTE_MODES else 4))
        image.thumbnail((side, side))
        upright = ImageOps.exif_transpose(image)
        made = derived(path, f"{side}.{id(image)}.part")
        upright.convert("RGB").save(made, "JPEG", quality=80)
    made.replace(preview)
    return preview


def addresses_of(task: Mapping[str, Any]) -> list[str | None]:
    """Return the attachments of a task by their numbers."""
    return numbered(task["params"] or {})


def camera_address(task: Mapping[str, Any], frame: int, camera: int) -> str | None:
    """Return the address of a camera's image, which the file of the frame names. Raises NoImage."""
    addresses = addresses_of(task)
    address = addresses[frame] if frame < len(addresses) else None
    if address is None:
        return None
    path = cached(service(), address)
    if path.stat().st_size > MAX_POINT_FILE_BYTES:
        raise NoImage("the file of this frame is too large")
    try:
        return camera_image(path.read_bytes(), camera)
    except ReadTooLarge:
        raise NoImage("the file of this frame is too large") from None
