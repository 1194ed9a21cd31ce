"""A file behind a response: fetched, kept under its digest, read into rows. The last one makes the response whole.

Claim and commit; fetch; record and commit; then the rows, a few thousand a transaction, so that a file of any size keeps
neither memory nor a lock. Until the last of them is written the artifact is pending and its rows count for nothing.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, func, select, update

from models import Annotation as AnnotationRow
from models import Artifact, Response, Task
from pipeline.artifacts.store import Incoming, path
from pipeline.db.annotation_rows import ANNOTATION_BATCH_SIZE, write_annotations
from pipeline.db.ids import utcnow
from pipeline.db.json import dumps
from pipeline.db.state import delete_state, get_state, set_state
from pipeline.http.download import DownloadRefused, Unavailable, Unreachable, fetch
from pipeline.jobs import queue
from pipeline.jobs.queue import Job, RetryLater
from pipeline.service import Service
from scale.annotations import Annotation
from scale.envelope import storable
from scale.masks import (
    IndexImage,
    UnreadableMask,
    artifact_indexes,
    compare_with_index_image,
    complete_geometry,
    disagreements,
    read_index_image,
)
from scale.result_files import ResultFileReader, UnreadableFile
from scale.task_types import task_type

log = logging.getLogger(__name__)

RETRY_PERIOD = timedelta(hours=25)
"""How long a file that cannot be had now is asked for again and again."""
FETCH_SECONDS = 900.0
FIRST_PAUSE, MAX_PAUSE = 15.0, 600.0
UNREACHABLE = "unreachable:"
BATCH_CHARACTERS = 4_000_000
"""Of rows as JSON in one transaction: some rows are large."""
MAX_REASON_LENGTH = 2_000

ROWS = frozenset(("annotations", "events", "point_segmentations"))
"""Roles of files that are read into rows; any other file is kept as it is."""
INDEX_IMAGES = ("indexedImage", "extendedIndexedImage")
"""Roles of images that complete the mask rows; the last one holds more than a byte of index and wins."""

Check = Callable[[], None]


class ArtifactSuperseded(Exception):
    """The response has been understood anew meanwhile, and points to other files."""


@dataclass(frozen=True, slots=True)
class File:
    """An artifact that is being worked on, with what of its task it takes to read it."""

    id: UUID
    response_id: UUID
    task_id: str
    ordinal: int
    role: str
    url: str
    state: str
    sha256: str | None  # of the content that is here already
    attempts: int
    first_attempt_at: datetime | None
    task_type: str | None
    params: dict[str, Any] | None

    @property
    def of_segmentation(self) -> bool:
        return task_type(self.task_type).implied == "mask"


class Extracted(NamedTuple):
    """What a file holds."""

    rows: int | None  # that were written; None where it holds none by its role
    masks: list[tuple[int, dict[str, Any]]]  # position and geometry of mask rows
    details: dict[str, Any] | None
    odd: list[str]


def fetch_artifact(service: Service, job: Job) -> None:
    """Bring one file in. What is refused or cannot be read fails at once, what cannot be had is tried for a day."""
    file = begin(service, job)
    if file is None:
        return
    with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as still_leased:
        try:
            if file.state == "pending":
                if file.sha256 is None or not service.store.exists(file.sha256):
                    file = download(service, job, file, still_leased)
                record(service, job, file, extract(service, job, file, still_leased))
            if file.of_segmentation:
                compare_label_images(service, file.response_id)
        except Unavailable as reason:
            if isinstance(reason, Unreachable):
                back_off_host(service, file)
            return retry_later(service, job, file, str(reason))
        except (DownloadRefused, UnreadableFile, UnreadableMask) as reason:
            return fail(service, job, file, str(reason))
        except ArtifactSuperseded:
            pass  # the job has nothing left to do
        with service.engine.begin() as connection:
            queue.finish(connection, job)


def begin(service: Service, job: Job) -> File | None:
    """The artifact as it is, its attempt counted. One that failed is taken up anew: a person has asked for its job."""
    with service.engine.begin() as connection:
        row = connection.execute(
            select(*Artifact.__table__.c, Task.type, Task.params)
            .join(Task, Task.task_id == Artifact.task_id)
            .where(Artifact.id == UUID(job.subject))
            .with_for_update(of=Artifact)
        ).one_or_none()
        if row is None:
            queue.finish(connection, job)
            return None
        file = File(
            row.id,
            row.response_id,
            row.task_id,
            row.ordinal,
            row.role,
            row.url,
            row.state,
            row.sha256,
            row.attempts,
            row.first_attempt_at,
            row.type,
            row.params,
        )
        if file.state == "failed":
            file = replace(file, state="pending", sha256=None, attempts=0, first_attempt_at=None)
        if file.state == "pending" and file.sha256 is None:
            check_host_available(connection, file)
            file = replace(
                file, attempts=file.attempts + 1, first_attempt_at=file.first_attempt_at or utcnow()
            )
        update_artifact(
            connection,
            file,
            state=file.state,
            sha256=file.sha256,
            attempts=file.attempts,
            first_attempt_at=file.first_attempt_at,
        )
        return file


def download(service: Service, job: Job, file: File, still_leased: Check) -> File:
    """Fetch the content into the store. Raises Refused or Unavailable."""
    with service.store.incoming() as incoming:
        fetched = fetch(
            file.url,
            hosts=service.settings.artifact_hosts,
            max_bytes=service.settings.max_artifact_bytes,
            max_seconds=FETCH_SECONDS,
            sink=_Leased(incoming, still_leased),
        )
        incoming.commit(fetched.sha256)
    with service.engine.begin() as connection:
        lock(connection, job, file)
        update_artifact(
            connection,
            file,
            sha256=fetched.sha256,
            size_bytes=fetched.size,
            media_type=fetched.media_type,
            path=path(fetched.sha256),
        )
        delete_state(connection, UNREACHABLE + host(file))
    return replace(file, sha256=fetched.sha256)


class _Leased(NamedTuple):
    """A sink that stops when the job is somebody else's."""

    incoming: Incoming
    still_leased: Check

    def write(self, piece: bytes, /) -> None:
        self.still_leased()
        self.incoming.write(piece)


# Hosts that do not answer. A thousand files of one must not keep every worker waiting for it, one after another.


def host(file: File) -> str:
    try:
        return urlsplit(file.url).netloc.rpartition("@")[2].lower()
    except ValueError:  # an address that is refused when it is fetched
        return ""


def check_host_available(connection: Connection, file: File) -> None:
    """Raises Wait while the file's host is left alone."""
    pause = get_state(connection, UNREACHABLE + host(file))
    if (
        pause is not None
        and (left := (datetime.fromisoformat(pause["until"]) - utcnow()).total_seconds()) > 0
    ):
        raise RetryLater(f"{host(file)} does not answer", left * random.uniform(1.0, 1.2))


def back_off_host(service: Service, file: File) -> None:
    """Ask this host for nothing for a while, and longer each time."""
    key = UNREACHABLE + host(file)
    with service.engine.begin() as connection:
        known = get_state(connection, key)
        seconds = min(2 * known["seconds"], MAX_PAUSE) if known else FIRST_PAUSE
        until = (utcnow() + timedelta(seconds=seconds)).isoformat()
        set_state(connection, key, {"until": until, "seconds": seconds})


# From content to rows.


def extract(service: Service, job: Job, file: File, still_leased: Check) -> Extracted:
    """What the content says. Rows are written on the way, all other is for `record`."""
    if file.of_segmentation and file.role in INDEX_IMAGES:
        return extract_masks(service, file)
    if file.role in ROWS:
        return extract_rows(service, job, file, still_leased)
    return Extracted(None, [], None, [])


def extract_rows(service: Service, job: Job, file: File, still_leased: Check) -> Extracted:
    """Read the file as a stream. Raises UnreadableFile, with no row left."""
    assert file.sha256 is not None
    delete_rows(service, job, file)
    written = 0
    with service.store.open(file.sha256) as content:
        reading = ResultFileReader(file.role, file.task_type, file.params or {}, content)
        try:
            for some in batches(_without_mistakes(reading)):
                still_leased()
                with service.engine.begin() as connection:
                    lock(connection, job, file)
                    written += write_annotations(connection, file.response_id, file.ordinal, some)
        except UnreadableFile:
            delete_rows(service, job, file)
            raise
    details = {"global_attributes": reading.global_attributes} if reading.global_attributes else None
    return Extracted(written, [], details, reading.warnings)


def _without_mistakes(rows: Iterator[Annotation]) -> Iterator[Annotation]:
    """A mistake of our own about this file ends in its reason, not in attempts that all end alike."""
    try:
        yield from rows
    except (UnreadableFile, OSError):
        raise
    except Exception as mistake:
        log.exception("reading a result file failed")
        raise UnreadableFile(f"reading it failed: {type(mistake).__name__}: {mistake}") from mistake


def batches(rows: Iterator[Annotation]) -> Iterator[list[Annotation]]:
    """As many rows as one transaction takes, cleaned of what PostgreSQL does not store."""
    some: list[Annotation] = []
    characters = 0
    for row in rows:
        written = dumps((*row,))
        some.append(Annotation(*storable([*row])) if "\\u0000" in written else row)
        characters += len(written)
        if len(some) == ANNOTATION_BATCH_SIZE or characters > BATCH_CHARACTERS:
            yield some
            some, characters = [], 0
    yield some


def delete_rows(service: Service, job: Job, file: File) -> None:
    """Delete what an earlier attempt has read from this file."""
    columns = AnnotationRow.__table__.c
    ours = (columns.response_id == file.response_id, columns.file == file.ordinal)
    gone = ANNOTATION_BATCH_SIZE
    while gone == ANNOTATION_BATCH_SIZE:
        some = select(columns.position).where(*ours).limit(ANNOTATION_BATCH_SIZE).scalar_subquery()
        with service.engine.begin() as connection:
            lock(connection, job, file)
            gone = connection.execute(delete(AnnotationRow).where(*ours, columns.position.in_(some))).rowcount


def extract_masks(service: Service, file: File) -> Extracted:
    """Measure the index image, and complete the mask rows with it. Raises UnreadableMask."""
    pixels = index_image(service, file.role, file.sha256)
    with service.reader.begin() as connection:
        masks = mask_rows(connection, file.response_id)
    completed = [(row.position, complete_geometry(row.geometry, pixels)) for row in masks]
    details = {"width": pixels.width, "height": pixels.height, "unlabeled_pixels": pixels.unlabeled}
    return Extracted(
        None, completed, details, disagreements([(row.label, row.geometry) for row in masks], pixels)
    )


def index_image(service: Service, role: str, sha256: str | None) -> IndexImage:
    assert sha256 is not None
    with service.store.open(sha256) as content:
        return read_index_image(content, extended=role == "extendedIndexedImage")


def mask_rows(connection: Connection, response_id: UUID) -> list[Any]:
    columns = (AnnotationRow.position, AnnotationRow.label, AnnotationRow.geometry)
    masks = select(*columns).where(
        AnnotationRow.response_id == response_id, AnnotationRow.file == 0, AnnotationRow.type == "mask"
    )
    return list(connection.execute(masks.order_by(AnnotationRow.position)))


def compare_label_images(service: Service, response_id: UUID) -> None:
    """Once every image of a segmentation is here: say of each label's own image where the index image differs."""
    with service.reader.begin() as connection:
        columns = (Artifact.id, Artifact.role, Artifact.state, Artifact.sha256)
        images = connection.execute(select(*columns).where(Artifact.response_id == response_id)).all()
        masks = [(row.label, row.geometry) for row in mask_rows(connection, response_id)]
    if any(image.state == "pending" for image in images):
        return  # whoever brings the last one compares them
    stored = {image.role: image for image in images if image.state == "stored"}
    of_labels = [
        image for role, image in stored.items() if role == "unlabeled" or role.startswith("labeled:")
    ]
    index = next((stored[role] for role in reversed(INDEX_IMAGES) if role in stored), None)
    if index is None or not of_labels:
        return
    pixels = index_image(service, index.role, index.sha256)
    for image in of_labels:
        try:
            with service.store.open(image.sha256) as content:
                odd = compare_with_index_image(
                    image.role, artifact_indexes(image.role, masks), content, pixels
                )
        except UnreadableMask as reason:
            odd = str(reason)
        with service.engine.begin() as connection:
            connection.execute(update(Artifact).where(Artifact.id == image.id).values(reason=odd))


# What became of it.


def record(service: Service, job: Job, file: File, found: Extracted) -> None:
    """The file is read: from now on its rows count."""
    with service.engine.begin() as connection:
        known = lock(connection, job, file)
        if found.masks and not (file.role == INDEX_IMAGES[0] and extended_is_read(connection, file)):
            rewrite = update(AnnotationRow).where(
                AnnotationRow.response_id == file.response_id,
                AnnotationRow.file == 0,
                AnnotationRow.position == bindparam("at"),
            )
            connection.execute(
                rewrite.values(geometry=bindparam("measured")),
                [{"at": position, "measured": geometry} for position, geometry in found.masks],
            )
        update_artifact(
            connection,
            file,
            state="stored",
            annotation_count=found.rows,
            details=found.details,
            reason="; ".join(found.odd)[:MAX_REASON_LENGTH] or None,
        )
        more = (found.rows or 0) - (known["annotation_count"] or 0)
        if more:
            connection.execute(
                update(Response)
                .where(Response.id == file.response_id)
                .values(annotation_count=Response.annotation_count + more)
            )
        enqueue_plan_if_complete(connection, service, known)


def extended_is_read(connection: Connection, file: File) -> bool:
    other = select(func.count()).where(
        Artifact.response_id == file.response_id,
        Artifact.role == INDEX_IMAGES[1],
        Artifact.state == "stored",
    )
    return bool(connection.scalar(other))


def retry_later(service: Service, job: Job, file: File, reason: str) -> None:
    """Try again later, with longer and longer pauses; after a day and an hour it has failed."""
    first_attempt_at = file.first_attempt_at or utcnow()  # none where content was lost that had been here
    if utcnow() - first_attempt_at > RETRY_PERIOD:
        return fail(
            service, job, file, f"{reason}, and so it was for {RETRY_PERIOD.total_seconds() / 3600:.0f} hours"
        )
    with service.engine.begin() as connection:
        update_artifact(connection, file, reason=reason, first_attempt_at=first_attempt_at)
        queue.reschedule(connection, job, reason, delay=queue.backoff(file.attempts), count_attempt=False)


def fail(service: Service, job: Job, file: File, reason: str) -> None:
    """The file has failed, and its job is dead until a person asks for it again."""
    with service.engine.begin() as connection:
        try:
            known = lock(connection, job, file)
        except ArtifactSuperseded:
            return queue.finish(connection, job)
        update_artifact(connection, file, state="failed", reason=reason[:MAX_REASON_LENGTH])
        enqueue_plan_if_complete(connection, service, known)
        queue.mark_dead(connection, job, reason[:MAX_REASON_LENGTH])
    if file.of_segmentation:
        compare_label_images(service, file.response_id)


def enqueue_plan_if_complete(connection: Connection, service: Service, known: dict[str, Any]) -> None:
    """Plan what follows from the task when this was the last file of its current response."""
    if known["current"] != known["response_id"] or not (
        known["follow_up_unique_id"] or service.has_workflow_for(known["type"])
    ):
        return
    pending = select(func.count()).where(
        Artifact.response_id == known["response_id"], Artifact.state == "pending"
    )
    if not connection.scalar(pending):
        queue.enqueue(connection, queue.PLAN, [known["task_id"]])


def lock(connection: Connection, job: Job, file: File) -> dict[str, Any]:
    """Lock the task and see that file and job are still ours. Raises Replaced or LeaseLost."""
    task = (
        connection.execute(
            select(Task.task_id, Task.type, Task.follow_up_unique_id, Task.response_id.label("current"))
            .where(Task.task_id == file.task_id)
            .with_for_update()
        )
        .mappings()
        .one()
    )
    known = connection.execute(
        select(Artifact.annotation_count, Artifact.response_id).where(
            Artifact.id == file.id, Artifact.state == "pending"
        )
    ).one_or_none()
    if known is None:
        raise ArtifactSuperseded
    queue.check_lease(connection, job)
    return {**task, **known._mapping}


def update_artifact(connection: Connection, file: File, **values: Any) -> None:
    connection.execute(update(Artifact).where(Artifact.id == file.id).values(**values))


def requeue_masks(connection: Connection, response_id: UUID) -> list[UUID]:
    """The mask rows of this response were written anew, without their pixels; the jobs that complete them."""
    statement = (
        update(Artifact)
        .where(
            Artifact.response_id == response_id, Artifact.role.in_(INDEX_IMAGES), Artifact.state == "stored"
        )
        .values(state="pending")
    )
    ids = connection.scalars(statement.returning(Artifact.id)).all()
    return queue.enqueue(connection, queue.FETCH, map(str, ids))


# A person's decision.


def retry(connection: Connection, artifact_id: UUID) -> list[UUID]:
    """Bring a file in again: one that failed is fetched anew, one that is here is read anew; the jobs to ring for.

    Raises LookupError for an artifact that is not known.
    """
    state = connection.scalar(select(Artifact.state).where(Artifact.id == artifact_id).with_for_update())
    if state is None:
        raise LookupError(f"there is no artifact {artifact_id}")
    values: dict[str, Any] = {"state": "pending", "attempts": 0, "first_attempt_at": None, "reason": None}
    if state == "failed":
        values["sha256"] = None
    connection.execute(update(Artifact).where(Artifact.id == artifact_id).values(**values))
    job_ids = queue.enqueue(connection, queue.FETCH, [str(artifact_id)])
    for job_id in job_ids:  # also where the job waits for its time
        queue.retry(connection, job_id)
    return job_ids
