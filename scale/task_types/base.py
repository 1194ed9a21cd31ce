"""What a TaskType is, and the three ways to read a response that the families share: inline rows, files, an answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scale.annotations import (
    SHAPES,
    Annotation,
    Read,
    annotation_list,
    names_no_shape,
    reader,
    shape_of_task,
)
from scale.envelope import InvalidCallback
from scale.fields import json_object, json_type_name, load, schema
from scale.task_types.request import UNDOCUMENTED, Parameters

ROW_ROLES = frozenset(("annotations", "events", "point_segmentations"))
"""Roles of files that are read into rows; any other file is only stored."""
INDEX_IMAGE_ROLES = ("indexedImage", "extendedIndexedImage")
"""Roles of images whose pixels complete the mask rows; the extended one has 24-bit indexes and wins."""


class ArtifactRef(NamedTuple):
    """A file that a response points to."""

    ordinal: int  # 1, 2, … within the response, whatever the order of its keys (0 is the response itself)
    role: str  # annotations events point_segmentations indexedImage extendedIndexedImage image unlabeled labeled:<label>[:n]
    url: str


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """What a response holds: rows, the files that it points to, the answer, the error."""

    annotations: list[Annotation] = field(default_factory=list)  # inline ones
    artifacts: list[ArtifactRef] = field(default_factory=list)
    answer: dict[str, Any] | None = (
        None  # the response without its annotations, under Scale's keys; None: nothing is left
    )
    error: dict[str, Any] | None = None  # Scale's error response, whatever the status says
    global_attributes: dict[str, Any] | None = None
    warnings: list[str] = field(
        default_factory=list
    )  # what could not be parsed, in sentences; those of the annotations among them


Parse = Callable[[dict[str, Any], dict[str, Any]], ParsedResponse]


@dataclass(frozen=True)
class TaskType:
    """One of Scale's task types, and how its response is read."""

    name: str  # the last part of POST /v1/task/<name>
    description: str
    yields: tuple[str, ...]  # the row types that it gives; empty: an answer alone
    result_form: str  # inline: rows in the response; file: behind URLs; answer: no rows
    parse: Parse  # (response, the task's params) -> ParsedResponse
    implied: str | None = None  # the shape of an annotation that names none
    request: Parameters | None = UNDOCUMENTED  # None: no task of this type can be created


def inline(implied: str | None, *, discriminated: bool = True) -> Parse:
    """Return a parser of the list `annotations`; `implied` and `discriminated` as for `scale.annotations.reader`.

    Where the type implies no shape, that of an annotation which names none is taken from the task's parameters.
    """
    by_shape = {
        shape: listed(reader(shape, discriminated=discriminated)) for shape in (implied, *SHAPES) if shape
    }
    mixed = listed(reader(None, discriminated=discriminated))

    def parse(response: dict[str, Any], params: dict[str, Any]) -> ParsedResponse:
        if implied is not None:
            return by_shape[implied](response, params)
        shape = shape_of_task(params)
        result = mixed(response, params) if shape is None else by_shape[shape](response, params)
        items = response.get("annotations")
        if shape is not None and type(items) is list and (count := sum(map(names_no_shape, items))):
            result.warnings.append(shape_note(count, shape))
        return result

    return parse


def shape_note(count: int, shape: str) -> str:
    """Return the warning for annotations without `type`, whose shape follows from the task type."""
    return f"{count} annotations name no shape; it was taken from the task: {shape}"


def listed(read: Read) -> Parse:
    """Return a parser of the list `annotations`, each read by `read`. An address instead of the list is an artifact."""
    form = schema(annotations=annotation_list(read), global_attributes=json_object)

    def parse(response: dict[str, Any], params: dict[str, Any]) -> ParsedResponse:
        if type(response.get("annotations")) in (dict, str):
            return files(response, params)
        values, warnings = load(form, response, "response.")
        rest = dict(response)
        if "annotations" in values:
            del rest["annotations"]
        rows = values.get("annotations") or []
        return ParsedResponse(
            annotations=rows,
            answer=rest or None,
            global_attributes=values.get("global_attributes"),
            warnings=warnings + row_warnings(rows),
        )

    return parse


def files(response: dict[str, Any], params: dict[str, Any]) -> ParsedResponse:
    """Return an artifact for each `{"url": …}` of the response, also one level down in `annotations`; the rest is the answer.

    Source: docs "videoannotation callback format", "Video Playback callback format", "Lidar Segmentation response".
    """
    values, warnings = load(_FILES, response, "response.")
    rest = dict(response)
    found: list[tuple[str, str]] = []
    inner = rest.pop("annotations", None)
    if is_url(inner):
        found.append(("annotations", inner))
    elif type(inner) is dict:
        if is_url(inner.get("url")):
            found.append(("annotations", inner["url"]))
            inner = {key: value for key, value in inner.items() if key != "url"}
        deeper, inner = _urls(inner)
        found += deeper
    if inner and not found:
        warnings.append(f"response.annotations is {json_type_name(inner)} without a file's url")
    others, rest = _urls(rest)
    if inner and type(inner) is not str:
        rest["annotations"] = inner
    return ParsedResponse(
        artifacts=numbered(found + others),
        answer=rest or None,
        global_attributes=values.get("global_attributes"),
        warnings=warnings,
    )


_FILES = schema(global_attributes=json_object)


def _urls(values: dict[str, Any]) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Return (key, url) of each `{"url": …}`, by key, and everything else, also next to a url."""
    found: list[tuple[str, str]] = []
    left = dict(values)
    for key in sorted(values):
        value = values[key]
        if type(value) is dict and is_url(value.get("url")):
            found.append((key, value["url"]))
            left[key] = {name: other for name, other in value.items() if name != "url"}
            if not left[key]:
                del left[key]
    return found, left


def answer_only(response: dict[str, Any], params: dict[str, Any]) -> ParsedResponse:
    """Return the response itself as the answer, under Scale's keys."""
    return ParsedResponse(answer=response or None)


def is_url(value: Any) -> bool:
    """Return whether a value is the URL of a file that can be fetched. Any other text is kept in the answer."""
    return type(value) is str and value[:8].lower().startswith(("https://", "http://"))


MAX_FILES = 10_000


def numbered(found: list[tuple[str, str]]) -> list[ArtifactRef]:
    """Return the files in order, each role and URL once. Raises InvalidCallback for more than one response can have."""
    found = list(dict.fromkeys(found))
    if len(found) > MAX_FILES:
        raise InvalidCallback(f"the response names {len(found):,} files; at most {MAX_FILES:,} are fetched")
    return [ArtifactRef(ordinal, role, url) for ordinal, (role, url) in enumerate(found, 1)]


MAX_LISTED = 20


def row_warnings(rows: list[Annotation]) -> list[str]:
    """Return the warnings of the first rows that have one, and the number of the others; the rows hold all of them."""
    warnings = [row.warning for row in rows if row.warning is not None]
    if len(warnings) > MAX_LISTED:
        return [*warnings[:MAX_LISTED], f"… and {len(warnings) - MAX_LISTED} more annotations were kept raw"]
    return warnings
