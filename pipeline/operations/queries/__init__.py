"""Queries for reading, one module a table. The REST API and the commands use the same ones.

`list_…(connection, filters)` returns a Page, `get_…(connection, id)` returns a row or raises NotFound.
"""

from __future__ import annotations

from pipeline.operations.queries.filters import Filters, NotFound
from pipeline.operations.queries.paging import InvalidCursor, Page, Record

__all__ = ["Filters", "InvalidCursor", "NotFound", "Page", "Record"]
