"""Import task objects from files: the dashboard's mass export, single tasks, and the JSON of e-mail callbacks.

Each object that differs from what is stored is received like its callback, as a delivery of kind `imported`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO
from uuid import UUID

import ijson
from sqlalchemy import Connection, select

from models import SyncRun
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id, utcnow
from pipeline.service import Service
from pipeline.sync.reconcile import PERSON, Difference, receive_differences
from scale.json_stream import Events, JsonSource, build_value, error_message, json_events

OBJECT_BATCH_SIZE = 100
BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of the file that are read before they are imported: objects may be large."""
LISTS = ("docs", "tasks", "data")
"""Keys of an object that only wraps a list: a page of Scale's own list, an export."""
IMPORT = "import"


class UnreadableImport(Exception):
    """Raised when the rest of the file cannot be read; the text says where and why."""


@dataclass
class Import:
    """How far a file was imported, and what it contained so far."""

    objects: int = 0
    bytes: int = 0
    skipped: int = 0  # objects that an earlier run of the same file has imported
    missing: int = 0
    stale: int = 0
    taken: int = 0
    quarantined: int = 0
    jobs: list[UUID] = field(default_factory=list)  # of the last step, to dispatch


def import_file(
    service: Service,
    file: BinaryIO,
    environment: str,
    *,
    resume: bool = True,
    dry_run: bool = False,
    create: bool = False,
) -> Iterator[Import]:
    """Import the objects of a seekable file, and yield the progress after each step.

    An interrupted import of the same file is resumed; `resume=False` starts at the beginning. Follow-ups of the results are
    held unless `create` is set. Raises UnreadableImport, after importing what comes before the fault.
    """
    run = _Run(environment, fingerprint(file))
    if resume and not dry_run:
        run = _interrupted(service, run) or run
    source = JsonSource(file)
    everything = objects(source)
    progress = Import()
    progress.skipped = progress.objects = sum(1 for _ in islice(everything, run.objects))
    ended = False
    while not ended:
        batch, start, fault = list[Any](), source.bytes, None
        while len(batch) < OBJECT_BATCH_SIZE and source.bytes - start < BATCH_BYTES and not ended:
            try:
                batch.append(next(everything))
            except StopIteration:
                ended = True
            except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
                ended, fault = True, error
        found = receive_differences(
            service, batch, environment, kind="imported", dry_run=dry_run, create=create
        )
        _count(progress, batch, found)
        progress.bytes = source.bytes
        if not dry_run:
            with service.engine.begin() as connection:
                _save_progress(connection, run, progress, ended)
        yield progress
        if fault is not None:
            raise UnreadableImport(f"after {progress.objects} objects it is not JSON: {error_message(fault)}")


def _count(progress: Import, batch: Sequence[Any], found: Sequence[Difference]) -> None:
    progress.objects += len(batch)
    progress.missing += sum(one.why == "missing" for one in found)
    progress.stale += sum(one.why == "stale" for one in found)
    progress.taken += sum(one.receipt in ("processed", "stored") for one in found)
    progress.quarantined += sum(one.receipt == "quarantined" for one in found)
    progress.jobs = [job_id for one in found for job_id in one.jobs]


@dataclass(frozen=True, slots=True)
class _Run:
    """The stored progress of one file."""

    environment: str
    digest: str
    objects: int = 0
    id: UUID = field(default_factory=new_id)
    started_at: datetime = field(default_factory=utcnow)


def _interrupted(service: Service, run: _Run) -> _Run | None:
    """Return the newest run of the same file, if it did not finish."""
    newest = (
        select(SyncRun.id, SyncRun.position, SyncRun.started_at, SyncRun.finished_at)
        .where(
            SyncRun.kind == IMPORT,
            SyncRun.environment == run.environment,
            SyncRun.file_digest == run.digest,
        )
        .order_by(SyncRun.id.desc())
        .limit(1)
    )
    with service.reader.begin() as connection:
        row = connection.execute(newest).one_or_none()
    if row is None or row.finished_at is not None:
        return None
    return _Run(run.environment, run.digest, row.position["objects"], row.id, row.started_at)


def _save_progress(connection: Connection, run: _Run, progress: Import, ended: bool) -> None:
    moment = utcnow()
    columns = {
        "position": {"objects": progress.objects},
        "seen": progress.objects,
        "missing": progress.missing,
        "stale": progress.stale,
        "repaired": progress.taken,
        "updated_at": moment,
        "finished_at": moment if ended else None,
    }
    row = {
        "id": run.id,
        "kind": IMPORT,
        "requested_by": PERSON,
        "environment": run.environment,
        "file_digest": run.digest,
        "started_at": run.started_at,
        **columns,
    }
    statement = insert(connection, SyncRun).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=columns))


def fingerprint(file: BinaryIO) -> str:
    """Return a digest of the file's size, first and last mebibyte, which identifies it whatever its name is."""
    digest = hashlib.sha256()
    size = file.seek(0, os.SEEK_END)
    digest.update(str(size).encode())
    for place in (0, max(0, size - 1024 * 1024)):
        file.seek(place)
        digest.update(file.read(1024 * 1024))
    file.seek(0)
    return digest.hexdigest()


def objects(file: Any) -> Iterator[Any]:
    """Yield each object of a list, of a list inside an object, or of a sequence of JSON values, as a stream."""
    events = json_events(file, multiple_values=True)
    for event, value in events:
        if event == "start_array":
            yield from _elements(events)
        elif event == "start_map":
            yield from _object_or_its_list(events)
        else:
            yield value


def _elements(events: Events) -> Iterator[Any]:
    for event, value in events:
        if event == "end_array":
            return
        yield build_value(event, value, events)


def _object_or_its_list(events: Events) -> Iterator[Any]:
    found: dict[str, Any] = {}
    listed = False
    for event, key in events:
        if event == "end_map":
            break
        event, value = next(events)
        if key in LISTS and event == "start_array" and "task_id" not in found:
            listed = True
            yield from _elements(events)
        else:
            found[key] = build_value(event, value, events)
    if not listed:
        yield found
