"""What a purge deletes after the commit that marked it: annotations in batches, and files that nothing refers to any more.

It is recorded in the transaction of the marks, so that a purge that was killed is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from more_itertools import chunked
from sqlalchemy import Connection, delete, select, tuple_

from models import Annotation, PurgeLeftover
from pipeline.artifacts.references import delete_unused
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id
from pipeline.service import Service

ANNOTATION_BATCH_SIZE = 5_000
RESPONSE_BATCH_SIZE = 200


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Responses whose annotations, and digests of files that are still to be deleted."""

    responses: Sequence[UUID] = field(default=())
    files: Sequence[str] = field(default=())

    def save(self, connection: Connection) -> UUID | None:
        """Record what is left, and return the id of the record; None if nothing is."""
        if not self.responses and not self.files:
            return None
        row: dict[str, Any] = {
            "id": new_id(),
            "responses": [str(one) for one in self.responses],
            "files": list(self.files),
        }
        connection.execute(insert(connection, PurgeLeftover), row)
        leftover_id: UUID = row["id"]
        return leftover_id


def pending(connection: Connection) -> list[UUID]:
    """Return the ids of what earlier purges left behind."""
    return list(connection.scalars(select(PurgeLeftover.id).order_by(PurgeLeftover.id)))


def finish(service: Service, leftover_id: UUID) -> None:
    """Delete what the record names, then the record. Doing it twice, also at once, does no harm."""
    columns = (PurgeLeftover.responses, PurgeLeftover.files)
    with service.reader.begin() as connection:
        found = connection.execute(select(*columns).where(PurgeLeftover.id == leftover_id)).one_or_none()
    if found is None:
        return
    for some in chunked(map(UUID, found.responses), RESPONSE_BATCH_SIZE):
        _delete_annotations(service, some)
    for sha256 in found.files:
        delete_unused(service, sha256)
    with service.engine.begin() as connection:
        connection.execute(delete(PurgeLeftover).where(PurgeLeftover.id == leftover_id))


def _delete_annotations(service: Service, response_ids: Sequence[UUID]) -> None:
    key = (Annotation.response_id, Annotation.file, Annotation.position)
    some = select(*key).where(Annotation.response_id.in_(response_ids)).limit(ANNOTATION_BATCH_SIZE)
    deleted = ANNOTATION_BATCH_SIZE
    while deleted == ANNOTATION_BATCH_SIZE:
        with service.engine.begin() as connection:
            deleted = connection.execute(delete(Annotation).where(tuple_(*key).in_(some))).rowcount
