"""Numbers about tasks: how many, how long, how good and how expensive, by project, step and week of creation.

Every number has a definition of one sentence (DEFINITIONS) and can be computed as of a moment in the past.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, select

from models import FollowUp, Join, Response, Task
from pipeline.db.ids import utcnow
from pipeline.follow_ups.prices import Cost
from workflows.definition.money import Prices
from workflows.planning.joins import AGREED

GROUPS = ("project", "workflow", "step", "week", "type", "batch", "status")
DEFAULT_GROUPS = ("project", "workflow", "step")
MIN_DURATIONS = 5
"""Completed tasks that a usual time needs. With fewer of them no task is late."""
DEFINITIONS: Mapping[str, str] = {
    "created": "Tasks that were created in the chosen time, by Scale's created_at (UTC).",
    "open": "Created tasks without a result that are not canceled and not in error.",
    "late": "Open tasks that are older than 90 % of the completed tasks of the same type, project and step took;"
    f" none where fewer than {MIN_DURATIONS} are completed.",
    "completed": "Tasks with the status completed.",
    "canceled": "Tasks with the status canceled.",
    "error": "Tasks with the status error.",
    "median_seconds": "Median time from created_at to completed_at of completed tasks.",
    "p90_seconds": "Time within which 90 % of the completed tasks were completed.",
    "reviewed": "Completed tasks whose review is accepted, rejected or fixed.",
    "accepted": "Reviewed tasks whose review is accepted or fixed.",
    "rejected": "Reviewed tasks whose review is rejected.",
    "first_pass_rate": "Share of the reviewed tasks that are accepted with their first response.",
    "rejection_rate": "Share of the reviewed tasks whose review is rejected.",
    "fix_rate": "Share of the reviewed tasks whose review is fixed.",
    "cost": "Cost of the completed tasks by today's price list.",
    "cost_per_accepted": "Cost of the completed tasks of the group divided by its accepted tasks; null without a price.",
}
AGREEMENT_DEFINITIONS: Mapping[str, str] = {
    "joins": "Joins that were decided with a reducer that compares results.",
    "agreed_percent": "Share of these joins whose agreement is at least 0.8.",
    "mean_agreement": "Mean of the reducer's agreement over these joins: share of equal answers, or IoU of boxes.",
    "categories": "Items that two or more copies answered with one category each.",
    "category_percent": "Share of the pairs of copies of an item that chose the same category.",
    "alpha": "Krippendorff's alpha (nominal) of these categories; null where all copies chose one value, because nothing"
    " could have disagreed.",
}


@dataclass(slots=True)
class Numbers:
    """The tasks of one group, counted."""

    cost: Cost
    created: int = 0
    open: int = 0
    late: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reviews: Counter[str] = field(default_factory=Counter)
    first_pass: int = 0
    durations: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return every number of DEFINITIONS; null where it is undefined."""
        reviewed = sum(self.reviews.values())
        accepted = self.reviews["accepted"] + self.reviews["fixed"]
        cost = None if self.cost.unpriced and not self.cost.priced_tasks else self.cost.amount
        return {
            "created": self.created,
            "open": self.open,
            "late": self.late,
            **{name: self.statuses[name] for name in ("completed", "canceled", "error")},
            "median_seconds": statistics.median(self.durations) if self.durations else None,
            "p90_seconds": percentile(self.durations, 0.9),
            "reviewed": reviewed,
            "accepted": accepted,
            "rejected": self.reviews["rejected"],
            "first_pass_rate": _share(self.first_pass, reviewed),
            "rejection_rate": _share(self.reviews["rejected"], reviewed),
            "fix_rate": _share(self.reviews["fixed"], reviewed),
            "cost": None if cost is None else float(cost),
            "cost_per_accepted": _each(cost, accepted) if self.cost.is_known else None,
        }


def insights(
    connection: Connection,
    prices: Prices,
    group_by: Sequence[str] = DEFAULT_GROUPS,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """Return {as_of, group_by, data, agreement, definitions, currency}. data: the numbers of each group of tasks.

    since, until: of the creation. as_of: later callbacks are left out; by default now.
    """
    moment = (as_of or utcnow()).astimezone(UTC)
    rows = list(_tasks(connection, since, until, moment))
    usual = _usual_times(rows)
    groups: dict[tuple[Any, ...], Numbers] = {}
    for row in rows:
        key = tuple(row[name] for name in group_by)
        _count(groups.setdefault(key, Numbers(Cost(prices))), row, usual.get(_kind(row)), moment)
    in_order = sorted(groups.items(), key=lambda item: [str(part or "") for part in item[0]])
    data = [
        {**dict.fromkeys(GROUPS), **dict(zip(group_by, key, strict=True)), **numbers.to_json()}
        for key, numbers in in_order
    ]
    return {
        "as_of": moment,
        "group_by": list(group_by),
        "currency": prices.currency,
        "data": data,
        "agreement": agreement(connection, since, moment),
        "definitions": {**DEFINITIONS, **AGREEMENT_DEFINITIONS},
    }


def _tasks(
    connection: Connection, since: datetime | None, until: datetime | None, moment: datetime
) -> Iterator[dict[str, Any]]:
    """Yield the tasks that were created until `moment`, each as it was known then."""
    columns = (
        Task.type,
        Task.project,
        Task.batch,
        Task.status,
        Task.created_at,
        Task.completed_at,
        Task.review_status,
        Task.reviewed_at,
        Task.clock,
        Task.response_count,
        FollowUp.workflow,
        FollowUp.step,
        Response.annotation_count,
    )
    statement = (
        select(*columns)
        .outerjoin(FollowUp, FollowUp.unique_id == Task.follow_up_unique_id)
        .outerjoin(Response, Response.id == Task.response_id)
        .where(Task.created_at <= moment)
    )
    if since is not None:
        statement = statement.where(Task.created_at >= since)
    if until is not None:
        statement = statement.where(Task.created_at < until)
    for found in connection.execute(statement).mappings():
        row = dict(found)
        if row["status"] != "pending" and (row["completed_at"] or row["clock"] or moment) > moment:
            row |= {"status": "pending", "completed_at": None, "review_status": None}
        if (row["reviewed_at"] or moment) > moment:
            row["review_status"] = None
        created = row["created_at"]
        row["week"] = f"{created - timedelta(days=created.weekday()):%Y-%m-%d}"
        row["seconds"] = (row["completed_at"] - created).total_seconds() if row["completed_at"] else None
        yield row


def _count(numbers: Numbers, row: Mapping[str, Any], usual: float | None, moment: datetime) -> None:
    numbers.created += 1
    if row["status"] not in ("completed", "canceled", "error"):
        numbers.open += 1
        age = (moment - row["created_at"]).total_seconds()
        numbers.late += usual is not None and age > usual
        return
    numbers.statuses[row["status"]] += 1
    if row["status"] != "completed":
        return
    if row["seconds"] is not None:
        numbers.durations.append(row["seconds"])
    numbers.cost.add(
        row["type"], row["project"], annotations=row["annotation_count"] or 0, on=row["created_at"].date()
    )
    if row["review_status"] in ("accepted", "rejected", "fixed"):
        numbers.reviews[row["review_status"]] += 1
        numbers.first_pass += row["review_status"] == "accepted" and row["response_count"] <= 1


def _kind(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["type"], row["project"], row["workflow"], row["step"]


def _usual_times(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, ...], float]:
    """Return the seconds within which 90 % of the tasks of a kind were completed, of kinds with enough of them."""
    durations: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in rows:
        if row["status"] == "completed" and row["seconds"] is not None:
            durations[_kind(row)].append(row["seconds"])
    return {
        kind: found
        for kind, seconds in durations.items()
        if len(seconds) >= MIN_DURATIONS and (found := percentile(seconds, 0.9)) is not None
    }


def agreement(connection: Connection, since: datetime | None, moment: datetime) -> list[dict[str, Any]]:
    """Return {workflow, step, joins, agreed_percent, mean_agreement, categories, category_percent, alpha} of each join step."""
    statement = select(Join.workflow, Join.step, Join.awaited_step, Join.conclusion, Join.result).where(
        Join.fired_at <= moment
    )
    if since is not None:
        statement = statement.where(Join.fired_at >= since)
    found: dict[tuple[str, str, str], list[tuple[str | None, float]]] = defaultdict(list)
    for workflow, step, awaited, conclusion, result in connection.execute(statement):
        value = (result or {}).get("agreement")
        if isinstance(value, int | float):
            found[workflow, step, awaited].append((conclusion, float(value)))
    rows = []
    for (workflow, step, awaited), values in sorted(found.items()):
        units = _category_units(connection, workflow, awaited, moment)
        pairs = [(a == b) for unit in units for index, a in enumerate(unit) for b in unit[index + 1 :]]
        agreed = sum(conclusion == AGREED for conclusion, _ in values)
        rows.append(
            {
                "workflow": workflow,
                "step": step,
                "joins": len(values),
                "agreed_percent": _percent(agreed, len(values)),
                "mean_agreement": round(statistics.fmean(value for _, value in values), 4),
                "categories": len(units),
                "category_percent": _percent(sum(pairs), len(pairs)),
                "alpha": krippendorff_alpha(units),
            }
        )
    return rows


def _category_units(connection: Connection, workflow: str, step: str, moment: datetime) -> list[list[str]]:
    """Return the categories that the copies of each item were given, of items with two copies or more."""
    statement = (
        select(FollowUp.source_task_id, FollowUp.source_annotation, Response.answer)
        .join(Task, Task.task_id == FollowUp.task_id)
        .join(Response, Response.id == Task.response_id)
        .where(FollowUp.workflow == workflow, FollowUp.step == step, Task.completed_at <= moment)
    )
    units: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for source, element, answer in connection.execute(statement):
        category = answer.get("category") if isinstance(answer, dict) else None
        if isinstance(category, str):
            units[source, element].append(category)
    return [unit for unit in units.values() if len(unit) > 1]


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


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the least value that at least this share of the values does not exceed; None without values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 2) if whole else None


def _each(amount: Decimal | None, number: int) -> float | None:
    return None if amount is None or not number else round(float(amount / number), 6)
