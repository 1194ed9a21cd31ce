"""Restore a backup into an empty installation, of either database: verify, then contents, then all rows in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from models import Artifact, Delivery, DeliveryBody
from pipeline.access.audit import log_action
from pipeline.artifacts.store import CHUNK_BYTES
from pipeline.backup.backup import Report
from pipeline.backup.folder import Folder, UnusableBackup
from pipeline.backup.rows import insert_rows, tables
from pipeline.db.engine import connect_for_migrations
from pipeline.db.ids import created_at, utcnow
from pipeline.db.migrations import migrate
from pipeline.db.months import make_months
from pipeline.db.revisions import revisions
from pipeline.service import Service


class NotEmpty(Exception):
    """Raised when the database that a backup would be restored into has rows. The message names the tables."""


def restore(
    service: Service,
    source: Path,
    actor: str,
    *,
    force: bool = False,
    dry_run: bool = False,
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """Restore the backup in the folder `source` and return its manifest. Raises UnusableBackup and NotEmpty.

    Every digest is checked first. With `force` the rows that are there are deleted, in the transaction that inserts those of the
    backup: a restore that is killed changes nothing but the store, which may hold more contents. A dry run only checks.
    """
    folder = Folder(source)
    manifest = folder.manifest()
    _check_files(folder, manifest)
    if dry_run:
        for sha256, _ in _listed(folder, manifest):
            _check_content(folder, sha256)
        return manifest
    engine = connect_for_migrations(service.settings.database_url)
    try:
        with engine.connect() as connection:
            revision, _ = revisions(connection)
        if revision is None:
            migrate(service.settings.database_url)
        with engine.begin() as connection:
            _check_target(connection, manifest, force)
        _copy_contents(service, folder, manifest, report)
        with engine.begin() as connection:
            _check_target(connection, manifest, force)
            _replace_rows(connection, folder, manifest, report)
            log_action(
                connection, actor, "backup.restore", str(source), {"created_at": manifest["created_at"]}
            )
    finally:
        engine.dispose()
    return manifest


def _check_files(folder: Folder, manifest: dict[str, Any]) -> None:
    """Raise UnusableBackup unless every file of rows is as it was written and fits the tables of this version."""
    for table in tables():
        known = manifest["tables"].get(table.name)
        if known is None or known["columns"] != [column.name for column in table.columns]:
            raise UnusableBackup(
                f"the table {table.name} has other columns than in the backup of Weighbridge {manifest['weighbridge']}"
                f" (revision {manifest['revision']}); restore it with that version, then upgrade"
            )
        folder.check(f"{manifest['rows']}/{table.name}.jsonl.gz", known["sha256"])
    folder.check(f"{manifest['rows']}/contents.txt.gz", manifest["contents"]["sha256"])


def _check_target(connection: Connection, manifest: dict[str, Any], force: bool) -> None:
    revision, _ = revisions(connection)
    if revision != manifest["revision"]:
        raise UnusableBackup(
            f"the backup has the revision {manifest['revision']} and the database {revision}; restore it with the version that"
            " wrote it, then run `weighbridge db upgrade`"
        )
    used = [
        table.name
        for table in tables()
        if connection.scalar(select(func.count()).select_from(table.select().limit(1).subquery()))
    ]
    if used and not force:
        raise NotEmpty(f"the database has rows in {', '.join(used)}; --force deletes them")


def _listed(folder: Folder, manifest: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for line in folder.read_lines(f"{manifest['rows']}/contents.txt.gz"):
        sha256, _, size = line.decode().strip().partition(" ")
        yield sha256, int(size)


def _check_content(folder: Folder, sha256: str) -> None:
    with folder.open(sha256) as file:
        made = hashlib.sha256()
        while piece := file.read(CHUNK_BYTES):
            made.update(piece)
        if made.hexdigest() != sha256:
            raise UnusableBackup(f"the content {sha256} has other bytes than were written")


def _copy_contents(service: Service, folder: Folder, manifest: dict[str, Any], report: Report) -> None:
    """Put what the store lacks into it, each content under a digest that was computed again."""
    for number, (sha256, _) in enumerate(_listed(folder, manifest), 1):
        if not service.store.exists(sha256):
            with folder.open(sha256) as file:
                found, _ = service.store.put(file)
            if found != sha256:
                service.store.delete(found)
                raise UnusableBackup(f"the content {sha256} has other bytes than were written")
        report("contents", number)


def _replace_rows(connection: Connection, folder: Folder, manifest: dict[str, Any], report: Report) -> None:
    for table in reversed(tables()):
        connection.execute(delete(table))
    for table in tables():
        if table is DeliveryBody.__table__ and (
            oldest := connection.scalar(select(Delivery.id).order_by(Delivery.id).limit(1))
        ):
            make_months(connection, utcnow(), since=created_at(oldest))
        lines = folder.read_lines(f"{manifest['rows']}/{table.name}.jsonl.gz")
        count = insert_rows(connection, table, lines)
        if count != manifest["tables"][table.name]["rows"]:
            raise UnusableBackup(
                f"{table.name} has {count} rows and the backup says {manifest['tables'][table.name]['rows']}"
            )
        report(table.name, count)
    gone = manifest["contents"]["gone"]
    connection.execute(update(Artifact).where(Artifact.sha256.in_(gone)).values(purged_at=utcnow()))
