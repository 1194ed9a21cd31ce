"""Read a stored file into rows: annotations from JSON as a stream, mask rows from the index image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, delete, select, update

from models import Annotation as AnnotationRow
from models import Artifact
from pipeline.artifacts.rows import CheckLease, File, lock_pending
from pipeline.db.annotation_rows import ANNOTATION_BATCH_SIZE, write_annotations
from pipeline.db.json import dumps
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job
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
    unmapped_masks,
)
from scale.result_files import ResultFileReader, UnreadableFile
from scale.task_types.base import INDEX_IMAGE_ROLES, ROW_ROLES

log = logging.getLogger(__name__)

MAX_BATCH_CHARACTERS = 4_000_000
"""Rows as JSON in one transaction: some rows are large."""

FREE_CHARACTERS = 64_000_000
MAX_EXPANSION = 10
"""Rows of a file, as JSON, may have this many times the characters of the file, and FREE_CHARACTERS."""

MAX_UNMAPPED_MASKS = 10_000
"""Masks of an index image whose indexes no labelMapping names."""


class Extracted(NamedTuple):
    """What a file contains."""

    rows: int | None  # rows written; None for a role that has none
    masks: list[tuple[int, dict[str, Any]]]  # position and geometry of mask rows
    details: dict[str, Any] | None
    warnings: list[str]


def extract(service: Service, job: Job, file: File, check_lease: CheckLease) -> Extracted:
    """Read a stored file. Rows are written here, a batch a transaction; everything else is left to `record_stored`."""
    if file.is_segmentation and file.role in INDEX_IMAGE_ROLES:
        return extract_masks(service, job, file, check_lease)
    if file.role in ROW_ROLES:
        return extract_rows(service, job, file, check_lease)
    return Extracted(None, [], None, [])


def extract_rows(service: Service, job: Job, file: File, check_lease: CheckLease) -> Extracted:
    """Write the file's annotations as rows. Raises UnreadableFile, after deleting every row of the file."""
    assert file.sha256 is not None
    delete_rows(service, job, file)
    written = 0
    with service.store.open(file.sha256) as content:
        reading = ResultFileReader(file.role, file.task_type, file.params or {}, content)
        try:
            for batch in batches(_with_reasons(reading, job), lambda: reading.bytes_read):
                check_lease()
                written += _write_batch(service, job, file, batch)
        except UnreadableFile:
            delete_rows(service, job, file)
            raise
    details = {"global_attributes": reading.global_attributes} if reading.global_attributes else None
    return Extracted(written, [], details, reading.warnings)


def _with_reasons(rows: Iterator[Annotation], job: Job) -> Iterator[Annotation]:
    """Turn a programming error on this file into UnreadableFile, because every further attempt would fail the same way."""
    try:
        yield from rows
    except (UnreadableFile, OSError):
        raise
    except Exception as error:
        log.exception("could not parse result file", extra=job.log_fields)
        raise UnreadableFile(f"reading it failed: {type(error).__name__}: {error}") from error


def batches(
    rows: Iterator[Annotation], bytes_read: Callable[[], int] = lambda: 0
) -> Iterator[list[Annotation]]:
    """Yield lists of rows for one transaction each, without the NUL characters that PostgreSQL refuses; one list at least.

    Raises UnreadableFile if the rows are far larger than the `bytes_read` of the file: values of a track are in the row
    of each of its frames.
    """
    batch: list[Annotation] = []
    characters = total = 0
    for row in rows:
        written = dumps((*row,))
        batch.append(Annotation(*storable([*row])) if "\\u0000" in written else row)
        characters += len(written)
        total += len(written)
        if total > FREE_CHARACTERS and total > FREE_CHARACTERS + MAX_EXPANSION * bytes_read():
            raise UnreadableFile(
                f"its rows have more than {total:,} characters, {MAX_EXPANSION} times what was read of the file"
            )
        if len(batch) == ANNOTATION_BATCH_SIZE or characters > MAX_BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    yield batch


def delete_rows(service: Service, job: Job, file: File) -> None:
    """Delete the rows that an earlier attempt has read from this file."""
    columns = AnnotationRow.__table__.c
    of_file = (columns.response_id == file.response_id, columns.file == file.ordinal)
    deleted = ANNOTATION_BATCH_SIZE
    while deleted == ANNOTATION_BATCH_SIZE:
        batch = select(columns.position).where(*of_file).limit(ANNOTATION_BATCH_SIZE).scalar_subquery()
        with service.engine.begin() as connection:
            lock_pending(connection, job, file)
            statement = delete(AnnotationRow).where(*of_file, columns.position.in_(batch))
            deleted = connection.execute(statement).rowcount


def _write_batch(service: Service, job: Job, file: File, batch: list[Annotation]) -> int:
    with service.engine.begin() as connection:
        lock_pending(connection, job, file)
        return write_annotations(connection, file.response_id, file.ordinal, batch)


def extract_masks(service: Service, job: Job, file: File, check_lease: CheckLease) -> Extracted:
    """Measure the index image and complete the mask rows with it. Raises UnreadableMask.

    Without a labelMapping there are no rows yet: then each index that has pixels becomes one, without a label.
    """
    pixels = index_image(service, file.role, file.sha256)
    with service.reader.begin() as connection:
        masks = mask_rows(connection, file.response_id)
        is_replaced = file.role != INDEX_IMAGE_ROLES[-1] and _has_better_image(connection, file)
    details = {"width": pixels.width, "height": pixels.height, "unlabeled_pixels": pixels.unlabeled}
    if masks:
        completed = [(row.position, complete_geometry(row.geometry, pixels)) for row in masks]
        warnings = disagreements([(row.label, row.geometry) for row in masks], pixels)
        return Extracted(None, completed, details, warnings)
    if is_replaced:
        return Extracted(None, [], details, [])
    delete_rows(service, job, file)
    written = 0
    for batch in batches(unmapped_masks(pixels, MAX_UNMAPPED_MASKS)):
        check_lease()
        written += _write_batch(service, job, file, batch)
    return Extracted(written, [], details, [f"no labelMapping names the {written} indexes of the image"])


def _has_better_image(connection: Connection, file: File) -> bool:
    """Return whether the response has the other index image, which holds larger indexes, and it may still be read."""
    better = select(Artifact.id).where(
        Artifact.response_id == file.response_id,
        Artifact.role == INDEX_IMAGE_ROLES[-1],
        Artifact.state != "failed",
    )
    return connection.execute(better.limit(1)).first() is not None


def delete_rows_of_plain_image(connection: Connection, file: File) -> int:
    """Delete the rows of the other index image, which this one replaces. Return how many there were."""
    plain = select(Artifact.ordinal).where(
        Artifact.response_id == file.response_id, Artifact.role == INDEX_IMAGE_ROLES[0]
    )
    columns = AnnotationRow.__table__.c
    rows = delete(AnnotationRow).where(
        columns.response_id == file.response_id, columns.file.in_(plain.scalar_subquery())
    )
    deleted = connection.execute(rows).rowcount
    if deleted:
        of_plain = (Artifact.response_id == file.response_id, Artifact.role == INDEX_IMAGE_ROLES[0])
        connection.execute(update(Artifact).where(*of_plain).values(annotation_count=None))
    return deleted


def read_plain_image_again(connection: Connection, file: File) -> None:
    """Enqueue the plain index image, which gave no rows because the extended one was to replace it, and that one failed."""
    if mask_rows(connection, file.response_id):
        return
    plain = (
        Artifact.response_id == file.response_id,
        Artifact.role == INDEX_IMAGE_ROLES[0],
        Artifact.state == "stored",
        Artifact.annotation_count.is_(None),
    )
    ids = connection.scalars(update(Artifact).where(*plain).values(state="pending").returning(Artifact.id))
    queue.enqueue(connection, kinds.FETCH, [str(artifact_id) for artifact_id in ids])


def index_image(service: Service, role: str, sha256: str | None) -> IndexImage:
    """Read an index image from the store. Raises UnreadableMask."""
    assert sha256 is not None
    with service.store.open(sha256) as content:
        return read_index_image(content, extended=role == "extendedIndexedImage")


def mask_rows(connection: Connection, response_id: UUID) -> list[Any]:
    """Return position, label and geometry of the response's mask rows, in order."""
    columns = (AnnotationRow.position, AnnotationRow.label, AnnotationRow.geometry)
    masks = select(*columns).where(
        AnnotationRow.response_id == response_id, AnnotationRow.file == 0, AnnotationRow.type == "mask"
    )
    return list(connection.execute(masks.order_by(AnnotationRow.position)))


def compare_label_images(service: Service, response_id: UUID) -> None:
    """Note on each label's own image where the index image differs; does nothing while a file of the response is pending."""
    of_response = Artifact.response_id == response_id
    with service.reader.begin() as connection:
        pending = select(Artifact.id).where(of_response, Artifact.state == "pending").limit(1)
        if connection.scalar(pending) is not None:
            return
        columns = (Artifact.id, Artifact.role, Artifact.state, Artifact.sha256)
        images = connection.execute(select(*columns).where(of_response)).all()
        masks = [(row.label, row.geometry) for row in mask_rows(connection, response_id)]
    stored = {image.role: image for image in images if image.state == "stored"}
    label_images = [
        image for role, image in stored.items() if role == "unlabeled" or role.startswith("labeled:")
    ]
    index = next((stored[role] for role in reversed(INDEX_IMAGE_ROLES) if role in stored), None)
    if index is None or not label_images:
        return
    pixels = index_image(service, index.role, index.sha256)
    for image in label_images:
        try:
            with service.store.open(image.sha256) as content:
                warning = compare_with_index_image(
                    image.role, artifact_indexes(image.role, masks), content, pixels
                )
        except UnreadableMask as reason:
            warning = str(reason)
        with service.engine.begin() as connection:
            connection.execute(update(Artifact).where(Artifact.id == image.id).values(reason=warning))
