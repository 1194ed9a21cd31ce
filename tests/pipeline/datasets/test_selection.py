"""Which tasks a dataset version takes."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.datasets import versions
from pipeline.datasets.filters import Unusable, parse_filters
from pipeline.datasets.records import read_tasks
from pipeline.datasets.versions import Request
from pipeline.service import Service
from tests.factories.datasets import Post, box, create, members


def test_the_default_is_every_completed_live_task_with_a_result(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    post("t2", None)
    post("t3", [box("b")], status="pending")
    post("t4", [box("c")], environment="test")
    version = create(service)
    assert members(service, version) == ["t1"]
    assert (version.full_name, version.tasks) == ("street@1", 1)
    assert version.counts["annotations"] == {"total": 1, "by_type": {"box": 1}, "by_label": {"car": 1}}
    assert version.counts["splits"] == {"train": 1}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"project": "p1"}, ["t1", "t3"]),
        ({"batch": ["b1", "b2"]}, ["t1", "t2"]),
        ({"tag": "night"}, ["t2"]),
        ({"review": "accepted,fixed"}, ["t1"]),
        ({"label": "bus"}, ["t2"]),
        ({"metadata": {"scene": "12"}}, ["t3"]),
        ({"since": "2026-01-03"}, ["t2", "t3"]),
        ({"until": "2026-01-03"}, ["t1"]),
        ({"type": "polygonannotation"}, []),
        ({"environment": "test"}, ["t4"]),
        ({"project": "p1", "metadata": {"scene": "12"}}, ["t3"]),
    ],
)
def test_filters_choose_tasks(
    service: Service, post: Post, filters: dict[str, Any], expected: list[str]
) -> None:
    post("t1", [box("a")], project="p1", batch="b1", customer_review_status="accepted")
    post("t2", [box("b", "bus")], batch="b2", tags=["night"], at="2026-01-03T00:00:00.000Z")
    post("t3", [box("c")], project="p1", metadata={"scene": 12}, at="2026-01-04T00:00:00.000Z")
    post("t4", [box("d")], environment="test")
    assert members(service, create(service, **filters)) == expected


def test_as_of_gives_what_was_known_by_receipt(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    post("t2", [box("b")], project="p1")
    first = create(service)
    moment = datetime.now(UTC)
    post("t2", [box("b", left=7)], project="p2", at="2026-01-09T00:00:00.000Z")
    post("t1", None, status="pending", at="2026-01-09T00:00:00.000Z")
    post("t0", [box("c")], at="2026-01-01T12:00:00.000Z")  # older by Scale's clock, received later
    again = versions.create(service, "again", Request(as_of=moment), "ana")
    assert again.digest == first.digest
    assert members(service, again) == ["t1", "t2"]
    assert [task.project for task in read_tasks(service.reader, again.id)] == [None, "p1"]
    by_project = Request(filters=parse_filters({"project": "p1"}), as_of=moment)
    assert members(service, versions.create(service, "past", by_project, "ana")) == ["t2"]
    assert members(service, create(service, "now")) == ["t0", "t2"]


def test_a_moment_in_the_future_is_refused(service: Service) -> None:
    with pytest.raises(Unusable, match="future"):
        versions.create(service, "street", Request(as_of=datetime(2100, 1, 1, tzinfo=UTC)), "ana")
