"""Workflows in the API: files with what is wrong in them, pauses, and the pause of task creation."""

from pathlib import Path

from flask.testing import FlaskClient

from pipeline.jobs.rate_limits import set_rate_limit
from pipeline.jobs.scale_limits import scope
from pipeline.service import Service
from tests.app.api.conftest import POLYGONS, Get, audited


def test_workflow_files_are_listed_with_what_is_wrong_in_them(
    workflows_dir: Path, get: Get, client: FlaskClient
) -> None:
    (workflows_dir / "broken.yaml").write_text("workflow: broken\nsteps: {}\n")
    (workflows_dir / "chain.yaml").write_text(POLYGONS)
    broken, chain = get("/workflows")["data"]
    assert (broken["name"], broken["broken"], broken["digest"]) == ("broken", True, None)
    assert broken["problems"][0]["message"]
    assert broken["problems"][0]["line"] == 2
    assert (chain["name"], chain["broken"], chain["problems"], chain["steps"]) == (
        "chain",
        False,
        [],
        ["boxes"],
    )
    assert len(chain["digest"]) == 64
    assert chain["path"].endswith("chain.yaml")
    assert chain["paused"] is False


def test_a_workflow_is_paused_and_resumed(
    workflows_dir: Path, get: Get, client: FlaskClient, service: Service
) -> None:
    (workflows_dir / "chain.yaml").write_text(POLYGONS)
    assert client.post("/api/v1/workflows/chain/pause").json["paused"] is True
    assert client.post("/api/v1/workflows/chain/pause").json["paused"] is True
    assert get("/workflows")["data"][0]["paused"] is True
    assert client.post("/api/v1/workflows/chain/resume").json["paused"] is False
    assert get("/workflows")["data"][0]["paused"] is False
    assert audited(get) == [
        ("API_TOKEN", "workflow.pause", "chain"),
        ("API_TOKEN", "workflow.resume", "chain"),
    ]
    assert audited(get, action="workflow.pause") == [("API_TOKEN", "workflow.pause", "chain")]
    assert audited(get, subject="none") == audited(get, actor="nobody") == []
    assert client.post("/api/v1/workflows/none/pause").status_code == 404


def test_creation_is_paused_and_resumed(get: Get, client: FlaskClient) -> None:
    running = get("/creating")
    assert running == {
        "stopped": False,
        "stopped_by": None,
        "stopped_at": None,
        "reason": None,
        "environments": [],
        "pauses": [],
    }
    stopped = client.post("/api/v1/creating/stop").json
    assert (stopped["stopped"], stopped["stopped_by"]) == (True, "API_TOKEN")
    assert stopped["stopped_at"].endswith("Z")
    assert get("/creating") == stopped
    assert client.post("/api/v1/creating/start").json["stopped"] is False


def test_a_pause_that_scale_asked_for_is_shown_until_it_is_over(get: Get, service: Service) -> None:
    def ask_to_wait(seconds: float) -> None:
        with service.engine.begin() as connection:
            set_rate_limit(connection, scope("live"), "Scale asks to slow down", seconds)

    ask_to_wait(600)
    (pause,) = get("/creating")["pauses"]
    assert (pause["environment"], pause["reason"]) == ("live", "Scale asks to slow down")
    assert pause["until"].endswith("Z")
    ask_to_wait(-1)
    assert get("/creating")["pauses"] == []
