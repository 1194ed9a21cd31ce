"""Differences of two dataset versions."""

import pytest

from pipeline.datasets import diff
from pipeline.db.memory_budget import ReadTooLarge, memory_budget
from pipeline.service import Service
from tests.factories.datasets import Post, box, create


def test_differences(service: Service, post: Post) -> None:
    post("t1", [box("a"), box("b"), box("c", attributes={"n": 1})])
    post("t2", [box("d", "bus")])
    create(service)
    post(
        "t1",
        [box("a", left=9), box("c", attributes={"n": 2}), box("e")],
        at="2026-01-05T00:00:00.000Z",
    )
    post("t3", [box("f", "van")])
    post("t2", None, status="pending", at="2026-01-05T00:00:00.000Z")
    create(service)
    found = diff.compare(service.reader, "street@1", "street@2")
    assert found["tasks"] == {"added": ["t3"], "removed": ["t2"], "changed": ["t1"]}
    assert found["labels"] == {"added": ["van"], "removed": ["bus"]}
    uuids = {how: [shape["uuid"] for shape in shapes] for how, shapes in found["boxes"].items()}
    assert uuids == {"added": ["e", "f"], "removed": ["b", "d"], "changed": ["a", "c"]}
    same = diff.compare(service.reader, "street@2", "street@2")
    assert not any(items for changes in same.values() for items in changes.values())


def test_pairs_that_are_too_large_together_are_compared_one_by_one(
    service: Service, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day, left in ((2, 0), (5, 9)):
        for number in range(4):
            boxes = [box(f"{number}-{n}", left=left) for n in range(10)]
            post(f"t{number}", boxes, at=f"2026-01-0{day}T00:00:00.000Z")
        create(service)
    whole = diff.compare(service.reader, "street@1", "street@2")
    assert len(whole["shapes"]["changed"]) == 40
    monkeypatch.setattr("pipeline.db.memory_budget.MAX_READ_BYTES", 60_000)
    with memory_budget():
        assert diff.compare(service.reader, "street@1", "street@2") == whole
    monkeypatch.setattr("pipeline.db.memory_budget.MAX_READ_BYTES", 6_000)
    with memory_budget(), pytest.raises(ReadTooLarge):
        diff.compare(service.reader, "street@1", "street@2")
