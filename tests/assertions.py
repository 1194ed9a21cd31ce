"""Rows of the tables in a form that tests compare: values that differ from run to run are left out or renamed."""

from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from sqlalchemy import delete, select

from models import Annotation, Artifact, Base, Batch, Delivery, DeliveryBody, Job, Response, Task
from pipeline.db.ids import utcnow
from pipeline.service import Service

CLOCKS = timedelta(seconds=1)
"""How far the clock of a database may be from ours."""
OF_RECEIPT = frozenset(("id", "received_at", "last_received_at"))


def table(service: Service, model: type[Base]) -> list[dict[str, Any]]:
    """Return all rows of one table, with every column."""
    with service.reader.begin() as connection:
        return [dict(row) for row in connection.execute(select(model.__table__)).mappings()]


def empty(service: Service) -> None:
    """Delete every row that receiving writes."""
    with service.engine.begin() as connection:
        for model in (Delivery, DeliveryBody, Task, Response, Annotation, Artifact, Batch, Job):
            connection.execute(delete(model))


def bodies(service: Service) -> dict[UUID, bytes]:
    """Return id of the delivery → its bytes, of those that have them."""
    return {row["delivery_id"]: row["body"] for row in table(service, DeliveryBody)}


def only(service: Service, model: type[Base]) -> dict[str, Any]:
    """Return the single row of a table."""
    (row,) = table(service, model)
    return row


class TimeSpan:
    """The time that a block took: `with TimeSpan() as span: …`. Afterwards `time in span.shift(30)` is true if `time` is 30 s
    after some instant within the block, however long it took."""

    def __enter__(self) -> Self:
        self.began = utcnow()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = utcnow()

    def shift(self, least: float, most: float | None = None) -> Self:
        """Return the span moved by `least` to `most` seconds."""
        later = type(self)()
        later.began = self.began + timedelta(seconds=least)
        later.ended = self.ended + timedelta(seconds=least if most is None else most)
        return later

    def __contains__(self, moment: datetime) -> bool:
        return self.began - CLOCKS <= moment <= self.ended + CLOCKS


def stored_rows(service: Service, *, receipt: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Return every row that receiving writes, by table. Ids are replaced by names, times of receipt left out. With `receipt`
    clocks are left out too: without a date in the body they are times of receipt."""
    names: dict[UUID, str] = {}
    contents = bodies(service)
    deliveries = [{**row, "body": contents.get(row["id"])} for row in table(service, Delivery)]
    for row in deliveries:
        names[row["id"]] = f"delivery {row['sha256'][:12]}"
    responses = table(service, Response)
    for row in responses:
        names[row["id"]] = f"response {row['task_id']} {row['digest'][:12]}"

    def plain(row: dict[str, Any], *without: str) -> dict[str, Any]:
        dropped = OF_RECEIPT.union(without)
        kept = {name: value for name, value in row.items() if name not in dropped}
        if receipt:
            kept = {name: value for name, value in kept.items() if not name.endswith("clock")}
        return {
            name: names.get(value, value) if isinstance(value, UUID) else value
            for name, value in kept.items()
        }

    found = {
        "deliveries": [plain(row) for row in deliveries],
        "tasks": [plain(row) for row in table(service, Task)],
        "responses": [plain(row) for row in responses],
        "annotations": [plain(row) for row in table(service, Annotation)],
        "artifacts": [plain(row) for row in table(service, Artifact)],
        "batches": [plain(row) for row in table(service, Batch)],
        "jobs": [{"kind": row["kind"]} for row in table(service, Job)],
    }
    return {name: sorted(rows, key=repr) for name, rows in found.items()}
