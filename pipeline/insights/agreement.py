"""Agreement of the copies of a task: equal categories, overlapping shapes, and what joins made of them."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from more_itertools import chunked
from sqlalchemy import Connection, func, select

from models import Annotation, FollowUp, Join
from pipeline.db.memory_budget import ReadTooLarge, temporary_reads
from pipeline.db.sizes import charge_annotations
from pipeline.insights.tasks import Row, categories_of
from scale.geometry import Bounds, bounds, iou_matrix
from workflows.planning.joins import AGREED

MIN_IOU = 0.5
AREAS = ("box", "polygon", "ellipse", "cuboid", "mask")
MAX_UNITS = 500
"""Items of a step whose copies are compared: the newest ones."""
MAX_COPIES = 5
MAX_SHAPES = 1_000
"""Shapes of one copy that are compared."""
UNITS_BATCH_SIZE = 10
"""Items whose shapes are in memory at once."""
DEFINITIONS: Mapping[str, str] = {
    "items": f"Items of which two or more copies are completed, of the newest {MAX_UNITS}.",
    "categories": "Items that two or more copies answered with a category.",
    "category_percent": "Share of the pairs of copies of these items that chose the same category.",
    "alpha": "Krippendorff's alpha (nominal) of these categories; undefined (null) where all copies chose one value,"
    " because nothing could have disagreed.",
    "shape_pairs": "Pairs of copies of one item that have shapes with an area.",
    "shape_f1": "Mean over these pairs of 2 × matched / all shapes: matched are two shapes of one type, label and frame"
    f" whose bounding boxes have an IoU of at least {MIN_IOU}, the best first.",
    "shape_iou": "Mean IoU of the matched shapes.",
    "joins": "Joins of the step that were decided with a reducer that compares results.",
    "agreed_percent": "Share of these joins whose agreement is at least 0.8.",
    "mean_agreement": "Mean of the reducer's agreement over these joins: share of equal answers, or IoU of boxes.",
}

Shape = tuple[tuple[Any, ...], Bounds]
"""What two shapes must have in common to match, and where it is."""


def agreement(connection: Connection, tasks: Sequence[Row]) -> list[dict[str, Any]]:
    """Return {workflow, step, …} with DEFINITIONS of each step with copies. `tasks`: the copies that count."""
    responses = {
        row["task_id"]: row["response_id"]
        for row in tasks
        if row["status"] == "completed" and row["workflow"] is not None
    }
    units = _units(connection, responses)
    joins = _joins(connection, {(row["workflow"], row["step"]) for row in tasks})
    rows = []
    for workflow, step in sorted(units.keys() | joins.keys()):
        found = units.get((workflow, step), [])[:MAX_UNITS]
        values = joins.get((workflow, step), [])
        rows.append(
            {
                "workflow": workflow,
                "step": step,
                "items": len(found),
                **_categories(connection, found),
                **_shapes(connection, found),
                "joins": len(values),
                "agreed_percent": _percent(sum(end == AGREED for end, _ in values), len(values)),
                "mean_agreement": _mean([value for _, value in values]),
            }
        )
    return rows


def _units(connection: Connection, responses: Mapping[str, Any]) -> dict[tuple[str, str], list[list[Any]]]:
    """Return (workflow, step) → the responses of the copies of each item, the newest item first."""
    key = (
        FollowUp.workflow,
        FollowUp.step,
        FollowUp.source_task_id,
        FollowUp.source_annotation,
        FollowUp.source_response_id,
    )
    copies = func.count(func.distinct(func.coalesce(FollowUp.first_unique_id, FollowUp.unique_id)))
    repeated = (
        select(*key, func.max(FollowUp.planned_at).label("newest"))
        .where(FollowUp.task_id.is_not(None))
        .group_by(*key)
        .having(copies > 1)
        .subquery()
    )
    statement = select(*key, FollowUp.task_id).join(
        repeated,
        (FollowUp.source_task_id == repeated.c.source_task_id)
        & (FollowUp.workflow == repeated.c.workflow)
        & (FollowUp.step == repeated.c.step)
        & FollowUp.source_annotation.is_not_distinct_from(repeated.c.source_annotation)
        & FollowUp.source_response_id.is_not_distinct_from(repeated.c.source_response_id),
    )
    found: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    for *item, task_id in connection.execute(statement.order_by(repeated.c.newest.desc())):
        if (response_id := responses.get(task_id or "")) is not None:
            found[tuple(item)].append(response_id)
    units: dict[tuple[str, str], list[list[Any]]] = defaultdict(list)
    for (workflow, step, *_), copies_ in found.items():
        if len(copies_) > 1:
            units[workflow, step].append(copies_[:MAX_COPIES])
    return units


def _joins(
    connection: Connection, steps: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[tuple[str | None, float]]]:
    """Return (workflow, awaited step) → (conclusion, agreement) of each decided join."""
    wanted = set(steps)
    statement = select(Join.workflow, Join.awaited_step, Join.conclusion, Join.result["agreement"])
    found: dict[tuple[str, str], list[tuple[str | None, float]]] = defaultdict(list)
    for workflow, step, conclusion, value in connection.execute(statement.where(Join.fired_at.is_not(None))):
        if (workflow, step) in wanted and isinstance(value, int | float):
            found[workflow, step].append((conclusion, float(value)))
    return found


def _categories(connection: Connection, units: Sequence[Sequence[Any]]) -> dict[str, Any]:
    categories = categories_of(connection, [one for unit in units for one in unit])
    given = [[value for one in unit if (value := _category(categories.get(one)))] for unit in units]
    rated = [unit for unit in given if len(unit) > 1]
    pairs = [a == b for unit in rated for a, b in combinations(unit, 2)]
    return {
        "categories": len(rated),
        "category_percent": _percent(sum(pairs), len(pairs)),
        "alpha": krippendorff_alpha(rated),
    }


def _category(category: Any) -> str | None:
    """Return the category of an answer; of several of them, all as one value."""
    if isinstance(category, list) and category and all(isinstance(one, str) for one in category):
        return " + ".join(sorted(category))
    return category if isinstance(category, str) else None


def _shapes(connection: Connection, units: Sequence[Sequence[Any]]) -> dict[str, Any]:
    scores: list[float] = []
    overlaps: list[float] = []
    for copies in _shapes_of_units(connection, units):
        for a, b in combinations(copies, 2):
            if a or b:
                matched = list(match_shapes(a, b))
                scores.append(2 * len(matched) / (len(a) + len(b)))
                overlaps += matched
    return {"shape_pairs": len(scores), "shape_f1": _mean(scores), "shape_iou": _mean(overlaps)}


def _shapes_of_units(
    connection: Connection, units: Sequence[Sequence[Any]], size: int = UNITS_BATCH_SIZE
) -> Iterator[list[list[Shape]]]:
    """Yield the shapes of each copy of an item. In a request with a memory budget an item that exceeds it alone is left out."""
    for some in chunked(units, size):
        try:
            with temporary_reads():
                found = _shapes_of(connection, [one for unit in some for one in unit])
        except ReadTooLarge:
            if size > 1:
                yield from _shapes_of_units(connection, some, 1)
            continue
        for unit in some:
            yield [found.get(one, []) for one in unit]


def _shapes_of(connection: Connection, response_ids: Sequence[Any]) -> dict[Any, list[Shape]]:
    columns = (
        Annotation.response_id, Annotation.type, Annotation.label, Annotation.frame, Annotation.geometry
    )  # fmt: skip
    conditions = (
        Annotation.response_id.in_(response_ids),
        Annotation.type.in_(AREAS),
        Annotation.warning.is_(None),
        Annotation.position < MAX_SHAPES,
    )
    found: dict[Any, list[Shape]] = defaultdict(list)
    charge_annotations(connection, *conditions)
    for response_id, *kind, geometry in connection.execute(select(*columns).where(*conditions)):
        if (place := bounds(geometry)) is not None:
            found[response_id].append((tuple(kind), place))
    return found


def match_shapes(one: Sequence[Shape], other: Sequence[Shape]) -> Iterator[float]:
    """Yield the IoU of each pair of shapes that match, the best first. Each shape matches once."""
    if not one or not other:
        return
    overlaps = iou_matrix([place for _, place in one], [place for _, place in other])
    for row, (kind, _) in enumerate(one):
        for column, (kind_of_other, _) in enumerate(other):
            if kind != kind_of_other:
                overlaps[row, column] = 0
    while (best := float(overlaps.max())) >= MIN_IOU:
        row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
        overlaps[row, :] = 0
        overlaps[:, column] = 0
        yield best


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Return Krippendorff's alpha for nominal values; None where it is undefined.

    units: for each item the values that it was given. Source: Krippendorff, "Computing Krippendorff's Alpha-Reliability".
    """
    totals: Counter[str] = Counter()
    weights: dict[tuple[str, str], float] = defaultdict(float)
    for unit in units:
        if len(unit) < 2:
            continue
        counts = Counter(unit)
        totals.update(counts)
        for a, of_a in counts.items():
            for b, of_b in counts.items():
                weights[a, b] += of_a * (of_b - (a == b)) / (len(unit) - 1)
    if len(totals) < 2:
        return None
    n = sum(totals.values())
    observed = sum(weight for (a, b), weight in weights.items() if a != b)
    expected = sum(totals[a] * totals[b] for a in totals for b in totals if a != b) / (n - 1)
    return round(1 - observed / expected, 6)


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 2) if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 4) if values else None
