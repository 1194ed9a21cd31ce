"""The numbers of groups of tasks: counts, times, reviews and cost. Which tasks a count counts is one condition."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipeline.follow_ups.prices import Cost
from pipeline.insights.tasks import ENDED, GROUPS, Row, Tasks
from workflows.definition.money import Prices

MIN_DURATIONS = 5
"""Completed tasks that a usual time needs. With fewer of them no task is late."""
REVIEWED = ("accepted", "rejected", "fixed")


def _is_completed(row: Row) -> bool:
    return bool(row["status"] == "completed")


def _is_reviewed(*reviews: str) -> Callable[[Row], bool]:
    return lambda row: _is_completed(row) and row["review_status"] in reviews


COUNTS: Mapping[str, Callable[[Row], bool]] = {
    "created": lambda row: True,
    "open": lambda row: row["status"] not in ENDED,
    "late": lambda row: row["is_late"],
    "completed": _is_completed,
    "canceled": lambda row: row["status"] == "canceled",
    "error": lambda row: row["status"] == "error",
    "reviewed": _is_reviewed(*REVIEWED),
    "accepted": _is_reviewed("accepted", "fixed"),
    "rejected": _is_reviewed("rejected"),
    "fixed": _is_reviewed("fixed"),
    "first_pass": lambda row: _is_reviewed("accepted")(row) and row["response_count"] <= 1,
}
"""Count → whether it counts a task."""
DEFINITIONS: Mapping[str, str] = {
    "created": "Tasks that were created in the chosen time, by Scale's created_at (UTC).",
    "open": "Created tasks that are not completed, canceled or in error.",
    "late": "Open tasks that are older than 90 % of the completed tasks of the same type, project and step took;"
    f" none where fewer than {MIN_DURATIONS} are completed.",
    "completed": "Tasks with the status completed.",
    "canceled": "Tasks with the status canceled.",
    "error": "Tasks with the status error.",
    "median_seconds": "Median time from created_at to completed_at of completed tasks.",
    "p90_seconds": "Time within which 90 % of the completed tasks were completed.",
    "open_median_seconds": "Median age of the open tasks, from created_at.",
    "reviewed": "Completed tasks whose review is accepted, rejected or fixed.",
    "accepted": "Reviewed tasks whose review is accepted or fixed.",
    "rejected": "Reviewed tasks whose review is rejected.",
    "fixed": "Reviewed tasks whose review is fixed.",
    "first_pass": "Reviewed tasks that are accepted with their first response.",
    "first_pass_rate": "Share of the reviewed tasks that are accepted with their first response.",
    "rejection_rate": "Share of the reviewed tasks whose review is rejected.",
    "fix_rate": "Share of the reviewed tasks whose review is fixed.",
    "cost": "Cost of the completed tasks by the price list that is in force now, at the prices of the day of creation.",
    "cost_per_accepted": "Cost of the completed tasks of the group divided by its accepted tasks; null without a price.",
    "accepted_annotations": "Annotations of the current results of the accepted tasks.",
    "lineage_cost": "Cost of all completed tasks in the lineages of the group's tasks: their first tasks and everything"
    " that followed from those, also in other groups.",
    "cost_per_accepted_annotation": "Cost of these lineages divided by the accepted annotations of the group; null without"
    " a price.",
}


@dataclass(slots=True)
class Numbers:
    """The tasks of one group, counted."""

    cost: Cost
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    durations: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    accepted_annotations: int = 0
    lineages: set[str] = field(default_factory=set)
    costs: Counter[tuple[Any, ...]] = field(default_factory=Counter)

    def add(self, row: Row, moment: datetime) -> None:
        """Count a task."""
        for name, counts in COUNTS.items():
            self.counts[name] += counts(row)
        self.lineages.add(row["root"])
        if COUNTS["open"](row):
            self.ages.append((moment - row["created_at"]).total_seconds())
        if _is_completed(row):
            if row["seconds"] is not None:
                self.durations.append(row["seconds"])
            self.costs[_price_key(row)] += 1
        if COUNTS["accepted"](row):
            self.accepted_annotations += row["annotation_count"] or 0

    def to_json(self, lineages: Mapping[str, Sequence[tuple[Any, ...]]]) -> dict[str, Any]:
        """Return every number of DEFINITIONS; null where it is undefined. lineages: first task → what its tasks cost by."""
        _add_costs(self.cost, self.costs)
        counts, cost = self.counts, _amount(self.cost)
        lineage = Cost(self.cost.prices)
        of_lineages: Counter[tuple[Any, ...]] = Counter()
        for root in self.lineages & lineages.keys():
            of_lineages.update(lineages[root])
        _add_costs(lineage, of_lineages)
        whole = _amount(lineage)
        return {
            **counts,
            "median_seconds": statistics.median(self.durations) if self.durations else None,
            "p90_seconds": percentile(self.durations, 0.9),
            "open_median_seconds": statistics.median(self.ages) if self.ages else None,
            "first_pass_rate": _share(counts["first_pass"], counts["reviewed"]),
            "rejection_rate": _share(counts["rejected"], counts["reviewed"]),
            "fix_rate": _share(counts["fixed"], counts["reviewed"]),
            "cost": None if cost is None else float(cost),
            "cost_per_accepted": _each(cost, counts["accepted"]) if self.cost.is_known else None,
            "accepted_annotations": self.accepted_annotations,
            "lineage_cost": None if whole is None else float(whole),
            "cost_per_accepted_annotation": _each(whole, self.accepted_annotations)
            if lineage.is_known
            else None,
        }


def group_numbers(
    tasks: Tasks, counted: Iterable[Row], group_by: Sequence[str], prices: Prices, moment: datetime
) -> list[dict[str, Any]]:
    """Return the numbers of each group of the counted tasks. `tasks`: all of them, for usual times and lineages."""
    mark_late(tasks, moment)
    lineages = _lineages(tasks)
    groups: dict[tuple[Any, ...], Numbers] = {}
    for row in counted:
        key = tuple(row[name] for name in group_by)
        if key not in groups:
            groups[key] = Numbers(Cost(prices))
        groups[key].add(row, moment)
    in_order = sorted(groups.items(), key=lambda item: [str(part or "") for part in item[0]])
    return [
        {
            **dict.fromkeys(GROUPS),
            **dict(zip(group_by, key, strict=True)),
            **numbers.to_json(lineages),
        }
        for key, numbers in in_order
    ]


def mark_late(tasks: Tasks, moment: datetime) -> None:
    """Set `is_late` of each task: open, and older than its kind usually takes."""
    usual = _usual_times(tasks.rows)
    for row in tasks.rows:
        limit = usual.get(_kind(row)) if COUNTS["open"](row) else None
        row["is_late"] = limit is not None and (moment - row["created_at"]).total_seconds() > limit


def _kind(row: Row) -> tuple[Any, ...]:
    return row["type"], row["project"], row["workflow"], row["step"]


def _usual_times(rows: Iterable[Row]) -> dict[tuple[Any, ...], float]:
    """Return the seconds within which 90 % of the tasks of a kind were completed, of kinds with enough of them."""
    durations: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in rows:
        if _is_completed(row) and row["seconds"] is not None:
            durations[_kind(row)].append(row["seconds"])
    return {
        kind: found
        for kind, seconds in durations.items()
        if len(seconds) >= MIN_DURATIONS and (found := percentile(seconds, 0.9)) is not None
    }


def _lineages(tasks: Tasks) -> dict[str, list[tuple[Any, ...]]]:
    """Set `root` of each task, the first task of its lineage. Return root → what each completed task costs by."""
    sources = {row["task_id"]: row["source_task_id"] for row in tasks.rows}
    roots: dict[str, str] = {}
    costs: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in tasks.rows:
        path: list[str] = [row["task_id"]]
        while path[-1] not in roots and (above := sources.get(path[-1])) and above not in path:
            path.append(above)
        root: str = roots.get(path[-1], path[-1])
        roots.update(dict.fromkeys(path, root))
        row["root"] = root
        if _is_completed(row):
            costs[root].append(_price_key(row))
    return costs


def _price_key(row: Row) -> tuple[Any, ...]:
    """Return what the cost of a task depends on."""
    return row["type"], row["project"], row["annotation_count"] or 0, row["created_at"].date()


def _add_costs(cost: Cost, tasks: Mapping[tuple[Any, ...], int]) -> None:
    for (task_type, project, annotation_count, on), number in tasks.items():
        cost.add(task_type, project, number, annotation_count * number, on)


def _amount(cost: Cost) -> Decimal | None:
    return None if cost.unpriced and not cost.priced_tasks else cost.amount


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the least value that at least this share of the values does not exceed; None without values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _each(amount: Decimal | None, number: int) -> float | None:
    return None if amount is None or not number else round(float(amount / number), 6)
