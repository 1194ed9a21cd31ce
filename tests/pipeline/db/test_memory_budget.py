"""The budget of a request: what is charged, what is given back, and who has none."""

import threading

import pytest

from pipeline.datasets.points import points_of
from pipeline.db.json import loads
from pipeline.db.memory_budget import (
    FREE_READ_BYTES,
    MAX_READ_BYTES,
    MAX_WAITING,
    ReadersBusy,
    ReadTooLarge,
    charge,
    is_bounded,
    memory_budget,
    temporary_reads,
)
from tests.factories.large_reads import large_read_elsewhere


def test_workers_and_commands_have_no_budget() -> None:
    assert not is_bounded()
    charge(10 * MAX_READ_BYTES)


def test_a_request_is_refused_before_it_exceeds_its_budget() -> None:
    with memory_budget():
        charge(MAX_READ_BYTES)
        with pytest.raises(ReadTooLarge):
            charge(1)
    with memory_budget():
        charge(MAX_READ_BYTES)
    assert not is_bounded()


@pytest.mark.parametrize("text", ["{}", "[]", '{"":0}', "1.5"], ids=["object", "array", "key", "number"])
def test_json_is_charged_by_the_memory_of_its_value(text: str) -> None:
    many = "[" + f"{text}," * (MAX_READ_BYTES // 50) + f"{text}]"
    assert len(many) < MAX_READ_BYTES // 4
    with memory_budget(), pytest.raises(ReadTooLarge):
        loads(many)
    with memory_budget(), pytest.raises(ReadTooLarge):
        loads(many.encode())


def test_what_is_not_kept_is_given_back() -> None:
    with memory_budget():
        for _ in range(3):
            with temporary_reads():
                charge(MAX_READ_BYTES)
        charge(MAX_READ_BYTES)


def test_a_large_read_that_keeps_nothing_leaves_its_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.db.memory_budget.TURN_TIMEOUT_SECONDS", 0.01)
    with memory_budget():
        with temporary_reads():
            charge(FREE_READ_BYTES + 1)
        with large_read_elsewhere(), pytest.raises(ReadersBusy):
            charge(FREE_READ_BYTES + 1)


def test_few_requests_wait_for_their_turn() -> None:
    """A waiting request keeps its thread, and mostly a connection of the pool that callbacks use too."""
    waiting = threading.Semaphore(0)

    def read() -> None:
        with memory_budget():
            waiting.release()
            charge(FREE_READ_BYTES + 1)

    threads = [threading.Thread(target=read) for _ in range(MAX_WAITING)]
    with large_read_elsewhere():
        for thread in threads:
            thread.start()
            assert waiting.acquire(timeout=10)
        while not refused():
            pass
    for thread in threads:
        thread.join()


def refused() -> bool:
    with memory_budget():
        try:
            charge(FREE_READ_BYTES + 1)
        except ReadersBusy:
            return True
    return False


def test_a_frame_with_350_000_points_is_within_the_budget() -> None:
    point = b'{"x":-12.345678,"y":123.456789,"z":-1.234567,"i":0.123456},'
    content = b'{"points":[' + point * 349_999 + point[:-1] + b"]}"
    with memory_budget():
        assert len(points_of(content)) == 350_000 * 16
