"""Segmentation: real PNG masks of a painted scene (segmentannotation).

A scene is an array of index per pixel, 0 where nothing is labeled, and the segments that the indices stand for.
"""

import io
import random
import re
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sandbox.annotators.assignment import ASSUMED_SIZE, Assignment, mapping, objects, truth
from sandbox.annotators.attributes import answer_attributes
from sandbox.annotators.labels import Label, label_set

MOST_INDEXES = 65_535
MOST_PIXELS = 64_000_000  # a larger image is answered as if its size were not known


class Segment(NamedTuple):
    label: str
    instance: bool
    color: str  # #rrggbb; not unique by promise, never the way to tell segments apart
    attributes: dict[str, Any] | None


class Scene(NamedTuple):
    indexes: np.ndarray  # height × width, uint16; segment n is painted as n + 1
    segments: list[Segment]


def labels_of(params: dict[str, Any]) -> list[Label]:
    """`labels` with their instance_label, and the older `instance_labels`."""
    plain = label_set(params.get("labels"), parents=truth(params.get("allow_parent_labels")))
    instances = [label._replace(instance=True) for label in label_set(params.get("instance_labels"))]
    return list({label.name: label for label in [*plain, *instances]}.values())


def paint(assignment: Assignment) -> Scene:
    """A scene as a labeler leaves it: wavy bands of the plain labels, and one to three blobs a label of instances on top.

    Every pixel has a label unless allow_unlabeled; now and then a plain label is not in the picture.
    """
    params, die = assignment.params, assignment.die
    width, height, _ = assignment.size(params.get("attachment"))
    if width * height > MOST_PIXELS:
        width, height = ASSUMED_SIZE
    labels = labels_of(params)
    plain = [label for label in labels if not label.instance]
    things = [label for label in labels if label.instance for _ in range(die.randint(1, 3))]
    absent = {label.name for label in plain[1:] if len(plain) > 3 and die.random() < 0.15}

    segments = [_segment(assignment, label) for label in [*plain, *things][:MOST_INDEXES]]
    die.shuffle(segments)
    ground = [i + 1 for i, s in enumerate(segments) if not s.instance and s.label not in absent]
    blobs = [i + 1 for i, s in enumerate(segments) if s.instance]
    indexes = np.zeros((height, width), np.uint16)
    unlabeled = truth(params.get("allow_unlabeled"))
    if ground or not unlabeled:
        _paint_bands(indexes, ground or blobs, unlabeled, die)
    if ground or unlabeled:
        for index in blobs:
            _paint_blob(indexes, index, die)
    return _with_pixels(Scene(indexes, segments))


def _segment(assignment: Assignment, label: Label) -> Segment:
    die = assignment.die
    definitions = assignment.params.get("annotation_attributes")
    attributes = answer_attributes(definitions, label.name, die) if label.instance else None
    return Segment(label.name, label.instance, f"#{die.randrange(1, 1 << 24):06x}", attributes or None)


def _paint_bands(indexes: np.ndarray, bands: list[int], unlabeled: bool, die: random.Random) -> None:
    """Bands from top to bottom; with `unlabeled` the last one stays as it is."""
    if not bands:
        return
    height, width = indexes.shape
    x, y = np.arange(width), np.arange(height)
    wave = height * 0.04 * np.sin(x * die.uniform(1, 4) * 2 * np.pi / max(1, width) + die.uniform(0, 6))
    band = (y[:, None] + wave[None, :]) * (len(bands) + unlabeled) / height
    palette = np.array([*bands, 0] if unlabeled else bands, np.uint16)
    indexes[:] = palette[np.clip(band.astype(int), 0, len(palette) - 1)]


def _paint_blob(indexes: np.ndarray, index: int, die: random.Random) -> None:
    height, width = indexes.shape
    radius_x, radius_y = max(1, width * die.uniform(0.03, 0.09)), max(1, height * die.uniform(0.04, 0.12))
    x, y = die.uniform(0, width), die.uniform(0, height)
    left, right = max(0, int(x - radius_x)), min(width, int(x + radius_x) + 1)
    top, bottom = max(0, int(y - radius_y)), min(height, int(y + radius_y) + 1)
    down, across = np.ogrid[top:bottom, left:right]
    inside = ((across - x) / radius_x) ** 2 + ((down - y) / radius_y) ** 2 <= 1
    indexes[top:bottom, left:right][inside] = index


def _with_pixels(scene: Scene) -> Scene:
    """Without the instances that nothing shows of (painted over, or the image is too small): nobody drew those."""
    counts = pixel_counts(scene)
    kept = [i for i, segment in enumerate(scene.segments) if not segment.instance or counts[i + 1]]
    renumbered = np.zeros(len(scene.segments) + 1, np.uint16)
    for position, i in enumerate(kept):
        renumbered[i + 1] = position + 1
    return Scene(renumbered[scene.indexes], [scene.segments[i] for i in kept])


def pixel_counts(scene: Scene) -> np.ndarray:
    """Pixels by index, that of the unlabeled ones first."""
    return np.bincount(scene.indexes.ravel(), minlength=len(scene.segments) + 1)


def publish(assignment: Assignment, scene: Scene) -> dict[str, Any]:
    """Keeps the PNGs of a scene and returns the response that names them.

    combined: `image` (RGBA, transparent where unlabeled), `indexedImage` (one channel, 16 bits when 8 don't do) and
    `extendedIndexedImage` (RGBA, red the least significant byte of the index). labeled and labelMapping hold an array
    for labels of instances and a single value for the others, null in `labeled` for one without pixels. A guess: the
    masks of single labels, and that of the unlabeled pixels, are one channel, 255 inside. Source: docs, "Segmentation".
    """
    counts = pixel_counts(scene)
    labeled: dict[str, Any] = {}
    legend: dict[str, Any] = {}
    for index, segment in enumerate(scene.segments, start=1):
        pixels = int(counts[index])
        url = _keep(assignment, _mask(scene, index)) if pixels else None
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
            "unlabeled": _keep(assignment, _mask(scene, 0)) if counts[0] else None,
            "labeled": labeled,
            "combined": {
                "image": _keep(assignment, _colored(scene)),
                "indexedImage": _keep(assignment, _indexed(scene)),
                "extendedIndexedImage": _keep(assignment, _extended(scene)),
            },
        },
        "labelMapping": legend,
        "instances": {},
    }


def _keep(assignment: Assignment, pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    return assignment.put_file(content.getvalue(), "image/png")


def _mask(scene: Scene, index: int) -> np.ndarray:
    return np.where(scene.indexes == index, 255, 0).astype(np.uint8)


def _indexed(scene: Scene) -> np.ndarray:
    return scene.indexes if len(scene.segments) > 255 else scene.indexes.astype(np.uint8)


def _extended(scene: Scene) -> np.ndarray:
    pixels = np.full((*scene.indexes.shape, 4), 255, np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = scene.indexes & 255, scene.indexes >> 8, 0
    return pixels


def _colored(scene: Scene) -> np.ndarray:
    palette = np.zeros((len(scene.segments) + 1, 4), np.uint8)
    for index, segment in enumerate(scene.segments, start=1):
        palette[index] = [*bytes.fromhex(segment.color[1:]), 255]
    return palette[scene.indexes]


def answer_segmentation(assignment: Assignment) -> dict[str, Any]:
    """A hypothesis that can be read comes back with its labels and a few pixels changed; else a scene of its own."""
    hypothesis = mapping(assignment.params.get("hypothesis"))
    scene = read_scene(assignment, hypothesis)
    return publish(assignment, retouch(scene, assignment.die) if scene else paint(assignment))


def fix_segmentation(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """The same scene after another hand; read from the response if its file can be had, else painted again."""
    scene = read_scene(assignment, response) or paint(assignment.unsalted())
    return {**publish(assignment, retouch(scene, assignment.die)), "is_customer_fix": True}


def read_scene(assignment: Assignment, response: dict[str, Any]) -> Scene | None:
    """The scene of a response or hypothesis, by its indexedImage and labelMapping; None if they can't be had or read."""
    url = mapping(mapping(response.get("annotations")).get("combined")).get("indexedImage")
    given = mapping(response.get("labelMapping"))
    content = assignment.read_file(url) if isinstance(url, str) and given else None
    if content is None:
        return None
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if pixels.ndim != 2 or pixels.size > MOST_PIXELS:
        return None
    indexes, segments = np.zeros(pixels.shape, np.uint16), []
    labels = {label.name: label.instance for label in labels_of(assignment.params)}
    legend = {name: objects(entry if isinstance(entry, list) else [entry]) for name, entry in given.items()}
    for name, entries in ({name: [{}] for name, instance in labels.items() if not instance} | legend).items():
        instance = labels.get(name, False) or len(entries) > 1
        for entry in entries:
            segments.append(_segment_of(name, instance, entry))
            if isinstance(entry.get("index"), int) and entry["index"] > 0:
                indexes[pixels == entry["index"]] = len(segments)
    return Scene(indexes, segments) if segments else None


def _segment_of(name: str, instance: bool, entry: dict[str, Any]) -> Segment:
    color = entry.get("color")
    known = isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{6}", color)
    return Segment(name, instance, color if known else "#808080", entry.get("attributes"))


def retouch(scene: Scene, die: random.Random) -> Scene:
    """A stroke over the border of two segments, or where there is none over a corner: at least one pixel differs."""
    indexes = scene.indexes.copy()
    height, width = indexes.shape
    rows, columns = np.nonzero(indexes[:, 1:] != indexes[:, :-1])
    if len(rows):
        at = die.randrange(len(rows))
        y, x = int(rows[at]), int(columns[at])
        reach = max(1, min(height, width) // 40)
        index = int(indexes[y, x])
        indexes[max(0, y - reach) : y + reach + 1, x : x + reach + 1] = index
        return Scene(indexes, scene.segments)
    taken = int(indexes[0, 0])
    others = [index for index in range(1, len(scene.segments) + 1) if index != taken]
    if others:
        indexes[: max(1, height // 10), : max(1, width // 10)] = die.choice(others)
    return Scene(indexes, scene.segments)
