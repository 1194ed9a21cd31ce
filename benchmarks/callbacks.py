"""Durable callbacks per second, with their cost and their slowest hundredth: raw, naive and Weighbridge in turn."""

import itertools
import statistics
from typing import NamedTuple

from rich.table import Table

from benchmarks import stack
from benchmarks.bodies import FIFTY_BOXES, ONE_BOX, THOUSAND_BOXES, Body
from benchmarks.load import send

GOALS = {ONE_BOX.name: 0.60, FIFTY_BOXES.name: 0.55, THOUSAND_BOXES.name: 0.34}
MAX_P99_RATIO = 1.3
ids = itertools.count(1, 10_000_000)


class Measured(NamedTuple):
    """One slice of load: callbacks per second, CPU milliseconds of each with both servers, and the 99th percentile in ms."""

    rate: float
    cpu: float
    p99: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} ({self.cpu:.2f})"


def measure(servers: stack.Servers, contender: stack.Contender, body: Body, seconds: float) -> Measured:
    """Return what durable callbacks cost. Exits if one was refused or rows are missing."""
    send(contender.port, body, seconds=min(1.0, seconds), first_id=next(ids))  # warm
    before, cpu = contender.stored(), stack.cpu_seconds(servers, contender)
    sent = send(contender.port, body, seconds=seconds, first_id=next(ids))
    cpu = stack.cpu_seconds(servers, contender) - cpu
    new = [now - then for now, then in zip(contender.stored(), before, strict=True)]
    wanted = [sent.accepted, sent.accepted * body.annotations][: len(new)]
    if sent.refused or new != wanted:
        raise SystemExit(
            f"{contender.name} refused {sent.refused}, acknowledged {sent.accepted} and stored {new}"
        )
    return Measured(sent.accepted / sent.seconds, cpu * 1000 / sent.accepted, sent.p99 * 1000)


def _middle(found: list[Measured]) -> Measured:
    return Measured(*map(statistics.median, zip(*found, strict=True)))


def callbacks(servers: stack.Servers, seconds: float, rounds: int) -> Table:
    """Measure the contenders in turn, round by round, so that a slow minute of the machine affects all of them."""
    columns = (
        "naive /s (CPU ms)",
        "weighbridge",
        "raw",
        "÷ raw",
        "range",
        "goal",
        "p99 ms, raw",
        "÷ raw",
        "goal",
    )
    table = Table("body", "bytes", *columns)
    with stack.raw(servers) as raw, stack.naive(servers) as naive, stack.weighbridge(servers) as ours:
        for body in (ONE_BOX, FIFTY_BOXES, THOUSAND_BOXES):
            slices = [
                [measure(servers, one, body, seconds) for one in (raw, naive, ours)] for _ in range(rounds)
            ]
            limit, plain, found = (_middle(list(column)) for column in zip(*slices, strict=True))
            ratios = sorted(one.rate / floor.rate for floor, _, one in slices)
            tails = statistics.median(one.p99 / floor.p99 for floor, _, one in slices)
            table.add_row(
                body.name, f"{body.size:,}", str(plain), str(found), str(limit),
                f"{statistics.median(ratios):.2f}", f"{ratios[0]:.2f}–{ratios[-1]:.2f}", f"≥ {GOALS[body.name]}",
                f"{found.p99:.0f}, {limit.p99:.0f}", f"{tails:.2f}", f"≤ {MAX_P99_RATIO}",
            )  # fmt: skip
    return table
