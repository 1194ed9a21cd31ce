"""Reducers: several answers to one question made one, with how far they agree. Used by a `join`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scale.canonical import digest
from scale.fields import is_number
from scale.geometry import BOX_KEYS, iou_matrix

Result = Mapping[
    str, Any
]  # of one task: task_id, answer, annotations (in coordinates of the source image), …
ReducedResult = dict[str, Any]


class Reducer(NamedTuple):
    """A way to make several results one."""

    name: str
    summary: str
    options: Mapping[str, float]  # name → default; each a share from 0 to 1
    reduce: Callable[[Sequence[Result], Mapping[str, float]], ReducedResult]


# Votes.


def majority(results: Sequence[Result], options: Mapping[str, float]) -> ReducedResult:
    """What most say: each part of the answers, and label and attributes of annotations that share a uuid.

    agreement: the share of all results that stand behind the least agreed part, 0 to 1.
    """
    answer, shares = _vote([result.get("answer") for result in results], len(results))
    annotations, scores = [], []
    for same in _by_uuid(results):
        voted, share = _vote(_words(same), len(results))
        annotations.append({**same[0], **voted})
        scores.append({"agreement": min(share, default=1.0), "votes": len(same)})
        shares += share
    return {
        "answer": answer or None,
        "annotations": annotations,
        "scores": scores,
        "agreement": min(shares, default=0.0),
    }


def _words(annotations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What of annotations is put to the vote."""
    return [
        {key: one[key] for key in ("label", "attributes") if one.get(key) is not None} for one in annotations
    ]


def _vote(values: Sequence[Any], voters: int) -> tuple[Any, list[float]]:
    """The value that most gave, and for each part of it its share of the voters. Of equals, the one that came first."""
    mappings = [value for value in values if isinstance(value, dict)]
    if mappings and len(mappings) == sum(value is not None for value in values):
        voted: dict[str, Any] = {}
        shares: list[float] = []
        for key in dict.fromkeys(key for mapping in mappings for key in mapping):
            voted[key], share = _vote([mapping.get(key) for mapping in mappings], voters)
            shares += share
        return voted, shares
    lists = [value for value in values if isinstance(value, list)]
    if (
        lists
        and len(lists) == sum(value is not None for value in values)
        and all(_plain(element) for value in lists for element in value)
    ):
        elements = dict.fromkeys(element for value in lists for element in value)
        votes = {element: sum(element in value for value in lists) / voters for element in elements}
        return [element for element, share in votes.items() if share > 0.5], [
            max(share, 1 - share) for share in votes.values()
        ]
    counted: dict[str, list[Any]] = {}
    for value in values:
        if value is not None:
            counted.setdefault(digest(value), []).append(value)
    if not counted:
        return None, []
    most = max(counted.values(), key=len)
    return most[0], [len(most) / voters]


def _plain(value: Any) -> bool:
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
    """The first box of each result as one: the median of its sides, the label that most gave.

    agreement: mean IoU of all results with it; one without a box counts as 0.
    """
    boxes = [box for result in results if (box := next(iter(_boxes(result)), None)) is not None]
    if not boxes:
        return {"annotations": [], "scores": [], "agreement": 0.0}
    box, score = _one_of(boxes, len(results))
    return {"annotations": [box], "scores": [score], "agreement": score["agreement"]}


def consensus_boxes(results: Sequence[Result], options: Mapping[str, float]) -> ReducedResult:
    """Boxes that most results have, matched by IoU: medians, with the label and the attributes that most gave.

    `iou`: from which overlap two boxes are the same. `share`: of the results that must have a box for it to stay.
    agreement: of each box, the mean IoU of all results with it (0 where one has none); of the whole, the mean over all boxes
    that anybody drew, 1 when nobody drew any.
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
    """One box for several of the same object, and its score."""
    box: dict[str, Any] = {
        "type": "box",
        **{key: statistics.median(one[key] for one in boxes) for key in BOX_KEYS},
    }
    overlaps = iou_matrix(_sides([box]), _sides(boxes))[0]
    score = {"agreement": round(float(overlaps.sum()) / voters, 4), "votes": len(boxes)}
    return {**box, **_vote(_words(boxes), voters)[0]}, score


def _sides(boxes: Iterable[Mapping[str, Any]]) -> NDArray[np.float64]:
    """(n, 4): left, top, right, bottom."""
    return np.array(
        [(box["left"], box["top"], box["left"] + box["width"], box["top"] + box["height"]) for box in boxes],
        dtype=np.float64,
    )


def _matched(drawn: Sequence[Sequence[dict[str, Any]]], iou: float) -> list[list[dict[str, Any]]]:
    """Groups of boxes of the same object, at most one of each result: the best overlap is joined first."""
    pairs: list[tuple[float, tuple[int, int], tuple[int, int]]] = []
    for first in range(len(drawn)):
        for second in range(first + 1, len(drawn)):
            if drawn[first] and drawn[second]:
                overlaps = iou_matrix(_sides(drawn[first]), _sides(drawn[second]))
                pairs += [
                    (-float(overlaps[a, b]), (first, int(a)), (second, int(b)))
                    for a, b in np.argwhere(overlaps >= iou)
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
    """Every annotation of every result once; those with the same uuid, or the same in all, count as one."""
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
    """All annotations and all answers, one result after the other; each answer with the annotation that it is about."""
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
    Reducer("majority", "Categories, choices, fields, labels and attributes that most gave", {}, majority),
    Reducer("median-box", "One box: the median of the first box of each result", {}, median_box),
    Reducer(
        "consensus-boxes",
        "Boxes that most drew, matched by IoU",
        {"iou": 0.5, "share": 0.51},
        consensus_boxes,
    ),
    Reducer("union", "Every annotation once", {}, union),
    Reducer("concatenation", "All annotations and answers in a row", {}, concatenation),
)


def find_reducer(name: str) -> Reducer | None:
    return next((one for one in REDUCERS if one.name == name), None)
