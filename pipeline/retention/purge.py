"""Purge: empty what a selection matches, batch by batch, and say first what would be emptied.

Each batch is one short transaction that marks what it empties, so that a purge may be stopped, killed and run again at any
moment, next to callbacks and workers. A purged task keeps its identity: see removal.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from more_itertools import chunked
from sqlalchemy import Connection, func, select

from models import Delivery, Response, Task
from pipeline.access.audit import log_action
from pipeline.datasets.holds import record_damage
from pipeline.db.ids import utcnow
from pipeline.db.months import Month
from pipeline.follow_ups.runs import root_of, walk
from pipeline.operations.queries.tasks import task_not_found
from pipeline.retention import leftovers, old_months, removal
from pipeline.retention.guards import OpenRuns, members
from pipeline.retention.leftovers import Leftovers
from pipeline.retention.selection import ARTIFACTS, BODIES, CLASSES, ROWS, Candidate, Selection, page
from pipeline.service import Service

BATCH_SIZE = {BODIES: 500, ARTIFACTS: 200, ROWS: 100}
"""Rows that one transaction empties."""
MAX_AUDITED_TASKS = 1_000


@dataclass(slots=True)
class Count:
    """What one class of a purge has emptied, or would empty, and what it leaves alone."""

    count: int = 0
    """Deliveries, artifacts or tasks."""
    bytes: int = 0
    responses: int = 0
    annotations: int = 0
    open: int = 0
    """Left alone: their task is pending, or something of its run goes on, or a subscriber still waits for them."""
    protected: dict[str, int] = field(default_factory=dict)
    """Left alone: by dataset version, what belongs to its members."""
    damaged: dict[str, int] = field(default_factory=dict)
    """Emptied all the same, because it was forced: by dataset version."""


class Position(NamedTuple):
    """Where an interrupted purge goes on: after this id of this class."""

    name: str
    after: UUID


@dataclass(slots=True)
class Progress:
    """How far a purge has come."""

    dry_run: bool
    counts: dict[str, Count]
    position: Position | None
    """None when it has finished."""

    def as_json(self) -> dict[str, Any]:
        """Return the counts by class, as reports and the audit log show them."""
        return {"dry_run": self.dry_run, **{name: asdict(count) for name, count in self.counts.items()}}


def expand(connection: Connection, task_ids: Iterable[str], *, runs: bool) -> tuple[str, ...]:
    """Return the tasks, with `runs` those of their whole runs. Raises NotFound for an unknown one."""
    found: dict[str, None] = {}
    for task_id in task_ids:
        if connection.scalar(select(Task.id).where(Task.task_id == task_id)) is None:
            raise task_not_found(task_id)
        found |= dict.fromkeys([task_id])
        if runs:
            found |= dict.fromkeys(walk(connection, root_of(connection, task_id)).task_ids)
    return tuple(found)


def purge(
    service: Service,
    selection: Selection,
    actor: str,
    *,
    dry_run: bool,
    start: Position | None = None,
    counts: dict[str, Count] | None = None,
) -> Iterator[Progress]:
    """Empty what is selected, and yield the progress after each page. A dry run counts the same and changes nothing.

    `start` and `counts` are those of the last progress of a run that was interrupted. Without them what is emptied already is
    passed over.
    """
    run = _Run(service, selection, dry_run, counts)
    if not dry_run:
        run.finish_leftovers()
        if start is None:
            _audit(service, selection, actor, "purge.start", None)
    names = [name for name in CLASSES if name in selection.classes]
    for name in names[names.index(start.name) if start else 0 :]:
        for last_id in run.pages(name, start.after if start and start.name == name else None):
            yield Progress(dry_run, run.counts, Position(name, last_id))
    if not dry_run:
        _audit(service, selection, actor, "purge.finish", run.counts)
    yield Progress(dry_run, run.counts, None)


def _audit(
    service: Service, selection: Selection, actor: str, action: str, counts: dict[str, Count] | None
) -> None:
    """Record a purge as a whole, and each task that it names."""
    details = selection.described() | (
        {name: asdict(count) for name, count in counts.items()} if counts else {}
    )
    details.pop("task_ids", None)
    subjects = selection.task_ids[:MAX_AUDITED_TASKS] or (",".join(selection.classes),)
    with service.engine.begin() as connection:
        for subject in subjects:
            log_action(connection, actor, action, subject, details)


class _Run:
    """One purge."""

    def __init__(
        self, service: Service, selection: Selection, dry_run: bool, counts: dict[str, Count] | None
    ) -> None:
        self._service, self._selection, self._dry_run = service, selection, dry_run
        self._open_runs = OpenRuns()
        self._months: Collection[Month] = ()
        self.counts = counts or {name: Count() for name in selection.classes}

    def finish_leftovers(self) -> None:
        """Delete what a purge that was killed has marked and not deleted."""
        with self._service.reader.begin() as connection:
            found = leftovers.pending(connection)
        for leftover_id in found:
            leftovers.finish(self._service, leftover_id)

    def pages(self, name: str, after: UUID | None) -> Iterator[UUID]:
        """Empty one class page by page, and yield the last id of each page but the last."""
        if name == ROWS and after is None:
            self.counts[ROWS].open += self._count_pending()
        if name == BODIES and not self._dry_run:
            with self._service.reader.begin() as connection:
                self._months = old_months.whole_months(connection, self._selection)
        while True:
            with self._service.reader.begin() as connection:
                found = page(connection, name, self._selection, after)
                candidates = self._without_open(connection, name, found.candidates)
            for batch in chunked(candidates, BATCH_SIZE[name]):
                self._empty(name, batch)
            if (after := found.last_id) is None:
                break
            yield after
        if name == BODIES and not self._dry_run:
            self._finish_bodies()

    def _finish_bodies(self) -> None:
        """Delete what was only marked, also by a purge by age that was killed before it came to the end of the month."""
        for month in sorted(self._months):
            old_months.finish(self._service, month)
        if tasks := self._selection.task_ids:
            old_months.delete_purged(self._service, Delivery.task_id.in_(tasks))

    def _count_pending(self) -> int:
        """Return how many of the named tasks wait for their result."""
        named = self._selection.task_ids
        waiting = select(func.count()).where(Task.task_id.in_(named), Task.status == "pending")
        with self._service.reader.begin() as connection:
            return connection.scalar(waiting) or 0 if named else 0

    def _without_open(
        self, connection: Connection, name: str, candidates: Sequence[Candidate]
    ) -> list[Candidate]:
        """Leave out what somebody still needs: a subscriber the body, the run its task."""
        if name == BODIES:
            awaited = removal.awaited_bodies(connection, [one.id for one in candidates])
            kept = [one for one in candidates if one.id not in awaited]
        else:
            is_open = self._open_runs.among(connection, (one.task_id for one in candidates if one.task_id))
            kept = [one for one in candidates if one.task_id not in is_open]
        self.counts[name].open += len(candidates) - len(kept)
        return kept

    def _empty(self, name: str, batch: Sequence[Candidate]) -> None:
        engine = self._service.reader if self._dry_run else self._service.engine
        with engine.begin() as connection:
            batch = self._without_changed(connection, name, batch)
            batch = self._without_members(connection, name, batch)
            self._count(connection, name, batch)
            marked = Leftovers() if self._dry_run or not batch else self._mark(connection, name, batch)
            leftover_id = marked.save(connection)
        if leftover_id is not None:
            leftovers.finish(self._service, leftover_id)

    def _without_changed(
        self, connection: Connection, name: str, batch: Sequence[Candidate]
    ) -> Sequence[Candidate]:
        """Lock the tasks of the batch, and leave those to the next purge that a callback has changed meanwhile."""
        if name != ROWS or self._dry_run:
            return batch
        unchanged = removal.unchanged_tasks(connection, batch)
        return [one for one in batch if one.task_id in unchanged]

    def _without_members(
        self, connection: Connection, name: str, batch: Sequence[Candidate]
    ) -> Sequence[Candidate]:
        """Leave out members of dataset versions; if they are forced, record in the versions that they are gone."""
        by_version = members(connection, (one.task_id for one in batch if one.task_id))
        count = self.counts[name]
        tally = count.damaged if self._selection.force else count.protected
        for version, task_ids in by_version.items():
            tally[version] = tally.get(version, 0) + sum(one.task_id in task_ids for one in batch)
        everyone = set().union(*by_version.values())
        if not self._selection.force:
            return [one for one in batch if one.task_id not in everyone]
        if everyone and not self._dry_run:
            record_damage(connection, everyone)
        return batch

    def _count(self, connection: Connection, name: str, batch: Sequence[Candidate]) -> None:
        count = self.counts[name]
        count.count += len(batch)
        count.bytes += sum(one.size_bytes for one in batch)
        if name == ROWS:
            totals = select(func.count(), func.coalesce(func.sum(Response.annotation_count), 0)).where(
                Response.task_id.in_([one.task_id for one in batch])
            )
            responses, annotations = connection.execute(totals).one()
            count.responses += responses
            count.annotations += int(annotations)

    def _mark(self, connection: Connection, name: str, batch: Sequence[Candidate]) -> Leftovers:
        now = utcnow()
        if name == ROWS:
            return removal.purge_tasks(connection, [one.task_id for one in batch if one.task_id], now)
        ids = [one.id for one in batch]
        if name == BODIES:
            return removal.purge_bodies(connection, ids, now, self._months)
        return removal.purge_artifacts(connection, ids, now)
