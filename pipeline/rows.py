"""Annotation rows, written many at once: one statement on PostgreSQL, one executemany on SQLite."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from uuid import UUID

from sqlalchemy import Connection

from pipeline.database import dumps
from scale.annotations import Annotation

ROWS_AT_ONCE = 5_000

_POSTGRESQL = """
INSERT INTO annotations (response_id, file, position, type, label, uuid, frame, attributes, geometry, flag)
SELECT %s, %s, position, type, label, uuid, frame, attributes, geometry, flag
FROM jsonb_to_recordset(%s::jsonb) AS row (
    position int, type text, label text, uuid text, frame bigint, attributes jsonb, geometry jsonb, flag text)
"""
_SQLITE = """
INSERT INTO annotations (response_id, file, position, type, label, uuid, frame, attributes, geometry, flag)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def write_annotations(
    connection: Connection, response_id: UUID, file: int, annotations: Iterable[Annotation]
) -> int:
    """Write `annotations` (streamed, a few thousand in memory) under one version and file; how many there were."""
    written = 0
    postgresql = connection.dialect.name == "postgresql"
    rows = iter(annotations)
    while some := list(islice(rows, ROWS_AT_ONCE)):
        if postgresql:
            connection.exec_driver_sql(_POSTGRESQL, (response_id, file, recordset(some)))
        else:
            connection.exec_driver_sql(_SQLITE, [_values(response_id.hex, file, row) for row in some])
        written += len(some)
    return written


def recordset(annotations: Iterable[Annotation]) -> str:
    """The rows as the JSON that jsonb_to_recordset reads."""
    return dumps([row._asdict() for row in annotations])


def _values(response_id: str, file: int, row: Annotation) -> tuple[object, ...]:
    position, type_name, label, uuid, frame, attributes, geometry, flag = row
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
        flag,
    )
