"""Insert annotation rows in batches: one statement on PostgreSQL, one executemany on SQLite."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from uuid import UUID

from sqlalchemy import Connection

from pipeline.db.json import dumps
from scale.annotations import Annotation

ANNOTATION_BATCH_SIZE = 5_000

COLUMNS = "response_id, file, position, type, label, uuid, frame, attributes, geometry, warning"
FROM_ARRAYS = """
    (row->>0)::int, row->>1, row->>2, row->>3, (row->>5)::bigint, nullif(row->6, 'null'), row->4, row->>7
"""
"""The columns from `position` on, out of one of the arrays that `arrays` gives."""

_POSTGRESQL = f"INSERT INTO annotations ({COLUMNS}) SELECT %s, %s, {FROM_ARRAYS} FROM jsonb_array_elements(%s::jsonb) AS row"
_SQLITE = f"INSERT INTO annotations ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def write_annotations(
    connection: Connection, response_id: UUID, file: int, annotations: Iterable[Annotation]
) -> int:
    """Insert `annotations` (an iterator, a few thousand in memory) of one version and file. Return their number."""
    written = 0
    postgresql = connection.dialect.name == "postgresql"
    rows = iter(annotations)
    while some := list(islice(rows, ANNOTATION_BATCH_SIZE)):
        if postgresql:
            connection.exec_driver_sql(_POSTGRESQL, (response_id, file, arrays(some)))
        else:
            connection.exec_driver_sql(_SQLITE, [_values(response_id.hex, file, row) for row in some])
        written += len(some)
    return written


def arrays(annotations: Iterable[Annotation]) -> str:
    """Return the rows as one JSON array of arrays: half of what PostgreSQL needs to read objects with named members.

    Frame, attributes and warning, which most rows do not have, come last and are left out where all are null.
    """
    return dumps(
        [
            (position, word, label, uuid, geometry)
            if frame is None and attributes is None and warning is None
            else (position, word, label, uuid, geometry, frame, attributes, warning)
            for position, word, label, uuid, frame, attributes, geometry, warning in annotations
        ]
    )


def _values(response_id: str, file: int, row: Annotation) -> tuple[object, ...]:
    position, type_name, label, uuid, frame, attributes, geometry, warning = row
    return (
        response_id,
        file,
        position,
        type_name,
        label,
        uuid,
        frame,
        None if attributes is None else dumps(attributes),
        dumps(geometry),
        warning,
    )
