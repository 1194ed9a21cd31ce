"""Builds the files of a request before it is sent: crops, copies of attachments, layers files.

plan() stores a recipe for each file. A job that may wait for a slow host builds it; its content goes into the artifact store.
The request is sent by another job, and Scale gets a signed URL that expires.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, ImageOps
from sqlalchemy import Connection, case, literal, or_, select

from models import Artifact, FollowUp, RequestFile, Response, Task
from pipeline.artifacts.references import hold_contents
from pipeline.db.compiled import Record
from pipeline.db.dialect import insert
from pipeline.db.ids import utcnow
from pipeline.follow_ups.signed_urls import parse_own_url, signed_url
from pipeline.follow_ups.views import annotations_of_files
from pipeline.http.client import Unavailable
from pipeline.http.download import fetch
from pipeline.jobs import queue
from pipeline.jobs.queue import Job
from pipeline.service import Service
from scale.envelope import response_digest
from scale.images import open_image
from workflows.definition.recipes import (
    Cut,
    HypothesisFile,
    LayersFile,
    Mirror,
    Recipe,
    Renewal,
    hypothesis_file,
    layers_file,
    replace_at,
    stored_files,
    to_json,
)

MAX_PIXELS = 100_000_000
"""Cutting an image of this size takes 400 MB."""
FETCH_SECONDS = 300.0
CACHE_TTL = timedelta(days=1)
"""How long a copy of an attachment is used before its URL is fetched again."""
UNKNOWN = "application/octet-stream"


class RequestFileError(Exception):
    """The same recipe would fail again. args[0] is the reason."""


class MissingArtifact(Exception):
    """Raised when a request needs a result file that is not stored. args[0] is the reason; it can be built with the file."""


class FilesNotBuilt(Exception):
    """Raised when a file of a request has to be built before the request can be sent."""


class BuiltFile(NamedTuple):
    """A file in the artifact store that a request refers to."""

    sha256: str
    size_bytes: int
    media_type: str


def with_files(service: Service, follow_up: Record) -> dict[str, Any]:
    """Return the request as Scale gets it, with a new signed URL for each file. Raises FilesNotBuilt."""
    urls = [(file.path, _url(service, file.recipe)) for file in stored_files(follow_up["files"])]
    request: dict[str, Any] = replace_at(follow_up["request"], urls)
    return request


def build_files(service: Service, job: Job, follow_up: Record) -> None:
    """Build the files of a request that are not stored yet.

    Raises MissingArtifact, RequestFileError, DownloadRefused, Unavailable or LeaseLost.
    """
    with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as check_lease:
        for file in stored_files(follow_up["files"]):
            if _moved_to(service, file.recipe) is None:
                build_file(service, follow_up["source_task_id"], file.recipe)
            check_lease()


def _url(service: Service, recipe: Recipe) -> str:
    """Return a URL of a file for Scale. Raises FilesNotBuilt."""
    if (moved := _moved_to(service, recipe)) is not None:
        return moved
    if (built := find_file(service, recipe)) is None:
        raise FilesNotBuilt
    return signed_url(service.settings, built.sha256, built.media_type)


def _moved_to(service: Service, recipe: Recipe) -> str | None:
    """Return the URL to which Scale, or its customer, has moved the file, if that is not ours; else None."""
    if isinstance(recipe, Renewal) and parse_own_url(service.settings, recipe.url) is None:
        return recipe.url
    return None


def find_file(service: Service, recipe: Recipe) -> BuiltFile | None:
    """Return the stored file of a recipe: one built within CACHE_TTL or, for a Renewal, the one at its URL, however old it is.

    The URL comes back to us in data, so it counts only if it names the content that the recipe gave.
    """
    kept = None
    if isinstance(recipe, Renewal):
        kept, recipe = parse_own_url(service.settings, recipe.url), recipe.original
    row = _recorded(service, recipe)
    if row is None or not service.store.exists(row.sha256):
        return None
    is_fresh = utcnow() - row.made_at < CACHE_TTL or (kept is not None and kept.sha256 == row.sha256)
    return BuiltFile(row.sha256, row.size_bytes, row.media_type) if is_fresh else None


def build_file(service: Service, task_id: str, recipe: Recipe) -> BuiltFile:
    """Return the file of a recipe: the stored one, or one built now."""
    if (found := find_file(service, recipe)) is not None:
        return found
    if isinstance(recipe, Renewal):
        return build_file(service, task_id, recipe.original)
    built = _build(service, task_id, recipe)
    with service.engine.begin() as connection:
        hold_contents(connection)
        values = {"recipe": _digest(recipe), "made_at": utcnow(), **built._asdict()}
        statement = insert(connection, RequestFile).values(**values)
        new = statement.excluded
        fresh = {name: new[name] for name in ("sha256", "size_bytes", "media_type", "made_at")}
        connection.execute(statement.on_conflict_do_update(index_elements=["recipe"], set_=fresh))
    if not service.store.exists(built.sha256):
        raise Unavailable("a purge has deleted the same content of another task while it was stored")
    return built


def _digest(recipe: Recipe) -> str:
    return response_digest(to_json(recipe))


def _recorded(service: Service, recipe: Recipe) -> Any:
    """Return what the last build of a recipe gave, or None."""
    columns = (RequestFile.sha256, RequestFile.size_bytes, RequestFile.media_type, RequestFile.made_at)
    with service.reader.begin() as connection:
        statement = select(*columns).where(RequestFile.recipe == _digest(recipe))
        return connection.execute(statement).one_or_none()


def _build(service: Service, task_id: str, recipe: Mirror | Cut | LayersFile | HypothesisFile) -> BuiltFile:
    match recipe:
        case Mirror():
            return mirror(service, task_id, recipe)
        case Cut():
            return crop(service, task_id, recipe)
        case LayersFile():
            return layers(service, recipe)
        case HypothesisFile():
            return hypothesis(service, recipe)


def mirror(service: Service, task_id: str, recipe: Mirror) -> BuiltFile:
    """Return a copy of a file: one that is stored already, or one fetched from ATTACHMENT_HOSTS or ARTIFACT_HOSTS."""
    kept = parse_own_url(service.settings, recipe.url)
    if kept is not None and recipe.original is not None:
        return build_file(service, task_id, Renewal(recipe.url, recipe.original))
    if kept is not None and kept.until > time.time() and service.store.exists(kept.sha256):
        return BuiltFile(kept.sha256, service.store.size(kept.sha256), kept.media_type)
    with service.reader.begin() as connection:
        artifact = _result_file(connection, task_id, recipe.url)
    if artifact is not None and artifact.state != "stored":
        state = "could not be read" if artifact.state == "failed" else "is being fetched"
        reason = f": {artifact.reason}" if artifact.reason else ""
        raise MissingArtifact(f"the file {artifact.role} {state}{reason}")
    if artifact is not None and service.store.exists(artifact.sha256):
        return BuiltFile(artifact.sha256, artifact.size_bytes, artifact.media_type or UNKNOWN)
    settings = service.settings
    with service.store.incoming() as incoming:
        fetched = fetch(
            recipe.url,
            hosts=(*settings.attachment_hosts, *settings.artifact_hosts),
            max_bytes=settings.max_artifact_bytes,
            max_seconds=FETCH_SECONDS,
            sink=incoming,
        )
        incoming.commit(fetched.sha256)
    return BuiltFile(fetched.sha256, fetched.size, fetched.media_type or UNKNOWN)


def _result_file(connection: Connection, task_id: str, url: str) -> Any:
    """Return the result file that has this URL: of the task, of one above it, or of one that a step created for it.

    One that is stored is preferred. None if the URL is not that of a result file.
    """
    above = select(literal(task_id).label("task_id")).cte("above", recursive=True)
    parents = (
        select(FollowUp.source_task_id)
        .join(Task, Task.follow_up_unique_id == FollowUp.unique_id)
        .join(above, above.c.task_id == Task.task_id)
    )
    above = above.union(parents)
    children = select(FollowUp.task_id).where(FollowUp.source_task_id == task_id)
    related = or_(Artifact.task_id.in_(select(above.c.task_id)), Artifact.task_id.in_(children))
    columns = ("role", "state", "reason", "sha256", "size_bytes", "media_type")
    statement = select(*(getattr(Artifact, name) for name in columns)).where(Artifact.url == url, related)
    is_stored = case((Artifact.state == "stored", 0), else_=1)
    return connection.execute(statement.order_by(is_stored, Artifact.id).limit(1)).one_or_none()


def crop(service: Service, task_id: str, recipe: Cut) -> BuiltFile:
    """Return the part of an image inside a rectangle: as JPEG if the image is one, else as PNG."""
    image = build_file(service, task_id, recipe.image)
    left, top, width, height = recipe.rect
    with service.store.open(image.sha256) as content:
        cut, media_type = crop_image(content, (left, top, left + width, top + height))
    with closing(io.BytesIO(cut)) as file:
        sha256, size = service.store.put(file)
    return BuiltFile(sha256, size, media_type)


def crop_image(content: BinaryIO, box: tuple[int, int, int, int]) -> tuple[bytes, str]:
    """Return the part of an image inside `box`, and its media type.

    `box` is left, top, right, bottom in pixels of the image as it is shown, which its orientation tag may turn.
    Raises RequestFileError.
    """
    try:
        with open_image(content) as image:
            if image.width * image.height > MAX_PIXELS:
                raise RequestFileError(
                    f"the image has {image.width:,} × {image.height:,} pixels; at most {MAX_PIXELS:,} in all are cropped"
                )
            form = "JPEG" if image.format in ("JPEG", "MPO") else "PNG"
            profile = image.info.get("icc_profile")
            shown = ImageOps.exif_transpose(image)
            inside = (box[0], box[1], min(box[2], shown.width), min(box[3], shown.height))
            if inside[0] >= inside[2] or inside[1] >= inside[3]:
                raise RequestFileError(
                    f"the annotation lies outside the image, which has {shown.width:,} × {shown.height:,} pixels"
                )
            part = shown.crop(inside)
            written = io.BytesIO()
            finest = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
            part.save(written, form, icc_profile=profile, **finest)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as unreadable:
        raise RequestFileError(f"the image cannot be read: {unreadable}") from unreadable
    return written.getvalue(), f"image/{form.lower()}"


def layers(service: Service, recipe: LayersFile) -> BuiltFile:
    """Return the layers file of a result: one Layers object for each frame of the video."""
    return _frames_file(service, recipe, lambda found, frames: layers_file(found, frames, recipe.labels))


def hypothesis(service: Service, recipe: HypothesisFile) -> BuiltFile:
    """Return the file of a result with other frames: one object with annotations for each frame of the video."""
    every, spread = recipe.every, recipe.spread
    return _frames_file(service, recipe, lambda found, frames: hypothesis_file(found, frames, every, spread))


def _frames_file(
    service: Service, recipe: LayersFile | HypothesisFile, content_of: Callable[[list[Any], int], list[Any]]
) -> BuiltFile:
    """Return the JSON file that `content_of` makes of the annotations of a response and the number of its frames."""
    with service.reader.begin() as connection:
        response_id = connection.scalar(
            select(Response.id).where(Response.task_id == recipe.task_id, Response.digest == recipe.response)
        )
        params = connection.scalar(select(Task.params).where(Task.task_id == recipe.task_id)) or {}
        if response_id is None:
            raise RequestFileError(
                f"the response of {recipe.task_id} that has the annotations is no longer stored"
            )
        annotations = annotations_of_files(connection, response_id)
    images = params.get("attachments")
    frames = len(images) if isinstance(images, list) else 0
    try:
        content = content_of(annotations, frames)
    except ValueError as error:
        raise RequestFileError(str(error)) from error
    with closing(io.BytesIO(json.dumps(content).encode())) as file:
        sha256, size = service.store.put(file)
    return BuiltFile(sha256, size, "application/json")
