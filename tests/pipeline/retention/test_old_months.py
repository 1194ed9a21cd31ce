"""A purge by age: an old month is dropped if nothing of it is left, and else emptied row by row. Both count alike."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text, update

from models import Delivery
from pipeline.datasets import versions
from pipeline.db.ids import created_at, utcnow
from pipeline.db.months import Month, existing, make_months
from pipeline.retention.purge import Progress, purge
from pipeline.retention.selection import BODIES, Selection
from pipeline.service import Service
from tests.assertions import bodies, table
from tests.factories.callbacks import boxes, callback, receive_callback, received_at

OLD = [datetime(2025, month, 15, tzinfo=UTC) for month in (3, 4, 5)]
LIMIT = datetime(2025, 6, 2, tzinfo=UTC)


@pytest.fixture
def old(service: Service) -> Service:
    """Three old months with two deliveries each, the second one of the last month in quarantine, and one that is younger."""
    with service.engine.begin() as connection:
        make_months(connection, utcnow(), since=OLD[0])
    for moment in [*OLD, LIMIT]:
        with received_at(moment):
            name = f"{moment:%B}"
            receive_callback(service, callback(boxes("car"), task_id=name))
            receive_callback(
                service, b"not json" if moment == OLD[-1] else callback(boxes("bus"), task_id=f"{name}-2")
            )
    return service


def run(service: Service, *, dry_run: bool = False, **filters: Any) -> Progress:
    *_, done = purge(service, Selection((BODIES,), before=LIMIT, **filters), "ana", dry_run=dry_run)
    return done


def months_left(service: Service) -> set[int]:
    """The old months that have a table, on PostgreSQL."""
    with service.reader.begin() as connection:
        return {month.number for month in existing(connection) if month < Month(2025, 7)}


def left(service: Service) -> list[str]:
    """The names of the months in which bodies are left, one for each."""
    return [f"{created_at(one):%B}" for one in sorted(bodies(service))]


def expected(service: Service, *months: int) -> set[int]:
    return set(months) if service.engine.dialect.name == "postgresql" else set()


def test_a_month_of_which_nothing_is_kept_is_dropped_and_another_is_emptied(old: Service) -> None:
    counted = run(old, dry_run=True)
    assert months_left(old) == expected(old, 3, 4, 5, 6)
    assert len(bodies(old)) == 8
    done = run(old)
    assert done.counts == counted.counts
    assert done.counts[BODIES].count == 5
    assert months_left(old) == expected(old, 5, 6)
    assert left(old) == ["May", "June", "June"]
    assert sorted(str(bool(row["purged_at"])) for row in table(old, Delivery)) == ["False"] * 3 + ["True"] * 5
    assert receive_callback(old, callback(boxes("car"), task_id="March")).status == "duplicate"
    assert run(old).counts[BODIES].count == 0


def test_members_of_dataset_versions_keep_their_month_until_they_are_forced(old: Service) -> None:
    version = versions.create(old, "street", versions.Request(filters=None), "ana")
    assert version.tasks == 7
    assert run(old).counts[BODIES].protected == {"street@1": 5}
    assert months_left(old) == expected(old, 3, 4, 5, 6)
    assert len(bodies(old)) == 8
    assert run(old, force=True).counts[BODIES].damaged == {"street@1": 5}
    assert months_left(old) == expected(old, 5, 6)


def test_a_purge_of_some_bodies_deletes_rows_and_keeps_the_month(old: Service) -> None:
    run(old, environment="live")
    assert months_left(old) == expected(old, 3, 4, 5, 6)
    assert left(old) == ["May", "June", "June"]


def test_a_month_that_is_not_over_at_the_limit_is_emptied(old: Service) -> None:
    *_, done = purge(old, Selection((BODIES,), before=OLD[1].replace(day=20)), "ana", dry_run=False)
    assert done.counts[BODIES].count == 4
    assert months_left(old) == expected(old, 4, 5, 6)
    assert left(old) == ["May", "May", "June", "June"]


def test_a_purge_that_was_killed_is_finished_by_the_next(
    old: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.retention.selection.PAGE_SIZE", 3)
    pages = purge(old, Selection((BODIES,), before=LIMIT), "ana", dry_run=False)
    next(pages)
    pages.close()
    assert months_left(old) == expected(old, 3, 4, 5, 6)
    run(old)
    assert months_left(old) == expected(old, 5, 6)
    assert left(old) == ["May", "June", "June"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_month_that_a_backup_reads_is_dropped_by_the_next_purge(old: Service) -> None:
    with old.engine.begin() as reading:
        reading.execute(text("LOCK TABLE delivery_bodies IN ACCESS SHARE MODE"))
        assert run(old).counts[BODIES].count == 5
    assert months_left(old) == {3, 4, 5, 6}
    assert run(old).counts[BODIES].count == 0
    assert months_left(old) == {5, 6}
    assert left(old) == ["May", "June", "June"]


def test_a_deletion_for_privacy_also_deletes_what_a_purge_by_age_had_only_marked(old: Service) -> None:
    with old.engine.begin() as connection:
        connection.execute(update(Delivery).where(Delivery.task_id == "March").values(purged_at=utcnow()))
    *_, done = purge(old, Selection((BODIES,), task_ids=("March",), force=True), "ana", dry_run=False)
    assert done.counts[BODIES].count == 0
    assert left(old)[:2] == ["March", "April"]
    assert len(bodies(old)) == 7


def test_bodies_without_a_month_are_deleted_row_by_row(service: Service) -> None:
    with received_at(OLD[0]):
        receive_callback(service, callback(boxes("car")))
    assert run(service).counts[BODIES].count == 1
    assert bodies(service) == {}
