"""Choose the members of a dataset version: tasks that match the filters, as this service knew them at a moment.

A task that was delivered again after the moment is put together from its earlier deliveries, by the rules that every
delivery is stored by (pipeline/receive/ordering.py); all others are read from their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from more_itertools import chunked
from sqlalchemy import Connection, Select, select

from models import Annotation, Artifact, DatasetItem, Delivery, FollowUp, Response, Task
from pipeline.datasets.attachments import attachments
from pipeline.datasets.filters import Filters, Unusable, matches
from pipeline.datasets.images import batches
from pipeline.datasets.splits import METADATA, Member
from pipeline.db.bodies import read_body
from pipeline.db.memory_budget import charge, charge_parsing
from pipeline.db.tables import TASKS
from pipeline.receive.ordering import OrderKey, clock_of, task_changes
from scale.envelope import ABSENT, InvalidCallback, parse_callback, response_digest
from workflows.definition.model import INPUT

IDS_BATCH_SIZE = 500
ROWS_BATCH_SIZE = 500

MATCHED = (
    "task_id", "type", "status", "environment", "project", "batch", "tags", "metadata", "review_status", "created_at",
    "updated_at", "completed_at", "clock", "response_id", "described_delivery_id", "follow_up_unique_id",
)  # fmt: skip
"""Columns of a task that decide whether it is a member."""


@dataclass(slots=True)
class Candidate:
    """A member, before its split is known."""

    task_id: str
    response_id: UUID
    response_number: int
    digest: str
    """sha256 of the response's canonical form."""
    delivery_id: UUID | None
    status: str | None
    member: Member | None = None


@dataclass(slots=True)
class Selection:
    """Members by task_id, and how many tasks matched but have no complete result."""

    members: list[Candidate]
    unread_files: int
    """Results with a file that was not fetched or not read."""
    errors: int
    """Results that are Scale's error response."""


def choose(
    connection: Connection, filters: Filters, as_of: datetime | None, split_by: str | None
) -> Selection:
    """Return the members at `as_of` (None: now), by the code points of their task_ids. Within one repeatable-read transaction.

    split_by: how `member` of each is to be filled; None leaves it out.
    """
    changed = _changed_after(connection, as_of) if as_of is not None else []
    found = Selection([], 0, 0)
    for tasks in batches(_matching(connection, filters, changed, as_of, with_params=split_by is not None)):
        tasks = [task for task in tasks if _of_follow_up(connection, filters, task)]
        _add(connection, found, tasks, filters, as_of, split_by)
    found.members.sort(key=lambda member: member.task_id)
    return found


def _changed_after(connection: Connection, as_of: datetime) -> list[str]:
    """Return the tasks with a delivery that was received later."""
    statement = select(Delivery.task_id).where(
        Delivery.received_at > as_of, Delivery.status == "processed", Delivery.task_id.is_not(None)
    )
    return sorted({task_id for task_id in connection.scalars(statement) if task_id is not None})


def _matching(
    connection: Connection,
    filters: Filters,
    changed: Sequence[str],
    as_of: datetime | None,
    *,
    with_params: bool,
) -> Iterator[Mapping[str, Any]]:
    """Yield the columns of each task that matches."""
    names = (*MATCHED, "params") if with_params else MATCHED
    statement = _prefiltered(select(*(TASKS.c[name] for name in names)), filters)
    later = frozenset(changed)
    after = ""
    while rows := _page(connection, statement, after):
        after = rows[-1]["task_id"]
        for task in rows:
            if task["task_id"] not in later and matches(task, filters):
                yield task
    for task_id in changed:
        assert as_of is not None
        earlier = task_at(connection, task_id, as_of)
        if earlier is not None and matches(earlier, filters):
            yield earlier


def _page(connection: Connection, statement: Select[Any], after: str) -> Sequence[Mapping[str, Any]]:
    page = statement.where(TASKS.c.task_id > after).order_by(TASKS.c.task_id).limit(ROWS_BATCH_SIZE)
    return [dict(row) for row in connection.execute(page).mappings()]


def _prefiltered(statement: Select[Any], filters: Filters) -> Select[Any]:
    """Return what the database can decide without reading a task's JSON."""
    is_task = TASKS.c.type.is_distinct_from(INPUT)
    statement = statement.where(is_task, TASKS.c.response_id.is_not(None), TASKS.c.purged_at.is_(None))
    for name, column in (("type", "type"), ("project", "project"), ("batch", "batch"), ("status", "status"),
                         ("environment", "environment"), ("review", "review_status")):  # fmt: skip
        if wanted := getattr(filters, name):
            statement = statement.where(TASKS.c[column].in_(wanted))
    return statement


def task_at(connection: Connection, task_id: str, as_of: datetime) -> dict[str, Any] | None:
    """Return the task's columns as the deliveries up to `as_of` make them; None without any, and if the task was purged.

    Raises Unusable if a body that says how it was then was purged.
    """
    if connection.scalar(select(Task.purged_at).where(Task.task_id == task_id)) is not None:
        return None
    deliveries = connection.execute(
        select(Delivery.id, Delivery.environment, Delivery.received_at, Delivery.size_bytes)
        .where(Delivery.task_id == task_id, Delivery.status == "processed", Delivery.received_at <= as_of)
        .order_by(Delivery.id)
    ).all()
    if not deliveries:
        return None
    task: dict[str, Any] = dict.fromkeys(TASKS.c.keys())
    for delivery in deliveries:
        charge(delivery.size_bytes)  # read_body() holds it twice for a moment
        body = read_body(connection, delivery.id)
        if body is None:
            raise Unusable(
                f"Task {task_id} has changed since, and the body that says how it was before was purged."
                " Choose a later moment, or leave --as-of out."
            )
        for _ in ("the callback", "the canonical form of its response"):
            charge_parsing(body)
        try:
            callback = parse_callback(body, delivery.environment)
        except InvalidCallback:
            continue
        version_id = None
        if callback.response is not ABSENT:
            version_id = connection.scalar(
                select(Response.id).where(
                    Response.task_id == task_id, Response.digest == response_digest(callback.response)
                )
            )
        key = OrderKey(clock_of(callback, delivery.received_at), delivery.id)
        task |= task_changes(task, callback, key, version_id)
        task["environment"] = delivery.environment
    task["task_id"] = task_id
    task["follow_up_unique_id"] = connection.scalar(
        select(Task.follow_up_unique_id).where(Task.task_id == task_id)
    )
    return task


def _of_follow_up(connection: Connection, filters: Filters, task: Mapping[str, Any]) -> bool:
    if not filters.workflow and not filters.step:
        return True
    if task["follow_up_unique_id"] is None:
        return False
    row = connection.execute(
        select(FollowUp.workflow, FollowUp.step).where(FollowUp.unique_id == task["follow_up_unique_id"])
    ).one_or_none()
    return (
        row is not None
        and (not filters.workflow or row.workflow in filters.workflow)
        and (not filters.step or row.step in filters.step)
    )


def _add(
    connection: Connection,
    found: Selection,
    tasks: Sequence[Mapping[str, Any]],
    filters: Filters,
    as_of: datetime | None,
    split_by: str | None,
) -> None:
    tasks = [task for task in tasks if task["response_id"] is not None]
    ids = [task["response_id"] for task in tasks]
    columns = (Response.id, Response.number, Response.digest, Response.error)
    responses = {row.id: row for row in connection.execute(select(*columns).where(Response.id.in_(ids)))}
    unread = _with_unread_files(connection, ids, as_of)
    labeled = _labeled(connection, ids, filters.label)
    kept = []
    for task in tasks:
        response = responses.get(task["response_id"])
        if response is None or (filters.label and response.id not in labeled):
            continue
        if response.error is not None and "error" not in filters.status:
            found.errors += 1
        elif response.id in unread:
            found.unread_files += 1
        else:
            kept.append((task, response))
    members = (
        split_members(connection, [task for task, _ in kept], split_by) if split_by else [None] * len(kept)
    )
    found.members += [
        Candidate(
            task["task_id"],
            response.id,
            response.number,
            response.digest,
            task["described_delivery_id"],
            task["status"],
            member,
        )
        for (task, response), member in zip(kept, members, strict=True)
    ]


def _with_unread_files(connection: Connection, ids: Sequence[UUID], as_of: datetime | None) -> set[UUID]:
    """Return which of these responses have a file that is not stored, or was not yet at `as_of`."""
    is_unread = Artifact.state != "stored"
    if as_of is not None:
        is_unread |= Artifact.stored_at > as_of
    statement = select(Artifact.response_id).where(Artifact.response_id.in_(ids), is_unread)
    return set(connection.scalars(statement.distinct()))


def _labeled(connection: Connection, ids: Sequence[UUID], labels: Sequence[str]) -> set[UUID]:
    """Return which of these responses have an annotation with one of the labels."""
    if not labels:
        return set()
    statement = select(Annotation.response_id).where(
        Annotation.response_id.in_(ids), Annotation.label.in_(labels)
    )
    return set(connection.scalars(statement.distinct()))


def members_of(connection: Connection, version_id: UUID, split_by: str | None) -> list[Candidate]:
    """Return the members of a version once more, in their order. split_by as for `choose`."""
    statement = (
        select(
            DatasetItem.task_id,
            DatasetItem.response_id,
            DatasetItem.response_number,
            Response.digest,
            DatasetItem.delivery_id,
            DatasetItem.status,
            Task.params,
            Task.metadata_.label("metadata"),
            Task.follow_up_unique_id,
        )
        .outerjoin(Response, Response.id == DatasetItem.response_id)
        .outerjoin(Task, Task.task_id == DatasetItem.task_id)
        .where(DatasetItem.version_id == version_id)
        .order_by(DatasetItem.position)
    )
    found: list[Candidate] = []
    for rows in batches(
        connection.execute(statement.execution_options(yield_per=ROWS_BATCH_SIZE)).mappings()
    ):
        members = split_members(connection, rows, split_by) if split_by else [None] * len(rows)
        found += [
            Candidate(
                row["task_id"],
                row["response_id"],
                row["response_number"],
                row["digest"],
                row["delivery_id"],
                row["status"],
                member,
            )
            for row, member in zip(rows, members, strict=True)
        ]
    return found


# Split keys.


def split_members(connection: Connection, tasks: Sequence[Mapping[str, Any]], split_by: str) -> list[Member]:
    """Return what the split of each task depends on. `tasks` have task_id, params, metadata and follow_up_unique_id."""
    by_lineage = split_by == "lineage" or split_by.startswith(METADATA)
    roots = (
        first_tasks(connection, [task["task_id"] for task in tasks if task["follow_up_unique_id"]])
        if by_lineage
        else {}
    )
    shown = _attachments_of(connection, set(roots.values()))
    key = split_by.removeprefix(METADATA)
    members = []
    for task in tasks:
        own = attachments(task["params"] or {})
        root = roots.get(task["task_id"], task["task_id"])
        first = (shown.get(root, []) if root != task["task_id"] else own)[:1]
        made = first[0] if first else f"task:{root}"
        metadata = task["metadata"] or {}
        if split_by.startswith(METADATA) and metadata.get(key) is not None:
            made = f"metadata:{metadata[key]}"
        members.append(Member(task["task_id"], made, tuple(own)))
    return members


def first_tasks(connection: Connection, task_ids: Iterable[str]) -> dict[str, str]:
    """Return by task the first task of its lineage."""
    start = set(task_ids)
    parents: dict[str, str] = {}
    seen, level = set(start), start
    while level:
        parents |= _parents(connection, sorted(level))
        level = {parents[task_id] for task_id in level if task_id in parents} - seen
        seen |= level
    return {task_id: _top(task_id, parents) for task_id in start}


def _top(task_id: str, parents: Mapping[str, str]) -> str:
    seen = {task_id}
    while (parent := parents.get(task_id)) is not None and parent not in seen:
        seen.add(parent)
        task_id = parent
    return task_id


def _parents(connection: Connection, task_ids: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for batch in chunked(task_ids, IDS_BATCH_SIZE):
        statement = (
            select(Task.task_id, FollowUp.source_task_id)
            .join(FollowUp, FollowUp.unique_id == Task.follow_up_unique_id)
            .where(Task.task_id.in_(batch))
        )
        found |= {task_id: parent for task_id, parent in connection.execute(statement) if task_id != parent}
    return found


def _attachments_of(connection: Connection, task_ids: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for batch in chunked(sorted(task_ids), IDS_BATCH_SIZE):
        statement = select(Task.task_id, Task.params).where(Task.task_id.in_(batch))
        found |= {task_id: attachments(params or {}) for task_id, params in connection.execute(statement)}
    return found
