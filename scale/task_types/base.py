"""What a TaskType is, and the three ways to read a response that the families share: inline rows, files, an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scale.annotations import Annotation, Read, annotation_list, reader
from scale.fields import json_object, json_type_name, load, schema
from scale.results import ArtifactRef, ParsedResponse
from scale.task_types.request import UNDOCUMENTED, Parameters

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


def inline(implied: str | None, **how: Any) -> Parse:
    """Rows from the list `annotations`; `implied` and `how` as for `scale.annotations.reader`."""
    return listed(reader(implied, **how))


def listed(read: Read) -> Parse:
    """Rows from the list `annotations`, each read by `read`. Where a file's address stands in its place, an artifact."""
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
            warnings=warnings + flags_of(rows),
        )

    return parse


def files(response: dict[str, Any], params: dict[str, Any]) -> ParsedResponse:
    """An artifact for each `{"url": …}` of the response, also one level down in `annotations`; the rest is the answer.

    Source: docs "videoannotation callback format", "Video Playback callback format", "Lidar Segmentation response".
    """
    values, warnings = load(_FILES, response, "response.")
    rest = dict(response)
    found: list[tuple[str, str]] = []
    inner = rest.pop("annotations", None)
    if type(inner) is str and "://" in inner:
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
    """(key, url) of each `{"url": …}`, by key; and what else is there, also beside a url."""
    found: list[tuple[str, str]] = []
    left = dict(values)
    for key in sorted(values):
        value = values[key]
        if type(value) is dict and is_url(value.get("url")):
            found.append((key, value["url"]))
            left[key] = {name: beside for name, beside in value.items() if name != "url"}
            if not left[key]:
                del left[key]
    return found, left


def answer_only(response: dict[str, Any], params: dict[str, Any]) -> ParsedResponse:
    """The response itself, under Scale's keys."""
    return ParsedResponse(answer=response or None)


def is_url(value: Any) -> bool:
    return type(value) is str and bool(value)


def numbered(found: list[tuple[str, str]]) -> list[ArtifactRef]:
    return [ArtifactRef(ordinal, role, url) for ordinal, (role, url) in enumerate(found, 1)]


SHOWN = 20  # a result repeats this many warnings of its annotations; the rows hold all of them


def flags_of(rows: list[Annotation]) -> list[str]:
    warnings = [row.warning for row in rows if row.warning is not None]
    if len(warnings) > SHOWN:
        return [*warnings[:SHOWN], f"… and {len(warnings) - SHOWN} more annotations were kept raw"]
    return warnings
