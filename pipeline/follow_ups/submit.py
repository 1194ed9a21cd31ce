"""Create the first tasks of a pipeline from a file: each once, under a unique_id that is derived from its content."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.access.audit import log_action
from pipeline.db.ids import utcnow
from pipeline.follow_ups import limits
from pipeline.follow_ups.pauses import check_creation_allowed
from pipeline.follow_ups.task_creation import Creation, check_environment, create_or_adopt
from pipeline.jobs.queue import RetryLater, backoff
from pipeline.service import Service
from scale.client import Conflict, PermanentError, ScaleError, Throttled, Unauthorized
from workflows.definition.expressions import ExpressionError
from workflows.definition.templates import Template, render
from workflows.planning.identity import MAX_UNIQUE_ID_LENGTH, digest_of, id_segment
from workflows.planning.requests import rejection_reason

MAX_ATTEMPTS = 6
CREATED, ALREADY_EXISTS, REFUSED = "created", "already_exists", "refused"
JSON_COLUMN = ":json"
"""Suffix of a column whose cells are JSON; any other cell is text."""


class InvalidInput(Exception):
    """Raised when a file, or a line of it, cannot be read; args[0] says where and why."""


class Row(NamedTuple):
    """One row of a .csv or .jsonl file."""

    line: int  # 1-based
    fields: dict[str, Any]


class SubmittedTask(NamedTuple):
    """One task to create."""

    line: int
    type: str
    unique_id: str
    request: dict[str, Any]  # without callback_url and unique_id
    fault: str | None  # why Scale would refuse the request


class Outcome(NamedTuple):
    """What became of one task: created, found (already_exists), or refused with the reason."""

    line: int
    unique_id: str
    outcome: str  # created | already_exists | refused
    task_id: str | None
    reason: str | None


@dataclass(frozen=True)
class RowScope:
    """The names of an expression in a request: `row`."""

    row: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """Return the value of a name of the expression; None for an unknown one."""
        return self.row if name == "row" else None


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a .csv or .jsonl file, one after another. Raises InvalidInput."""
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
                        raise InvalidInput(f"line {line} is not a JSON object")
                    yield Row(line, fields)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"line {line} is not JSON: {error.msg} at character {error.pos + 1}") from None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None


def _fields(cells: Mapping[str | Any, Any], line: int) -> dict[str, Any]:
    """Return a row of a table as an object: `metadata.city` is a field of `metadata`; an empty cell is left out."""
    fields: dict[str, Any] = {}
    for column, cell in cells.items():
        if column is None or cell is None:
            raise InvalidInput(f"line {line} does not have one cell for each column of the first line")
        if cell == "":
            continue
        if column.endswith(JSON_COLUMN):
            try:
                cell = json.loads(cell)
            except json.JSONDecodeError as error:
                raise InvalidInput(f"line {line}, {column}: not JSON: {error.msg}") from None
        *above, name = column.removesuffix(JSON_COLUMN).split(".")
        place = fields
        for key in above:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise InvalidInput(f"line {line}: {key} cannot be both a value and an object")
        place[name] = cell
    return fields


def task_for_row(
    row: Row, name: str, prefix: str, *, type_name: str | None = None, template: Template | None = None
) -> SubmittedTask:
    """Return the task of a row, whose request is the row itself or `template` rendered with the name `row`.

    The unique_id is the row's own, else `<name>.<digest>`, so that submitting a file again creates nothing. The type is the
    row's own, else that of the request, else `type_name`.
    """
    fields = dict(row.fields)
    given, own_type = fields.pop("unique_id", None), fields.pop("type", None)
    fault: str | None = None
    request = fields
    if template is not None:
        try:
            request = dict(render(template, RowScope(row.fields)))
        except ExpressionError as error:
            return SubmittedTask(row.line, str(own_type or type_name or ""), "", {}, str(error))
        of_request = request.pop("type", None)
        own_type = own_type or of_request
    type_name = own_type or type_name
    if not isinstance(type_name, str):
        without = "has no task type: add a column `type`, a `type` to the request, or pass --type"
        return SubmittedTask(row.line, "", "", {}, without)
    if given is None:
        unique_id = f"{prefix}{id_segment(name)}.{digest_of([type_name, request])}"
    else:
        unique_id = f"{prefix}{given}"
        if len(unique_id) > MAX_UNIQUE_ID_LENGTH or not str(given).strip():
            fault = f"its unique_id must have 1 to {MAX_UNIQUE_ID_LENGTH} characters"
    for key in ("callback_url", "unique_id"):
        if key in request:
            fault = f"{key} is set by the service; remove it"
    return SubmittedTask(
        row.line, type_name, unique_id, request, fault or rejection_reason(type_name, request)
    )


def unique_tasks(tasks: Iterable[SubmittedTask]) -> list[SubmittedTask]:
    """Return one task for each unique_id. Of two rows that use one unique_id for different tasks, the later gets a fault."""
    kept: list[SubmittedTask] = []
    firsts: dict[str, SubmittedTask] = {}
    for one in tasks:
        first = one if one.fault else firsts.setdefault(one.unique_id, one)
        if first is one:
            kept.append(one)
        elif (first.type, first.request) != (one.type, one.request):
            fault = f"its unique_id is already used by line {first.line} for another task"
            kept.append(one._replace(fault=fault))
    return kept


def submit(service: Service, environment: str, task: SubmittedTask) -> Outcome:
    """Create one task, or find the one that exists. Waits when Scale asks to, and retries when the outcome is unknown.

    Raises only what would end every other task the same way: RetryLater while creation is paused, Unauthorized.
    """
    reason = None
    for attempt in range(MAX_ATTEMPTS):
        try:
            return submit_once(service, environment, task)
        except Unauthorized:
            raise
        except Throttled as error:
            reason = "Scale asked to slow down again and again"
            time.sleep(error.delay)
        except PermanentError as error:
            reason = f"Scale refused it with {error.status}: {error.message}"
            return Outcome(task.line, task.unique_id, REFUSED, None, reason)
        except ScaleError as error:
            reason = f"Scale did not answer: {error.message}"
            time.sleep(backoff(attempt))
    return Outcome(task.line, task.unique_id, REFUSED, None, f"{reason}; submit it again")


def submit_one(service: Service, environment: str, task: SubmittedTask, actor: str) -> Outcome:
    """Create one task by one call, and audit the outcome, also a refusal.

    Raises InvalidInput with the task's fault, PermanentError if Scale refuses the task, and what submit_once raises.
    """
    if task.fault:
        _audit(service, actor, task.unique_id, outcome="rejected", reason=task.fault)
        raise InvalidInput(task.fault)
    try:
        outcome = submit_once(service, environment, task)
    except PermanentError as refusal:
        _audit(service, actor, task.unique_id, outcome=REFUSED, reason=refusal.message)
        raise
    _audit(service, actor, task.unique_id, outcome=outcome.outcome)
    return outcome


def submit_all(
    service: Service,
    environment: str,
    tasks: Sequence[SubmittedTask],
    *,
    name: str,
    actor: str,
    at_once: int,
    per_minute: int | None = None,
) -> Iterator[Outcome]:
    """Create the tasks of the file `name`: `at_once` at the same time, at most `per_minute`. Yield each outcome.

    At the end, also after an error, the number of tasks by outcome is audited. Raises what `submit` raises.
    """
    counts: Counter[str] = Counter()
    try:
        with ThreadPoolExecutor(at_once) as pool:
            for outcome in _submit_in(pool, service, environment, tasks, at_once, per_minute):
                counts[outcome.outcome] += 1
                yield outcome
    finally:
        _audit(service, actor, name, **counts)


def _submit_in(
    pool: ThreadPoolExecutor,
    service: Service,
    environment: str,
    tasks: Iterable[SubmittedTask],
    at_once: int,
    per_minute: int | None,
) -> Iterator[Outcome]:
    started, sent = time.monotonic(), 0
    running: set[Future[Outcome]] = set()
    waiting = iter(tasks)
    while True:
        for task in islice(waiting, at_once - len(running)):
            if per_minute is not None:
                time.sleep(max(0.0, started + sent * 60 / per_minute - time.monotonic()))
            running.add(pool.submit(submit, service, environment, task))
            sent += 1
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _audit(service: Service, actor: str, subject: str, **details: str | int) -> None:
    with service.engine.begin() as connection:
        log_action(connection, actor, "tasks.submit", subject, details)


def submit_once(service: Service, environment: str, task: SubmittedTask) -> Outcome:
    """Call Scale once. Raises RetryLater while nothing may be created, or what the client raises.

    The limits of the installation count the task before the call; what was not created is taken back.
    """
    client = service.client(environment)
    with service.reader.begin() as connection:
        check_creation_allowed(connection, service, environment)
    assert client is not None  # checked by check_creation_allowed
    request = {**task.request, "callback_url": service.settings.callback_url, "unique_id": task.unique_id}
    with _counted(service, task) as give_back:
        try:
            creation, outcome = Creation(client.create_task(task.type, request)), CREATED
        except Conflict:
            give_back()
            creation, outcome = create_or_adopt(client, task.type, request), ALREADY_EXISTS
        except (PermanentError, Throttled, Unauthorized):
            give_back()
            raise
    check_environment(service, client, environment, creation.task)
    return Outcome(task.line, task.unique_id, outcome, creation.task["task_id"], creation.note)


@contextmanager
def _counted(service: Service, task: SubmittedTask) -> Iterator[Callable[[], None]]:
    """Count a task under the limits of the installation. Yields a function that takes it back.

    Raises RetryLater beyond a limit. A call without an answer stays counted: the task may exist.
    """
    workflows, now = service.workflows, utcnow()
    claim = limits.submission_claim(workflows, task.type, task.request)
    if not claim.limits and not workflows.limits.problems:
        yield lambda: None
        return
    with service.engine.begin() as connection:
        (reason,) = limits.reserve(connection, workflows, [claim])
    if reason is not None:
        raise RetryLater(reason.text, (limits.released_at(now) - now).total_seconds())

    def give_back() -> None:
        with service.engine.begin() as connection:
            limits.give_back(connection, claim, now)

    yield give_back
