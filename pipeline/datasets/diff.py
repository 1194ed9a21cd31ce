"""Compare two dataset versions: tasks, labels and shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from more_itertools import chunked
from sqlalchemy import Connection, Engine, select

from models import DatasetItem
from pipeline.datasets.images import batches
from pipeline.datasets.records import annotations_of
from pipeline.datasets.versions import find
from pipeline.db.memory_budget import ReadTooLarge, temporary_reads
from pipeline.operations.diff import diff
from scale.annotations import Annotation

PAGE_SIZE = 1_000
COMPARED_BATCH_SIZE = 50
"""Tasks whose annotations are in memory at once."""

Comparison = dict[str, dict[str, list[Any]]]


class Item(NamedTuple):
    """The columns of a member that are compared."""

    position: int
    task_id: str
    response_id: UUID
    split: str


class Pair(NamedTuple):
    """One task in both versions; None where it is in one of them only."""

    before: Item | None
    after: Item | None


def compare(reader: Engine, before: str, after: str) -> Comparison:
    """Return {tasks: {added, removed, changed}, labels: {added, removed}, boxes, shapes: {added, removed, changed},
    splits: {changed}}, each a list.

    `tasks` are task_ids; `shapes` are annotations of every type, `boxes` those that are boxes, each {task_id, uuid, type,
    label, frame}. Raises Unusable and UnknownDataset.
    """
    with reader.begin() as connection:
        old, new = find(connection, before), find(connection, after)
    found: Comparison = {
        "tasks": {"added": [], "removed": [], "changed": []},
        "labels": _labels(old.counts, new.counts),
        "boxes": {"added": [], "removed": [], "changed": []},
        "shapes": {"added": [], "removed": [], "changed": []},
        "splits": {"changed": []},
    }
    for pairs in batches_of(_pairs(reader, old.id, new.id)):
        _compare_within_budget(reader, pairs, found)
    found["boxes"] = {
        how: [shape for shape in shapes if shape["type"] == "box"] for how, shapes in found["shapes"].items()
    }
    return found


def _labels(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[Any]]:
    before, after = old["annotations"]["by_label"].keys(), new["annotations"]["by_label"].keys()
    return {"added": sorted(after - before), "removed": sorted(before - after)}


def batches_of(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    """Yield lists of at most COMPARED_BATCH_SIZE pairs."""
    for batch in batches(pairs):
        yield from chunked(batch, COMPARED_BATCH_SIZE)


def _pairs(reader: Engine, old: UUID, new: UUID) -> Iterator[Pair]:
    """Yield each task of both versions, in the order of the task_ids."""
    left, right = _items(reader, old), _items(reader, new)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.task_id < other.task_id):
            yield Pair(one, None)
            one = next(left, None)
        elif one is None or other.task_id < one.task_id:
            yield Pair(None, other)
            other = next(right, None)
        else:
            if one.response_id != other.response_id or one.split != other.split:
                yield Pair(one, other)
            one, other = next(left, None), next(right, None)


def _items(reader: Engine, version_id: UUID) -> Iterator[Item]:
    columns = (DatasetItem.position, DatasetItem.task_id, DatasetItem.response_id, DatasetItem.split)
    after = -1
    while True:
        statement = (
            select(*columns)
            .where(DatasetItem.version_id == version_id, DatasetItem.position > after)
            .order_by(DatasetItem.position)
            .limit(PAGE_SIZE)
        )
        with reader.begin() as connection:
            rows = [Item(*row) for row in connection.execute(statement)]
        if not rows:
            return
        after = rows[-1].position
        yield from rows


def _compare_within_budget(reader: Engine, pairs: Sequence[Pair], found: Comparison) -> None:
    """Add what these pairs changed. Pairs that exceed the memory budget together are compared one by one. Raises ReadTooLarge."""
    try:
        with temporary_reads(), reader.begin() as connection:
            _compare(connection, pairs, found)
    except ReadTooLarge:
        if len(pairs) == 1:
            raise
        for pair in pairs:
            _compare_within_budget(reader, [pair], found)


def _compare(connection: Connection, pairs: Sequence[Pair], found: Comparison) -> None:
    """Add what these pairs changed. Raises ReadTooLarge before it has added anything."""
    ids = {item.response_id for pair in pairs for item in pair if item is not None}
    annotations = annotations_of(connection, sorted(ids))
    for before, after in pairs:
        old = annotations.get(before.response_id, ([], []))[0] if before is not None else []
        new = annotations.get(after.response_id, ([], []))[0] if after is not None else []
        item = after or before
        assert item is not None
        if before is None:
            found["tasks"]["added"].append(item.task_id)
        elif after is None:
            found["tasks"]["removed"].append(item.task_id)
        else:
            if before.response_id != after.response_id:
                found["tasks"]["changed"].append(item.task_id)
            if before.split != after.split:
                found["splits"]["changed"].append(
                    {"task_id": item.task_id, "before": before.split, "after": after.split}
                )
            if before.response_id == after.response_id:
                continue
        for how, rows in compare_shapes(old, new).items():
            found["shapes"][how] += [_described(item.task_id, row) for row in rows]


def compare_shapes(old: Sequence[Annotation], new: Sequence[Annotation]) -> dict[str, list[Annotation]]:
    """Return {added, removed, changed}: shapes that have a uuid are the same one by it, in one frame; others by their place."""
    found: dict[str, list[Annotation]] = {"added": [], "removed": [], "changed": []}
    before, after = _by_uuid(old), _by_uuid(new)
    for key in before.keys() | after.keys():
        ours, theirs = before.get(key, []), after.get(key, [])
        for one, other in zip(ours, theirs, strict=False):
            if differ(one, other):
                found["changed"].append(other)
        found["removed"] += ours[len(theirs) :]
        found["added"] += theirs[len(ours) :]
    by_place = diff([row for row in old if row.uuid is None], [row for row in new if row.uuid is None])
    found["added"] += by_place.added
    found["removed"] += by_place.removed
    moved = (*by_place.moved, *by_place.relabeled, *by_place.attributes_changed)
    found["changed"] += {id(change.after): change.after for change in moved}.values()
    for rows in found.values():
        rows.sort(key=lambda row: (-1 if row.frame is None else row.frame, row.position))
    return found


def _by_uuid(rows: Sequence[Annotation]) -> dict[tuple[str, int | None], list[Annotation]]:
    found: dict[tuple[str, int | None], list[Annotation]] = defaultdict(list)
    for row in rows:
        if row.uuid is not None:
            found[row.uuid, row.frame].append(row)
    return found


def differ(one: Annotation, other: Annotation) -> bool:
    """Return whether geometry, label, type or attributes differ."""
    return (
        one.geometry != other.geometry
        or one.label != other.label
        or one.type != other.type
        or (one.attributes or {}) != (other.attributes or {})
    )


def _described(task_id: str, row: Annotation) -> dict[str, Any]:
    return {"task_id": task_id, "uuid": row.uuid, "type": row.type, "label": row.label, "frame": row.frame}
