"""Task objects from files: what the dashboard's mass export gives, single ones, and the JSON of e-mail callbacks.

They are taken the way a callback would be, as deliveries of kind `imported`, and only where they say something new.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO
from uuid import UUID

import ijson

from pipeline.db.state import delete_state, get_state, set_state
from pipeline.service import Service
from pipeline.sync.reconcile import receive_differences
from scale.json_stream import Events, JsonSource, build_value, error_message, json_events

OBJECT_BATCH_SIZE = 100
BATCH_BYTES = 4 * 1024 * 1024
"""Of the file, before what was read is taken: objects may be large."""
LISTS = ("docs", "tasks", "data")
"""Keys of an object that is only the wrapping of a list: a page of Scale's own list, an export."""
IMPORTING = "importing:"


class UnreadableImport(Exception):
    """The file can't be read further; the text says where and why."""


@dataclass
class Import:
    """How far a file has been taken, and what was in it so far."""

    objects: int = 0
    bytes: int = 0
    skipped: int = 0  # objects that an earlier run of the same file has taken
    missing: int = 0
    stale: int = 0
    taken: int = 0
    quarantined: int = 0
    jobs: list[UUID] = field(default_factory=list)  # to ring for, of the last step


def import_file(
    service: Service, file: BinaryIO, environment: str, *, resume: bool = True, dry_run: bool = False
) -> Iterator[Import]:
    """Take the objects of a seekable file; how far it has come, after each step.

    A file that an interrupted run has begun goes on where that stopped; `resume=False` begins anew. Raises
    UnreadableImport, with what stands before the fault taken.
    """
    key = IMPORTING + fingerprint(file)
    with service.reader.begin() as connection:
        kept = get_state(connection, key) if resume and not dry_run else None
    counted = JsonSource(file)
    everything = objects(counted)
    state = Import()
    if kept is not None:
        state.skipped = state.objects = sum(1 for _ in islice(everything, kept["objects"]))
    ended = False
    while not ended:
        some, begun, fault = list[Any](), counted.bytes, None
        while len(some) < OBJECT_BATCH_SIZE and counted.bytes - begun < BATCH_BYTES and not ended:
            try:
                some.append(next(everything))
            except StopIteration:
                ended = True
            except (ijson.JSONError, UnicodeDecodeError, RecursionError) as broken:
                ended, fault = True, broken
        found = receive_differences(service, some, environment, kind="imported", dry_run=dry_run)
        state.objects += len(some)
        state.bytes = counted.bytes
        state.missing += sum(one.why == "missing" for one in found)
        state.stale += sum(one.why == "stale" for one in found)
        state.taken += sum(one.receipt in ("processed", "stored") for one in found)
        state.quarantined += sum(one.receipt == "quarantined" for one in found)
        state.jobs = [job_id for one in found for job_id in one.jobs]
        if not dry_run:
            with service.engine.begin() as connection:
                if ended:
                    delete_state(connection, key)
                else:
                    set_state(connection, key, {"objects": state.objects})
        yield state
        if fault is not None:
            raise UnreadableImport(f"after {state.objects} objects it is not JSON: {error_message(fault)}")


def fingerprint(file: BinaryIO) -> str:
    """Tells one file from another by its size, its first and its last mebibyte, whatever it is called."""
    digest = hashlib.sha256()
    size = file.seek(0, os.SEEK_END)
    digest.update(str(size).encode())
    for place in (0, max(0, size - 1024 * 1024)):
        file.seek(place)
        digest.update(file.read(1024 * 1024))
    file.seek(0)
    return digest.hexdigest()


def objects(file: Any) -> Iterator[Any]:
    """Each object of a list, of a list within an object, or of as many values as follow each other, as a stream."""
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
