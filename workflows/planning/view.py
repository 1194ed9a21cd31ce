"""The view of one result: what a workflow's conditions and values can ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from scale.envelope import ABSENT, holds_error, parse_task, response_digest
from scale.layers import base_annotations, flatten, hypothesis, layers
from scale.task_types import parse_response, task_type
from workflows.definition.crops import from_crop
from workflows.definition.expressions import ROOTS
from workflows.definition.recipes import crop_in, recipe
from workflows.planning.reasons import MissingFile, Reason

Annotations = list[dict[str, Any]] | Callable[[], list[dict[str, Any]]]


class Source(NamedTuple):
    """The follow-up that made the task of a view."""

    workflow: str
    step: str
    unique_id: str
    task_id: str  # the task that it followed
    annotation: str | None = None  # which part of it, as FollowUp.source_annotation
    response: str | None = None  # digest of the response that it was planned from
    request: Mapping[str, Any] = {}
    first_unique_id: str | None = None  # of the first attempt; None: this is the first
    attempt: int = 1


@dataclass(frozen=True)
class View:
    """One task, its current response, and what can be read off them. Values are Scale's own, unchanged."""

    task: Mapping[str, Any]
    response: Any  # None: there is no current one
    environment: str = "live"
    recalled: bool = False  # it had a response, and Scale took it back
    review: str | None = None  # accepted | rejected | fixed | commented | pending
    source: Source | None = None
    parent: View | None = field(default=None, repr=False)  # of the task that this one followed
    depth: int = 0  # follow-ups between the first task and this one
    held: Reason | None = None  # why every follow-up of it waits for a person
    missing_files: str | None = None  # why its annotations are incomplete: files that could not be read
    given_annotations: Annotations | None = field(default=None, repr=False)

    @property
    def task_id(self) -> str:
        return str(self.task.get("task_id") or "")

    @property
    def type(self) -> str | None:
        found = self.task.get("type")
        return found if isinstance(found, str) else None

    @cached_property
    def digest(self) -> str | None:
        """Digest of the response; None without one."""
        return None if self.response is None else response_digest(self.response)

    @cached_property
    def error(self) -> dict[str, Any] | None:
        """Scale's error response."""
        if isinstance(self.response, dict) and holds_error(self.response):
            return self.response
        return None

    def _require_files(self) -> None:
        """Raise MissingFile unless every file of the response was read: no request may be built from a part of a result."""
        if self.missing_files is not None:
            raise MissingFile(self.missing_files)

    @cached_property
    def annotations(self) -> list[dict[str, Any]]:
        """Scale's own annotation objects, flat, each with `type` and `frame`. Raises MissingFile."""
        self._require_files()
        if self.given_annotations is not None:
            return self.given_annotations() if callable(self.given_annotations) else self.given_annotations
        return [] if self.response is None else flatten(self.type, self.response)

    @cached_property
    def answer(self) -> dict[str, Any] | None:
        """The response without its annotations."""
        params = self.task.get("params")
        return parse_response(self.type, self.response, params if isinstance(params, dict) else None).answer

    @cached_property
    def _layers(self) -> tuple[dict[str, Any], list[str]]:
        grouped, notes = layers(self.annotations)
        if grouped and task_type(self.type).result_form == "file":
            return {"url": recipe("layers", task_id=self.task_id, response=self.digest, labels=None)}, notes
        return grouped, notes

    @property
    def layers(self) -> dict[str, Any]:
        """Annotations under boxes, polygons, lines, cuboids; of a video the `url` of a layers file, still to be made."""
        return self._layers[0]

    @property
    def layer_notes(self) -> list[str]:
        """What of the annotations has no layer, in sentences."""
        return self._layers[1]

    @cached_property
    def hypothesis(self) -> dict[str, Any]:
        self._require_files()
        return hypothesis(self.response, self.type)

    @cached_property
    def base_annotations(self) -> dict[str, Any]:
        self._require_files()
        return base_annotations(self.response, self.type)

    @cached_property
    def uncropped(self) -> list[dict[str, Any]]:
        """The annotations in coordinates of the image that the task's attachment was cut from, if it was."""
        crop = crop_in(self.source.request) if self.source else None
        moved: list[dict[str, Any]] = from_crop(self.annotations, crop) if crop else self.annotations
        return moved

    def get(self, name: str) -> Any:
        """What an expression means by a name."""
        if name == "source":
            return self.source and self.source._asdict()
        return getattr(self, name) if name in ROOTS else None


class StepScope:
    """The view of a result, and what a step adds to it."""

    __slots__ = ("_own", "_view")

    def __init__(self, view: View, own: Mapping[str, Any]) -> None:
        self._view = view
        self._own = own

    def get(self, name: str) -> Any:
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
    depth: int = 0,
    held: Reason | None = None,
    missing_files: str | None = None,
) -> View:
    """The view of a task (Scale's own task object) and its current response (None or ABSENT: there is none).

    `annotations` are those of result files, flat, where the response only names the files; or a function that gives them
    once they are asked for. `review` is read from the task unless it is given. `held` holds every follow-up with that
    reason. `missing_files` names the files that could not be read: whatever depends on them raises MissingFile.
    """
    return View(
        task,
        None if response is ABSENT else response,
        environment=environment,
        recalled=recalled,
        review=review or _review(task),
        source=source,
        parent=parent,
        depth=depth,
        held=held,
        missing_files=missing_files,
        given_annotations=annotations,
    )


def _review(task: Mapping[str, Any]) -> str | None:
    """The review that a task object tells."""
    told = task.get("customer_review_status") or task.get("audits")
    return parse_task(dict(task))[0].review_status if told else None
