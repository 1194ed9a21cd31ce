"""Schemas of lists, `{"data": […], "next_cursor": …}`, and of the objects in them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from flask import Response
from marshmallow import EXCLUDE, Schema, fields
from marshmallow.validate import Range

from pipeline.db.json import dumps
from pipeline.db.memory_budget import ReadTooLarge
from pipeline.db.sizes import MAX_PAGE_CHARACTERS, MAX_VALUE_CHARACTERS
from pipeline.operations.queries import Page, Record

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""What write_lists() writes at most."""


class OutputSchema(Schema):
    """An object in a response. Every field is always present, null where nothing is known; fields may be added."""

    class Meta:
        unknown = EXCLUDE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Mark every field as required: a response always has all of them."""
        field_obj.required = True


class ListQuery(Schema):
    """The parameters of every list."""

    cursor = fields.String(metadata={"description": "`next_cursor` of the previous page."})
    limit = fields.Integer(
        load_default=100,
        validate=Range(1, 1000),
        metadata={
            "description": f"Maximum number of items. A page of more than {MAX_PAGE_CHARACTERS:,} characters ends earlier,"
            f" and a value of more than {MAX_VALUE_CHARACTERS:,} is null."
        },
    )


class CostSchema(OutputSchema):
    """What tasks cost by the price list (PRICES_FILE)."""

    amount = fields.Float(
        allow_none=True,
        metadata={"description": "Cost of the tasks that have a price. Null if no task has one."},
    )
    currency = fields.String()
    unpriced_tasks = fields.Integer(metadata={"description": "Number of tasks whose cost is unknown."})
    summary = fields.String(metadata={"description": "The cost for people, and why it is unknown."})


def list_schema(item: type[Schema]) -> type[Schema]:
    """Return the schema of a list of `item`."""
    next_cursor = {"description": "`cursor` of the next page; null on the last page."}
    return OutputSchema.from_dict(
        {
            "data": fields.List(fields.Nested(item)),
            "next_cursor": fields.String(allow_none=True, metadata=next_cursor),
        },
        name=f"{item.__name__}List",
    )


class Paging(TypedDict):
    """Keyword arguments of every `list_…` query."""

    limit: int
    cursor: str | None


def left_out_field(instead: str) -> fields.Field[Any]:
    """Return the field that names what read_row() left out. `instead` says where it can be read."""
    return fields.List(
        fields.String(),
        metadata={
            "description": f"Names of fields that are null because they have more than {MAX_VALUE_CHARACTERS:,} characters,"
            f" or all together more than {MAX_PAGE_CHARACTERS:,}.{instead}"
        },
    )


def paging(query: Mapping[str, Any]) -> Paging:
    """Return the paging arguments of a ListQuery."""
    return {"limit": query["limit"], "cursor": query.get("cursor")}


def write_lists(head: Record, **lists: Iterable[Any]) -> Response:
    """Return `head` and these lists as one JSON object. An item is written before the next one is made.

    Raises ReadTooLarge above MAX_ANSWER_BYTES.
    """
    answer = io.BytesIO()
    answer.write(dumps(head)[:-1].encode())
    for name, items in lists.items():
        answer.write(f', "{name}": ['.encode())
        separator = ""
        for item in items:
            answer.write(f"{separator}{dumps(item)}".encode())
            separator = ", "
            if answer.tell() > MAX_ANSWER_BYTES:
                raise ReadTooLarge
        answer.write(b"]")
    answer.write(b"}")
    return Response(answer.getvalue(), mimetype="application/json")


def list_body(page: Page) -> Record:
    """Return the body of a list response."""
    return {"data": page.rows, "next_cursor": page.next_cursor}
