"""Check a dataset version against the bytes as received: compute every digest again, and search the splits for leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from models import Artifact, DatasetItem, Delivery, DeliveryBody, Response, Task
from pipeline.datasets.records import annotations_of
from pipeline.datasets.selection import split_members
from pipeline.datasets.splits import leaks
from pipeline.datasets.versions import Version, digest, find
from pipeline.service import Service
from scale.annotations import Annotation
from scale.envelope import ABSENT, InvalidCallback, parse_callback, response_digest
from scale.task_types import parse_response

PAGE_SIZE = 100
MAX_PROBLEMS = 1_000


class Member(NamedTuple):
    """A member with the rows that it refers to; their columns are None where they are gone."""

    position: int
    task_id: str
    response_id: UUID
    split: str
    digest: str | None
    delivery_id: UUID | None
    body: bytes | None
    sha256: str | None
    environment: str | None
    type: str | None
    params: dict[str, Any] | None
    metadata: dict[str, Any] | None
    follow_up_unique_id: str | None
    purged_at: datetime | None
    body_purged_at: datetime | None


def verify(service: Service, reference: str) -> dict[str, Any]:
    """Return {dataset, digest, checked: {tasks, annotations, files}, problems: [sentence]}. Raises Unusable and UnknownDataset."""
    with service.reader.begin() as connection:
        version = find(connection, reference)
        again = digest(connection, version.id, version.classes)
    check = Check(service, version)
    if version.damage is not None:
        check.problem(version.damage)
    for members in check.pages():
        check.members(members)
    if again != version.digest:
        check.problem(f"The digest of the version was {version.digest[:12]} and is now {again[:12]}.")
    check.splits()
    return {
        "dataset": version.full_name,
        "digest": version.digest,
        "checked": {"tasks": check.tasks, "annotations": check.annotations, "files": check.files},
        "problems": check.problems,
    }


class Check:
    """One run over the members."""

    def __init__(self, service: Service, version: Version) -> None:
        self._service = service
        self._version = version
        self.tasks = self.annotations = self.files = 0
        self.problems: list[str] = []
        self._placed: list[tuple[str, str, tuple[str, ...]]] = []

    def problem(self, sentence: str) -> None:
        """Record a problem; beyond MAX_PROBLEMS it is dropped."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(sentence)

    def pages(self) -> Iterator[list[Member]]:
        """Yield the members of the version in lists, each read in a transaction of its own."""
        after = -1
        while True:
            with self._service.reader.begin() as connection:
                rows = connection.execute(_page(self._version.id, after)).all()
            if not rows:
                return
            after = rows[-1].position
            yield [Member(*row) for row in rows]

    def members(self, members: Sequence[Member]) -> None:
        """Compare the stored annotations and files of these members with their deliveries and the artifact store."""
        with self._service.reader.begin() as connection:
            stored = annotations_of(connection, [member.response_id for member in members])
            files = _files(connection, [member.response_id for member in members])
            self._place(connection, members)
        for member in members:
            self.tasks += 1
            rows, ordinals = stored.get(member.response_id, ([], []))
            self.annotations += len(rows)
            inline = [row for row, file in zip(rows, ordinals, strict=True) if file == 0]
            if reason := _wrong_body(member) or _wrong_rows(member, inline):
                self.problem(f"Task {member.task_id}: {reason}.")
            for artifact in files.get(member.response_id, ()):
                self.files += 1
                count = ordinals.count(artifact.ordinal)
                if reason := self._wrong_file(artifact, count):
                    self.problem(f"Task {member.task_id}: {reason}.")

    def _wrong_file(self, artifact: Any, rows: int) -> str | None:
        if artifact.purged_at is not None:
            return f"its file {artifact.role} was purged on {artifact.purged_at:%Y-%m-%d}"
        if artifact.state != "stored" or artifact.sha256 is None:
            return f"its file {artifact.role} is not stored any more"
        made = hashlib.sha256()
        try:
            with self._service.store.open(artifact.sha256) as file:
                while piece := file.read(1024 * 1024):
                    made.update(piece)
        except FileNotFoundError:
            return f"its file {artifact.role} is gone from the artifact store"
        if made.hexdigest() != artifact.sha256:
            return f"its file {artifact.role} has other bytes than were fetched"
        if artifact.annotation_count is not None and rows and artifact.annotation_count != rows:
            return f"its file {artifact.role} gave {artifact.annotation_count} annotations, and {rows} are stored"
        return None

    def _place(self, connection: Connection, members: Sequence[Member]) -> None:
        if self._version.shares is None:
            return
        rows = [
            {
                "task_id": member.task_id,
                "params": member.params,
                "metadata": member.metadata,
                "follow_up_unique_id": member.follow_up_unique_id,
            }
            for member in members
        ]
        for member, keys in zip(
            members, split_members(connection, rows, self._version.split_by), strict=True
        ):
            self._placed.append((member.task_id, member.split, (keys.key, *keys.images)))

    def splits(self) -> None:
        """Report each key that is in several splits."""
        for key, names in sorted(leaks(self._placed).items()):
            self.problem(f"{key} is in more than one split: {', '.join(names)}.")


def _page(version_id: UUID, after: int) -> Any:
    return (
        select(
            DatasetItem.position,
            DatasetItem.task_id,
            DatasetItem.response_id,
            DatasetItem.split,
            Response.digest,
            Response.delivery_id,
            DeliveryBody.body,
            Delivery.sha256,
            Delivery.environment,
            Task.type,
            Task.params,
            Task.metadata_,
            Task.follow_up_unique_id,
            Task.purged_at,
            Delivery.purged_at,
        )
        .outerjoin(Response, Response.id == DatasetItem.response_id)
        .outerjoin(Delivery, Delivery.id == Response.delivery_id)
        .outerjoin(DeliveryBody, DeliveryBody.delivery_id == Response.delivery_id)
        .outerjoin(Task, Task.task_id == DatasetItem.task_id)
        .where(DatasetItem.version_id == version_id, DatasetItem.position > after)
        .order_by(DatasetItem.position)
        .limit(PAGE_SIZE)
    )


def _files(connection: Connection, response_ids: Sequence[UUID]) -> dict[UUID, list[Any]]:
    statement = (
        select(
            Artifact.response_id,
            Artifact.ordinal,
            Artifact.role,
            Artifact.state,
            Artifact.sha256,
            Artifact.annotation_count,
            Artifact.purged_at,
        )
        .where(Artifact.response_id.in_(response_ids))
        .order_by(Artifact.ordinal)
    )
    found: dict[UUID, list[Any]] = {}
    for row in connection.execute(statement):
        found.setdefault(row.response_id, []).append(row)
    return found


def _wrong_body(member: Member) -> str | None:
    """Return what is wrong with the body that the response came in."""
    if member.digest is None:
        return "its result is gone"
    if member.purged_at is not None:
        return f"it was purged on {member.purged_at:%Y-%m-%d}"
    if member.body_purged_at is not None:
        return f"the body of its result was purged on {member.body_purged_at:%Y-%m-%d}"
    if member.body is None:
        return "the body of its result is gone"
    if hashlib.sha256(member.body).hexdigest() != member.sha256:
        return "the body of its result has other bytes than were received"
    try:
        callback = parse_callback(member.body, member.environment or "live")
    except InvalidCallback as reason:
        return f"the body of its result cannot be read: {reason}"
    if callback.response is ABSENT or response_digest(callback.response) != member.digest:
        return "the body holds another result than the version"
    return None


def _wrong_rows(member: Member, stored: Sequence[Annotation]) -> str | None:
    """Return what is wrong with the annotations that the body holds. Of masks, whose rows files complete, the number counts."""
    assert member.body is not None
    callback = parse_callback(member.body, member.environment or "live")
    params = callback.task.params if callback.task is not None else member.params
    read = parse_response(member.type, callback.response, params).annotations
    if len(read) != len(stored):
        return f"its result holds {len(read)} annotations, and {len(stored)} are stored"
    for here, there in zip(read, stored, strict=True):
        if here.type != "mask" and here != there:
            return f"annotation {here.position} is not stored as the result holds it; replay its delivery"
    return None
