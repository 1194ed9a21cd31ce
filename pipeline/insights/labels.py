"""Labels: how often each was used by week, and what fixes changed about them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from more_itertools import chunked
from sqlalchemy import Connection, func, select

from models import Annotation
from pipeline.db.memory_budget import ReadTooLarge, temporary_reads
from pipeline.insights.tasks import ID_BATCH_SIZE, Row
from pipeline.operations.diff import TooDense, diff
from pipeline.operations.queries.filters import Gone
from pipeline.operations.queries.responses import TooManyAnnotations, compared_annotations

MAX_LABELS = 50
MAX_LABEL_CHARACTERS = 500
MAX_DISTINCT_LABELS = 10_000
MAX_FIXED_TASKS = 200
MAX_FIXED_ANNOTATIONS = 100_000
LABEL_DEFINITIONS: Mapping[str, str] = {
    "annotations": "Annotations with the label in the current results of the tasks that were created in the week (UTC,"
    f" from Monday); of the {MAX_LABELS} most frequent labels.",
}
CHANGE_DEFINITIONS: Mapping[str, str] = {
    "changes": "Annotations with the label `before` in the first response and `after` in the last one, matched by uuid,"
    f" geometry or overlap, in the {MAX_FIXED_TASKS} newest tasks whose review is fixed; null: added or removed.",
}


def labels_by_week(connection: Connection, tasks: Sequence[Row]) -> list[dict[str, Any]]:
    """Return {week, label, annotations} of the tasks with a result, by week, the most frequent label first."""
    counts: dict[str, Counter[str | None]] = defaultdict(Counter)
    by_week: dict[str, list[Any]] = defaultdict(list)
    for row in tasks:
        if row["response_id"] is not None:
            by_week[row["week"]].append(row["response_id"])
    for week, ids in by_week.items():
        for some in chunked(ids, ID_BATCH_SIZE):
            start = func.substr(Annotation.label, 1, MAX_LABEL_CHARACTERS).label("start")
            statement = (
                select(start, func.count())
                .where(Annotation.response_id.in_(some))
                .group_by(start.name)  # PostgreSQL compares no parameters
                .order_by(func.count().desc())
                .limit(MAX_DISTINCT_LABELS)
            )
            for name, count in connection.execute(statement):
                counts[week][name] += count
    total: Counter[str | None] = Counter()
    for of_week in counts.values():
        total.update(of_week)
    shown = [label for label, _ in total.most_common(MAX_LABELS)]
    return [
        {"week": week, "label": label, "annotations": counts[week][label]}
        for week in sorted(counts)
        for label in shown
        if counts[week][label]
    ]


def label_changes(connection: Connection, tasks: Sequence[Row]) -> list[dict[str, Any]]:
    """Return {before, after, changes} of the newest fixed tasks, the most frequent first: also where the label was kept."""
    changes: Counter[tuple[str | None, str | None]] = Counter()
    fixed = [row for row in tasks if row["review_status"] == "fixed" and row["response_count"] > 1]
    fixed.sort(key=lambda row: row["created_at"], reverse=True)
    annotations = 0
    for row in fixed[:MAX_FIXED_TASKS]:
        annotations += row["annotation_count"] or 0
        if annotations > MAX_FIXED_ANNOTATIONS:
            break
        try:
            with temporary_reads():
                before, after = compared_annotations(connection, row["task_id"], 1, row["response_count"])
            found = diff(before, after)
        except (TooDense, TooManyAnnotations, ReadTooLarge, Gone, LookupError):
            continue
        kept = Counter(one.label for one in before)
        for one in found.removed:
            changes[one.label, None] += 1
            kept[one.label] -= 1
        for change in found.relabeled:
            changes[change.before.label, change.after.label] += 1
            kept[change.before.label] -= 1
        changes.update((None, one.label) for one in found.added)
        changes.update({(label, label): number for label, number in kept.items() if number})
    return [
        {"before": before, "after": after, "changes": number}
        for (before, after), number in changes.most_common()
    ]


def with_label(connection: Connection, response_ids: Sequence[Any], label: str) -> set[Any]:
    """Return which of these responses have an annotation with the label."""
    found: set[Any] = set()
    for some in chunked(response_ids, ID_BATCH_SIZE):
        statement = select(Annotation.response_id).where(
            Annotation.response_id.in_(some), Annotation.label == label
        )
        found.update(connection.scalars(statement.distinct()))
    return found
