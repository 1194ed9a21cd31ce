"""MOT challenge text files: one line for each box of a frame. Source: motchallenge.net, "Data format" of MOT16."""

from __future__ import annotations

from exports.export import Export
from exports.format import Format
from exports.geometry import bounds, corners, is_rotated
from exports.names import Names
from exports.text import number
from exports.tracks import tracks_of
from pipeline.datasets.records import Task
from scale.annotations import Annotation

ROTATED = "a rotated box became the upright box around it"
NO_FRAME = "it is on no frame of a video"


def write(export: Export) -> None:
    """Write <task_id>/gt/gt.txt and labels.txt next to it for each task that has boxes on frames."""
    folders = Names()
    for task in export.tasks():
        still = [annotation for annotation in task.annotations if annotation.frame is None]
        export.report.leave_out(NO_FRAME, task, still)
        if len(still) == len(task.annotations):
            continue
        _write_task(export, task, folders.name(task.task_id))


def _write_task(export: Export, task: Task, folder: str) -> None:
    tracks = enumerate(tracks_of(task.annotations), start=1)
    boxes = [(box.frame or 0, number_, box) for number_, track in tracks for box in track]
    with export.open(f"{folder}/gt/gt.txt") as file:
        for frame, track_id, box in sorted(boxes, key=lambda each: each[:2]):
            file.write(f"{_line(export, frame, track_id, box)}\n".encode())
            if is_rotated(box.geometry):
                export.report.change(ROTATED, task, box.type)
            export.report.wrote(task, box)
    with export.open(f"{folder}/gt/labels.txt") as file:
        for label in export.classes.names:
            file.write(f"{' '.join(label.splitlines())}\n".encode())


def _line(export: Export, frame: int, track: int, annotation: Annotation) -> str:
    """Return frame, track, left, top, width, height, whether it counts, class and visibility; frames and classes from 1."""
    geometry = annotation.geometry
    if is_rotated(geometry):
        left, top, right, bottom = bounds(corners(geometry))
        values = (left, top, right - left, bottom - top)
    else:
        values = (geometry["left"], geometry["top"], geometry["width"], geometry["height"])
    class_id = export.classes.ids[annotation.label or ""] + 1
    return ",".join([str(frame + 1), str(track), *map(number, values), "1", str(class_id), "1"])


MOT = Format(
    "mot",
    "<task_id>/gt/gt.txt, labels.txt: boxes of videos for the MOT challenge",
    {"box": "frames and classes count from 1", "rotated box": "the upright box around it"},
    write,
    needs_classes=True,
)
