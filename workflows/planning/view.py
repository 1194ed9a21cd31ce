"""The view of one result: what the conditions and values of a workflow can use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from scale.envelope import ABSENT, holds_error, parse_task, response_digest
from scale.layers import base_annotations, flatten, hypothesis, layers
from scale.task_types import parse_response, task_type
from workflows.definition.crops import from_crop, merge_pieces
from workflows.definition.model import INPUT
from workflows.definition.names import ROOTS
from workflows.definition.recipes import (
    LayersFile,
    RequestFile,
    ResultUrl,
    crop_of,
    join_files,
    with_own_urls,
)
from workflows.planning.identity import annotation_key
from workflows.planning.reasons import MissingFile, Reason

Annotations = list[dict[str, Any]] | Callable[[], list[dict[str, Any]]]


class Source(NamedTuple):
    """The follow-up that created the task of a view."""

    workflow: str
    step: str
    unique_id: str
    task_id: str  # the task that it followed
    annotation: str | None = None  # its element, as PlannedFollowUp.source_annotation
    response: str | None = None  # digest of the response that it was planned from
    request: Mapping[str, Any] = {}  # as stored: null in place of each file
    files: tuple[RequestFile, ...] = ()
    first_unique_id: str | None = None  # of the first attempt; None: this is the first
    attempt: int = 1

    def full_request(self) -> dict[str, Any]:
        """Return the request with its recipes."""
        found: dict[str, Any] = join_files(dict(self.request), self.files)
        return found


class Element(NamedTuple):
    """One object among the annotations of a result, with all its pieces in one image or frame."""

    annotation: dict[str, Any]  # one piece as it is; several as `merge_pieces` gives them
    omitted: (
        int  # annotations of the same object that it does not contain: those in other frames, or equal ones
    )


@dataclass(frozen=True)
class View:
    """One task, its current response, and what can be derived from them. Values are Scale's own, unchanged."""

    task: Mapping[str, Any]
    response: Any  # None: there is no current one
    environment: str = "live"
    recalled: bool = False  # Scale took its response back
    review: str | None = None  # accepted | rejected | fixed | commented | pending
    source: Source | None = None
    parent: View | None = field(default=None, repr=False)  # of the task that this one followed
    previous: View | None = field(default=None, repr=False)  # of the attempt that this one replaces
    depth: int = 0  # follow-ups between the first task and this one
    held: Reason | None = None  # why follow-ups of this result must wait for an approval
    missing_files: str | None = None  # why its annotations are incomplete: files that could not be read
    given_annotations: Annotations | None = field(default=None, repr=False)

    @property
    def task_id(self) -> str:
        """Scale's id of the task."""
        return str(self.task.get("task_id") or "")

    @property
    def type(self) -> str | None:
        """Scale's task type; None if the task has none."""
        found = self.task.get("type")
        return found if isinstance(found, str) else None

    @property
    def _params(self) -> dict[str, Any] | None:
        params = self.task.get("params")
        return params if isinstance(params, dict) else None

    @cached_property
    def digest(self) -> str | None:
        """Digest of the response; None without one."""
        return None if self.response is None else response_digest(self.response)

    @cached_property
    def error(self) -> dict[str, Any] | None:
        """Scale's error response; None without one."""
        if isinstance(self.response, dict) and holds_error(self.response):
            return self.response
        return None

    def _require_files(self) -> None:
        """Raise MissingFile unless every file of the response was read: no request may be built from a part of a result."""
        if self.missing_files is not None:
            raise MissingFile(self.missing_files)

    @cached_property
    def annotations(self) -> list[dict[str, Any]]:
        """Scale's own annotation objects as a flat list, each with `type` and `frame`. Raises MissingFile."""
        self._require_files()
        if self.given_annotations is not None:
            return self.given_annotations() if callable(self.given_annotations) else self.given_annotations
        return [] if self.response is None else flatten(self.type, self.response, self._params)

    @cached_property
    def elements(self) -> dict[str, Element]:
        """Return the objects among the annotations, by their identity: see `annotation_key`."""
        grouped: dict[str, list[dict[str, Any]]] = {}
        for annotation in self.annotations:
            grouped.setdefault(annotation_key(annotation), []).append(annotation)
        return {key: _element(annotations) for key, annotations in grouped.items()}

    @cached_property
    def answer(self) -> dict[str, Any] | None:
        """Return the response without its annotations."""
        return parse_response(self.type, self.response, self._params).answer

    @cached_property
    def _layers(self) -> tuple[dict[str, Any], list[str]]:
        grouped, notes = layers(self.annotations)
        if grouped and task_type(self.type).result_form == "file":
            return {"url": LayersFile(self.task_id, self.digest)}, notes
        return grouped, notes

    @property
    def layers(self) -> dict[str, Any]:
        """Return the annotations under boxes, polygons, lines, cuboids; for a video, the `url` of a layers file, as a recipe."""
        return self._layers[0]

    @property
    def layer_notes(self) -> list[str]:
        """Return what of the annotations has no layer, in sentences."""
        return self._layers[1]

    @cached_property
    def hypothesis(self) -> dict[str, Any]:
        """Return the response in the form of a request's `hypothesis`."""
        self._require_files()
        made = hypothesis(self.response, self.type, self._params)
        file = made.get("annotations")
        if isinstance(file, dict) and isinstance(url := file.get("url"), str):
            made["annotations"] = {**file, "url": ResultUrl.of(url, self.task_id, self.digest)}
        return made

    @cached_property
    def base_annotations(self) -> dict[str, Any]:
        """Return the response in the form of a request's `base_annotations`."""
        self._require_files()
        return base_annotations(self.response, self.type, self._params)

    @cached_property
    def uncropped(self) -> list[dict[str, Any]]:
        """Return the annotations in coordinates of the image that the task's attachment was cut from."""
        crop = crop_of(self.source.files) if self.source else None
        moved: list[dict[str, Any]] = from_crop(self.annotations, crop) if crop else self.annotations
        return moved

    @cached_property
    def _source_names(self) -> dict[str, Any] | None:
        """Return what an expression sees as `source`."""
        source = self.source
        if source is None:
            return None
        annotation = self._source_annotation(source.annotation)
        uuid = annotation.get("uuid") if annotation else None
        return {
            "workflow": source.workflow,
            "step": source.step,
            "unique_id": source.unique_id,
            "task_id": source.task_id,
            "request": source.full_request(),
            "annotation": annotation,
            "annotation_uuid": uuid if isinstance(uuid, str) else None,
            "element": source.annotation,
            "attempt": source.attempt,
        }

    def _source_annotation(self, key: str | None) -> dict[str, Any] | None:
        """Return the annotation of the parent that the task is about. Digits alone are the number of a frame."""
        if key is None or key.isdigit() or self.parent is None:
            return None
        element = self.parent.elements.get(key)
        return element.annotation if element else None

    @property
    def earlier_attempts(self) -> Iterator[View]:
        """Yield the attempts that this task and those before it replace, the last one first."""
        attempt = self.previous
        while attempt is not None:
            yield attempt
            attempt = attempt.previous

    @property
    def row(self) -> dict[str, Any]:
        """Return the input that the first task of the run was created from; {} if it was created otherwise."""
        if self.type == INPUT:
            return self._params or {}
        return self.parent.row if self.parent else {}

    @property
    def _review_names(self) -> dict[str, Any]:
        """Return what an expression sees as `review`."""
        comments = self.task.get("customer_review_comments")
        texts = (
            [one for one in comments if isinstance(one, str) and one] if isinstance(comments, list) else []
        )
        return {"status": self.review, "comments": texts}

    def get(self, name: str) -> Any:
        """Return the value of a name in an expression; None if there is no such name."""
        if name == "source":
            return self._source_names
        if name == "review":
            return self._review_names
        return getattr(self, name) if name in ROOTS or name in ("previous", "row") else None


def _element(annotations: list[dict[str, Any]]) -> Element:
    """Return the object that annotations of one identity show: its pieces in the image or frame of the first one."""
    first = annotations[0]
    if not first.get("uuid"):  # equal annotations, one over the other
        return Element(first, len(annotations) - 1)
    pieces = [annotation for annotation in annotations if annotation.get("frame") == first.get("frame")]
    return Element(merge_pieces(pieces), len(annotations) - len(pieces))


class StepScope:
    """The view of a result, and the names that a step adds to it."""

    __slots__ = ("_own", "_view")

    def __init__(self, view: View, own: Mapping[str, Any]) -> None:
        self._view = view
        self._own = own

    def get(self, name: str) -> Any:
        """Return the value of a name in an expression; None if there is no such name."""
        return self._own[name] if name in self._own else self._view.get(name)


def view(
    task: Mapping[str, Any],
    response: Any,
    *,
    environment: str = "live",
    annotations: Annotations | None = None,
    recalled: bool = False,
    review: str | None = None,
    source: Source | None = None,
    parent: View | None = None,
    previous: View | None = None,
    depth: int = 0,
    held: Reason | None = None,
    missing_files: str | None = None,
) -> View:
    """Return the view of a task (Scale's own task object) and its current response; None or ABSENT: it has none.

    annotations: those of result files, flat, where the response only names the files; or a function that returns them, called
    when an expression uses them. review: read from the task by default. held: why follow-ups of this result must be held.
    missing_files: files that could not be read; whatever depends on them raises MissingFile.
    """
    if source is not None and source.files and isinstance(task.get("params"), dict):
        task = {**task, "params": with_own_urls(task["params"], source.files)}
    return View(
        task,
        None if response is ABSENT else response,
        environment=environment,
        recalled=recalled,
        review=review or _review(task),
        source=source,
        parent=parent,
        previous=previous,
        depth=depth,
        held=held,
        missing_files=missing_files,
        given_annotations=annotations,
    )


def _review(task: Mapping[str, Any]) -> str | None:
    """Return the review that a task object contains, or None."""
    is_reviewed = task.get("customer_review_status") or task.get("audits")
    return parse_task(dict(task))[0].review_status if is_reviewed else None
