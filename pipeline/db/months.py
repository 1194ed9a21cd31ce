"""The months of `delivery_bodies` on PostgreSQL: a partition for the bodies received in each month, in UTC.

A delivery's id is a UUIDv7, so that a month is a range of ids. An old month is dropped at once; deleting its rows would cost
as much as inserting them did. On SQLite the table has no months, and nothing here does anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Uuid, column, exists, select, table, text

from models import DeliveryBody
from pipeline.db.dialect import lock_exclusively
from pipeline.db.ids import first_id_at

TABLE = DeliveryBody.__tablename__
MONTHS_AHEAD = 2
"""Months that are made before they begin: as long no process that makes them has to run."""
MAX_MONTHS = 240
"""Months that are made for bodies of the past."""
_DEFAULT = table(f"{TABLE}_default", column("delivery_id", Uuid))
_LOCK_KEY = 0x4D6F6E74_68735F5F  # "Months__"
_PARTITION = re.compile(rf"{TABLE}_(\d{{4}})_(\d\d)")


class Month(NamedTuple):
    """A month in UTC."""

    year: int
    number: int

    @classmethod
    def of(cls, moment: datetime) -> Month:
        """Return the month of a moment."""
        utc = moment.astimezone(UTC)
        return cls(utc.year, utc.month)

    def later(self, months: int) -> Month:
        """Return the month that is this number of months later."""
        count = self.year * 12 + self.number - 1 + months
        return Month(count // 12, count % 12 + 1)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"

    @property
    def start(self) -> datetime:
        """The first moment of the month."""
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment of the next month."""
        return self.later(1).start

    @property
    def partition(self) -> str:
        """The name of the table that holds its bodies."""
        return f"{TABLE}_{self.year:04}_{self.number:02}"

    def has(self, column: Any) -> ColumnElement[bool]:
        """Return the condition that an id of a delivery belongs to the month."""
        condition: ColumnElement[bool] = (column >= first_id_at(self.start)) & (
            column < first_id_at(self.end)
        )
        return condition


def is_of_models(name: str | None, kind: str, _parents: Any) -> bool:
    """Return whether Alembic compares this table with the models: partitions belong to their table."""
    return kind != "table" or not (name or "").startswith(f"{TABLE}_")


def existing(connection: Connection) -> list[Month]:
    """Return the months that have a partition, in order."""
    return sorted(_partitions(connection) or ())


def missing(connection: Connection, now: datetime, since: datetime | None = None) -> list[Month]:
    """Return the months of which make_months() would find no partition, in order."""
    found = _partitions(connection)
    return [] if found is None else sorted(set(_wanted(now, since)) - found)


def is_in_default(connection: Connection, month: Month) -> bool:
    """Return whether the default partition holds bodies of the month, because it had no partition when they came."""
    return bool(connection.scalar(select(exists().where(month.has(_DEFAULT.c.delivery_id)))))


def make_months(connection: Connection, now: datetime, since: datetime | None = None) -> None:
    """Make the partitions of the present and the next months that are missing, and of those from `since` on.

    A month with bodies in the default partition is left out: they stay there, and a purge deletes them row by row.
    """
    if not missing(connection, now, since):
        return
    lock_exclusively(connection, _LOCK_KEY)
    for month in missing(connection, now, since):
        if is_in_default(connection, month):
            continue
        start, end = first_id_at(month.start), first_id_at(month.end)
        # CREATE TABLE … PARTITION OF would lock the whole table.
        connection.execute(text(f"CREATE TABLE {month.partition} (LIKE {TABLE} INCLUDING ALL)"))
        connection.execute(
            text(
                f"ALTER TABLE {TABLE} ATTACH PARTITION {month.partition} FOR VALUES FROM ('{start}') TO ('{end}')"
            )
        )


def drop_month(connection: Connection, month: Month) -> None:
    """Drop a month with its bodies."""
    connection.execute(text(f"DROP TABLE IF EXISTS {month.partition}"))


def _wanted(now: datetime, since: datetime | None) -> Iterator[Month]:
    last = Month.of(now).later(MONTHS_AHEAD)
    month = max(Month.of(since or now), last.later(-MAX_MONTHS))
    while month <= last:
        yield month
        month = month.later(1)


def _partitions(connection: Connection) -> set[Month] | None:
    """Return the months that have a partition; None if there is no partitioned table."""
    if connection.dialect.name != "postgresql":
        return None
    names = connection.scalars(
        text(
            "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid"
            f" WHERE inhparent = to_regclass('{TABLE}')"
        )
    ).all()
    matches = [_PARTITION.fullmatch(name) for name in names]
    return {Month(int(one[1]), int(one[2])) for one in matches if one} if names else None
