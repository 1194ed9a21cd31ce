"""Make responses for segmentannotation: PNG masks of a generated scene.

A scene is an array with one index for each pixel, 0 if unlabeled, and the segments that the indexes stand for.
"""

import io
import random
import re
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sandbox.annotators.assignment import ASSUMED_SIZE, Assignment
from sandbox.annotators.attributes import choose_attributes
from sandbox.annotators.labels import Label, label_set
from sandbox.annotators.values import as_bool, as_dict, dicts_in
from scale.images import open_image

MAX_INDEXES = 65_535
MAX_PIXELS = 64_000_000  # a larger image is answered as if its size were not known


class Segment(NamedTuple):
    """Describe one segment. `color` (#rrggbb) need not be unique."""

    label: str
    instance: bool
    color: str  # #rrggbb; not unique by promise, never the way to tell segments apart
    attributes: dict[str, Any] | None


class Scene(NamedTuple):
    """Hold the indexes (height × width, uint16) and the segments; segment n has the index n + 1."""

    indexes: np.ndarray  # height × width, uint16; segment n is painted as n + 1
    segments: list[Segment]


def task_labels(params: dict[str, Any]) -> list[Label]:
    """Return `labels` with their instance_label, and the older `instance_labels`."""
    plain = label_set(params.get("labels"), parents=as_bool(params.get("allow_parent_labels")))
    instances = [label._replace(instance=True) for label in label_set(params.get("instance_labels"))]
    return list({label.name: label for label in [*plain, *instances]}.values())


def generate_scene(assignment: Assignment) -> Scene:
    """Generate a scene: wavy bands of the plain labels, and one to three blobs for each label with instances on top.

    Every pixel has a label unless allow_unlabeled; sometimes a plain label has no pixels.
    """
    params, rng = assignment.params, assignment.rng
    width, height, _ = assignment.size(params.get("attachment"))
    if width * height > MAX_PIXELS:
        width, height = ASSUMED_SIZE
    labels = task_labels(params)
    plain = [label for label in labels if not label.instance]
    things = [label for label in labels if label.instance for _ in range(rng.randint(1, 3))]
    absent = {label.name for label in plain[1:] if len(plain) > 3 and rng.random() < 0.15}

    segments = [_make_segment(assignment, label) for label in [*plain, *things][:MAX_INDEXES]]
    rng.shuffle(segments)
    ground = [i + 1 for i, s in enumerate(segments) if not s.instance and s.label not in absent]
    blobs = [i + 1 for i, s in enumerate(segments) if s.instance]
    indexes = np.zeros((height, width), np.uint16)
    unlabeled = as_bool(params.get("allow_unlabeled"))
    if ground or not unlabeled:
        _paint_bands(indexes, ground or blobs, unlabeled, rng)
    if ground or unlabeled:
        for index in blobs:
            _paint_blob(indexes, index, rng)
    return _drop_hidden_instances(Scene(indexes, segments))


def _make_segment(assignment: Assignment, label: Label) -> Segment:
    rng = assignment.rng
    definitions = assignment.params.get("annotation_attributes")
    attributes = choose_attributes(definitions, label.name, rng) if label.instance else None
    return Segment(label.name, label.instance, f"#{rng.randrange(1, 1 << 24):06x}", attributes or None)


def _paint_bands(indexes: np.ndarray, bands: list[int], unlabeled: bool, rng: random.Random) -> None:
    """Paint bands from top to bottom; with `unlabeled` the last one stays unlabeled."""
    if not bands:
        return
    height, width = indexes.shape
    x, y = np.arange(width), np.arange(height)
    wave = height * 0.04 * np.sin(x * rng.uniform(1, 4) * 2 * np.pi / max(1, width) + rng.uniform(0, 6))
    band = (y[:, None] + wave[None, :]) * (len(bands) + unlabeled) / height
    palette = np.array([*bands, 0] if unlabeled else bands, np.uint16)
    indexes[:] = palette[np.clip(band.astype(int), 0, len(palette) - 1)]


def _paint_blob(indexes: np.ndarray, index: int, rng: random.Random) -> None:
    height, width = indexes.shape
    radius_x, radius_y = max(1, width * rng.uniform(0.03, 0.09)), max(1, height * rng.uniform(0.04, 0.12))
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    left, right = max(0, int(x - radius_x)), min(width, int(x + radius_x) + 1)
    top, bottom = max(0, int(y - radius_y)), min(height, int(y + radius_y) + 1)
    down, across = np.ogrid[top:bottom, left:right]
    inside = ((across - x) / radius_x) ** 2 + ((down - y) / radius_y) ** 2 <= 1
    indexes[top:bottom, left:right][inside] = index


def _drop_hidden_instances(scene: Scene) -> Scene:
    """Return the scene without instances that have no pixels."""
    counts = pixel_counts(scene)
    kept = [i for i, segment in enumerate(scene.segments) if not segment.instance or counts[i + 1]]
    renumbered = np.zeros(len(scene.segments) + 1, np.uint16)
    for position, i in enumerate(kept):
        renumbered[i + 1] = position + 1
    return Scene(renumbered[scene.indexes], [scene.segments[i] for i in kept])


def pixel_counts(scene: Scene) -> np.ndarray:
    """Return the number of pixels by index, that of the unlabeled ones first."""
    return np.bincount(scene.indexes.ravel(), minlength=len(scene.segments) + 1)


def make_response(assignment: Assignment, scene: Scene) -> dict[str, Any]:
    """Store the PNGs of a scene and return the response that names them.

    combined: `image` (RGBA, transparent if unlabeled), `indexedImage` (one channel, 16 bits if 8 do not suffice) and
    `extendedIndexedImage` (RGBA, red the least significant byte of the index). labeled and labelMapping have an array for
    labels with instances and a single value for the others, null in `labeled` for one without pixels. A guess: the masks
    of single labels, and that of the unlabeled pixels, have one channel, 255 inside. Source: docs, "Segmentation".
    """
    counts = pixel_counts(scene)
    labeled: dict[str, Any] = {}
    legend: dict[str, Any] = {}
    for index, segment in enumerate(scene.segments, start=1):
        pixels = int(counts[index])
        url = _store_png(assignment, _label_mask(scene, index)) if pixels else None
        entry = {
            "index": index,
            "color": segment.color,
            "attributes": segment.attributes,
            "numPixels": pixels,
        }
        if segment.instance:
            labeled.setdefault(segment.label, []).append(url)
            legend.setdefault(segment.label, []).append(entry)
        else:
            labeled[segment.label], legend[segment.label] = url, entry
    return {
        "annotations": {
            "unlabeled": _store_png(assignment, _label_mask(scene, 0)) if counts[0] else None,
            "labeled": labeled,
            "combined": {
                "image": _store_png(assignment, _color_image(scene)),
                "indexedImage": _store_png(assignment, _index_image(scene)),
                "extendedIndexedImage": _store_png(assignment, _extended_index_image(scene)),
            },
        },
        "labelMapping": legend,
        "instances": {},
    }


def _store_png(assignment: Assignment, pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    return assignment.put_file(content.getvalue(), "image/png")


def _label_mask(scene: Scene, index: int) -> np.ndarray:
    return np.where(scene.indexes == index, 255, 0).astype(np.uint8)


def _index_image(scene: Scene) -> np.ndarray:
    return scene.indexes if len(scene.segments) > 255 else scene.indexes.astype(np.uint8)


def _extended_index_image(scene: Scene) -> np.ndarray:
    pixels = np.full((*scene.indexes.shape, 4), 255, np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = scene.indexes & 255, scene.indexes >> 8, 0
    return pixels


def _color_image(scene: Scene) -> np.ndarray:
    palette: np.ndarray = np.zeros((len(scene.segments) + 1, 4), np.uint8)
    for index, segment in enumerate(scene.segments, start=1):
        palette[index] = [*bytes.fromhex(segment.color[1:]), 255]
    image: np.ndarray = palette[scene.indexes]
    return image


def make_segmentation_response(assignment: Assignment) -> dict[str, Any]:
    """Return a readable hypothesis with a few pixels changed, else a generated scene."""
    hypothesis = as_dict(assignment.params.get("hypothesis"))
    scene = load_scene(assignment, hypothesis)
    return make_response(
        assignment, edit_scene(scene, assignment.rng) if scene else generate_scene(assignment)
    )


def fix_segmentation_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Return the scene of the response with a few pixels changed; it is generated again if its file cannot be read."""
    scene = load_scene(assignment, response) or generate_scene(assignment.unsalted())
    return {**make_response(assignment, edit_scene(scene, assignment.rng)), "is_customer_fix": True}


def load_scene(assignment: Assignment, response: dict[str, Any]) -> Scene | None:
    """Read the scene of a response or hypothesis from its indexedImage and labelMapping; return None if that fails."""
    url = as_dict(as_dict(response.get("annotations")).get("combined")).get("indexedImage")
    given = as_dict(response.get("labelMapping"))
    content = assignment.read_file(url) if isinstance(url, str) and given else None
    if content is None:
        return None
    try:
        with open_image(io.BytesIO(content)) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if pixels.ndim != 2 or pixels.size > MAX_PIXELS:
        return None
    indexes = np.zeros(pixels.shape, np.uint16)
    segments: list[Segment] = []
    labels = {label.name: label.instance for label in task_labels(assignment.params)}
    # Labels without instances that the mapping leaves out have a segment without pixels.
    mapping: dict[str, list[dict[str, Any]]] = {
        name: [{}] for name, is_instance in labels.items() if not is_instance
    }
    for name, entry in given.items():
        mapping[name] = dicts_in(entry if isinstance(entry, list) else [entry])
    for name, entries in mapping.items():
        instance = labels.get(name, False) or len(entries) > 1
        for entry in entries:
            segments.append(_parse_segment(name, instance, entry))
            if isinstance(entry.get("index"), int) and entry["index"] > 0:
                indexes[pixels == entry["index"]] = len(segments)
    return Scene(indexes, segments) if segments else None


def _parse_segment(name: str, instance: bool, entry: dict[str, Any]) -> Segment:
    color = str(entry.get("color"))
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        color = "#808080"
    return Segment(name, instance, color, entry.get("attributes"))


def edit_scene(scene: Scene, rng: random.Random) -> Scene:
    """Move the border of two segments, or fill a corner if there is no border, so that at least one pixel differs."""
    indexes = scene.indexes.copy()
    height, width = indexes.shape
    rows, columns = np.nonzero(indexes[:, 1:] != indexes[:, :-1])
    if len(rows):
        at = rng.randrange(len(rows))
        y, x = int(rows[at]), int(columns[at])
        reach = max(1, min(height, width) // 40)
        index = int(indexes[y, x])
        indexes[max(0, y - reach) : y + reach + 1, x : x + reach + 1] = index
        return Scene(indexes, scene.segments)
    taken = int(indexes[0, 0])
    others = [index for index in range(1, len(scene.segments) + 1) if index != taken]
    if others:
        indexes[: max(1, height // 10), : max(1, width // 10)] = rng.choice(others)
    return Scene(indexes, scene.segments)
