"""The budget of a request: what is charged, what is given back, and who has none."""

import pytest

from pipeline.db.json import loads
from pipeline.db.memory_budget import (
    MAX_READ_BYTES,
    ReadTooLarge,
    charge,
    is_bounded,
    memory_budget,
    temporary_reads,
)


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
