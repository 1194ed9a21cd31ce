"""Numbers about tasks: counted by group, as of a moment, with agreement that is checked against published values."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from models import FollowUp, Response, Task
from pipeline.db.ids import new_id, utcnow
from pipeline.db.memory_budget import ReadTooLarge, memory_budget, temporary_reads
from pipeline.insights import insights, late_tasks, tasks_counted
from pipeline.insights.agreement import _shapes_of, _shapes_of_units, krippendorff_alpha, match_shapes
from pipeline.insights.numbers import COUNTS, DEFINITIONS, percentile
from pipeline.service import Service
from scale.geometry import Bounds
from tests.factories.datasets import Post, box

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C: nominal alpha .743.
OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 * * *",
    "1 2 3 3 2 2 4 1 2 5 * 3",
    "* 3 3 3 2 3 4 2 2 5 1 *",
    "1 2 3 3 2 4 4 1 2 5 1 *",
)


def add(service: Service, **values: Any) -> None:
    row = {
        "task_id": str(new_id()),
        "id": new_id(),
        "environment": "live",
        "type": "annotation",
        "project": "street",
        "status": "pending",
        "created_at": MONDAY,
        "clock": values.get("completed_at") or MONDAY,
        "response_count": 1,
        **values,
    }
    with service.engine.begin() as connection:
        connection.execute(insert(Task), [row])


def read(service: Service, *group_by: str, **moments: datetime) -> list[dict[str, Any]]:
    with service.reader.begin() as connection:
        return insights(connection, service, group_by or ("project",), **moments)["data"]


def completed(service: Service, hours: float, review: str | None = None, **values: Any) -> None:
    done = MONDAY + timedelta(hours=hours)
    add(
        service,
        status="completed",
        completed_at=done,
        review_status=review,
        reviewed_at=review and done,
        **values,
    )


def test_tasks_are_counted_timed_and_judged(service: Service) -> None:
    for hours in range(1, 11):
        completed(service, hours)
    completed(service, 1, "accepted")
    completed(service, 1, "accepted", response_count=2)
    completed(service, 1, "fixed")
    completed(service, 1, "rejected")
    add(service, created_at=MONDAY)
    add(service, created_at=MONDAY + timedelta(hours=40))
    add(service, status="canceled")
    (row,) = read(service, as_of=MONDAY + timedelta(hours=41))
    assert (row["project"], row["created"], row["open"], row["late"]) == ("street", 17, 2, 1)
    assert (row["completed"], row["canceled"], row["error"]) == (14, 1, 0)
    assert row["median_seconds"] == 3.5 * 3600
    assert row["p90_seconds"] == 9 * 3600
    assert (row["reviewed"], row["accepted"], row["rejected"]) == (4, 3, 1)
    assert (row["first_pass_rate"], row["rejection_rate"], row["fix_rate"]) == (0.25, 0.25, 0.25)
    assert row["cost"] is None
    assert set(DEFINITIONS) <= set(row)


def test_numbers_of_a_moment_do_not_change_with_later_callbacks(service: Service, post: Post) -> None:
    post("one", [box("a")], project="street", batch="first")
    moment = utcnow()
    before = read(service, as_of=moment)
    post("one", [box("a"), box("b")], project="road", at="2026-01-03T00:00:00.000Z")
    post("two", [box("a")], project="street")
    assert read(service, as_of=moment) == before
    assert [(row["project"], row["completed"]) for row in before] == [("street", 1)]
    assert [(row["project"], row["completed"]) for row in read(service)] == [("road", 1), ("street", 1)]
    with service.reader.begin() as connection:
        then = insights(connection, service, as_of=moment)
        now = insights(connection, service)
    assert [row["annotations"] for row in then["labels"]] == [1]
    assert [row["annotations"] for row in now["labels"]] == [3]


def test_since_and_until_bound_the_creation(service: Service) -> None:
    completed(service, 5)
    assert read(service, since=MONDAY + timedelta(hours=1)) == []
    assert read(service, until=MONDAY) == []
    assert len(read(service, since=MONDAY, until=MONDAY + timedelta(seconds=1))) == 1


def test_every_count_lists_the_tasks_that_it_counts(service: Service) -> None:
    for hours in range(1, 6):
        completed(service, hours, task_id=f"done-{hours}", batch="b")
    completed(service, 1, "fixed", task_id="fixed")
    add(service, task_id="waits", batch="b")
    add(service, task_id="canceled", status="canceled")
    (row,) = read(service)
    with service.reader.begin() as connection:
        for name in COUNTS:
            assert row[name] == len(tasks_counted(connection, name)), name
        assert [one["task_id"] for one in tasks_counted(connection, "late")] == ["waits"]
        without = tasks_counted(connection, "created", filters={"batch": None})
        assert {one["task_id"] for one in without} == {"fixed", "canceled"}
        assert late_tasks(connection) == {("street", "b"): 1}
        newest = insights(connection, service, ("project",), newest=3)
    assert (newest["is_whole"], newest["data"][0]["created"]) == (False, 3)


def test_a_lineage_costs_what_all_of_its_tasks_cost(
    open_service: Callable[..., Service], tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "currency: USD\nprices:\n  - {type: annotation, task: 1.00}\n  - {type: check, task: 0.50}\n"
    )
    service = open_service(prices_file=str(prices))
    completed(service, 1, "accepted", task_id="first")
    completed(service, 1, task_id="lost")
    with service.engine.begin() as connection:
        follow_up = {
            "unique_id": "flow.check.first", "id": new_id(), "workflow": "flow", "workflow_digest": "d", "step": "check",
            "state": "completed", "environment": "live", "source_task_id": "first", "task_type": "check", "request": {},
            "task_id": "child", "planned_at": MONDAY,
        }  # fmt: skip
        connection.execute(insert(FollowUp), [follow_up])
        response = {
            "task_id": "child", "id": new_id(), "number": 1, "digest": "d", "event": "completed",
            "delivery_id": new_id(), "clock": MONDAY, "received_at": MONDAY, "annotation_count": 3,
        }  # fmt: skip
        connection.execute(insert(Response), [response])
    completed(
        service, 2, "accepted", task_id="child", type="check", follow_up_unique_id="flow.check.first",
        response_id=response["id"],
    )  # fmt: skip
    own, check = read(service, "step")
    assert (own["cost"], check["cost"]) == (2.0, 0.5)
    assert check["lineage_cost"] == 1.5
    assert (check["accepted_annotations"], check["cost_per_accepted_annotation"]) == (3, 0.5)
    assert own["lineage_cost"] == 2.5


def test_a_fix_is_counted_by_what_it_made_of_each_label(service: Service, post: Post) -> None:
    first = [box("a"), box("b", "bus"), box("c", "van"), box("d", left=50)]
    post("one", first, customer_review_status="rejected")
    fixed = [box("a"), box("b", "truck"), box("d", left=50), box("e", "van", left=90)]
    post("one", fixed, at="2026-01-03T00:00:00.000Z", customer_review_status="fixed")
    with service.reader.begin() as connection:
        found = insights(connection, service)["label_changes"]
    changes = {(row["before"], row["after"]): row["changes"] for row in found}
    assert changes == {("car", "car"): 2, ("bus", "truck"): 1, ("van", None): 1, (None, "van"): 1}


def test_items_that_are_too_large_together_are_read_one_by_one(
    service: Service, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read of an item is whole: a part of its shapes would count as disagreement."""
    for number in range(4):
        post(f"copy-{number}", [box(f"{number}-{n}", left=n) for n in range(10)])
    with service.reader.begin() as connection:
        ids = connection.scalars(select(Task.response_id).order_by(Task.task_id)).all()
        units = [ids[:2], ids[2:]]
        whole = list(_shapes_of_units(connection, units))
        assert [[len(copy) for copy in copies] for copies in whole] == [[10, 10], [10, 10]]
        monkeypatch.setattr("pipeline.db.memory_budget.MAX_READ_BYTES", 40_000)
        with memory_budget():
            with pytest.raises(ReadTooLarge), temporary_reads():
                _shapes_of(connection, ids)
            assert list(_shapes_of_units(connection, units)) == whole
        monkeypatch.setattr("pipeline.db.memory_budget.MAX_READ_BYTES", 10_000)
        with memory_budget():
            assert list(_shapes_of_units(connection, units)) == []


def test_copies_agree_in_their_shapes_and_categories(service: Service, post: Post) -> None:
    answers: list[tuple[list[dict[str, Any]], str]] = [
        ([box("a"), box("b", left=50)], "day"),
        ([box("x"), box("y", left=52)], "day"),
        ([box("z", "bus")], "night"),
    ]
    for number, (boxes, category) in enumerate(answers):
        post(f"copy-{number}", boxes, category=category)
    with service.engine.begin() as connection:
        for number in range(3):
            unique_id = f"flow.copies.source.{number}"
            row = {
                "unique_id": unique_id, "id": new_id(), "workflow": "flow", "workflow_digest": "d", "step": "copies",
                "state": "completed", "environment": "live", "source_task_id": "source", "task_type": "annotation",
                "request": {}, "task_id": f"copy-{number}", "planned_at": MONDAY,
            }  # fmt: skip
            connection.execute(insert(FollowUp), [row])
            task = update(Task).where(Task.task_id == f"copy-{number}")
            connection.execute(task.values(follow_up_unique_id=unique_id))
            version = select(Task.response_id).where(Task.task_id == f"copy-{number}").scalar_subquery()
            connection.execute(
                update(Response).where(Response.id == version).values(answer={"category": answers[number][1]})
            )
    with service.reader.begin() as connection:
        (row,) = insights(connection, service)["agreement"]
    assert (row["workflow"], row["step"], row["items"]) == ("flow", "copies", 1)
    assert (row["categories"], row["category_percent"], row["alpha"]) == (1, 33.33, 0.0)
    # copies 0 and 1 share one box of two each (the other IoU is 1/5); copy 2 has another label
    assert (row["shape_pairs"], row["shape_f1"], row["shape_iou"]) == (3, 0.1667, 1.0)
    assert (row["joins"], row["mean_agreement"]) == (0, None)


def test_shapes_match_once_the_best_first() -> None:
    kind = ("box", "car", None)
    one = [(kind, Bounds(0, 0, 10, 10)), (kind, Bounds(0, 0, 10, 9))]
    other = [(kind, Bounds(0, 0, 10, 10))]
    assert list(match_shapes(one, other)) == [1.0]
    assert list(match_shapes(one, [(("box", "bus", None), Bounds(0, 0, 10, 10))])) == []
    assert list(match_shapes([], other)) == []


def test_groups_are_weeks_of_creation_and_states(service: Service) -> None:
    add(service, created_at=MONDAY + timedelta(days=6))
    add(service, created_at=MONDAY + timedelta(days=7), status="error")
    rows = read(service, "week", "status")
    assert [(row["week"], row["status"], row["created"]) for row in rows] == [
        ("2026-03-02", "pending", 1),
        ("2026-03-09", "error", 1),
    ]


def test_alpha_is_the_published_one() -> None:
    columns = zip(*(line.split() for line in OBSERVERS), strict=True)
    units = [[value for value in column if value != "*"] for column in columns]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=0.0005)


def test_alpha_is_undefined_where_nothing_could_disagree() -> None:
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha([["a", "b"]]) == 0.0


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([], 0.9) is None
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 11)), 0.9) == 9
