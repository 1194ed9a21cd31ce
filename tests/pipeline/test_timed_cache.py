"""Totals are kept in proportion to what counting them took."""

from pipeline.timed_cache import Totals


class Clock:
    """A clock that counting moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_total_that_took_long_is_kept_for_longer() -> None:
    clock = Clock()
    totals = Totals(clock)
    counted: list[float] = []

    def count(took: float) -> int:
        clock.now += took
        counted.append(took)
        return len(counted)

    assert totals.get("tasks", lambda: count(0.1)) == 1
    clock.now += 1.9
    assert totals.get("tasks", lambda: count(0.1)) == 1
    assert totals.get("jobs", lambda: count(0.0)) == 2
    clock.now += 0.2
    assert totals.get("tasks", lambda: count(30.0)) == 3
    clock.now += Totals.MAX_SECONDS + 0.1
    assert totals.get("tasks", lambda: count(0.1)) == 4
