"""Create, list and delete dataset versions. A version is a list of references: results are never changed in place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from more_itertools import chunked
from sqlalchemy import Connection, delete, func, insert, select, update

from models import Annotation, Artifact, Dataset, DatasetItem, DatasetVersion, Response
from pipeline.access.audit import log_action
from pipeline.datasets.filters import Filters, Unusable, check_text, parse_filters
from pipeline.datasets.selection import Candidate, Selection, choose, members_of
from pipeline.datasets.splits import WHOLE, check_split_by, split
from pipeline.db.dialect import insert as insert_or_update
from pipeline.db.ids import new_id, utcnow
from pipeline.operations.queries.paging import paginate
from pipeline.service import Service

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
REFERENCE = re.compile(r"([^@]*)(?:@([1-9][0-9]{0,8}))?")
INSERT_BATCH_SIZE = 1_000
DEFAULT_SPLIT_BY = "lineage"
STATEMENT_TIMEOUT = "15min"
ABANDONED = timedelta(days=2)
"""Members of an export that names no dataset are kept for as long, should their export be killed."""


class UnknownDataset(LookupError):
    """Raised when no dataset, or no version of it, has this name. args[0] is a sentence."""


@dataclass(frozen=True, slots=True)
class Version:
    """A dataset version, without its members."""

    id: UUID
    name: str | None
    version: int | None
    digest: str
    filters: dict[str, Any]
    as_of: datetime
    shares: dict[str, float] | None
    split_by: str
    classes: list[str]
    counts: dict[str, Any]
    damage: str | None
    created_at: datetime

    @property
    def full_name(self) -> str | None:
        """Return name@version; None for the tasks of an export that names no dataset."""
        return None if self.name is None else f"{self.name}@{self.version}"

    @property
    def tasks(self) -> int:
        """Return the number of members."""
        return int(self.counts["tasks"])


@dataclass(frozen=True, slots=True)
class Request:
    """What a version is created from. None: as in the version before, else the default."""

    filters: Filters | None = None
    as_of: datetime | None = None
    shares: Mapping[str, float] | None = None
    split_by: str | None = None
    classes: Sequence[str] | None = None


def create(service: Service, name: str, request: Request, actor: str) -> Version:
    """Create the next version of the dataset `name`, the first one if there is none, and audit it. Raises Unusable."""
    check_name(name)
    with _snapshot(service) as connection:
        before = _newest(connection, name)
        chosen = _choose(connection, request if before is None else _like(before, request))
    with _writing(service) as connection:
        made = _write(connection, chosen, name, _lock(connection, name))
        log_action(connection, actor, "dataset.create", str(made.full_name), {"digest": made.digest})
        return made


def freeze(service: Service, request: Request) -> Version:
    """Create a version without a name, for one export; `discard` deletes it. Raises Unusable."""
    with _snapshot(service) as connection:
        chosen = _choose(connection, request)
    with _writing(service) as connection:
        _delete_abandoned(connection)
        return _write(connection, chosen, None, None)


def derive(service: Service, base: Version, request: Request) -> Version:
    """Return the members of a version under other splits or classes, for one export; `discard` deletes it. Raises Unusable."""
    shares = request.shares if request.shares is not None else base.shares
    split_by = check_split_by(request.split_by or base.split_by)
    classes = list(request.classes) if request.classes is not None else base.classes
    with _writing(service) as connection:
        members = members_of(connection, base.id, split_by if shares is not None else None)
        placed = _placed(members, shares)
        version_id = new_id()
        _write_items(connection, version_id, members, placed)
        values = {
            **{column.key: getattr(base, column.key) for column in COLUMNS},
            "id": version_id,
            "name": None,
            "version": None,
            "digest": digest(connection, version_id, classes),
            "shares": [list(share) for share in shares.items()] if shares is not None else None,
            "split_by": split_by,
            "classes": classes,
            "counts": {**base.counts, "splits": _count_splits(placed, shares)},
            "created_at": utcnow(),
        }
        connection.execute(insert(DatasetVersion).values(**values))
    return replace(_version(values.values()), name=base.name, version=base.version)


def discard(service: Service, version_id: UUID) -> None:
    """Delete a version that was made for one export."""
    with service.engine.begin() as connection:
        _delete(connection, [version_id])


def check_name(name: str) -> None:
    """Raise Unusable unless `name` can be the name of a dataset."""
    if not NAME.fullmatch(name):
        raise Unusable(
            f"{name!r} cannot be the name of a dataset; take at most 100 of the characters a-z, 0-9 and -."
        )


@contextmanager
def _snapshot(service: Service) -> Iterator[Connection]:
    """Provide one repeatable-read transaction, as long as it needs. On SQLite it keeps no writer waiting."""
    if service.engine.dialect.name == "sqlite":
        with service.reader.begin() as connection:
            yield connection
        return
    with _writing(service) as connection:
        yield connection


@contextmanager
def _writing(service: Service) -> Iterator[Connection]:
    with service.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'")
        yield connection


def _lock(connection: Connection, name: str) -> Dataset:
    """Return the row of the name, with the number of the next version, locked until the transaction ends."""
    statement = insert_or_update(connection, Dataset).values(
        name=name, latest_version=1, classes=[], excluded_labels=[], created_at=utcnow()
    )
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={"latest_version": Dataset.latest_version + 1}
    ).returning(Dataset.latest_version, Dataset.classes, Dataset.excluded_labels)
    row = connection.execute(statement).one()
    return Dataset(
        name=name, latest_version=row.latest_version, classes=row.classes, excluded_labels=row.excluded_labels
    )


def _newest(connection: Connection, name: str) -> Version | None:
    statement = select(*COLUMNS).where(DatasetVersion.name == name).order_by(DatasetVersion.version.desc())
    row = connection.execute(statement.limit(1)).one_or_none()
    return None if row is None else _version(row)


def _like(before: Version, request: Request) -> Request:
    """Return the request with the filters and the splits of the version before, where it names none."""
    return Request(
        filters=request.filters or parse_filters(before.filters),
        as_of=request.as_of,
        shares=request.shares if request.shares is not None else before.shares,
        split_by=request.split_by or before.split_by,
        classes=request.classes,
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    """Members with their splits, before they are written."""

    request: Request
    filters: Filters
    split_by: str
    as_of: datetime
    selection: Selection
    splits: list[str]


def _choose(connection: Connection, request: Request) -> Chosen:
    filters = request.filters or Filters()
    split_by = check_split_by(request.split_by or DEFAULT_SPLIT_BY)
    moment = utcnow()
    if request.as_of is not None and request.as_of > moment:
        raise Unusable("as_of is in the future; take a time that has passed.")
    selection = choose(connection, filters, request.as_of, split_by if request.shares is not None else None)
    splits = _placed(selection.members, request.shares)
    return Chosen(request, filters, split_by, request.as_of or moment, selection, splits)


def _write(connection: Connection, chosen: Chosen, name: str | None, dataset: Dataset | None) -> Version:
    request, members = chosen.request, chosen.selection.members
    version_id = new_id()
    _write_items(connection, version_id, members, chosen.splits)
    counts = _counts(connection, version_id, members, chosen.splits, request.shares)
    counts["incomplete"] = {
        "unread_files": chosen.selection.unread_files,
        "errors": chosen.selection.errors,
    }
    classes, excluded = choose_classes(
        sorted(counts["annotations"]["by_label"]),
        request.classes,
        dataset.classes if dataset is not None else [],
        dataset.excluded_labels if dataset is not None else [],
    )
    values = {
        "id": version_id,
        "name": name,
        "version": dataset.latest_version if dataset is not None else None,
        "digest": digest(connection, version_id, classes),
        "filters": chosen.filters.as_json(),
        "as_of": chosen.as_of,
        "shares": [list(share) for share in request.shares.items()] if request.shares is not None else None,
        "split_by": chosen.split_by,
        "classes": classes,
        "counts": counts,
        "damage": None,
        "created_at": utcnow(),
    }
    connection.execute(insert(DatasetVersion).values(**values))
    if dataset is not None:
        pinned = {"classes": classes, "excluded_labels": excluded}
        connection.execute(update(Dataset).where(Dataset.name == name).values(**pinned))
    return _version(values.values())


def _version(values: Iterable[Any]) -> Version:
    """Return a row as a value. JSONB sorts the keys of objects in its own way, so the order is made here."""
    version = Version(*values)
    counts, annotations = version.counts, version.counts["annotations"]
    shares = None if version.shares is None else dict(version.shares)
    return replace(
        version,
        shares=shares,
        filters=parse_filters(version.filters).as_json(),
        counts={
            "tasks": counts["tasks"],
            "annotations": {
                "total": annotations["total"],
                "by_type": dict(sorted(annotations["by_type"].items())),
                "by_label": dict(sorted(annotations["by_label"].items())),
            },
            "splits": {name: counts["splits"].get(name, 0) for name in shares or (WHOLE,)},
            "incomplete": dict(sorted(counts["incomplete"].items())),
        },
    )


def _placed(members: Sequence[Candidate], shares: Mapping[str, float] | None) -> list[str]:
    """Return the split of each member."""
    if shares is None:
        return [WHOLE] * len(members)
    return split([member.member for member in members if member.member is not None], shares)


def choose_classes(
    labels: Sequence[str], given: Sequence[str] | None, pinned: Sequence[str], excluded: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return (classes in the order of their ids, labels that were left out on purpose).

    A list that is given is taken as it is, and the other labels of the moment are left out. Without one the pinned classes
    stay, and labels that are new follow, sorted by code point.
    """
    if given is not None:
        return list(given), sorted(set(labels) - set(given))
    known = {*pinned, *excluded}
    return [*pinned, *(label for label in sorted(labels) if label not in known)], sorted(excluded)


def parse_classes(text: str) -> list[str]:
    """Return the labels of a text, one a line; empty lines do not count. Raises Unusable."""
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    return check_classes([line for line in lines if line.strip()])


def check_classes(labels: Sequence[str]) -> list[str]:
    """Return the labels, if they can be classes. Raise Unusable if not."""
    if not labels:
        raise Unusable("The list of classes is empty; name at least one label.")
    for label in labels:
        check_text("The list of classes", label)
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise Unusable(f"The list of classes names {twice!r} twice.")
    return list(labels)


def _write_items(
    connection: Connection, version_id: UUID, members: Sequence[Candidate], splits: Sequence[str]
) -> None:
    for batch in chunked(enumerate(zip(members, splits, strict=True)), INSERT_BATCH_SIZE):
        rows = [
            {
                "version_id": version_id,
                "position": position,
                "task_id": member.task_id,
                "response_id": member.response_id,
                "response_number": member.response_number,
                "delivery_id": member.delivery_id,
                "status": member.status,
                "split": name,
            }
            for position, (member, name) in batch
        ]
        connection.execute(insert(DatasetItem), rows)


def _counts(
    connection: Connection,
    version_id: UUID,
    members: Sequence[Candidate],
    splits: Sequence[str],
    shares: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Return {tasks, annotations: {total, by_type, by_label}, splits}."""
    rows = connection.execute(
        select(Annotation.type, Annotation.label, func.count())
        .join(DatasetItem, DatasetItem.response_id == Annotation.response_id)
        .where(DatasetItem.version_id == version_id)
        .group_by(Annotation.type, Annotation.label)
    ).all()
    by_type: dict[str, int] = {}
    by_label: dict[str, int] = {}
    for type_, label, count in rows:
        by_type[type_] = by_type.get(type_, 0) + count
        if label is not None:
            by_label[label] = by_label.get(label, 0) + count
    return {
        "tasks": len(members),
        "annotations": {
            "total": sum(by_type.values()),
            "by_type": dict(sorted(by_type.items())),
            "by_label": dict(sorted(by_label.items())),
        },
        "splits": _count_splits(splits, shares),
    }


def _count_splits(splits: Iterable[str], shares: Mapping[str, float] | None) -> dict[str, int]:
    by_split = dict.fromkeys(shares or (WHOLE,), 0)
    for name in splits:
        by_split[name] += 1
    return by_split


def digest(connection: Connection, version_id: UUID, classes: Sequence[str]) -> str:
    """Return the sha256 over the content: the classes, and each member's task, response, files and split. Neither name nor moment."""
    made = hashlib.sha256(orjson.dumps(list(classes)))
    after = -1
    while True:
        items = connection.execute(
            select(
                DatasetItem.position,
                DatasetItem.task_id,
                DatasetItem.split,
                DatasetItem.response_id,
                Response.digest,
            )
            .outerjoin(Response, Response.id == DatasetItem.response_id)
            .where(DatasetItem.version_id == version_id, DatasetItem.position > after)
            .order_by(DatasetItem.position)
            .limit(INSERT_BATCH_SIZE)
        ).all()
        if not items:
            return made.hexdigest()
        after = items[-1].position
        files = file_digests(connection, [item.response_id for item in items])
        for item in items:
            made.update(
                orjson.dumps([item.task_id, item.split, item.digest, *files.get(item.response_id, ())])
                + b"\n"
            )


def file_digests(connection: Connection, response_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """Return the sha256 of each file of these responses, by ordinal."""
    statement = (
        select(Artifact.response_id, Artifact.sha256)
        .where(Artifact.response_id.in_(response_ids))
        .order_by(Artifact.ordinal)
    )
    found: dict[UUID, list[str]] = {}
    for response_id, sha256 in connection.execute(statement):
        found.setdefault(response_id, []).append(sha256 or "")
    return found


# Reading and deleting.

COLUMNS = (
    DatasetVersion.id,
    DatasetVersion.name,
    DatasetVersion.version,
    DatasetVersion.digest,
    DatasetVersion.filters,
    DatasetVersion.as_of,
    DatasetVersion.shares,
    DatasetVersion.split_by,
    DatasetVersion.classes,
    DatasetVersion.counts,
    DatasetVersion.damage,
    DatasetVersion.created_at,
)


def parse_reference(text: str) -> tuple[str, int | None]:
    """Parse NAME or NAME@N. Raises Unusable."""
    found = REFERENCE.fullmatch(text)
    if found is None:
        raise Unusable(f"{text!r} names no dataset version; write NAME for the newest one, or NAME@2.")
    check_name(found[1])
    return found[1], int(found[2]) if found[2] else None


def find(connection: Connection, reference: str) -> Version:
    """Return the version that NAME@N names, or the newest one of NAME. Raises Unusable and UnknownDataset."""
    name, number = parse_reference(reference)
    if number is None:
        version = _newest(connection, name)
    else:
        statement = select(*COLUMNS).where(DatasetVersion.name == name, DatasetVersion.version == number)
        row = connection.execute(statement).one_or_none()
        version = None if row is None else _version(row)
    if version is None:
        raise UnknownDataset(f"There is no dataset {reference}.")
    return version


def versions(connection: Connection) -> list[Version]:
    """Return every version that has a name, by name and number."""
    statement = select(*COLUMNS).where(DatasetVersion.name.is_not(None))
    rows = connection.execute(statement.order_by(DatasetVersion.name, DatasetVersion.version))
    return [_version(row) for row in rows]


def page(connection: Connection, *, limit: int, cursor: str | None) -> tuple[list[Version], str | None]:
    """Return versions that have a name, newest first, and the cursor of the next page."""
    statement = select(*COLUMNS).where(DatasetVersion.name.is_not(None))
    kept = (DatasetVersion.filters, DatasetVersion.classes, DatasetVersion.counts)
    found = paginate(connection, statement, [DatasetVersion.id], limit=limit, cursor=cursor, kept=kept)
    return [_version(row.values()) for row in found.rows], found.next_cursor


def delete_version(connection: Connection, reference: str, actor: str) -> Version:
    """Delete the version NAME@N and audit it; its number is never used again. Raises Unusable and UnknownDataset."""
    if parse_reference(reference)[1] is None:
        raise Unusable(f"Name the version to delete, for example {reference}@1.")
    version = find(connection, reference)
    _delete(connection, [version.id])
    log_action(connection, actor, "dataset.delete", str(version.full_name))
    return version


def _delete_abandoned(connection: Connection) -> None:
    """Delete the members of exports that named no dataset and were killed."""
    abandoned = select(DatasetVersion.id).where(
        DatasetVersion.name.is_(None), DatasetVersion.created_at < utcnow() - ABANDONED
    )
    _delete(connection, connection.scalars(abandoned))


def _delete(connection: Connection, version_ids: Iterable[UUID]) -> None:
    for version_id in list(version_ids):
        connection.execute(delete(DatasetItem).where(DatasetItem.version_id == version_id))
        connection.execute(delete(DatasetVersion).where(DatasetVersion.id == version_id))
