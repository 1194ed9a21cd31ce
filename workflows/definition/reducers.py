"""Reducers of a `join`: combine several results into one, with a measure of their agreement."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from scale.canonical import digest
from scale.fields import is_number
from scale.geometry import BOX_KEYS, iou_matrix

Result = Mapping[str, Any]
"""Of one task: task_id, answer, annotations (in coordinates of the source image), …"""
ReducedResult = dict[str, Any]


class Reducer(NamedTuple):
    """A way to combine several results."""

    name: str
    summary: str
    options: Mapping[str, float]  # name → default; each a fraction from 0 to 1
    output: str  # the keys of `reduced`, for the reference
    reduce: Callable[[Sequence[Result], Mapping[str, float]], ReducedResult]


# Votes.


def majority(results: Sequence[Result], options: Mapping[str, float]) -> ReducedResult:
    """Return the most frequent value of each part of the answers, and of label and attributes of annotations that share a uuid.

    agreement: the fraction of results that agree on the most disputed part, 0 to 1.
    """
    answer, shares = _vote([result.get("answer") for result in results], len(results))
    annotations, scores = [], []
    for same in _by_uuid(results):
        voted, share = _vote(_voted_keys(same), len(results))
        annotations.append({**same[0], **voted})
        scores.append({"agreement": min(share, default=1.0), "votes": len(same)})
        shares += share
    return {
        "answer": answer or None,
        "annotations": annotations,
        "scores": scores,
        "agreement": min(shares, default=0.0),
    }


def _voted_keys(annotations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of annotations on which results vote."""
    return [
        {key: one[key] for key in ("label", "attributes") if one.get(key) is not None} for one in annotations
    ]


def _vote(values: Sequence[Any], voters: int) -> tuple[Any, list[float]]:
    """Return the most frequent value, and for each part of it the fraction of the voters. Of equals, the first wins.

    Mappings are voted on key by key, lists of plain values element by element. A missing value is no vote.
    """
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, dict) for value in given):
        return _vote_on_mappings(given, voters)
    if given and all(isinstance(value, list) and all(map(_is_plain, value)) for value in given):
        return _vote_on_lists(given, voters)
    return _vote_on_values(given, voters)


def _vote_on_mappings(mappings: Sequence[dict[str, Any]], voters: int) -> tuple[Any, list[float]]:
    voted: dict[str, Any] = {}
    shares: list[float] = []
    for key in dict.fromkeys(key for mapping in mappings for key in mapping):
        voted[key], share = _vote([mapping.get(key) for mapping in mappings], voters)
        shares += share
    return voted, shares


def _vote_on_lists(lists: Sequence[list[Any]], voters: int) -> tuple[Any, list[float]]:
    elements = dict.fromkeys(element for value in lists for element in value)
    votes = {element: sum(element in value for value in lists) / voters for element in elements}
    agreed = [element for element, share in votes.items() if share > 0.5]
    return agreed, [max(share, 1 - share) for share in votes.values()]


def _vote_on_values(values: Sequence[Any], voters: int) -> tuple[Any, list[float]]:
    counted: dict[str, list[Any]] = {}
    for value in values:
        counted.setdefault(digest(value), []).append(value)
    if not counted:
        return None, []
    most = max(counted.values(), key=len)
    return most[0], [len(most) / voters]


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _by_uuid(results: Sequence[Result]) -> Iterator[list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        for annotation in result.get("annotations") or ():
            if isinstance(annotation.get("uuid"), str):
                found.setdefault(annotation["uuid"], []).append(annotation)
    yield from found.values()


# Boxes.


def median_box(results: Sequence[Result], options: Mapping[str, float]) -> ReducedResult:
    """Return one box for the first box of each result: the median of its sides, the most frequent label.

    agreement: mean IoU of the results' boxes with it; a result without a box counts as 0.
    """
    boxes = [box for result in results if (box := next(iter(_boxes(result)), None)) is not None]
    if not boxes:
        return {"annotations": [], "scores": [], "agreement": 0.0}
    box, score = _one_of(boxes, len(results))
    return {"annotations": [box], "scores": [score], "agreement": score["agreement"]}


def consensus_boxes(results: Sequence[Result], options: Mapping[str, float]) -> ReducedResult:
    """Return the boxes that most results have, matched by IoU: medians, with the most frequent label and attributes.

    iou: minimum overlap of two boxes of the same object. share: fraction of the results that must have a box.
    agreement: of each box, the mean IoU of the results' boxes with it (0 where a result has none); of the whole, the mean
    over all boxes of all results, 1 if there are none.
    """
    groups = _matched([list(_boxes(result)) for result in results], options["iou"])
    drawn = [_one_of(group, len(results)) for group in groups]
    least = options["share"] * len(results)
    kept = [(box, score) for box, score in drawn if score["votes"] >= least]
    return {
        "annotations": [box for box, _ in kept],
        "scores": [score for _, score in kept],
        "left_out": [box for box, score in drawn if score["votes"] < least],
        "agreement": round(statistics.fmean(score["agreement"] for _, score in drawn), 4) if drawn else 1.0,
    }


def _boxes(result: Result) -> Iterator[dict[str, Any]]:
    for annotation in result.get("annotations") or ():
        if annotation.get("type") == "box" and all(is_number(annotation.get(key)) for key in BOX_KEYS):
            yield annotation


def _one_of(boxes: Sequence[Mapping[str, Any]], voters: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return one box for several of the same object, and its score."""
    box: dict[str, Any] = {
        "type": "box",
        **{key: statistics.median(one[key] for one in boxes) for key in BOX_KEYS},
    }
    overlaps = iou_matrix(_sides([box]), _sides(boxes))[0]
    score = {"agreement": round(float(overlaps.sum()) / voters, 4), "votes": len(boxes)}
    return {**box, **_vote(_voted_keys(boxes), voters)[0]}, score


def _sides(boxes: Iterable[Mapping[str, Any]]) -> list[tuple[float, float, float, float]]:
    """Return left, top, right, bottom of each box."""
    return [
        (box["left"], box["top"], box["left"] + box["width"], box["top"] + box["height"]) for box in boxes
    ]


def _matched(drawn: Sequence[Sequence[dict[str, Any]]], iou: float) -> list[list[dict[str, Any]]]:
    """Return groups of boxes of the same object, at most one box of each result. The best overlap is matched first."""
    pairs: list[tuple[float, tuple[int, int], tuple[int, int]]] = []
    for first in range(len(drawn)):
        for second in range(first + 1, len(drawn)):
            if drawn[first] and drawn[second]:
                overlaps = iou_matrix(_sides(drawn[first]), _sides(drawn[second]))
                pairs += [
                    (-float(overlaps[a, b]), (first, int(a)), (second, int(b)))
                    for a, b in zip(*(overlaps >= iou).nonzero(), strict=True)
                ]
    groups = {
        (result, position): [(result, position)]
        for result, boxes in enumerate(drawn)
        for position in range(len(boxes))
    }
    for _, one, other in sorted(pairs):
        left, right = groups[one], groups[other]
        if left is not right and not {result for result, _ in left} & {result for result, _ in right}:
            left += right
            for member in right:
                groups[member] = left
    unique = {id(group): sorted(group) for group in groups.values()}
    return [[drawn[result][position] for result, position in group] for group in sorted(unique.values())]


# Everything.


def union(results: Sequence[Result], options: Mapping[str, float]) -> ReducedResult:
    """Return every annotation of every result once. Annotations with the same uuid, or equal ones, count as one."""
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        for annotation in result.get("annotations") or ():
            found.setdefault(annotation.get("uuid") or digest(annotation), annotation)
    return {"annotations": list(found.values()), "answer": _merged(results)}


def _merged(results: Sequence[Result]) -> dict[str, Any] | None:
    merged: dict[str, Any] = {}
    for result in reversed(results):
        merged |= result.get("answer") or {}
    return merged or None


def concatenation(results: Sequence[Result], options: Mapping[str, float]) -> ReducedResult:
    """Return all annotations and all answers, one result after the other; each answer with the annotation that it is about."""
    return {
        "annotations": [annotation for result in results for annotation in result.get("annotations") or ()],
        "answers": [
            {
                "annotation": result.get("annotation"),
                "answer": result.get("answer"),
                "task_id": result.get("task_id"),
            }
            for result in results
        ],
    }


REDUCERS: tuple[Reducer, ...] = (
    Reducer(
        "majority",
        "The most frequent categories, choices, fields, labels and attributes",
        {},
        "`answer`, `annotations`, `scores` (of each annotation `agreement` and `votes`), `agreement`",
        majority,
    ),
    Reducer(
        "median-box",
        "One box: the median of the first box of each result",
        {},
        "`annotations` (one box, or none), `scores`, `agreement` (mean IoU)",
        median_box,
    ),
    Reducer(
        "consensus-boxes",
        "The boxes that most results have, matched by IoU",
        {"iou": 0.5, "share": 0.51},
        "`annotations`, `scores`, `left_out` (boxes that too few results have), `agreement` (mean IoU)",
        consensus_boxes,
    ),
    Reducer("union", "Every annotation once", {}, "`annotations`, `answer` (all answers merged)", union),
    Reducer(
        "concatenation",
        "All annotations and all answers in a row",
        {},
        "`annotations`, `answers` (each with `annotation`, `answer`, `task_id`)",
        concatenation,
    ),
)
"""All reducers."""


def find_reducer(name: str) -> Reducer | None:
    """Return the reducer of that name, or None."""
    return next((known for known in REDUCERS if known.name == name), None)
