"""Count what an export wrote, left out and changed. export.json is made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from exports.records import Image
from pipeline.datasets.records import Task
from scale.annotations import Annotation

NOT_UNDERSTOOD = "its form was not understood; it was kept as it came"


class Report:
    """The counts of an export. Each annotation of the selection is counted exactly once: as written or as left out."""

    def __init__(self, tasks: int) -> None:
        self._tasks = bytearray(tasks)
        self._images = bytearray()
        self._written: Counter[tuple[str, str | None]] = Counter()
        self._left_out: dict[tuple[str, str], Entry] = {}
        self._changed: dict[tuple[str, str], Entry] = {}

    def wrote(self, task: Task, *annotations: Annotation) -> None:
        """Count annotations of one task as written."""
        self._tasks[task.position] = 1
        for annotation in annotations:
            self._written[annotation.type, annotation.label] += 1

    def wrote_task(self, task: Task) -> None:
        """Count a task as written, also one without annotations."""
        self._tasks[task.position] = 1

    def wrote_image(self, image: Image) -> None:
        """Count an image, and the tasks that show it, as written. An image that is written again counts once."""
        if len(self._images) <= image.id:
            self._images.extend(bytes(max(1024, image.id)))
        self._images[image.id] = 1
        for task in image.tasks:
            self._tasks[task.position] = 1

    def leave_out(self, reason: str, task: Task, annotations: Iterable[Annotation]) -> None:
        """Count annotations of one task as left out. `reason` completes "left out, because …", without numbers or names."""
        for annotation in annotations:
            self._entry(self._left_out, reason, annotation.type).add(task.task_id)

    def leave_out_task(self, reason: str, task: Task) -> None:
        """Count a task that is in no file. Its annotations are counted by `leave_out`."""
        self._entry(self._left_out, reason, "task").add(task.task_id)

    def leave_out_image(self, reason: str, image: Image) -> None:
        """Count an image that is in no file, and all of its annotations."""
        for task in image.tasks[:1]:
            self._entry(self._left_out, reason, "image").add(task.task_id)
        for task, annotation in image.annotations:
            self._entry(self._left_out, reason, annotation.type).add(task.task_id)

    def change(self, change: str, task: Task, type_: str) -> None:
        """Count an annotation (or an image) that was written in another form: "a rotated box became a polygon"."""
        self._entry(self._changed, change, type_).add(task.task_id)

    @staticmethod
    def _entry(entries: dict[tuple[str, str], Entry], why: str, type_: str) -> Entry:
        return entries.setdefault((why, type_), Entry())

    def as_json(self) -> dict[str, Any]:
        """Return `written`, `left_out` and `changed` of export.json."""
        by_type: Counter[str] = Counter()
        by_label: Counter[str] = Counter()
        for (type_, label), count in self._written.items():
            by_type[type_] += count
            if label is not None:
                by_label[label] += count
        return {
            "written": {
                "tasks": sum(self._tasks),
                "images": sum(self._images),
                "annotations": {
                    "total": by_type.total(),
                    "by_type": dict(sorted(by_type.items())),
                    "by_label": dict(sorted(by_label.items())),
                },
            },
            "left_out": [{"reason": why, **rest} for why, rest in _listed(self._left_out)],
            "changed": [{"change": why, **rest} for why, rest in _listed(self._changed)],
        }


class Entry:
    """A count of annotations, and their tasks. Tasks come in order, so comparing with the last id finds most repeats."""

    __slots__ = ("count", "last", "tasks")

    def __init__(self) -> None:
        self.count = 0
        self.last: str | None = None
        self.tasks: set[str] = set()

    def add(self, task_id: str) -> None:
        """Count one annotation of this task."""
        self.count += 1
        if task_id != self.last:
            self.last = task_id
            self.tasks.add(task_id)


def _listed(entries: dict[tuple[str, str], Entry]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (why, {"type": type_, "count": entry.count, "tasks": sorted(entry.tasks)})
        for (why, type_), entry in sorted(entries.items())
    ]
