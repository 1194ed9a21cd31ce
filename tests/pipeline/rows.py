"""What stands in the tables, in a form that can be compared: what differs from run to run is left out or renamed."""

from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from sqlalchemy import delete, select

from models import Annotation, Artifact, Base, Batch, Delivery, Job, Response, Task
from pipeline.db.ids import utcnow
from pipeline.service import Service

CLOCKS = timedelta(seconds=1)
"""How far the clock of a database may be from ours."""
OF_RECEIPT = frozenset(("id", "received_at", "last_received_at"))


def table(service: Service, model: type[Base]) -> list[dict[str, Any]]:
    """All rows of one table, with every column."""
    with service.reader.begin() as connection:
        return [dict(row) for row in connection.execute(select(model.__table__)).mappings()]


def empty(service: Service) -> None:
    """Take every row away that receiving writes."""
    with service.engine.begin() as connection:
        for model in (Delivery, Task, Response, Annotation, Artifact, Batch, Job):
            connection.execute(delete(model))


def only(service: Service, model: type[Base]) -> dict[str, Any]:
    """The one row of a table."""
    (row,) = table(service, model)
    return row


class Meanwhile:
    """`with Meanwhile() as then: …`; afterwards `moment in then.plus(30)` says whether a moment lies thirty seconds after
    something that was done within, however long that took."""

    def __enter__(self) -> Self:
        self.began = utcnow()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = utcnow()

    def plus(self, least: float, most: float | None = None) -> Self:
        """The same span, so many seconds later."""
        later = type(self)()
        later.began = self.began + timedelta(seconds=least)
        later.ended = self.ended + timedelta(seconds=least if most is None else most)
        return later

    def __contains__(self, moment: datetime) -> bool:
        return self.began - CLOCKS <= moment <= self.ended + CLOCKS


def standing(service: Service, *, receipt: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Every row that receiving writes. Ids are replaced by what they stand for; receipt times are left out, and with
    `receipt` clocks as well, which are those of the receipt where a body has no date."""
    names: dict[UUID, str] = {}
    deliveries = table(service, Delivery)
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
