"""Bulk actions in the API and the command."""

from collections.abc import Callable
from typing import Any

from flask.testing import FlaskClient

from pipeline.service import Service
from tests.app.api.conftest import Deliver
from workers.runner import run_due_jobs

Get = Callable[..., Any]


def test_a_bulk_action_is_counted_begun_watched_and_stopped(
    client: FlaskClient, service: Service, get: Get, deliver: Deliver
) -> None:
    deliver(b"one")
    deliver(b"two")

    def post(path: str = "", **body: Any) -> Any:
        return client.post(f"/api/v1/bulk-actions{path}", json=body)

    counted = post(action="deliveries.dismiss", dry_run=True).json
    assert (counted["count"], counted["cost"], counted["bulk_action"]) == (2, None, None)
    assert counted["command"].startswith("weighbridge deliveries dismiss --quarantined")
    assert post(action="deliveries.dismiss").status_code == 422
    assert post(action="deliveries.dismiss", filters={"colour": "red"}, expected=2).status_code == 422
    assert post(action="deliveries.dismiss", expected=1).status_code == 409
    begun = post(action="deliveries.dismiss", expected=2).json["bulk_action"]
    assert (begun["state"], begun["expected"], begun["done"]) == ("running", 2, 0)
    run_due_jobs(service)
    done = get(f"/bulk-actions/{begun['id']}")
    assert (done["state"], done["done"]) == ("completed", 2)
    assert get("/bulk-actions")["data"] == [done]
    assert post(f"/{begun['id']}/stop").status_code == 409
    second = post(action="deliveries.replay", expected=2).json["bulk_action"]
    assert post(f"/{second['id']}/stop").json["state"] == "stopped"
