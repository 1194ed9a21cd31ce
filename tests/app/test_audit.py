"""A decision is audited alike, whichever way it comes: as a command, by the API or in the console."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, select

from models import AuditEntry, Delivery
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from tests.app.api.conftest import Deliver, client  # noqa: F401
from tests.app.commands.conftest import Run, commands_of
from tests.app.console.conftest import (  # noqa: F401
    Person,
    admin,
    app,
    deliver,
    service,
    stranger,
    workflows_dir,
)


@pytest.fixture
def audited(service: Service) -> Callable[[], list[tuple[str, str, Any]]]:  # noqa: F811
    """`audited()`: action, subject and details of what was audited since the last call."""

    def audited() -> list[tuple[str, str, Any]]:
        columns = (AuditEntry.action, AuditEntry.subject, AuditEntry.details)
        with service.engine.begin() as connection:
            rows = connection.execute(select(*columns).order_by(AuditEntry.id)).all()
            connection.execute(delete(AuditEntry))
        return [tuple(row) for row in rows]

    return audited


@pytest.fixture
def weighbridge(app: Flask) -> Run:  # noqa: F811
    return commands_of(app)


def test_the_retry_of_a_job_is_audited_alike(
    service: Service,  # noqa: F811
    client: FlaskClient,  # noqa: F811
    admin: Person,  # noqa: F811
    weighbridge: Run,
    audited: Callable[[], Any],
) -> None:
    with service.engine.begin() as connection:
        (job_id,) = queue.enqueue(connection, kinds.FETCH, ["file"], delay=3600)
    expected = [("job.retry", "fetch:file", None)]
    assert weighbridge("jobs", "retry", str(job_id)).exit_code == 0
    assert audited() == expected
    assert client.post(f"/api/v1/jobs/{job_id}/retry").status_code == 200
    assert audited() == expected
    assert admin.post(f"/jobs/{job_id}/retry").status_code == 302
    assert audited() == expected


def test_a_replay_is_audited_alike_also_of_many(
    service: Service,  # noqa: F811
    deliver: Deliver,  # noqa: F811
    client: FlaskClient,  # noqa: F811
    admin: Person,  # noqa: F811
    weighbridge: Run,
    audited: Callable[[], Any],
) -> None:
    deliver(b"not JSON")
    with service.reader.begin() as connection:
        delivery_id = connection.scalars(select(Delivery.id)).one()
    expected = [("delivery.replay", str(delivery_id), {"status": "quarantined"})]
    assert weighbridge("deliveries", "replay", str(delivery_id)).exit_code == 0
    assert audited() == expected
    assert client.post(f"/api/v1/deliveries/{delivery_id}/replay").status_code == 200
    assert audited() == expected
    assert client.post("/api/v1/deliveries/replay?status=quarantined").status_code == 200
    assert audited() == expected
    assert admin.post(f"/deliveries/{delivery_id}/replay").status_code == 302
    assert audited() == expected
    begun = admin.post("/bulk-actions/new/deliveries.replay", status="quarantined", expected="1")
    assert begun.status_code == 302
    assert [entry for entry in audited() if not entry[0].startswith("bulk.")] == expected


def test_a_new_dataset_and_its_export_are_audited_alike(
    client: FlaskClient,  # noqa: F811
    admin: Person,  # noqa: F811
    weighbridge: Run,
    audited: Callable[[], Any],
) -> None:
    assert weighbridge("datasets", "create", "street").exit_code == 0
    assert admin.post("/datasets", name="street").status_code == 302
    (first, second) = audited()
    assert [(action, subject) for action, subject, _ in (first, second)] == [
        ("dataset.create", "street@1"),
        ("dataset.create", "street@2"),
    ]
    assert first[2] == second[2]  # the digest of the same members
    assert client.post("/api/v1/exports", json={"format": "coco", "dataset": "street"}).status_code == 202
    assert admin.post("/exports", export_format="coco", dataset="street").status_code == 302
    assert [(action, details) for action, _, details in audited()] == [
        ("export.create", {"format": "coco", "dataset": "street@2"})
    ] * 2
    refused = admin.post("/exports", export_format="nosuch", dataset="street")
    assert (refused.status_code, "There is no format nosuch." in refused.text) == (400, True)
    assert audited() == []
