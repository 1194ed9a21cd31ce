"""What a TaskType is, and the three ways to read a response that the families share: inline rows, files, an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scale.annotations import Annotation, Read, annotation_list, reader
from scale.forms import json_object, kind, load, schema
from scale.results import ArtifactRef, Result

Understand = Callable[[dict[str, Any], dict[str, Any]], Result]


@dataclass(frozen=True)
class TaskType:
    """One of Scale's task types, and how its response is read."""

    name: str  # the last part of POST /v1/task/<name>
    summary: str
    yields: tuple[str, ...]  # the row types that it gives; empty: an answer alone
    result_form: str  # inline: rows in the response; file: behind URLs; answer: no rows
    takes_layers: bool  # whether a request of this type may carry layers
    required: tuple[str, ...]  # parameters of a request; "a|b" where either does
    understand: Understand  # (response, params) -> Result; params as the task has them
    implied: str | None = None  # the shape of an annotation that names none


def inline(implied: str | None, **how: Any) -> Understand:
    """Rows from the list `annotations`. Where a file's address stands in its place, an artifact."""
    return listed(reader(implied, **how))


def listed(read: Read) -> Understand:
    form = schema(annotations=annotation_list(read), global_attributes=json_object)

    def understand(response: dict[str, Any], params: dict[str, Any]) -> Result:
        found = response.get("annotations")
        if type(found) is dict or type(found) is str:
            return files(response, params)
        values, flags = load(form, response, "response.")
        annotations = values.get("annotations")
        rest = {key: value for key, value in response.items() if key != "annotations" or value is not None}
        if annotations is not None:
            del rest["annotations"]
        return Result(
            annotations=annotations or [],
            answer=rest or None,
            global_attributes=values.get("global_attributes"),
            flags=flags + told(annotations or []),
        )

    return understand


def files(response: dict[str, Any], params: dict[str, Any]) -> Result:
    """An artifact for each `{"url": …}` of the response, also one level down in `annotations`; the rest is the answer."""
    values, flags = load(_GLOBAL, response, "response.")
    rest = dict(response)
    found: list[tuple[str, str]] = []
    inner = rest.get("annotations")
    if type(inner) is str and "://" in inner:
        inner = rest["annotations"] = {"url": inner}
    if type(inner) is dict:
        left = {}
        for key in sorted(inner):
            if key == "url" and is_url(inner[key]):
                found.append(("annotations", inner[key]))
            elif only_url(inner[key]):
                found.append((key, inner[key]["url"]))
            else:
                left[key] = inner[key]
        rest["annotations"] = left
        if not left:
            del rest["annotations"]
    elif inner is None:
        rest.pop("annotations", None)
    for key in sorted(rest):
        if key != "annotations" and only_url(rest[key]):
            found.append((key, rest.pop(key)["url"]))
    if "annotations" in rest:
        flags.append(f"response.annotations is {kind(rest['annotations'])} without a file's url")
    return Result(
        artifacts=numbered(found),
        answer=rest or None,
        global_attributes=values.get("global_attributes"),
        flags=flags,
    )


_GLOBAL = schema(global_attributes=json_object)


def answer(response: dict[str, Any], params: dict[str, Any]) -> Result:
    """The response itself, under Scale's keys."""
    return Result(answer=response or None)


def either(implied: str | None) -> Understand:
    """Rows where `annotations` is a list, files where it is an address: for types of which either may come."""
    return inline(implied)


def is_url(value: Any) -> bool:
    return type(value) is str and bool(value)


def only_url(value: Any) -> bool:
    return type(value) is dict and is_url(value.get("url"))


def numbered(found: list[tuple[str, str]]) -> list[ArtifactRef]:
    return [ArtifactRef(ordinal, role, url) for ordinal, (role, url) in enumerate(found, 1)]


TOLD = 20  # flags of single annotations that a result repeats; the rows hold all of them


def told(annotations: list[Annotation]) -> list[str]:
    """The flags of single annotations, for those of the whole result."""
    flags = [row.flag for row in annotations if row.flag is not None]
    if len(flags) > TOLD:
        return [*flags[:TOLD], f"… and {len(flags) - TOLD} more annotations were kept raw"]
    return flags
