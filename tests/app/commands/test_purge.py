"""`weighbridge purge`: it counts first, asks for a selection, and says what it left alone."""

import json

from sqlalchemy import select

from models import AuditEntry, DeliveryBody, Task
from pipeline.datasets import versions
from pipeline.service import Service
from tests.app.commands.conftest import Deliver, Run


def test_it_counts_first_and_purges_with_yes(weighbridge: Run, deliver: Deliver, service: Service) -> None:
    deliver("annotation/accepted")
    counted = weighbridge("purge", "--bodies", "--rows", "--environment", "live")
    assert "bodies: 1 deliveries" in counted.stdout
    assert "would be purged" in counted.stdout
    assert "Nothing was changed" in counted.stdout
    with service.reader.begin() as connection:
        assert connection.scalar(select(Task.purged_at)) is None
    done = weighbridge("purge", "--bodies", "--rows", "--environment", "live", "--yes", "--json")
    counts = json.loads(done.stdout)
    assert (counts["bodies"]["count"], counts["rows"]["count"], counts["dry_run"]) == (1, 1, False)
    with service.reader.begin() as connection:
        assert connection.scalar(select(Task.purged_at)) is not None
        assert connection.scalar(select(DeliveryBody.body)) is None
        actions = connection.scalars(select(AuditEntry.action).order_by(AuditEntry.id)).all()
    assert actions == ["purge.start", "purge.finish"]


def test_nothing_is_purged_by_a_slip_of_the_hand(weighbridge: Run, deliver: Deliver) -> None:
    for args in (("--yes",), ("--bodies", "--yes"), ("--privacy", "--yes"), ("--older-than", "1d", "--yes")):
        refused = weighbridge("purge", *args)
        assert refused.exit_code == 2, args
    assert "no task nosuch" in weighbridge("purge", "--rows", "--task", "nosuch").output.lower()


def test_a_deletion_for_privacy_says_which_dataset_versions_it_breaks(
    weighbridge: Run, deliver: Deliver, service: Service
) -> None:
    deliver("annotation/accepted")
    versions.create(service, "street", versions.Request(), "ana")
    with service.reader.begin() as connection:
        task_id = connection.scalar(select(Task.task_id))
    protected = weighbridge("purge", "--rows", "--task", str(task_id), "--yes").stdout
    assert "1 left alone: members of street@1" in protected
    counted = weighbridge("purge", "--privacy", "--task", str(task_id)).stdout
    assert "1 of these belong to members of street@1, which would lose them" in counted
    done = weighbridge("purge", "--privacy", "--task", str(task_id), "--yes").stdout
    assert "street@1, which has lost them" in done
    assert "deleted on purpose" in weighbridge("datasets", "verify", "street@1").output
    refused = weighbridge("deliveries", "replay", "--task", str(task_id))
    assert "No matching deliveries" in refused.output
