"""Limits of workflows and of the installation, in tasks and in money: counters that several workers share and that never
exceed their limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from more_itertools import chunked
from sqlalchemy import ColumnElement, Connection, and_, bindparam, or_, select, update

from models import FollowUp, SpendCounter
from pipeline.db.dialect import insert
from pipeline.db.ids import utcnow
from pipeline.follow_ups.prices import project_of, request_project
from workflows.definition.model import (
    INSTALLATION,
    Limit,
    SpendLimit,
    Workflows,
    limits_for,
)
from workflows.definition.money import MICROS, Money, Prices, format_amount, from_micros, to_micros
from workflows.planning.reasons import Reason, ReasonCode

Key = tuple[str, str]
"""(counter, period)"""
AnyLimit = Limit | SpendLimit
ID_BATCH_SIZE = 500


class Claim(NamedTuple):
    """One task that is to be created, and what limits it."""

    limits: tuple[AnyLimit, ...]
    cost: Decimal | None = None  # expected, in the currency of the price list; None: unknown
    why_unknown: str = ""


@dataclass(slots=True)
class Budget:
    """What limits have granted, and what they still grant. Decides in order: after a refusal the limit grants no more."""

    used: dict[Key, int]
    currency: str
    now: datetime
    taken: Counter[Key] = field(default_factory=Counter)
    full: set[Key] = field(default_factory=set)

    def take(self, claim: Claim) -> Reason | None:
        """Count one task under each of its limits, or return why one of them holds it, and count nothing."""
        amounts: dict[Key, int] = {}
        for limit in claim.limits:
            key = key_of(limit, self.now)
            if isinstance(limit, SpendLimit) and (why := self._unknown(limit, claim)):
                return Reason(ReasonCode.LIMIT, f"held by {describe(limit)}: {why}")
            amount = 1 if isinstance(limit, Limit) else to_micros(claim.cost or Decimal(0))
            most = limit.most if isinstance(limit, Limit) else to_micros(limit.most.amount)
            left = most - self.used.get(key, 0) - self.taken[key]
            if amount > left or key in self.full:
                self.full.add(key)
                return limit_reason(limit, left, self.now)
            amounts[key] = amount
        self.taken.update(amounts)
        return None

    def _unknown(self, limit: SpendLimit, claim: Claim) -> str | None:
        if claim.cost is None:
            return claim.why_unknown
        if limit.most.currency != self.currency:
            return f"the price list is in {self.currency}"
        return None


def claims(
    connection: Connection,
    workflows: Workflows,
    unique_ids: Mapping[tuple[str, str], Sequence[str]],
) -> dict[str, Claim]:
    """Return the claim of each stored follow-up. unique_ids: of each (workflow, step)."""
    found: dict[str, Claim] = {}
    for (workflow_name, step_name), ids in unique_ids.items():
        limits = limits_of(workflows, workflow_name, step_name)
        if not any(isinstance(limit, SpendLimit) for limit in limits):
            found |= dict.fromkeys(ids, Claim(limits))
            continue
        for some in chunked(ids, ID_BATCH_SIZE):
            columns = (FollowUp.unique_id, FollowUp.task_type, request_project())
            for row in connection.execute(select(*columns).where(FollowUp.unique_id.in_(some))):
                found[row.unique_id] = claim(limits, workflows.prices, row.task_type, row.request_project)
    return found


def claim(limits: tuple[AnyLimit, ...], prices: Prices, task_type: str | None, project: str | None) -> Claim:
    """Return the claim of one task at its expected cost."""
    return Claim(limits, prices.cost(task_type, project), prices.why_unknown(task_type, project))


def limits_of(workflows: Workflows, workflow_name: str, step_name: str) -> tuple[AnyLimit, ...]:
    """Return every limit of a step: its own, those of its workflow, and those of the installation."""
    workflow = workflows.workflow(workflow_name)
    step = workflow.step(step_name) if workflow else None
    own = limits_for(workflow, step) if workflow and step else ()
    return (*own, *workflows.limits.counters)


def only_limit(workflows: Workflows, steps: Iterable[tuple[str, str]]) -> tuple[bool, Limit | None]:
    """Return whether at most one limit counts the tasks of all these (workflow, step), and which; it counts no money."""
    found = {limits_of(workflows, *step) for step in steps}
    if workflows.limits.problems or len(found) != 1:
        return False, None
    (limits,) = found
    if not limits:
        return True, None
    (first, *others) = limits
    return (True, first) if isinstance(first, Limit) and not others else (False, None)


def reserve(connection: Connection, workflows: Workflows, asked: Sequence[Claim]) -> list[Reason | None]:
    """Count each task under all of its limits, in order. Return why each is held; None where it may be created.

    The counters' rows stay locked until the transaction ends, so that two workers never grant the same place.
    """
    if problems := workflows.limits.problems:
        reason = Reason(ReasonCode.LIMIT, f"held because the limits have errors: {problems[0]}")
        return [reason] * len(asked)
    limits = {limit for one in asked for limit in one.limits}
    if len(limits) == 1 and all(one.limits for one in asked):
        (only,) = limits
        if isinstance(only, Limit) and _reserve_all(connection, only, len(asked)):
            return [None] * len(asked)
    now = utcnow()
    keys = {key_of(limit, now) for limit in limits}
    budget = Budget(_lock(connection, keys) if keys else {}, workflows.prices.currency, now)
    reasons = [budget.take(one) for one in asked]
    _count(connection, budget.taken)
    return reasons


def count_without_limit(connection: Connection, asked: Iterable[Claim]) -> None:
    """Count tasks that a person lets through, whatever their limits say, so that less is left for the others."""
    now = utcnow()
    taken: Counter[Key] = Counter()
    for one in asked:
        for limit in one.limits:
            taken[key_of(limit, now)] += 1 if isinstance(limit, Limit) else to_micros(one.cost or Decimal(0))
    if taken:
        _lock(connection, taken.keys())
        _count(connection, taken)


def give_back(connection: Connection, one: Claim, at: datetime) -> None:
    """Take back what was counted at `at` for a task that was not created."""
    taken = {
        key_of(limit, at): -1 if isinstance(limit, Limit) else -to_micros(one.cost or Decimal(0))
        for limit in one.limits
    }
    _count(connection, Counter(taken))


def read_used(connection: Connection, limits: Iterable[AnyLimit]) -> dict[Key, int]:
    """Return what each of these limits has granted, by its key."""
    now = utcnow()
    keys = sorted({key_of(limit, now) for limit in limits})
    found: dict[Key, int] = {}
    columns = (SpendCounter.counter, SpendCounter.period, SpendCounter.granted)
    for some in chunked(keys, 100):
        for row in connection.execute(select(*columns).where(or_(*map(_is, some)))):
            found[row.counter, row.period] = row.granted
    return found


def read_budget(connection: Connection, workflows: Workflows, limits: Iterable[AnyLimit]) -> Budget:
    """Return what these limits grant now, without locking anything."""
    return Budget(read_used(connection, limits), workflows.prices.currency, utcnow())


def submission_claim(workflows: Workflows, task_type: str | None, request: Mapping[str, object]) -> Claim:
    """Return the claim of a task that is submitted: only the limits of the installation count it."""
    return claim(workflows.limits.counters, workflows.prices, task_type, project_of(request))


def describe(limit: AnyLimit) -> str:
    """Return the name of a limit: `the limit of $200.00 a day of all workflows`."""
    period = "a day" if limit.period == "day" else "in all"
    name = "all workflows" if limit.counter == INSTALLATION else limit.counter
    most = f"{limit.most:,} tasks" if isinstance(limit, Limit) else str(limit.most)
    return f"the limit of {most} {period} of {name}"


def limit_reason(limit: AnyLimit, left: int, now: datetime) -> Reason:
    """Return the reason of a follow-up that a limit holds: what is left of it, and when it is released."""
    text = f"held by {describe(limit)}"
    if isinstance(limit, SpendLimit):
        text += f"; {format_amount(max(Decimal(0), Decimal(left) / MICROS), limit.most.currency)} is left"
    if limit.period == "day":
        text += f"; released from {released_at(now):%Y-%m-%d} 00:00 UTC on"
    return Reason(ReasonCode.LIMIT, text)


def released_at(now: datetime) -> datetime:
    """Return the beginning of the next UTC day."""
    return (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def amount_of(limit: AnyLimit, granted: int) -> Decimal | int:
    """Return what a counter holds in the unit of its limit: tasks, or money."""
    return granted if isinstance(limit, Limit) else from_micros(granted)


def key_of(limit: AnyLimit, now: datetime) -> Key:
    """Return the key of a limit's counter at a moment."""
    period = f"{now:%Y-%m-%d}" if limit.period == "day" else "total"
    if isinstance(limit.most, Money):
        return f"{limit.counter}/{limit.most.currency}", period
    return limit.counter, period


def _reserve_all(connection: Connection, limit: Limit, requested: int) -> bool:
    """Count in one statement, if the counter exists and is far enough from its limit: the usual case."""
    counter, period = key_of(limit, utcnow())
    values = {"counted": counter, "within": period, "requested": requested, "most": limit.most}
    return bool(connection.execute(_RESERVE_ALL, values).rowcount)


_RESERVE_ALL = (
    update(SpendCounter)
    .where(
        SpendCounter.counter == bindparam("counted"),
        SpendCounter.period == bindparam("within"),
        SpendCounter.granted + bindparam("requested") <= bindparam("most"),
    )
    .values(granted=SpendCounter.granted + bindparam("requested"))
)


def _count(connection: Connection, taken: Mapping[Key, int]) -> None:
    for key, amount in sorted(taken.items()):
        if amount:
            statement = update(SpendCounter).where(_is(key))
            connection.execute(statement.values(granted=SpendCounter.granted + amount))


def _is(key: Key) -> ColumnElement[bool]:
    return and_(SpendCounter.counter == key[0], SpendCounter.period == key[1])


def _lock(connection: Connection, keys: Iterable[Key]) -> dict[Key, int]:
    """Lock the counters in one order, so that two transactions never wait for each other. New ones are inserted.

    Return what each has granted.
    """
    rows = [
        {"counter": counter, "period": period, "granted": 0, "changed_at": utcnow()}
        for counter, period in sorted(keys)
    ]
    statement = insert(connection, SpendCounter).values(rows)
    statement = statement.on_conflict_do_update(
        index_elements=["counter", "period"], set_={"changed_at": utcnow()}
    )
    columns = (SpendCounter.counter, SpendCounter.period, SpendCounter.granted)
    return {(row[0], row[1]): row[2] for row in connection.execute(statement.returning(*columns))}
