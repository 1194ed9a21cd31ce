"""From a callback to the task that follows at Scale: one alone, many at once, and many at a Scale that takes its time."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.table import Table

from benchmarks import stack
from benchmarks.bodies import POLYGONS
from benchmarks.callbacks import ids
from benchmarks.load import Connection
from benchmarks.scale import Scale
from tests.servers import wait_until

SINGLES = 30
DRAINED = 500
SLOW = 100
SLOW_SECONDS = 0.15


@dataclass
class Chain:
    """A contender with a Scale of its own."""

    contender: stack.Contender
    scale: Scale

    def follow(self, wanted: int, delay: float = 0.0) -> float:
        """Post `wanted` results and return the seconds until the last follow-up reached Scale. Each must come once."""
        self.scale.delay = delay
        before, first, start = len(self.scale.created), next(ids), time.monotonic()
        connection = Connection(self.contender.port)
        for number in range(first, first + wanted):
            if connection.post(POLYGONS.with_id(number)) != 200:
                raise SystemExit(f"{self.contender.name} refused a callback")
        wait_until(lambda: len(self.scale.created) >= before + wanted, 120, "the follow-ups reach Scale")
        seconds = self.scale.created[before + wanted - 1][0] - start
        time.sleep(2 * delay + 0.3)
        if len(self.scale.created) != before + wanted:
            raise SystemExit(f"{self.contender.name} created more than {wanted} follow-ups")
        return seconds

    def alone(self) -> float:
        """Return the median of single callbacks."""
        return statistics.median(self._one() for _ in range(SINGLES))

    def _one(self) -> float:
        before, start = len(self.scale.created), time.monotonic()
        connection = Connection(self.contender.port)
        connection.post(POLYGONS.with_id(next(ids)))
        wait_until(lambda: len(self.scale.created) > before, 30, "the follow-up reaches Scale")
        time.sleep(0.03)
        return self.scale.created[before][0] - start


@contextmanager
def _chain(kind: Callable[..., object], servers: stack.Servers) -> Iterator[Chain]:
    scale = Scale()
    try:
        with kind(servers, SCALE_API_URL=scale.url) as contender:  # type: ignore[attr-defined]
            found = Chain(contender, scale)
            found.follow(10)  # warm
            yield found
    finally:
        scale.close()


def chain(servers: stack.Servers, rounds: int) -> Table:
    """Measure the contenders in turn, round by round."""
    figures: dict[str, tuple[Callable[[Chain], float], str]] = {
        "callback → follow-up, p50": (Chain.alone, "≤ 0.7 × naive"),
        f"drain of {DRAINED} follow-ups": (lambda one: one.follow(DRAINED), "≤ 0.5 × naive"),
        f"{SLOW} follow-ups, Scale takes {SLOW_SECONDS * 1000:.0f} ms": (
            lambda one: one.follow(SLOW, SLOW_SECONDS),
            "≤ 1,300 ms",
        ),
    }
    table = Table("figure", "naive", "weighbridge", "÷ naive", "range", "goal")
    with _chain(stack.naive, servers) as naive, _chain(stack.weighbridge, servers) as ours:
        for name, (measure, goal) in figures.items():
            pairs = [(measure(naive), measure(ours)) for _ in range(rounds)]
            ratios = sorted(found / plain for plain, found in pairs)
            plain, found = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
            spread = f"{ratios[0]:.2f}–{ratios[-1]:.2f}"
            table.add_row(
                name, f"{plain:,.1f} ms", f"{found:,.1f} ms", f"{statistics.median(ratios):.2f}", spread, goal
            )
        memory = [one.contender.memory() / 1e6 for one in (naive, ours)]
        table.add_row("memory of the worker", *(f"{one:.0f} MB" for one in memory), "", "", "")
    with _chain(stack.embedded, servers) as embedded:
        found = statistics.median(embedded.alone() for _ in range(rounds)) * 1000
        table.add_row("callback → follow-up, embedded default, p50", "", f"{found:.1f} ms", "", "", "≤ 30 ms")
    return table
