"""The files of a request are made before it is sent: crops, copies of attachments, layers files. plan() has left a recipe
where each address belongs; the content goes into the artifact store, and Scale gets a signed address that expires."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import timedelta
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, ImageOps
from sqlalchemy import RowMapping, select

from models import Artifact, RequestFile, Response, Task
from pipeline.db.dialect import insert
from pipeline.db.ids import utcnow
from pipeline.follow_ups.signed_urls import parse_own_url, refresh_urls, signed_url
from pipeline.follow_ups.views import annotations_of_files
from pipeline.http.download import fetch
from pipeline.jobs import queue
from pipeline.jobs.queue import Job
from pipeline.service import Service
from scale.envelope import response_digest
from workflows.definition.recipes import files, layers_file, with_addresses

MAX_PIXELS = 100_000_000
"""An image of so many takes 400 MB to cut."""
FETCH_SECONDS = 300.0
CACHE_TTL = timedelta(days=1)
"""For so long a copy of somebody else's file is taken for what stands at its address."""
UNKNOWN = "application/octet-stream"


class RequestFileError(Exception):
    """The same recipe would fail again. args[0] is the reason."""


class BuiltFile(NamedTuple):
    sha256: str
    size_bytes: int
    media_type: str


def with_files(service: Service, job: Job, follow_up: RowMapping) -> dict[str, Any]:
    """The request as Scale gets it, each file at a fresh address. Raises CannotBeMade, Refused or Unavailable."""
    request = follow_up["request"]
    addresses = {}
    if needed := list(files(request)):
        with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as still_leased:
            for file in needed:
                made = build_file(service, follow_up["source_task_id"], file.recipe)
                still_leased()
                addresses[file.path] = signed_url(service.settings, made.sha256, made.media_type)
    found: dict[str, Any] = refresh_urls(service.settings, with_addresses(request, addresses))
    return found


def build_file(service: Service, task_id: str, recipe: Mapping[str, Any]) -> BuiltFile:
    """The file of a recipe of this task's follow-up: made now, or the one that was made before."""
    digest = response_digest(dict(recipe))
    with service.reader.begin() as connection:
        row = connection.execute(
            select(
                RequestFile.sha256, RequestFile.size_bytes, RequestFile.media_type, RequestFile.made_at
            ).where(RequestFile.recipe == digest)
        ).one_or_none()
    if row and utcnow() - row.made_at < CACHE_TTL and service.store.exists(row.sha256):
        return BuiltFile(row.sha256, row.size_bytes, row.media_type)
    made = BUILDERS[recipe["make"]](service, task_id, recipe)
    with service.engine.begin() as connection:
        statement = insert(connection, RequestFile).values(recipe=digest, made_at=utcnow(), **made._asdict())
        new = statement.excluded
        fresh = {name: new[name] for name in ("sha256", "size_bytes", "media_type", "made_at")}
        connection.execute(statement.on_conflict_do_update(index_elements=["recipe"], set_=fresh))
    return made


def mirror(service: Service, task_id: str, recipe: Mapping[str, Any]) -> BuiltFile:
    """The same bytes: ours already, or fetched from a host that ATTACHMENT_HOSTS or ARTIFACT_HOSTS names."""
    url = recipe["of"]
    if (kept := parse_own_url(service.settings, url)) is not None and service.store.exists(kept.sha256):
        return BuiltFile(kept.sha256, service.store.size(kept.sha256), kept.media_type)
    with service.reader.begin() as connection:
        ours = (Artifact.task_id == task_id, Artifact.url == url, Artifact.state == "stored")
        columns = (Artifact.sha256, Artifact.size_bytes, Artifact.media_type)
        artifact = connection.execute(select(*columns).where(*ours).limit(1)).one_or_none()
    if artifact is not None and service.store.exists(artifact.sha256):
        return BuiltFile(artifact.sha256, artifact.size_bytes, artifact.media_type or UNKNOWN)
    settings = service.settings
    with service.store.incoming() as incoming:
        fetched = fetch(
            url,
            hosts=(*settings.attachment_hosts, *settings.artifact_hosts),
            max_bytes=settings.max_artifact_bytes,
            max_seconds=FETCH_SECONDS,
            sink=incoming,
        )
        incoming.commit(fetched.sha256)
    return BuiltFile(fetched.sha256, fetched.size, fetched.media_type or UNKNOWN)


def crop(service: Service, task_id: str, recipe: Mapping[str, Any]) -> BuiltFile:
    """What of a rectangle lies in an image, in the image's own format where that is JPEG, else as PNG."""
    image = build_file(service, task_id, {"make": "mirror", "of": recipe["of"]})
    left, top = recipe["left"], recipe["top"]
    with service.store.open(image.sha256) as content:
        cut, media_type = crop_image(content, (left, top, left + recipe["width"], top + recipe["height"]))
    with closing(io.BytesIO(cut)) as file:
        sha256, size = service.store.put(file)
    return BuiltFile(sha256, size, media_type)


def crop_image(content: BinaryIO, box: tuple[int, int, int, int]) -> tuple[bytes, str]:
    """(the part of an image inside `box`, its media type). `box`: left, top, right, bottom in pixels of the image as it
    is shown, which its orientation tag may turn. Raises CannotBeMade."""
    try:
        with Image.open(content) as image:
            if image.width * image.height > MAX_PIXELS:
                raise RequestFileError(
                    f"the image has {image.width:,} × {image.height:,} pixels, and {MAX_PIXELS:,} in all are the most"
                )
            form = "JPEG" if image.format in ("JPEG", "MPO") else "PNG"
            profile = image.info.get("icc_profile")
            shown = ImageOps.exif_transpose(image)
            inside = (box[0], box[1], min(box[2], shown.width), min(box[3], shown.height))
            if inside[0] >= inside[2] or inside[1] >= inside[3]:
                raise RequestFileError(
                    f"the annotation lies outside of the image, which has {shown.width:,} × {shown.height:,} pixels"
                )
            part = shown.crop(inside)
            written = io.BytesIO()
            finest = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
            part.save(written, form, icc_profile=profile, **finest)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as unreadable:
        raise RequestFileError(f"the image can't be read: {unreadable}") from unreadable
    return written.getvalue(), f"image/{form.lower()}"


def layers(service: Service, task_id: str, recipe: Mapping[str, Any]) -> BuiltFile:
    """The layers file of a result: one Layers object for each frame of the video."""
    with service.reader.begin() as connection:
        response_id = connection.scalar(
            select(Response.id).where(
                Response.task_id == recipe["task_id"], Response.digest == recipe["response"]
            )
        )
        params = connection.scalar(select(Task.params).where(Task.task_id == recipe["task_id"])) or {}
        if response_id is None:
            raise RequestFileError(
                f"the response of {recipe['task_id']} that its layers are of is not kept any more"
            )
        annotations = annotations_of_files(connection, response_id)
    images = params.get("attachments")
    frames = len(images) if isinstance(images, list) else 0
    written = json.dumps(layers_file(annotations, frames, recipe["labels"])).encode()
    with closing(io.BytesIO(written)) as file:
        sha256, size = service.store.put(file)
    return BuiltFile(sha256, size, "application/json")


BUILDERS: Mapping[str, Callable[[Service, str, Mapping[str, Any]], BuiltFile]] = {
    "mirror": mirror,
    "crop": crop,
    "layers": layers,
}
