"""Which rows refer to a content of the artifact store, and how a content that nothing refers to is deleted safely.

Contents are shared: two tasks may point to the same bytes. A writer puts a content into the store before it writes the row
that refers to it, so it takes the lock for that row, and the deleter takes the other side of it.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from models import Artifact, Export, RequestFile
from pipeline.db.dialect import lock_exclusively
from pipeline.service import Service

LOCK = 0x7765_6967_6866_73  # "weighfs", the number of an advisory lock


def is_unused(connection: Connection, sha256: str) -> bool:
    """Whether no row refers to this content of the artifact store; artifacts that were purged do not."""
    references = (
        select(Export.sha256).where(Export.sha256 == sha256),
        select(Artifact.sha256).where(Artifact.sha256 == sha256, Artifact.purged_at.is_(None)),
        select(RequestFile.sha256).where(RequestFile.sha256 == sha256),
    )
    return not any(connection.scalar(one.limit(1)) for one in references)


def delete_unused(service: Service, sha256: str) -> bool:
    """Delete a content if no row refers to it. Return whether it was deleted."""
    with service.engine.begin() as connection:
        lock_exclusively(connection, LOCK)
        if not is_unused(connection, sha256):
            return False
        service.store.delete(sha256)
        return True


def hold_contents(connection: Connection) -> None:
    """Let no content be deleted until the transaction ends, which writes a row that refers to one.

    The caller then looks whether the content is still in the store. On SQLite every transaction that writes is alone anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock_shared(LOCK)))
