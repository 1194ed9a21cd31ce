"""Lists: filters in the address, keyset pages, and what is shown as CSV or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from flask import Response, abort, request
from sqlalchemy import Connection

from app.console.frame import page
from app.extensions import service
from pipeline.db.ids import format_timestamp
from pipeline.db.json import dumps
from pipeline.operations.queries import Page

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

    def respond(self, **context: Any) -> Response:
        """Return the page, or what it shows as CSV or JSON."""
        chosen = read_filters(self.filters)
        with service().reader.begin() as connection:
            found = self.read(connection, chosen, request.args.get("cursor") or None)
        if (kind := request.args.get("format")) in ("csv", "json"):
            rows = [{name: row.get(name) for name in self.fields} for row in found.rows]
            return _as_csv(self.fields, rows) if kind == "csv" else _as_json(rows)
        return page(
            self.template,
            self.title,
            filters=self.filters,
            chosen=chosen,
            rows=found.rows,
            next_cursor=found.next_cursor,
            **context,
        )


def read_filters(filters: tuple[Filter, ...]) -> dict[str, str]:
    """Return the filters of the address that are set. Aborts with 400 on a value that is not among the choices."""
    chosen = {one.name: value for one in filters if (value := request.args.get(one.name, "").strip())}
    if "\0" in "".join(request.args.values()):
        abort(400, "A filter contains a NUL character; no stored value does.")
    for one in filters:
        if one.choices and chosen.get(one.name, one.choices[0]) not in one.choices:
            abort(400, f"{one.label} is one of {', '.join(one.choices)}.")
    return chosen


def _as_csv(fields: tuple[str, ...], rows: list[dict[str, Any]]) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(fields)
    writer.writerows([_cell(row[name]) for name in fields] for row in rows)
    response = Response(text.getvalue(), content_type="text/csv; charset=utf-8")
    response.headers.set(
        "Content-Disposition", "attachment", filename=f"{request.path.rsplit('/', 1)[-1] or 'overview'}.csv"
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
