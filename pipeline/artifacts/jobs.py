"""The fetch job: download a file behind a response, store it by its digest, read it into rows. The last file completes
the response.

Claim and commit; fetch; record and commit; then the rows, a batch a transaction, so that a file of any size holds
neither memory nor a lock. The artifact is pending, and its rows do not count, until the last batch is written.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, select, update

from models import Annotation as AnnotationRow
from models import Artifact, Response
from pipeline.artifacts import hosts
from pipeline.artifacts.extract import (
    Extracted,
    compare_label_images,
    delete_rows_of_plain_image,
    extract,
    read_plain_image_again,
)
from pipeline.artifacts.references import hold_contents
from pipeline.artifacts.rows import (
    MAX_REASON_LENGTH,
    ArtifactSuperseded,
    CheckLease,
    File,
    load_file,
    lock_pending,
    update_artifact,
)
from pipeline.artifacts.store import Incoming, path
from pipeline.artifacts.waiting import (
    enqueue_incomplete_descendants,
    enqueue_plan_if_complete,
    enqueue_same_url,
    fail_same_url,
    release_requests,
)
from pipeline.db.ids import utcnow
from pipeline.http.client import DownloadRefused, Unavailable, Unreachable
from pipeline.http.download import fetch
from pipeline.jobs import queue
from pipeline.jobs.queue import Job
from pipeline.metrics import ARTIFACT_FETCH_SECONDS, measure
from pipeline.service import Service
from scale.masks import UnreadableMask
from scale.result_files import UnreadableFile
from scale.task_types.base import INDEX_IMAGE_ROLES

RETRY_PERIOD = timedelta(hours=25)
"""How long an unavailable file is retried before it fails."""
FETCH_TIMEOUT_SECONDS = 900.0


def fetch_artifact(service: Service, job: Job) -> None:
    """Download and read one file. A refused or unreadable file fails at once, an unavailable one is retried for a day."""
    file = begin(service, job)
    if file is None:
        return
    with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as check_lease:
        try:
            if file.state == "pending":
                if file.sha256 is None or not service.store.exists(file.sha256):
                    file = download(service, job, file, check_lease)
                record_stored(service, job, file, extract(service, job, file, check_lease))
            if file.is_segmentation:
                compare_label_images(service, file.response_id)
        except Unavailable as reason:
            if isinstance(reason, Unreachable):
                with service.engine.begin() as connection:
                    hosts.back_off_host(connection, file)
            return retry_later(service, job, file, str(reason))
        except (DownloadRefused, UnreadableFile, UnreadableMask) as reason:
            return fail(service, job, file, str(reason))
        except ArtifactSuperseded:
            pass  # nothing is left to do for the job
        with service.engine.begin() as connection:
            queue.finish(connection, job)


def begin(service: Service, job: Job) -> File | None:
    """Count the attempt and return the artifact. A failed one starts over, because a person has retried its job."""
    with service.engine.begin() as connection:
        file = load_file(connection, UUID(job.subject))
        if file is None:
            queue.finish(connection, job)
            return None
        if file.state == "failed":
            file = replace(file, state="pending", sha256=None, attempts=0, first_attempt_at=None)
        if file.state == "pending" and file.sha256 is None:
            hosts.check_host_available(connection, file)
            file = replace(
                file, attempts=file.attempts + 1, first_attempt_at=file.first_attempt_at or utcnow()
            )
        columns = ("state", "sha256", "attempts", "first_attempt_at")
        update_artifact(connection, file, **{name: getattr(file, name) for name in columns})
        return file


def download(service: Service, job: Job, file: File, check_lease: CheckLease) -> File:
    """Download the content into the store, or take that of another file of the response with the same URL.

    Raises DownloadRefused or Unavailable.
    """
    if (same := _stored_at_same_url(service, file)) is not None:
        with service.engine.begin() as connection:
            lock_pending(connection, job, file)
            update_artifact(connection, file, **same)
        return replace(file, sha256=same["sha256"])
    with (
        measure(ARTIFACT_FETCH_SECONDS, outcome="unavailable") as outcome,
        service.store.incoming() as incoming,
    ):
        try:
            fetched = fetch(
                file.url,
                hosts=service.settings.artifact_hosts,
                max_bytes=service.settings.max_artifact_bytes,
                max_seconds=FETCH_TIMEOUT_SECONDS,
                sink=_LeasedSink(incoming, check_lease),
            )
        except DownloadRefused:
            outcome.label = "refused"
            raise
        incoming.commit(fetched.sha256)
        outcome.label = "stored"
    with service.engine.begin() as connection:
        hold_contents(connection)
        lock_pending(connection, job, file)
        update_artifact(
            connection,
            file,
            sha256=fetched.sha256,
            size_bytes=fetched.size,
            media_type=fetched.media_type,
            path=path(fetched.sha256),
        )
        hosts.clear_host(connection, file)
    if not service.store.exists(fetched.sha256):
        raise Unavailable("a purge has deleted the same content of another task while it was stored")
    return replace(file, sha256=fetched.sha256)


def _stored_at_same_url(service: Service, file: File) -> dict[str, Any] | None:
    """Return the columns of the content of another file of the response that has the same URL and was fetched."""
    columns = (Artifact.sha256, Artifact.size_bytes, Artifact.media_type, Artifact.path)
    others = (
        Artifact.response_id == file.response_id,
        Artifact.url == file.url,
        Artifact.id != file.id,
        Artifact.sha256.is_not(None),
    )
    with service.reader.begin() as connection:
        row = connection.execute(select(*columns).where(*others).limit(1)).mappings().one_or_none()
    return dict(row) if row is not None and service.store.exists(row["sha256"]) else None


class _LeasedSink(NamedTuple):
    """A sink that stops when another worker has the job."""

    incoming: Incoming
    check_lease: CheckLease

    def write(self, chunk: bytes, /) -> None:
        self.check_lease()
        self.incoming.write(chunk)


def record_stored(service: Service, job: Job, file: File, extracted: Extracted) -> None:
    """Mark the file stored: from now on its rows count."""
    with service.engine.begin() as connection:
        known = lock_pending(connection, job, file)
        if extracted.masks and not (
            file.role == INDEX_IMAGE_ROLES[0] and _extended_is_stored(connection, file)
        ):
            _write_masks(connection, file, extracted.masks)
        update_artifact(
            connection,
            file,
            state="stored",
            stored_at=func.coalesce(Artifact.stored_at, utcnow()),
            annotation_count=extracted.rows,
            details=extracted.details,
            reason="; ".join(extracted.warnings)[:MAX_REASON_LENGTH] or None,
        )
        added = (extracted.rows or 0) - (known["annotation_count"] or 0)
        if file.role == INDEX_IMAGE_ROLES[1] and extracted.rows is not None:
            added -= delete_rows_of_plain_image(connection, file)
        if added:
            connection.execute(
                update(Response)
                .where(Response.id == file.response_id)
                .values(annotation_count=Response.annotation_count + added)
            )
        enqueue_same_url(connection, file)
        release_requests(connection, known["task_id"])
        enqueue_plan_if_complete(connection, service, known)
        enqueue_incomplete_descendants(connection, known["task_id"])


def _extended_is_stored(connection: Connection, file: File) -> bool:
    """Return whether the extended index image, whose masks win, was read before."""
    other = select(func.count()).where(
        Artifact.response_id == file.response_id,
        Artifact.role == INDEX_IMAGE_ROLES[1],
        Artifact.state == "stored",
    )
    return bool(connection.scalar(other))


def _write_masks(connection: Connection, file: File, masks: list[tuple[int, dict[str, Any]]]) -> None:
    statement = update(AnnotationRow).where(
        AnnotationRow.response_id == file.response_id,
        AnnotationRow.file == 0,
        AnnotationRow.position == bindparam("at"),
    )
    rows = [{"at": position, "measured": geometry} for position, geometry in masks]
    connection.execute(statement.values(geometry=bindparam("measured")), rows)


def retry_later(service: Service, job: Job, file: File, reason: str) -> None:
    """Retry with exponential back-off; fail after RETRY_PERIOD."""
    first_attempt_at = file.first_attempt_at or utcnow()  # None if stored content was lost
    if utcnow() - first_attempt_at > RETRY_PERIOD:
        hours = RETRY_PERIOD.total_seconds() / 3600
        return fail(service, job, file, f"{reason}; retried for {hours:.0f} hours")
    with service.engine.begin() as connection:
        update_artifact(connection, file, reason=reason, first_attempt_at=first_attempt_at)
        queue.reschedule(connection, job, reason, delay=queue.backoff(file.attempts), count_attempt=False)


def fail(service: Service, job: Job, file: File, reason: str) -> None:
    """Mark the file failed and its job dead, until a person retries it."""
    with service.engine.begin() as connection:
        try:
            known = lock_pending(connection, job, file)
        except ArtifactSuperseded:
            return queue.finish(connection, job)
        update_artifact(connection, file, state="failed", stored_at=None, reason=reason[:MAX_REASON_LENGTH])
        if file.is_segmentation and file.role == INDEX_IMAGE_ROLES[1]:
            read_plain_image_again(connection, file)
        if file.sha256 is None:
            fail_same_url(connection, file, reason[:MAX_REASON_LENGTH])
        else:
            enqueue_same_url(connection, file)
        enqueue_plan_if_complete(connection, service, known)
        queue.mark_dead(connection, job, reason[:MAX_REASON_LENGTH])
    if file.is_segmentation:
        compare_label_images(service, file.response_id)
