"""What tasks cost by the price list: one task, a selection of follow-ups, a whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from more_itertools import chunked
from sqlalchemy import ColumnElement, Connection, Label, case, func, or_, select

from models import FollowUp, Response, Task
from pipeline.db.dialect import utc_day
from workflows.definition.model import INPUT
from workflows.definition.money import Prices

ID_BATCH_SIZE = 500
MAX_NAMED_TYPES = 3


@dataclass(slots=True)
class Cost:
    """The cost of some tasks: the sum of the known prices, and how many tasks have none."""

    prices: Prices
    amount: Decimal = Decimal(0)
    priced_tasks: int = 0
    unpriced: Counter[str] = field(default_factory=Counter)  # tasks by why their cost is unknown

    def add(
        self,
        task_type: str | None,
        project: str | None,
        tasks: int = 1,
        annotations: int | None = None,
        on: date | None = None,
    ) -> None:
        """Add `tasks` of one type and project. annotations: of all their results; None: as many as expected."""
        price = self.prices.price(task_type, project, on)
        cost = price.total(tasks, annotations) if price else None
        if cost is None:
            self.unpriced[self.prices.why_unknown(task_type, project)] += tasks
        else:
            self.amount += cost
            self.priced_tasks += tasks

    @property
    def is_known(self) -> bool:
        """Return whether every task has a price."""
        return not self.unpriced

    @property
    def summary(self) -> str:
        """Return the cost for people: an amount, and for how many tasks it is unknown and why."""
        if not self.unpriced:
            return self.prices.format(self.amount)
        reasons = [why for why, _ in self.unpriced.most_common(MAX_NAMED_TYPES)]
        more = len(self.unpriced) - len(reasons)
        why = "; ".join(reasons) + (f"; and {more} more" if more > 0 else "")
        if not self.priced_tasks:
            return why
        tasks = sum(self.unpriced.values())
        noun = "task" if tasks == 1 else "tasks"
        return f"{self.prices.format(self.amount)} and {tasks:,} {noun} of unknown cost: {why}"

    def to_json(self) -> dict[str, Any]:
        """Return {amount, currency, unpriced_tasks, summary}. amount: of the tasks with a price; null if none has one."""
        unpriced = sum(self.unpriced.values())
        return {
            "amount": None if unpriced and not self.priced_tasks else float(self.amount),
            "currency": self.prices.currency,
            "unpriced_tasks": unpriced,
            "summary": self.summary,
        }


def cost_of_task(prices: Prices, task_type: str | None, request: Mapping[str, Any] | None) -> Cost:
    """Return the expected cost of one task with this request."""
    cost = Cost(prices)
    cost.add(task_type, project_of(request))
    return cost


def cost_of_requests(prices: Prices, requests: Iterable[tuple[str, Mapping[str, Any]]]) -> Cost:
    """Return the expected cost of tasks, given as (type, request)."""
    cost = Cost(prices)
    for task_type, request in requests:
        cost.add(task_type, project_of(request))
    return cost


def cost_of_follow_ups(connection: Connection, prices: Prices, unique_ids: Sequence[str]) -> Cost:
    """Return the expected cost of follow-ups that are not created yet."""
    cost = Cost(prices)
    project = request_project()
    columns = (FollowUp.task_type, project)
    for some in chunked(unique_ids, ID_BATCH_SIZE):
        statement = select(*columns, func.count()).where(FollowUp.unique_id.in_(some))
        grouped = statement.group_by(FollowUp.task_type, project.name)
        for task_type, name, tasks in connection.execute(grouped):
            cost.add(task_type, name, tasks)
    return cost


UNPAID = ("canceled", "error")
"""Status of tasks that cost nothing."""
UNCREATED = ("planned", "held")


def spending_stage() -> ColumnElement[str]:
    """Return the stage of a stored task's cost as a column.

    spent: it has a result. free: it was canceled, ended in an error, or is an input. committed: it exists at Scale, its
    result is due.
    """
    return case(
        (or_(Task.status.in_(UNPAID), Task.type == INPUT), "free"),
        (Task.response_id.is_not(None), "spent"),
        else_="committed",
    )


def cost_of_run(connection: Connection, prices: Prices, task_ids: Sequence[str]) -> dict[str, Any]:
    """Return the cost of a run as {spent, committed, planned}: of its tasks with a result, of those at Scale without one,
    and of the follow-ups that are planned or held."""
    costs = {stage: Cost(prices) for stage in ("spent", "committed", "planned")}
    stage, day = spending_stage().label("stage"), utc_day(Task.created_at).label("day")
    project = request_project()
    for some in chunked(task_ids, ID_BATCH_SIZE):
        stored = (
            select(Task.type, Task.project, stage, day, func.count(), func.sum(Response.annotation_count))
            .outerjoin(Response, Response.id == Task.response_id)
            .where(Task.task_id.in_(some))
            .group_by(Task.type, Task.project, "stage", "day")
        )
        for task_type, name, found, on, tasks, counted in connection.execute(stored):
            if found in costs:
                costs[found].add(task_type, name, tasks, counted if found == "spent" else None, as_day(on))
        waiting = (
            select(FollowUp.task_type, project, func.count())
            .where(FollowUp.source_task_id.in_(some), FollowUp.state.in_(UNCREATED))
            .group_by(FollowUp.task_type, project.name)
        )
        for task_type, name, tasks in connection.execute(waiting):
            costs["planned"].add(task_type, name, tasks)
    return {name: cost.to_json() for name, cost in costs.items()}


def as_day(day: str | None) -> date | None:
    """Return the date of a column of `utc_day`."""
    return date.fromisoformat(day) if day else None


def project_of(request: Mapping[str, Any] | None) -> str | None:
    """Return the project that a request names."""
    project = (request or {}).get("project")
    return project if isinstance(project, str) else None


def request_project() -> Label[str | None]:
    """Return the project of a follow-up's request as a column. Group by its name: PostgreSQL compares no parameters."""
    project: ColumnElement[str | None] = FollowUp.request["project"].as_string()
    return project.label("request_project")
