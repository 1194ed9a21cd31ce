"""Months of bodies on PostgreSQL: made ahead, and what is received without one is stored all the same."""

import threading
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from models import DeliveryBody
from pipeline.db.dialect import limit_lock_waits
from pipeline.db.ids import utcnow
from pipeline.db.months import Month, drop_month, existing, make_months
from pipeline.service import Service
from tests.assertions import bodies
from tests.factories.callbacks import boxes, callback, receive_callback, received_at

postgresql_only = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
NEW_YEAR = datetime(2031, 1, 1, tzinfo=UTC)


def partitions(service: Service) -> dict[str, list[UUID]]:
    """Table of a month → the deliveries whose bodies it holds; those that are empty are left out."""
    found: dict[str, list[UUID]] = {}
    with service.reader.begin() as connection:
        place = text("tableoid::regclass::text")
        for name, one in connection.execute(select(place, DeliveryBody.delivery_id)):
            found.setdefault(name, []).append(one)
    return found


def make(service: Service, now: datetime, since: datetime | None = None) -> list[Month]:
    with service.engine.begin() as connection:
        make_months(connection, now, since)
    with service.reader.begin() as connection:
        return existing(connection)


def drop(service: Service, month: Month) -> None:
    with service.engine.begin() as connection:
        limit_lock_waits(connection)
        drop_month(connection, month)


def test_a_database_without_months_has_none_and_stores_bodies(service: Service) -> None:
    receipt = receive_callback(service, callback(boxes("car")))
    months = make(service, utcnow())
    assert bool(months) == (service.engine.dialect.name == "postgresql")
    assert list(bodies(service)) == [receipt.delivery_id]


@postgresql_only
def test_a_body_is_stored_in_the_month_of_its_receipt(service: Service) -> None:
    receipt = receive_callback(service, callback(boxes("car")))
    assert partitions(service) == {Month.of(utcnow()).partition: [receipt.delivery_id]}
    with received_at(datetime(2031, 1, 31, 23, 59, 59, 999_000, tzinfo=UTC)):
        make(service, utcnow())
        last = receive_callback(service, callback(boxes("bus"), task_id="last"))
    with received_at(datetime(2031, 2, 1, tzinfo=UTC)):
        first = receive_callback(service, callback(boxes("bus"), task_id="first"), inline_bytes=0)
    found = partitions(service)
    assert found["delivery_bodies_2031_01"] == [last.delivery_id]
    assert found["delivery_bodies_2031_02"] == [first.delivery_id]


@postgresql_only
def test_the_next_months_are_made_before_they_begin_and_only_once(service: Service) -> None:
    of_migration = make(service, utcnow())
    assert of_migration == [Month.of(utcnow()).later(ahead) for ahead in range(3)]
    made = make(service, NEW_YEAR)
    assert made[3:] == [Month(2031, 1), Month(2031, 2), Month(2031, 3)]
    assert make(service, NEW_YEAR) == made
    assert make(service, NEW_YEAR, since=datetime(2030, 12, 31, 23, tzinfo=UTC))[3] == Month(2030, 12)


@postgresql_only
def test_many_processes_make_the_same_months_at_once(service: Service) -> None:
    threads = [threading.Thread(target=make, args=(service, NEW_YEAR)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make(service, NEW_YEAR)[3:] == [Month(2031, 1), Month(2031, 2), Month(2031, 3)]


@postgresql_only
def test_a_body_without_a_month_is_kept_and_the_other_months_are_made(service: Service) -> None:
    with received_at(NEW_YEAR):
        receipt = receive_callback(service, callback(boxes("car")))
    assert partitions(service) == {"delivery_bodies_default": [receipt.delivery_id]}
    assert make(service, NEW_YEAR)[3:] == [Month(2031, 2), Month(2031, 3)]
    assert list(bodies(service)) == [receipt.delivery_id]


@postgresql_only
def test_a_month_is_dropped_only_when_no_callback_would_wait(service: Service) -> None:
    make(service, NEW_YEAR)
    with service.engine.begin() as receiving:
        receiving.execute(text("LOCK TABLE ONLY delivery_bodies IN ROW EXCLUSIVE MODE"))
        with pytest.raises(OperationalError, match="lock timeout"):
            drop(service, Month(2031, 1))
    drop(service, Month(2031, 1))
    drop(service, Month(2031, 1))  # another purge was faster
    with service.reader.begin() as connection:
        assert Month(2031, 1) not in existing(connection)


@postgresql_only
def test_months_are_made_while_a_callback_is_being_stored(service: Service) -> None:
    with service.engine.begin() as receiving:
        receiving.execute(text("LOCK TABLE ONLY delivery_bodies IN ROW EXCLUSIVE MODE"))
        with service.engine.begin() as connection:
            limit_lock_waits(connection)
            make_months(connection, NEW_YEAR)
    with service.reader.begin() as connection:
        assert Month(2031, 1) in existing(connection)
