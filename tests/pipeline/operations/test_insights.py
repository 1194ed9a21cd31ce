"""Numbers about tasks: counted by group, as of a moment, with agreement that is checked against published values."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from models import Task
from pipeline.db.ids import new_id
from pipeline.operations.insights import DEFINITIONS, insights, krippendorff_alpha, percentile
from pipeline.service import Service
from workflows.definition.money import Prices

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
        return insights(connection, Prices(), group_by or ("project",), **moments)["data"]


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


def test_numbers_of_a_moment_do_not_change_with_later_callbacks(service: Service) -> None:
    completed(service, 5, "rejected")
    completed(service, 50)
    (then,) = read(service, as_of=MONDAY + timedelta(hours=1))
    (now,) = read(service)
    assert (then["open"], then["completed"], then["rejected"]) == (2, 0, 0)
    assert (now["open"], now["completed"], now["rejected"]) == (0, 2, 1)
    assert read(service, since=MONDAY + timedelta(hours=1)) == []
    assert read(service, until=MONDAY) == []


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
