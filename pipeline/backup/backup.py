"""Write a backup: the rows of one moment, and every content that they refer to, while callbacks go on.

The rows come from one snapshot: a repeatable-read transaction of PostgreSQL, a read transaction of SQLite in WAL mode. Contents
never change under their digest, so they are copied after it. One that a purge has deleted in between is named as gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, select, union

from config.version import VERSION
from models import Artifact, DeliveryBody, Export, RequestFile
from pipeline.access.audit import log_action
from pipeline.artifacts.references import is_unused
from pipeline.backup.folder import Folder, UnusableBackup
from pipeline.backup.rows import read_rows, tables
from pipeline.db.engine import connect_for_migrations, read_only
from pipeline.db.ids import format_timestamp, new_id, utcnow
from pipeline.db.revisions import revisions
from pipeline.service import Service

Report = Callable[[str, int], None]
"""(what is written, how many so far)"""


def back_up(service: Service, target: Path, actor: str, report: Report = lambda *_: None) -> dict[str, Any]:
    """Write a backup into the folder `target` and return its manifest. Raises UnusableBackup.

    The next backup into the same folder replaces it, and copies only the contents that are new.
    """
    folder = Folder(target)
    folder.create()
    rows = f"rows-{new_id()}"
    with _snapshot(service) as connection:
        started_at = utcnow()
        revision, required = revisions(connection)
        if revision != required:
            raise UnusableBackup(
                f"the database has the revision {revision} and this code needs {required}; run `weighbridge db upgrade`"
            )
        written: dict[str, Any] = {}
        table_rows: dict[str, int] = {}
        for table in tables():
            count, sha256 = folder.write_lines(f"{rows}/{table.name}.jsonl.gz", read_rows(connection, table))
            written[table.name] = {"rows": count, "sha256": sha256, "columns": _columns(table)}
            table_rows[table.name] = count
            report(table.name, count)
        contents = _contents(connection)
    gone, missing, size = _copy_contents(service, folder, contents, report)
    lost = {*gone, *missing}
    kept = [(sha256, size) for sha256, size in sorted(contents.items()) if sha256 not in lost]
    lines = (f"{sha256} {size}".encode() for sha256, size in kept)
    count, digest = folder.write_lines(f"{rows}/contents.txt.gz", lines)
    manifest = {
        "weighbridge": VERSION,
        "revision": revision,
        "created_at": format_timestamp(started_at),
        "rows": rows,
        "tables": written,
        "contents": {"count": count, "bytes": size, "sha256": digest, "gone": gone, "missing": missing},
    }
    folder.finish(manifest)
    total = sum(table_rows.values())
    with service.engine.begin() as connection:
        log_action(connection, actor, "backup.create", str(target), {"rows": total, "contents": count})
    return manifest


@contextmanager
def _snapshot(service: Service) -> Iterator[Connection]:
    """Provide a transaction that sees one moment, as long as it needs, and keeps no writer waiting."""
    engine = connect_for_migrations(service.settings.database_url)
    try:
        if engine.dialect.name == "sqlite":
            with read_only(engine).begin() as connection:
                yield connection
        else:
            with engine.begin() as connection:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                # Before the snapshot: no month of bodies is dropped of which it says that nothing was purged.
                connection.exec_driver_sql(f"LOCK TABLE {DeliveryBody.__tablename__} IN ACCESS SHARE MODE")
                yield connection
    finally:
        engine.dispose()


def _columns(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def _contents(connection: Connection) -> dict[str, int]:
    """sha256 → size in bytes of every content that a row refers to."""
    referring: Any = union(
        select(Artifact.sha256, func.coalesce(Artifact.size_bytes, -1)).where(
            Artifact.sha256.is_not(None), Artifact.purged_at.is_(None)
        ),
        select(RequestFile.sha256, RequestFile.size_bytes),
        select(Export.sha256, func.coalesce(Export.size_bytes, -1)).where(Export.sha256.is_not(None)),
    )
    return {row[0]: row[1] for row in connection.execute(referring)}


def _copy_contents(
    service: Service, folder: Folder, contents: dict[str, int], report: Report
) -> tuple[list[str], list[str], int]:
    """Copy what the folder lacks. Return the digests that a purge has deleted, those that are lost, and the bytes of the rest."""
    gone: list[str] = []
    missing: list[str] = []
    total = 0
    for number, (sha256, size) in enumerate(sorted(contents.items()), 1):
        if not folder.has(sha256, size):
            try:
                with service.store.open(sha256) as source:
                    contents[sha256] = folder.put(source, sha256)
            except FileNotFoundError:
                with service.reader.begin() as connection:
                    (gone if is_unused(connection, sha256) else missing).append(sha256)
                continue
        total += contents[sha256]
        report("contents", number)
    return gone, missing, total
