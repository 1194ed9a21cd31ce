"""Reads the index images of a segmentation into masks, and reports where mapping, counts and pixels disagree.

The mask rows exist since the callback (one for each index of labelMapping); the artifact job completes them from here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from scale.annotations import Annotation

MAX_PIXELS = 64_000_000
MAX_SIDE = 65_535
"""Pixels of one side. A strip of an image is at least one column, so the height bounds the memory that it needs."""
MAX_RUNS = 2_000_000  # of one index down the columns; noise, not a labeled image, has more
STRIP_PIXELS = 2_000_000
MAX_LISTED = 20  # stray indexes that are named one by one

Index = NDArray[np.uint32]
Size = NDArray[np.int64]


class UnreadableMask(Exception):
    """Raised when an image cannot be read as indexes; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class IndexImage:
    """The indexes of an image. Sizes are pixels, origin top left; index 0 is unlabeled."""

    width: int
    height: int
    _values: Index  # each index that has pixels, ascending
    _first: Size  # where its runs begin in the next two
    _starts: Size  # runs down the columns, from left to right: first pixel of each, as x * height + y
    _lengths: Size
    _counts: dict[int, int] = field(repr=False)

    @property
    def indexes(self) -> list[int]:
        """Those with pixels."""
        return list(self._counts)

    @property
    def unlabeled(self) -> int:
        """Return the number of pixels of index 0."""
        return self.count(0)

    def count(self, index: int) -> int:
        """Return the number of pixels that have this index."""
        return self._counts.get(index, 0)

    def geometry(self, index: int) -> dict[str, Any]:
        """Return {pixels, left, top, width, height, rle}; the numbers are 0 if the index has no pixels.

        rle is the compressed form of pycocotools, {"size": [height, width], "counts": "…"}.
        """
        starts, lengths = self._runs(index)
        geometry = {"pixels": self.count(index), "left": 0, "top": 0, "width": 0, "height": 0}
        if len(starts):
            ends = starts + lengths - 1
            left, right = int(starts[0]) // self.height, int(ends[-1]) // self.height
            # A run that goes on in the next column touches the bottom and the top.
            broken = starts // self.height != ends // self.height
            top = 0 if broken.any() else int((starts % self.height).min())
            bottom = self.height - 1 if broken.any() else int((ends % self.height).max())
            geometry |= {"left": left, "top": top, "width": right - left + 1, "height": bottom - top + 1}
        rle = self.rle([index])
        return {**geometry, "rle": {"size": rle["size"], "counts": rle["counts"].decode("ascii")}}

    def rle(self, indexes: Iterable[int]) -> dict[str, Any]:
        """Return the pixels of these indexes together, in the form of pycocotools (counts are bytes)."""
        runs = [self._runs(index) for index in indexes]
        starts = np.concatenate([self._starts[:0], *(run[0] for run in runs)])
        lengths = np.concatenate([self._lengths[:0], *(run[1] for run in runs)])
        order = np.argsort(starts)
        starts, ends = starts[order], (starts + lengths)[order]
        counts = np.empty(2 * len(starts) + 1, np.int64)
        counts[0::2] = np.append(starts, self.width * self.height) - np.concatenate(([0], ends))
        counts[1::2] = ends - starts
        if len(counts) > 1 and counts[-1] == 0:
            counts = counts[:-1]
        whole = {"size": [self.height, self.width], "counts": counts}
        encoded: dict[str, Any] = coco.frPyObjects(whole, self.height, self.width)
        return encoded

    def _runs(self, index: int) -> tuple[Size, Size]:
        at = int(np.searchsorted(self._values, index))
        if index not in self._counts:
            return self._starts[:0], self._lengths[:0]
        runs = slice(self._first[at], self._first[at + 1])
        return self._starts[runs], self._lengths[runs]


def read_index_image(file: BinaryIO, *, extended: bool = False, max_pixels: int = MAX_PIXELS) -> IndexImage:
    """Read an `indexedImage`, or an `extendedIndexedImage` (red is the least significant byte of the index).

    Raises UnreadableMask before anything is decoded where the image is no PNG or has more than `max_pixels`. In memory
    are the decoded image (1 to 4 bytes a pixel) and its runs. Source: docs, "segmentannotation callback format".
    """
    image, scale = _open(file, max_pixels)
    if extended and image.mode == "P":
        image = image.convert("RGBA")
    return _pixels(image, lambda strip: _indexes(strip, scale, extended))


def complete_geometry(geometry: dict[str, Any], pixels: IndexImage) -> dict[str, Any]:
    """Return the geometry of a mask row with the values of its index: pixels, left, top, width, height, rle."""
    index = geometry.get("index")
    return {**geometry, **pixels.geometry(index)} if type(index) is int else geometry


def unmapped_masks(pixels: IndexImage, most: int) -> Iterator[Annotation]:
    """Yield a mask row without a label for each index that has pixels. Raises UnreadableMask for more than `most`."""
    indexes = [index for index in pixels.indexes if index]
    if len(indexes) > most:
        raise UnreadableMask(f"{len(indexes):,} indexes without a labelMapping are more than {most:,}")
    for position, index in enumerate(indexes):
        geometry = complete_geometry({"index": index}, pixels)
        yield Annotation(position, "mask", None, None, None, None, geometry, None)


def disagreements(masks: Iterable[tuple[str | None, Mapping[str, Any]]], pixels: IndexImage) -> list[str]:
    """Return sentences about where the mapping, its numPixels and the pixels differ. `masks`: (label, geometry) of the mask rows."""
    found, known = [], {0}
    for label, geometry in masks:
        index, expected = geometry.get("index"), geometry.get("numPixels")
        if type(index) is not int:
            continue
        known.add(index)
        if type(expected) in (int, float) and expected != pixels.count(index):
            found.append(
                f"label {_short(label)}, index {index}: numPixels is {expected}, the image has {pixels.count(index)}"
            )
    stray = [index for index in pixels.indexes if index not in known]
    found += [
        f"index {n} has {pixels.count(n)} pixels and no entry in labelMapping" for n in stray[:MAX_LISTED]
    ]
    if len(stray) > MAX_LISTED:
        found.append(f"… and {len(stray) - MAX_LISTED} more indexes have no entry in labelMapping")
    return found


def artifact_indexes(role: str, masks: Iterable[tuple[str | None, Mapping[str, Any]]]) -> list[int]:
    """Return the indexes that an artifact shows: `unlabeled`, `labeled:<label>` or, with the place in its list, `labeled:<label>:<n>`."""
    if role == "unlabeled":
        return [0]
    entries = [
        (label, entry["index"], entry.get("instance"))
        for label, entry in masks
        if type(entry.get("index")) is int
    ]
    shown = role.removeprefix("labeled:")
    found = [index for label, index, _ in entries if label == shown]
    if not found and ":" in shown:
        shown, _, place = shown.rpartition(":")
        found = [
            index
            for label, index, instance in entries
            if label == shown and (str(instance) == place or (instance is None and place == "0"))
        ]
    return found


def compare_with_index_image(
    role: str, indexes: Iterable[int], file: BinaryIO, pixels: IndexImage, max_pixels: int = MAX_PIXELS
) -> str | None:
    """Compare the image of one label (or of the unlabeled pixels) with the index image; return the difference, or None.

    How such an image marks its pixels is not documented: a pixel counts where it is not transparent, or in an image
    without transparent pixels where it is not black. Raises UnreadableMask.
    """
    image, _ = _open(file, max_pixels)
    if (image.width, image.height) != (pixels.width, pixels.height):
        size = f"{image.width} × {image.height}"
        return f"the image {_short(role)} is {size}, the index image {pixels.width} × {pixels.height}"
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    transparent = "A" in image.getbands() and image.getchannel("A").getextrema()[0] == 0
    shown = _pixels(image, lambda strip: _marked(strip, transparent))
    ours, theirs = pixels.rle(indexes), shown.rle([1])
    both = int(coco.area(coco.merge([ours, theirs], intersect=True)))
    missing, more = int(coco.area(ours)) - both, int(coco.area(theirs)) - both
    if missing or more:
        return f"the image {_short(role)} lacks {missing} pixels of the index image and has {more} others"
    return None


# --- from an image to runs


def _open(file: BinaryIO, max_pixels: int) -> tuple[Image.Image, int]:
    """Decode the image; return also the factor of its values (Pillow stretches grey of 2 and 4 bits over a byte)."""
    header = file.read(26)
    if header[:8] != b"\x89PNG\r\n\x1a\n" or header[12:16] != b"IHDR" or len(header) < 26:
        raise UnreadableMask("it is not a PNG image")
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    depth, colour = header[24], header[25]
    _check_size(width, height, max_pixels)
    if depth == 16 and colour != 0:
        raise UnreadableMask("it has 16 bits a colour, of which Pillow keeps 8: the indexes would be wrong")
    file.seek(0)
    try:
        image: Image.Image = Image.open(file, formats=["PNG"])
        _check_size(image.width, image.height, max_pixels)  # a second header, which Pillow follows
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableMask(f"it is a broken PNG image ({type(error).__name__})") from error
    return image, {2: 85, 4: 17}.get(depth, 1) if colour == 0 else 1


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableMask(f"{width:,} × {height:,} pixels are more than {max_pixels:,}")
    if max(width, height) > MAX_SIDE:
        raise UnreadableMask(f"a side of {max(width, height):,} pixels is longer than {MAX_SIDE:,}")


def _indexes(strip: NDArray[Any], scale: int, extended: bool) -> Index:
    """Return the index of each pixel. One channel, or a palette's own numbers, hold it as it is."""
    index: Index
    if strip.ndim == 2:
        index = strip.astype(np.uint32) // np.uint32(scale)
        return index
    if strip.shape[2] == 2:
        return strip[..., 0].astype(np.uint32)
    red, green, blue = (strip[..., channel].astype(np.uint32) for channel in range(3))
    index = red | green << np.uint32(8) | blue << np.uint32(16)
    return index if extended else np.where((red == green) & (green == blue), red, index)


def _marked(strip: NDArray[Any], transparent: bool) -> Index:
    """Return an array with 1 where the pixel belongs to the label."""
    marked: NDArray[np.bool_]
    if strip.ndim == 2:
        marked = strip != 0
    elif transparent:
        marked = strip[..., -1] != 0
    else:
        marked = (strip[..., : 1 if strip.shape[2] == 2 else 3] != 0).any(axis=2)
    return marked.astype(np.uint32)


def _pixels(image: Image.Image, index_of: Callable[[NDArray[Any]], Index]) -> IndexImage:
    """Find the runs of one index down the columns, strip by strip: an array of all indexes is never built."""
    width, height = image.size
    step = max(1, STRIP_PIXELS // height)
    all_starts, all_values = [], []
    found = 0
    for left in range(0, width, step):
        right = min(left + step, width)
        flat = index_of(np.asarray(image.crop((left, 0, right, height)))).ravel(order="F")
        starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
        all_starts.append(starts + left * height)
        all_values.append(flat[starts])
        found += len(starts)
        if found > MAX_RUNS:
            raise UnreadableMask(f"it is noise: more than {MAX_RUNS:,} runs of one index")
    starts, values = np.concatenate(all_starts), np.concatenate(all_values)
    begins = np.concatenate(
        ([True], values[1:] != values[:-1])
    )  # where a strip ended inside a run it goes on
    starts, values = starts[begins], values[begins]
    lengths = np.diff(np.append(starts, width * height))
    order = np.argsort(values, kind="stable")
    starts, values, lengths = starts[order], values[order], lengths[order]
    unique, first = np.unique(values, return_index=True)
    counts = np.add.reduceat(lengths, first)
    by_index = dict(zip(unique.tolist(), counts.tolist(), strict=True))
    return IndexImage(width, height, unique, np.append(first, len(values)), starts, lengths, by_index)


def _short(text: str | None) -> str:
    return repr(text if text is None else text[:60])
