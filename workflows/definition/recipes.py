"""Files that must be made before a request can be sent. plan() writes a recipe where the address will stand; whoever
creates the task follows it, and puts a signed address there, fresh for each attempt since such addresses expire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from scale.layers import layers
from workflows.definition.crops import Rect

KEY = "$file"  # a mapping with this key alone is a recipe

Path = tuple[str | int, ...]


class File(NamedTuple):
    """One file of a request.

    make: crop (`of` an address, `left`, `top`, `width`, `height` in pixels: cut what of it lies in the image), mirror (`of` an
    address: the same bytes) or layers (`task_id`, `response`, `labels` or None: `layers_file` of that response).
    """

    path: Path  # where its address belongs
    make: str
    recipe: Mapping[str, Any]


def recipe(make: str, **what: Any) -> dict[str, Any]:
    """What stands in a request in place of an address."""
    return {KEY: {"make": make, **what}}


def recipe_in(value: Any) -> Mapping[str, Any] | None:
    """The recipe that a value is, if it is one."""
    return value[KEY] if isinstance(value, dict) and value.keys() == {KEY} else None


def files(request: Any, path: Path = ()) -> Iterator[File]:
    """Every file that a request needs."""
    found = recipe_in(request)
    if found is not None:
        yield File(path, found["make"], found)
    elif isinstance(request, dict):
        for key, inner in request.items():
            yield from files(inner, (*path, key))
    elif isinstance(request, list):
        for index, inner in enumerate(request):
            yield from files(inner, (*path, index))


def with_addresses(request: Any, addresses: Mapping[Path, str], path: Path = ()) -> Any:
    """The request as Scale gets it: each recipe replaced by the address of its file. KeyError: one has no address."""
    if recipe_in(request) is not None:
        return addresses[path]
    if isinstance(request, dict):
        return {key: with_addresses(inner, addresses, (*path, key)) for key, inner in request.items()}
    if isinstance(request, list):
        return [with_addresses(inner, addresses, (*path, index)) for index, inner in enumerate(request)]
    return request


def mirrored(request: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """The request with the addresses in these fields to be copied first: one, a list, or those inside of a hypothesis. Files
    made here stay as they are."""
    return {key: _mirrored(value) if key in fields else value for key, value in request.items()}


def _mirrored(value: Any, inside: bool = False) -> Any:
    if recipe_in(value) is not None:
        return value
    if isinstance(value, list):
        return [_mirrored(inner, inside) for inner in value]
    if isinstance(value, dict):
        return {key: _mirrored(inner, inside=True) for key, inner in value.items()}
    if isinstance(value, str) and (not inside or value.startswith(("https://", "http://"))):
        return recipe("mirror", of=value)
    return value


def crop_in(request: Mapping[str, Any]) -> Rect | None:
    """The crop that a request's attachment is, if it is one."""
    found = recipe_in(request.get("attachment"))
    if found is None or found["make"] != "crop":
        return None
    return Rect(found["left"], found["top"], found["width"], found["height"])


def layers_file(
    annotations: list[dict[str, Any]], frames: int, labels: list[str] | None = None
) -> list[dict[str, Any]]:
    """The content of a layers file: one Layers object a frame. Source: docs "Image Layers", videoannotation.

    annotations: flat, with `frame`, 0-based. frames: how many the video has; annotations beyond make it longer.
    """
    by_frame: dict[int, list[dict[str, Any]]] = {}
    for annotation in annotations:
        if isinstance(annotation.get("frame"), int) and (labels is None or annotation.get("label") in labels):
            by_frame.setdefault(annotation["frame"], []).append(annotation)
    return [
        layers(by_frame.get(frame, []))[0] for frame in range(max([frames, *(key + 1 for key in by_frame)]))
    ]
