"""Recipes for the files of a request. plan() puts a recipe where the URL of a file belongs; the worker that creates the task builds the
file and puts a signed URL there, a new one for each attempt because such URLs expire.

A recipe is an object of this module, never a mapping: whatever keys the data of a result has, it cannot become one. It is
stored next to the request by its path, in a column of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scale.layers import layers
from workflows.definition.crops import Rect

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of the file at `url`. `original`: its recipe, if this service built the file at that URL."""

    url: str
    original: Recipe | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of an image that lies inside `rect` (pixels, origin top left)."""

    image: Mirror
    rect: Rect


@dataclass(frozen=True, slots=True)
class LayersFile:
    """The layers file of a response, with the annotations of these labels; None: of all."""

    task_id: str
    response: str | None  # digest
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class HypothesisFile:
    """The annotations of a video's response as the hypothesis of one with another number of frames.

    spread: frame k of the response is frame k × every of the new video; else every such frame becomes frame k.
    """

    task_id: str
    response: str | None  # digest
    every: int
    spread: bool


@dataclass(frozen=True, slots=True)
class Renewal:
    """A URL that an earlier follow-up gave to Scale: replaced by a new one for the same file if this service signed it."""

    url: str
    original: Recipe


Recipe = Mirror | Cut | LayersFile | HypothesisFile | Renewal
RECIPES = (Mirror, Cut, LayersFile, HypothesisFile, Renewal)
"""The types of recipes, for isinstance()."""


class ResultUrl(str):
    """The URL of the annotations of a response, in its `hypothesis`."""

    __slots__ = ("response", "task_id")
    task_id: str
    response: str | None

    @classmethod
    def of(cls, url: str, task_id: str, response: str | None) -> ResultUrl:
        """Return `url`, with the response that it belongs to."""
        own = cls(url)
        own.task_id, own.response = task_id, response
        return own

    def __deepcopy__(self, memo: Any) -> ResultUrl:
        return self


class OwnUrl(str):
    """A URL in a task's params that comes from a recipe of the follow-up which created the task."""

    __slots__ = ("recipe",)
    recipe: Recipe

    @classmethod
    def of(cls, url: str, recipe: Recipe) -> OwnUrl:
        """Return `url`, with the recipe of its file."""
        own = cls(url)
        own.recipe = recipe.original if isinstance(recipe, Renewal) else recipe
        return own

    def __deepcopy__(self, memo: Any) -> OwnUrl:
        return self


class RequestFile(NamedTuple):
    """One file of a request: its recipe, and the path in the request where its URL belongs."""

    path: Path
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        """Return the form that is stored."""
        return {"path": list(self.path), "recipe": to_json(self.recipe)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RequestFile:
        """Return the file that `to_json` was called on."""
        return cls(tuple(stored["path"]), from_json(stored["recipe"]))


def stored_files(stored: Iterable[Mapping[str, Any]] | None) -> tuple[RequestFile, ...]:
    """Return the files of a request that were stored with `RequestFile.to_json`."""
    return tuple(map(RequestFile.from_json, stored or ()))


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as JSON: `make` names its kind."""
    match recipe:
        case Mirror(url, original):
            return {"make": "mirror", "of": url, **_original(original)}
        case Cut(image, rect):
            return {"make": "crop", "of": image.url, **_original(image.original), **rect._asdict()}
        case LayersFile(task_id, response, labels):
            chosen = None if labels is None else list(labels)
            return {"make": "layers", "task_id": task_id, "response": response, "labels": chosen}
        case HypothesisFile(task_id, response, every, spread):
            kind = {"make": "hypothesis", "task_id": task_id, "response": response}
            return {**kind, "every": every, "spread": spread}
        case Renewal(url, original):
            return {"make": "renewal", "of": url, **_original(original)}


def _original(recipe: Recipe | None) -> dict[str, Any]:
    return {} if recipe is None else {"original": to_json(recipe)}


def from_json(stored: Mapping[str, Any]) -> Recipe:
    """Return the recipe that `to_json` was called on. ValueError for anything else."""
    original = from_json(stored["original"]) if "original" in stored else None
    match stored["make"]:
        case "mirror":
            return Mirror(stored["of"], original)
        case "crop":
            rect = Rect(stored["left"], stored["top"], stored["width"], stored["height"])
            return Cut(Mirror(stored["of"], original), rect)
        case "layers":
            labels = stored["labels"]
            return LayersFile(
                stored["task_id"], stored["response"], None if labels is None else tuple(labels)
            )
        case "hypothesis":
            chosen = (stored["every"], stored["spread"])
            return HypothesisFile(stored["task_id"], stored["response"], *chosen)
        case "renewal" if original is not None:
            return Renewal(stored["of"], original)
    raise ValueError(f"unknown recipe: {stored!r}")


def split_files(request: Any) -> tuple[Any, tuple[RequestFile, ...]]:
    """Return the request with null in place of each recipe, and the recipes with their paths."""
    found: list[RequestFile] = []
    return _split(request, (), found), tuple(found)


def _split(value: Any, path: Path, found: list[RequestFile]) -> Any:
    if isinstance(value, dict):
        return {key: _split(inner, (*path, key), found) for key, inner in value.items()}
    if isinstance(value, list):
        return [_split(inner, (*path, index), found) for index, inner in enumerate(value)]
    if isinstance(value, ResultUrl):
        return str(value)
    if isinstance(value, OwnUrl):
        value = Renewal(str(value), value.recipe)
    if isinstance(value, RECIPES):
        found.append(RequestFile(path, value))
        return None
    return value


def replace_at(value: Any, replacements: Iterable[tuple[Path, Any]]) -> Any:
    """Return a copy of `value` with other values at these paths. A path that does not exist is ignored."""
    for path, replacement in replacements:
        value = _replaced(value, path, replacement)
    return value


def _replaced(value: Any, path: Path, replacement: Any) -> Any:
    if not path:
        return replacement
    key, rest = path[0], path[1:]
    if isinstance(value, dict) and key in value:
        return {**value, key: _replaced(value[key], rest, replacement)}
    if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
        return [*value[:key], _replaced(value[key], rest, replacement), *value[key + 1 :]]
    return value


def join_files(request: Any, files: Iterable[RequestFile]) -> Any:
    """Return the request with its recipes as objects: the reverse of `split_files`."""
    return replace_at(request, ((file.path, file.recipe) for file in files))


def displayed(request: Any, files: Iterable[RequestFile]) -> Any:
    """Return the request for people to read: `{"$file": …}` in place of each file. Nothing reads that form."""
    return replace_at(request, ((file.path, {"$file": to_json(file.recipe)}) for file in files))


def with_own_urls(params: Any, files: Iterable[RequestFile]) -> Any:
    """Return a created task's params, its URLs of these files marked as OwnUrl."""
    return replace_at(params, _own_urls(params, files))


def _own_urls(params: Any, files: Iterable[RequestFile]) -> Iterator[tuple[Path, OwnUrl]]:
    for file in files:
        value = _value_at(params, file.path)
        if isinstance(value, str):
            yield file.path, OwnUrl.of(value, file.recipe)


def _value_at(value: Any, path: Path) -> Any:
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def mirror_of(url: str) -> Mirror:
    """Return the recipe for a copy of the file at `url`."""
    return Mirror(str(url), url.recipe if isinstance(url, OwnUrl) else None)


def mirrored(request: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the request with the URLs in these fields as Mirror recipes: one, a list, or those inside a mapping.

    Recipes stay as they are.
    """
    return {key: _mirrored(value) if key in fields else value for key, value in request.items()}


def _mirrored(value: Any, inside: bool = False) -> Any:
    if isinstance(value, list):
        return [_mirrored(inner, inside) for inner in value]
    if isinstance(value, dict):
        return {key: _mirrored(inner, inside=True) for key, inner in value.items()}
    if isinstance(value, str) and (not inside or value.startswith(("https://", "http://"))):
        return mirror_of(value)
    return value


def crop_of(files: Iterable[RequestFile]) -> Rect | None:
    """Return the rectangle that a request's attachment was cut from its image, or None."""
    for file in files:
        if file.path == ("attachment",) and isinstance(file.recipe, Cut):
            return file.recipe.rect
    return None


MAX_FRAMES = 1_000_000
"""Frames of a layers file: the number of a frame comes from a result file, and the layers file has an object for each."""


def layers_file(
    annotations: list[dict[str, Any]], frames: int, labels: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return the content of a layers file: one Layers object for each frame. Source: docs "Image Layers", videoannotation.

    annotations: flat, with `frame`, 0-based. frames: length of the video; annotations beyond it make the file longer.
    ValueError beyond MAX_FRAMES.
    """
    by_frame: dict[int, list[dict[str, Any]]] = {}
    for annotation in annotations:
        frame = annotation.get("frame")
        if isinstance(frame, int) and frame >= 0 and (labels is None or annotation.get("label") in labels):
            by_frame.setdefault(frame, []).append(annotation)
    length = _length(by_frame, frames)
    empty: dict[str, Any] = {}
    return [layers(by_frame[frame])[0] if frame in by_frame else empty for frame in range(length)]


def _length(by_frame: Iterable[int], frames: int) -> int:
    length = max(frames, max(by_frame, default=-1) + 1)
    if length > MAX_FRAMES:
        raise ValueError(f"the video has {length:,} frames; at most {MAX_FRAMES:,} are possible")
    return length


def hypothesis_file(
    annotations: list[dict[str, Any]], frames: int, every: int, spread: bool
) -> list[dict[str, Any]]:
    """Return the content of a HypothesisFile: `{annotations}` for each frame, as in the file of a response.

    annotations: flat, with `frame`, 0-based. frames: of the response's video. ValueError beyond MAX_FRAMES.
    Source: docs "videoannotation callback format".
    """
    by_frame: dict[int, list[dict[str, Any]]] = {}
    for annotation in annotations:
        frame = annotation.get("frame")
        if isinstance(frame, int) and frame >= 0 and (spread or frame % every == 0):
            shape = {"geometry": annotation.get("type")}
            values = {key: value for key, value in annotation.items() if key not in ("frame", "type")}
            by_frame.setdefault(frame * every if spread else frame // every, []).append({**values, **shape})
    length = _length(by_frame, frames * every if spread else -(-frames // every))
    return [{"annotations": by_frame.get(frame, [])} for frame in range(length)]
