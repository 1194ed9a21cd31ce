"""Lists: `{"data": […], "next_cursor": …}`, paged by keyset, so that the last page is as quick as the first."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from marshmallow import EXCLUDE, Schema, ValidationError, fields
from marshmallow.validate import Range
from sqlalchemy import ColumnElement, Connection, Select, Uuid, func, literal, text, tuple_
from sqlalchemy.types import TypeEngine

from app.api.problems import ProblemError
from models.columns import PREFIX, UtcDateTime
from pipeline.db.ids import format_timestamp

Record = dict[str, Any]


class Timestamp(fields.DateTime):
    """UTC, milliseconds, `Z`."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if value is None:
            return None
        return format_timestamp(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (TypeError, ValueError, OverflowError):
            raise ValidationError("Takes a time such as 2026-01-31T09:30:00Z.") from None


class OutputSchema(Schema):
    """What is shown of a thing. Every field is always there, null where nothing is known; more may be added."""

    class Meta:
        unknown = EXCLUDE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        field_obj.required = True


class ListQuery(Schema):
    """What every list takes."""

    cursor = fields.String(metadata={"description": "`next_cursor` of the page before"})
    limit = fields.Integer(load_default=100, validate=Range(1, 1000))


def list_schema(item: type[Schema]) -> type[Schema]:
    """The schema of a list of `item`."""
    next_cursor = {"description": "`cursor` of the next page; null on the last"}
    return OutputSchema.from_dict(
        {
            "data": fields.List(fields.Nested(item)),
            "next_cursor": fields.String(allow_none=True, metadata=next_cursor),
        },
        name=f"{item.__name__}List",
    )


def paginate(
    connection: Connection,
    statement: Select[Any],
    key: Sequence[Any],
    query: Mapping[str, Any],
    *,
    ascending: bool = False,
) -> Record:
    """One page of `statement` in the order of `key`: columns that it selects, unique together. Raises Refused."""
    limit = query["limit"]
    if cursor := query.get("cursor"):
        here = tuple_(*key) if len(key) > 1 else key[0]
        values = [literal(value, column.type) for value, column in zip(_read(cursor, key), key, strict=True)]
        after = tuple_(*values) if len(key) > 1 else values[0]
        statement = statement.where(here > after if ascending else here < after)
    order = [column.asc() if ascending else column.desc() for column in key]
    rows = connection.execute(statement.order_by(*order).limit(limit + 1)).mappings().all()
    last = rows[limit - 1] if len(rows) > limit else None
    return {
        "data": rows[:limit],
        "next_cursor": last and _write([last[column.key] for column in key]),
    }


def _write(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(values)).rstrip(b"=").decode()


def _read(cursor: str, key: Sequence[Any]) -> list[Any]:
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(values, list) or len(values) != len(key):
            raise ValueError(cursor)
        return [_typed(value, column.type) for value, column in zip(values, key, strict=True)]
    except (ValueError, TypeError, OverflowError):
        raise ProblemError(
            400,
            "cursor is not one of this list; leave it out to begin at the first page",
            {"cursor": ["Is not known."]},
        ) from None


def _typed(value: Any, type_: TypeEngine[Any]) -> Any:
    if isinstance(type_, Uuid):
        return UUID(str(value))
    if isinstance(type_, UtcDateTime):
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    if type(value) is not type_.python_type:
        raise TypeError(value)
    if (isinstance(value, int) and abs(value) >= 2**63) or (isinstance(value, str) and "\0" in value):
        raise ValueError(value)
    return value


def equals_indexed(column: Any, value: str) -> ColumnElement[bool]:
    """`column` is `value`, in the words of its index, which holds the first characters only (models/columns.py).

    SQLite wants the numbers written out, and no second `=`: it would put the value in the place of the column in the
    first, and not see any more that the index fits.
    """
    found = func.substr(column, text("1"), text(str(PREFIX))) == value[:PREFIX]
    return found if len(value) < PREFIX else found & column.is_not_distinct_from(value)
