"""The declarative base and the column types that SQLite and PostgreSQL hold differently."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Function, MetaData, func, text, types
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""Any JSON value; JSONB on PostgreSQL. Python's None is SQL's NULL."""


OpaqueJson = JSON(none_as_null=True)
"""A JSON value that no statement looks into, kept as text: JSONB costs PostgreSQL more than twice as much to write."""


class UtcDateTime(types.TypeDecorator[datetime]):
    """An instant, always aware and in UTC. SQLite keeps no offset, so it is taken off there and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a timestamp to UTC without a zone, which is what SQLite stores."""
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the timestamp in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Constraint names are given from the first revision on: SQLite's batch migrations need them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime: UtcDateTime(), dict[str, Any]: Json, list[Any]: Json}


PREFIX = 64


def prefix(column: str) -> "Function[str]":
    """Return what an index holds of a text that the customer chose: PostgreSQL refuses entries over 2,704 bytes."""
    return func.substr(text(column), text("1"), text(str(PREFIX)))
