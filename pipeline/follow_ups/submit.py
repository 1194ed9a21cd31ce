"""The first tasks of a pipeline, out of a file: each created at Scale once, under a unique_id that its content gives it."""

from __future__ import annotations

import csv
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.follow_ups.pauses import check_creation_allowed
from pipeline.follow_ups.task_creation import create_or_adopt
from pipeline.service import Service
from scale.client import Conflict, PermanentError, ScaleError, Throttled, Unauthorized
from workflows.definition.expressions import ExpressionError
from workflows.definition.templates import Template, render
from workflows.planning.identity import MAX_UNIQUE_ID_LENGTH, digest_of, id_segment
from workflows.planning.requests import rejection_reason

MAX_ATTEMPTS = 6
THROTTLED_SECONDS = 30.0
CREATED, ALREADY_EXISTS, REFUSED = "created", "already_exists", "refused"
JSON_COLUMN = ":json"
"""The end of a column's name whose cells are JSON; any other cell is text."""


class InvalidInput(Exception):
    """A file, or a line of it, can't be read. args[0] says where and why."""


class Row(NamedTuple):
    line: int  # 1-based
    fields: dict[str, Any]


class SubmittedTask(NamedTuple):
    """One task that is to be created."""

    line: int
    type: str
    unique_id: str
    request: dict[str, Any]  # without callback_url and unique_id
    fault: str | None  # why Scale would refuse it


class Outcome(NamedTuple):
    line: int
    unique_id: str
    outcome: str  # created | already_exists | refused
    task_id: str | None
    reason: str | None


@dataclass(frozen=True)
class RowScope:
    """What an expression of a request can name: `row`."""

    row: Mapping[str, Any]

    def get(self, name: str) -> Any:
        return self.row if name == "row" else None


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .csv or .jsonl file, one after another. Raises Unusable."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                table = csv.DictReader(file, strict=True)
                for cells in table:
                    yield Row(table.line_num, _fields(cells, table.line_num))
                return
            for line, text in enumerate(file, 1):
                if text.strip():
                    fields = json.loads(text)
                    if not isinstance(fields, dict):
                        raise InvalidInput(f"line {line} is no JSON object")
                    yield Row(line, fields)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"line {line} is not JSON: {error.msg} at character {error.pos + 1}") from None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{path} can't be read: {error}") from None


def _fields(cells: Mapping[str | Any, Any], line: int) -> dict[str, Any]:
    """A row of a table as an object: `metadata.city` is a field of `metadata`; an empty cell is no field."""
    fields: dict[str, Any] = {}
    for column, cell in cells.items():
        if column is None or cell is None:
            raise InvalidInput(f"line {line} has not as many cells as the first one has columns")
        if cell == "":
            continue
        if column.endswith(JSON_COLUMN):
            try:
                cell = json.loads(cell)
            except json.JSONDecodeError as error:
                raise InvalidInput(f"line {line}, {column}: is not JSON: {error.msg}") from None
        *above, name = column.removesuffix(JSON_COLUMN).split(".")
        place = fields
        for key in above:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise InvalidInput(f"line {line}: {key} is a value, and has fields too")
        place[name] = cell
    return fields


def task_for_row(
    row: Row, name: str, prefix: str, *, type_name: str | None = None, template: Template | None = None
) -> SubmittedTask:
    """The task of a row: the row itself is the request, or `template` gives it, with `row` as its one name.

    The unique_id is the row's own, else `<name>.<digest>`: the same file again creates nothing again.
    """
    fields = dict(row.fields)
    given, own_type = fields.pop("unique_id", None), fields.pop("type", None)
    type_name = own_type or type_name
    if not isinstance(type_name, str):
        return SubmittedTask(row.line, "", "", {}, "names no task type: a column `type`, or --type")
    fault: str | None = None
    request = fields
    if template is not None:
        try:
            request = render(template, RowScope(row.fields))
        except ExpressionError as error:
            return SubmittedTask(row.line, type_name, "", {}, str(error))
    if given is None:
        unique_id = f"{prefix}{id_segment(name)}.{digest_of([type_name, request])}"
    else:
        unique_id = f"{prefix}{given}"
        if len(unique_id) > MAX_UNIQUE_ID_LENGTH or not str(given).strip():
            fault = f"its unique_id has more than {MAX_UNIQUE_ID_LENGTH} characters, or none"
    for key in ("callback_url", "unique_id"):
        if key in request:
            fault = f"{key} is set by the service: leave it out"
    return SubmittedTask(
        row.line, type_name, unique_id, request, fault or rejection_reason(type_name, request)
    )


def unique_tasks(tasks: Iterable[SubmittedTask]) -> list[SubmittedTask]:
    """Each unique_id once, and every row at fault: of two that ask for different tasks under one, the later is."""
    kept: list[SubmittedTask] = []
    firsts: dict[str, SubmittedTask] = {}
    for one in tasks:
        first = one if one.fault else firsts.setdefault(one.unique_id, one)
        if first is one:
            kept.append(one)
        elif (first.type, first.request) != (one.type, one.request):
            fault = f"its unique_id is that of line {first.line}, which asks for another task"
            kept.append(one._replace(fault=fault))
    return kept


def submit(service: Service, environment: str, one: SubmittedTask) -> Outcome:
    """Create one task, or find that it is there: waits when Scale asks to, and tries again what is doubtful.

    Raises only what would end every other task the same way: Wait while creating is stopped, Unauthorized.
    """
    reason = None
    for attempt in range(MAX_ATTEMPTS):
        try:
            return submit_once(service, environment, one)
        except Unauthorized:
            raise
        except Throttled as slow:
            reason = "Scale asked to slow down again and again"
            time.sleep(slow.retry_after or THROTTLED_SECONDS)
        except PermanentError as refused:
            reason = f"Scale refused it with {refused.status}: {refused.message}"
            return Outcome(one.line, one.unique_id, REFUSED, None, reason)
        except ScaleError as doubt:
            reason = f"Scale did not answer: {doubt.message}"
            time.sleep(2 ** (attempt - 1) * random.uniform(0.5, 1.0))
    return Outcome(one.line, one.unique_id, REFUSED, None, f"{reason}; submit it again")


def submit_once(service: Service, environment: str, one: SubmittedTask) -> Outcome:
    """One call. Raises Wait while nothing may be created, or what the client raises."""
    client = service.client(environment)
    with service.reader.begin() as connection:
        check_creation_allowed(connection, service, environment)
    assert client is not None  # leave_to_create has looked
    request = {**one.request, "callback_url": service.settings.callback_url, "unique_id": one.unique_id}
    try:
        task, outcome = client.create_task(one.type, request), CREATED
    except Conflict:
        task, outcome = create_or_adopt(client, one.type, request), ALREADY_EXISTS
    return Outcome(one.line, one.unique_id, outcome, task["task_id"], None)
