"""Lists: filters in the address, keyset pages, and what is shown as CSV or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from flask import Response, abort, request
from marshmallow import Schema, ValidationError
from sqlalchemy import Connection

from app.console.frame import live_part, page
from app.extensions import service
from pipeline.db.ids import format_timestamp
from pipeline.db.json import dumps
from pipeline.operations.queries import Page, Record
from pipeline.operations.queries.paging import MAX_COUNTED

PAGE_ROWS = 50
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Filter:
    """One field of the filter form. `name` is the parameter of the REST API."""

    name: str
    label: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of rows: what it may be filtered by, and how its pages are read."""

    template: str
    title: str
    filters: tuple[Filter, ...]
    fields: tuple[str, ...]
    """Columns of the CSV file."""
    read: Callable[[Connection, Mapping[str, Any], str | None], Page]
    """(connection, filters, cursor) → page."""
    count: Callable[[Connection, Mapping[str, Any]], int] | None = None
    """(connection, filters) → number of matching rows, counted up to MAX_COUNTED."""
    live_template: str | None = None
    """The part with the rows, which the first page asks for again every few seconds."""

    def respond(self, **context: Any) -> Response:
        """Return the page, or what it shows as CSV or JSON."""
        chosen = read_filters(self.filters)
        with service().reader.begin() as connection:
            found = self.read(connection, chosen, request.args.get("cursor") or None)
            if (answer := download(self.fields, found.rows)) is not None:
                return answer
            count = None
            if self.count is not None:
                is_whole = found.next_cursor is None and not request.args.get("cursor")
                count = len(found.rows) if is_whole else self.count(connection, chosen)
        context |= {
            "filters": self.filters,
            "chosen": chosen,
            "rows": found.rows,
            "next_cursor": found.next_cursor,
            "count": None if count is None else show_count(count),
        }
        if self.live_template is not None and request.args.get("part") == "live":
            return live_part(self.live_template, **context)
        return page(self.template, self.title, **context)


def download(fields: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> Response | None:
    """Return the rows as CSV or JSON where the address asks for it with `format`."""
    kind = request.args.get("format")
    if kind not in ("csv", "json"):
        return None
    chosen = [{name: row.get(name) for name in fields} for row in rows]
    return _as_csv(fields, chosen) if kind == "csv" else _as_json(chosen)


def show_count(count: int) -> str:
    """Return a number of rows that was counted up to MAX_COUNTED."""
    return f"{MAX_COUNTED:,}+" if count > MAX_COUNTED else f"{count:,}"


def read_filters(filters: tuple[Filter, ...]) -> dict[str, str]:
    """Return the filters of the address that are set. Aborts with 400 on a value that is not among the choices."""
    chosen = {one.name: value for one in filters if (value := request.args.get(one.name, "").strip())}
    refuse_nul()
    for one in filters:
        if one.choices and chosen.get(one.name, one.choices[0]) not in one.choices:
            abort(400, f"{one.label} is one of {', '.join(one.choices)}.")
    return chosen


def refuse_nul() -> None:
    """Abort with 400 if a parameter of the address contains a NUL character."""
    if "\0" in "".join(request.args.values()):
        abort(400, "A filter contains a NUL character; no stored value does.")


def load_query(schema: Schema, given: Mapping[str, str]) -> Record:
    """Return parameters of the address as a schema of the API reads them. Aborts with 400."""
    try:
        loaded: Record = schema.load(given)
    except ValidationError as error:
        abort(400, f"The address cannot be read: {error}")
    return loaded


def _as_csv(fields: tuple[str, ...], rows: list[dict[str, Any]]) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(fields)
    writer.writerows([_cell(row[name]) for name in fields] for row in rows)
    response = Response(text.getvalue(), content_type="text/csv; charset=utf-8")
    response.headers.set(
        "Content-Disposition", "attachment", filename=f"{(request.endpoint or '').rpartition('.')[2]}.csv"
    )
    return response


def _cell(value: Any) -> Any:
    """Return a value that no spreadsheet takes for a formula."""
    if value is None or isinstance(value, int | float):
        return value
    text = _plain(value)
    if not isinstance(text, str):
        text = dumps(text)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _as_json(rows: list[dict[str, Any]]) -> Response:
    data = [{name: _plain(value) for name, value in row.items()} for row in rows]
    return Response(dumps({"data": data}), content_type="application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_timestamp(value)
    return str(value) if isinstance(value, UUID) else value
