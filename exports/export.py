"""What a format gets: tasks and images to read, files to write, classes, options and the report."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from exports.format import Format
from exports.geometry import geometry_name
from exports.image_index import ImageIndex, Row
from exports.records import Image
from exports.report import NOT_UNDERSTOOD, Report
from pipeline.datasets.attachments import image_of, images
from pipeline.datasets.records import Task, read_tasks
from pipeline.datasets.versions import Version
from pipeline.service import Service
from scale.annotations import Annotation

NO_LABEL = "it has no label"
NOT_A_CLASS = "its label is not among the classes"
NO_IMAGE = "the task shows no image"
NO_IMAGE_OF_FRAME = "its frame is not an image of its own"
DELETED = "its result was deleted from this service"
NO_SIZE = "the size of the image is not known"


@dataclass(frozen=True, slots=True)
class Options:
    """How an export is written. Part of export.json."""

    images: str = "link"
    """link: formats write the images' addresses. copy: they write the images."""
    croissant: bool = False
    """Whether croissant.json describes the files."""

    @property
    def copies(self) -> bool:
        """Return whether images are written, instead of their addresses."""
        return self.images == "copy"


class Classes:
    """The labels with their ids, which count from 0 here; a format that counts from 1 adds 1."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.ids: Mapping[str, int] = {name: position for position, name in enumerate(self.names)}


class Export:
    """One run of one format over one dataset version. Everything is streamed: memory does not grow with the version."""

    def __init__(
        self,
        service: Service,
        version: Version,
        format_: Format,
        options: Options,
        stage: Path,
        work: Path,
        step: Any = lambda: None,
    ) -> None:
        self.service = service
        self.version = version
        self.format = format_
        self.options = options
        self.classes = Classes(version.classes)
        self.splits: tuple[str, ...] = tuple(version.shares) if version.shares else ("train",)
        """The names of the splits, in the order in which they were given."""
        self.has_splits = version.shares is not None
        self.report = Report(version.tasks)
        self.work = work
        """A folder for files that are no part of the export."""
        self.index: ImageIndex | None = None
        self._stage = stage
        self._step = step
        self._plain = frozenset(format_.holds)

    # Files.

    def path(self, name: str) -> Path:
        """Return where to write the file `name` (with slashes), for a library that takes a path. Creates its folder."""
        target = self._stage.joinpath(*name.split("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Provide the file `name`, opened to write bytes. Several may be open at once."""
        with self.path(name).open("wb") as file:
            yield file

    # Tasks.

    def tasks(
        self, *, annotations: bool = True, answers: bool = False, sources: bool = False
    ) -> Iterator[Task]:
        """Yield every task by position, with the annotations that the format holds; count the others as left out.

        answers: with `answer`, the response without its annotations. sources: with `source`, Scale's task object.
        """
        for task in self._read(annotations=annotations, answers=answers, sources=sources):
            if annotations:
                self._leave_out_unheld(task)
            yield task

    def _read(self, **what: bool) -> Iterator[Task]:
        for task in read_tasks(self.service.reader, self.version.id, **what):
            if task.is_deleted:
                self.report.leave_out_task(DELETED, task)
            else:
                yield task
            self._step()

    def _leave_out_unheld(self, task: Task) -> None:
        held, needs_classes, ids = self._plain, self.format.needs_classes, self.classes.ids
        if "raw" in held:
            return
        kept, files = [], []
        for annotation, file in zip(task.annotations, task.files, strict=True):
            if (
                annotation.warning is None
                and annotation.type in held
                and (not needs_classes or annotation.label in ids)
                and (annotation.type != "box" or "rotation" not in annotation.geometry)
            ):
                kept.append(annotation)
                files.append(file)
            elif reason := self._why_not(annotation):
                self.report.leave_out(reason, task, [annotation])
            else:
                kept.append(annotation)
                files.append(file)
        task.annotations, task.files = kept, tuple(files)

    def _why_not(self, annotation: Annotation) -> str | None:
        """Return why the format cannot hold an annotation; None if it can."""
        if annotation.warning is not None:
            return NOT_UNDERSTOOD
        if (name := geometry_name(annotation)) not in self._plain:
            return f"the format holds no {name} annotations"
        if self.format.needs_classes and annotation.label not in self.classes.ids:
            return NO_LABEL if annotation.label is None else NOT_A_CLASS
        return None

    # Images.

    def images(self, apart: Callable[[Task], bool] = lambda _: False) -> Iterator[Image]:
        """Yield every image once, with the annotations of all tasks that show it, as soon as the last of those was read.

        Annotations that lie on no image, and images that the format cannot write, are counted as left out. `apart` sees
        each task first: True says that the format has written and reported the task in another way, such as a video.
        """
        index = self._index()
        for task in self.tasks():
            is_apart = apart(task)
            by_address = {} if is_apart else self._by_image(task)
            shown = images(task.type, task.params)
            if not shown and not is_apart:
                self.report.leave_out_task(NO_IMAGE, task)
            task.annotations, task.files = [], ()
            for address in shown:
                row = index.get(address)
                assert row is not None
                image = _image(row, task, by_address.get(address, []))
                if is_apart:
                    image.tasks.clear()
                if row.uses > 1:
                    if (joined := self._joined(index, row, image, task.position)) is None:
                        continue
                    image = joined
                if image.tasks and self._can_write(image, row):
                    yield image

    def _by_image(self, task: Task) -> dict[str, list[Annotation]]:
        """Return the task's annotations by the address of their image; those without one are left out."""
        found: dict[str, list[Annotation]] = {}
        shown = images(task.type, task.params)
        if len(shown) == 1 and not isinstance(task.params.get("attachments"), list):
            plain = [one for one in task.annotations if one.frame is None and "page" not in one.geometry]
            if len(plain) == len(task.annotations):
                return {shown[0]: plain}
        for annotation in task.annotations:
            address = image_of(task.type, task.params, annotation)
            if address is None:
                self.report.leave_out(NO_IMAGE_OF_FRAME if shown else NO_IMAGE, task, [annotation])
            else:
                found.setdefault(address, []).append(annotation)
        return found

    def _joined(self, index: ImageIndex, row: Row, image: Image, position: int) -> Image | None:
        """Return the image with what every task says of it; None while a task that shows it has still to be read."""
        left = index.wait(row.id, position, pickle.dumps((image.tasks, image.annotations)))
        if left:
            return None
        tasks: list[Task] = []
        annotations: list[tuple[Task, Annotation]] = []
        for pickled in index.take(row.id):
            some, more = pickle.loads(pickled)
            tasks += some
            annotations += more
        return replace(image, tasks=tasks, annotations=annotations)

    def _can_write(self, image: Image, row: Row) -> bool:
        """Return whether the format can write the image. If not, count it as left out."""
        if self.options.copies and row.problem is not None and self.format.needs_copies:
            self.report.leave_out_image(f"the image cannot be copied: {row.problem}", image)
            return False
        if self.format.needs_sizes and (image.width is None or image.height is None):
            self.report.leave_out_image(NO_SIZE, image)
            return False
        self._note_image(image, row)
        return True

    def _note_image(self, image: Image, row: Row) -> None:
        if row.turned:
            self.report.change(
                "width and height are those of the image as shown, turned by its EXIF orientation",
                image.tasks[0],
                "image",
            )
        if self.options.copies and row.problem is not None:
            self.report.change(
                f"the image was not copied, its address is written instead: {row.problem}",
                image.tasks[0],
                "image",
            )

    def images_of(self, task: Task) -> list[Image]:
        """Return the images of one task, in order, without annotations; each with the name and size that it has in `images()`."""
        index = self._index()
        rows = (index.get(address) for address in images(task.type, task.params))
        return [_image(row, task, []) for row in rows if row is not None]

    def _index(self) -> ImageIndex:
        assert self.index is not None, f"the format {self.format.name} has to say needs_images"
        return self.index

    def copied(self, image: Image) -> Path | None:
        """Return the image's bytes as a file, to read; None without --images copy, or where it could not be fetched."""
        path = copy_path(self.work, image.id)
        return path if self.options.copies and path.exists() else None

    def copy(self, image: Image, name: str) -> bool:
        """Put the image's bytes into the output under `name`. False, with nothing written, where there is no copy of it."""
        source = self.copied(image)
        if source is None:
            return False
        target = self.path(name)
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)
        return True


def copy_path(work: Path, image_id: int) -> Path:
    """Return the path of an image's copy, which waits there until the format uses it."""
    return work / "images" / f"{image_id // 1000}" / f"{image_id}"


def _image(row: Row, task: Task, annotations: list[Annotation]) -> Image:
    return Image(
        id=row.id,
        address=row.address,
        file_name=row.file_name,
        split=row.split,
        width=row.width,
        height=row.height,
        media_type=row.media_type,
        tasks=[task],
        annotations=[(task, annotation) for annotation in annotations],
    )


def dumps(value: Any) -> bytes:
    """Return JSON with sorted keys: the same bytes whichever database the value comes from."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
