"""Values are loaded by one thread for all, and totals are kept in proportion to what counting them took."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.timed_cache import TimedCache, Totals
from tests.servers import wait_until


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


@pytest.mark.parametrize("fails", [False, True])
def test_threads_that_ask_during_a_load_get_what_it_returns_or_raises(fails: bool) -> None:
    asked: list[float] = []
    loads: list[int] = []

    def clock() -> float:
        asked.append(0.0)
        return len(loads) * 10.0

    def load() -> int:
        wait_until(lambda: len(asked) >= 8, what="eight threads ask")
        loads.append(1)
        if fails:
            raise ConnectionError
        return len(loads)

    cache = TimedCache(load, 5.0, clock)
    with ThreadPoolExecutor(8) as threads:
        results = [threads.submit(cache.get) for _ in range(8)]
    assert loads == [1]
    if fails:
        assert {type(one.exception()) for one in results} == {ConnectionError}
        with pytest.raises(ConnectionError):
            cache.get()
        assert loads == [1, 1]
    else:
        assert [one.result() for one in results] == [1] * 8
        assert cache.get() == 1
