"""Queries for reading, one module a table. The REST API and the commands use the same ones.

`list_…(connection, filters)` returns a Page, `get_…(connection, id)` returns a row or raises NotFound. Content that was purged raises Gone.
"""

from __future__ import annotations

from pipeline.operations.queries.filters import Filters, Gone, NotFound
from pipeline.operations.queries.paging import InvalidCursor, Page, Record

__all__ = ["Filters", "Gone", "InvalidCursor", "NotFound", "Page", "Record"]
