"""Deliveries of a task in any order, repeated and late, lead to the same rows."""

import itertools
import random
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, insert

from models import Delivery, FollowUp, Response, Task
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from tests.amounts import amount
from tests.assertions import empty, only, stored_rows, table
from tests.factories.callbacks import RECORDED, at, boxes, callback, receive_by_general_path, receive_callback

FIXED = {**boxes("car", "pedestrian"), "is_customer_fix": True}
AGAIN = boxes("car", "pedestrian", "bicycle")


def audit(result: str, hour: int) -> dict[str, Any]:
    return {
        "audited_by": "qa@example.com",
        "audited_at": at(hour),
        "audit_result": result,
        "audit_source": "customer",
    }


COMPLETED = callback(boxes("car"), updated_at=at(10), completed_at=at(10))
ACCEPTED = callback(
    boxes("car"),
    updated_at=at(11),
    completed_at=at(10),
    customer_review_status="accepted",
    customer_review_comments=["well done"],
    audits=[audit("accepted", 11)],
    callback_succeeded=True,
)
FIXED_EVENT = callback(
    FIXED,
    updated_at=at(12),
    completed_at=at(10),
    customer_review_status="fixed",
    audits=[audit("accepted", 11), audit("fixed", 12)],
    prior_responses=[boxes("car")],
)
RECALLED = callback(status="pending", updated_at=at(13), completed_at=None, tags=["again"])
COMPLETED_AGAIN = callback(AGAIN, updated_at=at(14), completed_at=at(14), priority=20)
FOLLOW_UP = {
    "id": queue.new_id(),
    "workflow": "w",
    "workflow_digest": "d",
    "step": "s",
    "state": "planned",
    "environment": "live",
    "source_task_id": "source",
    "task_type": "imageannotation",
    "request": {},
    "planned_at": datetime(2026, 1, 1, tzinfo=UTC),
}
LIFE = (COMPLETED, ACCEPTED, FIXED_EVENT, RECALLED, COMPLETED_AGAIN)


def after(service: Service, bodies: Iterable[bytes]) -> dict[str, Any]:
    empty(service)
    for body in bodies:
        receive_callback(service, body)
    return stored_rows(service)


def test_all_orders_of_the_five_lifecycle_events_end_in_identical_rows(service: Service) -> None:
    expected = after(service, LIFE)
    for order in itertools.permutations(LIFE):
        assert after(service, order) == expected


def test_all_orders_of_the_five_events_end_where_scale_is(service: Service) -> None:
    after(service, reversed(LIFE))
    task, versions = only(service, Task), sorted(table(service, Response), key=lambda row: row["number"])
    assert [(row["number"], row["event"], row["annotation_count"]) for row in versions] == [
        (1, "completed", 1),
        (2, "fixed", 2),
        (3, "completed", 3),
    ]
    assert task["response_id"] == versions[2]["id"]
    assert (task["status"], task["review_status"], task["response_count"]) == ("completed", None, 3)
    reviews = {row["event"]: row["review"] for row in table(service, Delivery)}
    assert reviews["accepted"] == {"status": "accepted", "comments": ["well done"]}
    assert reviews["fixed"] == {"status": "fixed", "comments": None}


def test_any_part_of_the_life_in_any_order_ends_in_identical_rows(service: Service) -> None:
    for count in (2, 3):
        for part in itertools.combinations(LIFE, count):
            expected = after(service, part)
            for order in itertools.permutations(part):
                assert after(service, order) == expected


@pytest.mark.slow
def test_doubled_and_late_events_change_nothing_but_the_count(service: Service) -> None:
    expected = after(service, [*LIFE, *LIFE])
    assert [row["duplicates"] for row in expected["deliveries"]] == [1] * 5
    for number, order in enumerate(itertools.islice(itertools.permutations(LIFE), 0, None, amount(7, 1))):
        late = number % 5
        doubled = [*order[:late], *order, *order[late:]]
        assert after(service, doubled) == expected


def test_a_second_copy_that_differs_in_volatile_fields_is_no_second_version(service: Service) -> None:
    again = callback(boxes("car"), updated_at=at(10), completed_at=at(10), callback_succeeded=False)
    for order in ((COMPLETED, again), (again, COMPLETED)):
        after(service, order)
        assert only(service, Response)["number"] == 1
        assert [row["duplicates"] for row in table(service, Delivery)] == [0, 0]


def test_a_recall_leaves_every_version_and_makes_none_current(service: Service) -> None:
    for order in itertools.permutations((COMPLETED, FIXED_EVENT, RECALLED)):
        after(service, order)
        assert (only(service, Task)["status"], only(service, Task)["response_id"]) == ("pending", None)
        assert sorted(row["annotation_count"] for row in table(service, Response)) == [1, 2]


def test_the_same_response_after_a_recall_is_current_again(service: Service) -> None:
    same_again = callback(boxes("car"), updated_at=at(14), completed_at=at(14))
    for order in itertools.permutations((COMPLETED, RECALLED, same_again)):
        after(service, order)
        version = only(service, Response)
        assert (only(service, Task)["response_id"], version["event"]) == (version["id"], "completed")
        assert version["clock"] == datetime(2026, 1, 1, 10, tzinfo=UTC)


def test_the_status_is_that_of_the_newest_delivery_that_names_one(service: Service) -> None:
    nameless = [callback(response, outer={"task": None}) for response in (boxes("car"), boxes())]
    for order in itertools.permutations((*nameless, COMPLETED, RECALLED)):
        after(service, order)
        assert only(service, Task)["status"] == "pending"


def test_a_version_that_is_received_late_takes_its_number_by_scales_clock(service: Service) -> None:
    receive_callback(service, FIXED_EVENT)
    (fixed,) = table(service, Response)
    assert fixed["number"] == 1
    receive_callback(service, COMPLETED)
    numbers = {row["id"]: row["number"] for row in table(service, Response)}
    assert numbers.pop(fixed["id"]) == 2
    assert list(numbers.values()) == [1]


def test_what_is_understood_follows_from_the_newest_description_in_any_order(service: Service) -> None:
    shape = {
        "annotations": [{"label": "car", "vertices": [{"x": 1, "y": 2}, {"x": 3, "y": 4}, {"x": 5, "y": 6}]}]
    }
    described = [
        callback(shape, updated_at=at(10), type="polygonannotation"),
        callback(shape, updated_at=at(11), type="lineannotation"),
        callback({**shape, "more": 1}, updated_at=at(12), type="polygonannotation"),
        callback(shape, updated_at=at(13), type=None),
    ]
    for count, type_name in ((2, "lineannotation"), (3, "polygonannotation"), (4, None)):
        expected = after(service, described[:count])
        assert only(service, Task)["type"] == type_name
        for order in itertools.permutations(described[:count]):
            found = after(service, order)
            # Whether Scale is asked about the task depends on what was known of it in between.
            assert {**found, "jobs": []} == {**expected, "jobs": []}


SEGMENTED = {
    "annotations": {"indexedImage": "https://example.com/1.png"},
    "labelMapping": {"car": {"index": 1}},
}
RESPONSES = (
    None,
    boxes("car"),
    boxes("car", "bus"),
    {"error": "bad"},
    SEGMENTED,
    {"category": "x"},
    [],
    "text",
    {},
)


def random_event(chance: random.Random, hour: int) -> bytes:
    """An event that Scale would rarely send together with the others."""
    fields: dict[str, Any] = {
        "status": chance.choice(("completed", "completed", "pending", "error", "canceled", None)),
        "type": chance.choice(("imageannotation",) * 4 + ("segmentannotation", "newtype", None)),
    }
    for name, values in (
        ("unique_id", ("w.s.1",)),
        ("tags", (["a"],)),
        ("customer_review_status", ("accepted", "fixed", "rejected")),
        ("params", ({"p": 1}, {"p": 2})),
    ):
        if chance.random() < 0.3:
            fields[name] = chance.choice(values)
    outer = {"status": chance.choice(("completed", "pending"))} if chance.random() < 0.2 else None
    return callback(chance.choice(RESPONSES), outer, updated_at=at(hour), **fields)


@pytest.mark.parametrize("seed", range(8))
def test_any_life_at_all_in_any_order_ends_in_identical_rows(seed: int, service: Service) -> None:
    chance = random.Random(seed)
    events = [random_event(chance, hour) for hour in range(10, 13)]
    found = []
    for order in itertools.permutations(events):
        with service.engine.begin() as connection:
            connection.execute(delete(FollowUp))
            connection.execute(insert(FollowUp).values(**FOLLOW_UP, unique_id="w.s.1"))
        rows = {**after(service, order), "jobs": []}  # what is asked for depends on what was known in between
        follow_up = only(service, FollowUp)
        found.append({**rows, "follow_up": [follow_up["state"], follow_up["task_id"]]})
    assert found == [found[0]] * 6


def test_a_follow_up_finds_its_task_although_the_newest_event_does_not_name_it_any_more(
    service: Service,
) -> None:
    """Scale takes the unique_id off a task that fails, if it was asked to."""
    named = callback(updated_at=at(10), status="pending", unique_id="w.s.1")
    failed = callback({"error": "bad"}, updated_at=at(11), status="error")
    for order in ((named, failed), (failed, named)):
        empty(service)
        with service.engine.begin() as connection:
            connection.execute(delete(FollowUp))
            connection.execute(insert(FollowUp).values(**FOLLOW_UP, unique_id="w.s.1"))
        for body in order:
            receive_callback(service, body)
        assert (only(service, FollowUp)["state"], only(service, Task)["follow_up_unique_id"]) == (
            "error",
            "w.s.1",
        )


def test_an_event_of_yesterday_changes_neither_status_nor_review_nor_current(service: Service) -> None:
    for body in (FIXED_EVENT, ACCEPTED, COMPLETED):
        receive_callback(service, body)
    task = only(service, Task)
    current = next(row for row in table(service, Response) if row["id"] == task["response_id"])
    assert (task["review_status"], current["event"]) == ("fixed", "fixed")


@pytest.mark.slow
def test_every_path_of_receiving_writes_the_same_rows_for_every_recorded_body(service: Service) -> None:
    """The fast path, the general path, and the worker with a body that was only stored."""
    for path in RECORDED:
        body = path.read_bytes()
        empty(service)
        receive_callback(service, body)
        usual = stored_rows(service, receipt=True)
        empty(service)
        receive_by_general_path(service, body)
        assert stored_rows(service, receipt=True) == usual, path
        empty(service)
        assert receive_callback(service, body, inline_bytes=0).status == "stored"
        run(service, kinds.PARSE)
        assert stored_rows(service, receipt=True) == usual, path


def run(service: Service, kind: str) -> None:
    """Run the one job that there is."""
    from workers.runner import run_job

    job = queue.claim(service.engine, 60)
    assert job is not None
    assert job.kind == kind
    run_job(service, job)
