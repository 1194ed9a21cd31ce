"""What the console shows of a purged task and its delivery."""

from collections.abc import Callable
from typing import Any

from pipeline.retention.purge import purge
from pipeline.retention.selection import CLASSES, Selection
from pipeline.service import Service
from tests.app.console.conftest import Person


def test_a_purged_task_and_delivery_say_so(
    admin: Person, deliver: Callable[..., Any], service: Service
) -> None:
    receipt = deliver("annotation/accepted", task_id="purged-one")
    list(purge(service, Selection(CLASSES, task_ids=("purged-one",)), "ana", dry_run=False))
    task = admin.get("/tasks/purged-one")
    assert task.status_code == 200
    assert "The content of this task was purged on" in task.text
    delivery = admin.get(f"/deliveries/{receipt.delivery_id}")
    assert delivery.status_code == 200
    assert "The body was purged on" in delivery.text
    assert ">Replay<" not in delivery.text
    assert admin.get("/tasks/purged-one/shapes").status_code == 410
