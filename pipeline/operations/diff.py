"""What one response version changed against another. Pure: two lists of annotations in, the differences out.

Annotations are matched by uuid; what is left by the same type and geometry; and then by overlap, or by distance where
there is no area. Only annotations of one type and one frame are compared by place.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from scale.annotations import Annotation
from scale.geometry import bounds, iou_matrix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

MIN_OVERLAP = 0.5
"""IoU of two bounding boxes from which on they may be one annotation that was moved."""
NEAR_PIXELS = 20.0
NEAR_METRES = 2.0
"""How far a point, and the centre of a lidar cuboid, may have been moved."""

MAX_COMPARISONS = 60_000_000
"""Pairs of places that are compared. If all of n annotations overlap, there are n² pairs."""
MAX_CANDIDATES = 32
"""Best matches that are kept for each annotation."""

Place = tuple[float, ...]
"""left, top, right, bottom of an area (pixels; a span or an event has no height), or x, y or x, y, z of a spot."""


class TooDense(ValueError):
    """Raised when too many annotations overlap to be compared pair by pair."""


class Change(NamedTuple):
    """An annotation in both versions, and how the two were matched."""

    before: Annotation
    after: Annotation
    matched_by: str  # uuid | geometry | overlap | distance
    score: float | None  # IoU or distance, where they were matched by it


@dataclass(slots=True)
class Diff:
    """An annotation that was moved and relabeled is in both lists."""

    added: list[Annotation] = field(default_factory=list)
    removed: list[Annotation] = field(default_factory=list)
    moved: list[Change] = field(default_factory=list)  # its geometry or its type differs
    relabeled: list[Change] = field(default_factory=list)
    attributes_changed: list[Change] = field(default_factory=list)
    unchanged: int = 0


def diff(before: Sequence[Annotation], after: Sequence[Annotation]) -> Diff:
    """Return what makes `after` of `before`. Numbers are compared by value, so 1 and 1.0 are the same place."""
    found = Diff()
    pairs, left, came = _same(before, after, _uuid, "uuid")
    same, left, came = _same(left, came, _Geometry, "geometry")
    placed, left, came = _placed(left, came)
    for change in sorted(pairs + same + placed, key=lambda change: _order(change.after)):
        old, new = change.before, change.after
        moved = old.geometry != new.geometry or old.type != new.type
        relabeled = old.label != new.label
        attributes_changed = (old.attributes or {}) != (new.attributes or {})
        if moved:
            found.moved.append(change)
        if relabeled:
            found.relabeled.append(change)
        if attributes_changed:
            found.attributes_changed.append(change)
        found.unchanged += not (moved or relabeled or attributes_changed)
    found.removed, found.added = sorted(left, key=_order), sorted(came, key=_order)
    return found


def _order(row: Annotation) -> tuple[int, int]:
    return (-1 if row.frame is None else row.frame, row.position)


# By what they say of themselves.


def _uuid(row: Annotation) -> Hashable:
    """Return the key of an object. A uuid names one object, which a video repeats in every frame."""
    return None if row.uuid is None else (row.uuid, row.frame)


class _Geometry:
    """The key of annotations with one type, frame and geometry. It copies none of them, because they may be large."""

    __slots__ = ("_hash", "_row")

    def __init__(self, row: Annotation) -> None:
        self._row = row
        self._hash = hash((row.type, row.frame, _hash_of(row.geometry)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Geometry) and self._values() == other._values()

    def _values(self) -> tuple[Any, ...]:
        return self._row.type, self._row.frame, self._row.geometry


def _hash_of(value: Any) -> int:
    """Return a number that is equal for equal JSON values."""
    if isinstance(value, dict):
        return sum(hash((name, _hash_of(inner))) for name, inner in value.items())
    if isinstance(value, list):
        found = len(value)
        for inner in value:
            found = hash((found, _hash_of(inner)))
        return found
    return _hash_of_number(value) if isinstance(value, int | float) else hash(value)


def _hash_of_number(value: float) -> int:
    """Return a number that is equal for equal numbers, by their text: Python's own hash of -1 is that of -2, and a sender could choose
    many numbers with the same one."""
    try:
        rounded = float(value) + 0.0  # -0.0 becomes 0.0
    except OverflowError:
        return hash(repr(value))
    return hash(repr(rounded if rounded == value else value))


def _same(
    before: Iterable[Annotation],
    after: Iterable[Annotation],
    key: Callable[[Annotation], Hashable],
    matched_by: str,
) -> tuple[list[Change], list[Annotation], list[Annotation]]:
    """Return the pairs with the same key, equal keys in their order, and what is left on either side."""
    waiting: dict[Hashable, deque[Annotation]] = defaultdict(deque)
    left = []
    for row in before:
        name = key(row)
        if name is None:
            left.append(row)
        else:
            waiting[name].append(row)
    pairs, came = [], []
    for row in after:
        name = key(row)
        if name is not None and waiting.get(name):
            pairs.append(Change(waiting[name].popleft(), row, matched_by, None))
        else:
            came.append(row)
    left += [row for rows in waiting.values() for row in rows]
    return pairs, left, came


# By where they are.


class _Kind(NamedTuple):
    """How places of one form are compared."""

    matched_by: str
    centre_x: Callable[[Scores], Scores]
    reach: Callable[[Scores], Scores | float]  # how far along x the centre of a match can be
    score: Callable[[Scores, Scores], Scores]  # of one place against many; greater is better
    least: float


def _overlap(one: Scores, many: Scores) -> Scores:
    """IoU in whole pixels: a line along an axis, or a span, has an area too."""
    overlaps: Scores = iou_matrix(one[None, :], many, pixels=True)[0]
    return overlaps


def _nearness(one: Scores, many: Scores) -> Scores:
    distance: Scores = ((many - one) ** 2).sum(axis=1) ** 0.5
    return -distance


def _spots(near: float) -> _Kind:
    return _Kind("distance", lambda places: places[:, 0], lambda places: near, _nearness, -near)


# Half of the area is shared only while the centres are less than a width apart.
_AREAS = _Kind(
    "overlap",
    lambda places: (places[:, 0] + places[:, 2]) / 2,
    lambda places: places[:, 2] - places[:, 0] + 1,
    _overlap,
    MIN_OVERLAP,
)
_KINDS = {2: _spots(NEAR_PIXELS), 3: _spots(NEAR_METRES), 4: _AREAS}
"""By the numbers that a place has."""


def _placed(
    before: Iterable[Annotation], after: Iterable[Annotation]
) -> tuple[list[Change], list[Annotation], list[Annotation]]:
    """Return the pairs of one type and frame by their places, the best match first, and what is left on either side."""
    groups: dict[Hashable, tuple[list[Annotation], list[Annotation]]] = defaultdict(lambda: ([], []))
    lost: tuple[list[Annotation], list[Annotation]] = ([], [])
    for side, rows in enumerate((before, after)):
        for row in rows:
            place = _place(row)
            (groups[row.type, row.frame, len(place)] if place else lost)[side].append(row)
    pairs: list[Change] = []
    left, came = lost
    budget = MAX_COMPARISONS
    for olds, news in groups.values():
        matches, compared = _best(olds, news, budget)
        budget -= compared
        pairs += matches.values()
        taken = {id(change.before) for change in matches.values()}
        left += [row for row in olds if id(row) not in taken]
        came += [row for at, row in enumerate(news) if at not in matches]
    return pairs, left, came


def _best(olds: list[Annotation], news: list[Annotation], budget: int) -> tuple[dict[int, Change], int]:
    """Return index in `news` → its match, and the number of comparisons. Each is matched once, the highest score first.

    Raises TooDense if more than `budget` comparisons are needed.
    """
    if not olds or not news:
        return {}, 0
    import numpy as np  # most processes that can compare never do

    old, new = (np.array([_place(row) for row in rows], np.float64) for rows in (olds, news))
    kind = _KINDS[old.shape[1]]
    order = np.argsort(kind.centre_x(new), kind="stable")
    xs = kind.centre_x(new)[order]
    reach, centre = kind.reach(old), kind.centre_x(old)
    first = np.searchsorted(xs, centre - reach, "left")
    last = np.searchsorted(xs, centre + reach, "right")
    compared = int((last - first).clip(min=0).sum())
    if compared > budget:
        raise TooDense(
            f"the versions need more than {MAX_COMPARISONS:,} comparisons of overlapping annotations"
        )
    candidates: list[tuple[Scores, NDArray[np.intp], NDArray[np.intp]]] = []
    for at in range(len(olds)):
        near = order[first[at] : last[at]]
        scores = kind.score(old[at], new[near])
        close = np.flatnonzero(scores >= kind.least)
        if len(close) > MAX_CANDIDATES:
            close = close[np.argsort(-scores[close], kind="stable")[:MAX_CANDIDATES]]
        if len(close):
            candidates.append((scores[close], np.full(len(close), at), near[close]))
    taken: set[int] = set()
    matches: dict[int, Change] = {}
    if candidates:
        scores, ats, tos = map(np.concatenate, zip(*candidates, strict=True))
        for which in np.lexsort((tos, ats, -scores)):
            at, to = int(ats[which]), int(tos[which])
            if at not in taken and to not in matches:
                taken.add(at)
                matches[to] = Change(olds[at], news[to], kind.matched_by, round(abs(float(scores[which])), 4))
    return matches, compared


def _place(row: Annotation) -> Place:
    """Return the coordinates of a shape; () for an unknown shape, or one that was kept raw."""
    geometry = row.geometry
    if row.warning is not None or not isinstance(geometry, dict):
        return ()
    try:
        if geometry.get("vertices") or "left" in geometry:
            return bounds(geometry) or ()
        if "position" in geometry:
            position = geometry["position"]
            return float(position["x"]), float(position["y"]), float(position["z"])
        if "x" in geometry:
            return float(geometry["x"]), float(geometry["y"])
        if "start" in geometry:
            end = geometry["start"] if geometry.get("end") is None else geometry["end"]
            return float(geometry["start"]), 0.0, float(end), 0.0
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    return ()
