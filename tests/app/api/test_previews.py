"""Previews in the API: what would follow from a task, without writing anything."""

from pathlib import Path

from flask.testing import FlaskClient
from sqlalchemy import select

from models import FollowUp
from pipeline.service import Service
from tests.app.api.conftest import POLYGONS, Deliver, Get


def test_a_preview_shows_what_would_follow_and_writes_nothing(
    deliver: Deliver, get: Get, service: Service, workflows_dir: Path, client: FlaskClient
) -> None:
    (workflows_dir / "chain.yaml").write_text(POLYGONS)
    deliver("polygonannotation/polygons", task_id="root")
    (one,) = get("/tasks/root/plan")["data"]
    assert (one["unique_id"], one["state"], one["type"]) == ("chain.boxes.root", "created", "annotation")
    assert one["request"]["unique_id"] == "chain.boxes.root"
    (explanation,) = get("/tasks/root/explain", workflow="chain")["data"]
    assert {condition["name"]: condition["held"] for condition in explanation["conditions"]}[
        "after.type"
    ] is True
    assert explanation["follow_ups"][0]["state"] is None
    with service.reader.begin() as connection:
        assert connection.scalars(select(FollowUp.unique_id)).all() == []
    assert client.get("/api/v1/tasks/nobody/plan").status_code == 404
    assert client.get("/api/v1/tasks/root/explain?workflow=none").status_code == 404
