"""`/livez` and `/readyz`: what a platform asks before it sends callbacks here."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text, update

from app.application import create_app
from config import load_settings
from models import Job
from pipeline.jobs import kinds, queue
from pipeline.operations.health import record_heartbeat

Make = Callable[..., Flask]


@pytest.fixture
def make_app(database_url: str, tmp_path: Path) -> Make:
    (tmp_path / "workflows").mkdir()

    def make(**environment: str) -> Flask:
        given = {
            "DATABASE_URL": database_url,
            "WORKFLOWS_DIR": str(tmp_path / "workflows"),
            "SECRET_KEY": "s",
            "API_TOKEN": "token",
        }
        app = create_app(load_settings({**given, **environment}))
        with app.extensions["weighbridge"].engine.begin() as connection:
            record_heartbeat(connection, "here", 1)
        return app

    return make


def ready(app: Flask, token: str = "token") -> tuple[int, str, list[str]]:
    answer = app.test_client().get("/readyz", headers={"Authorization": f"Bearer {token}"})
    assert answer.json is not None
    return answer.status_code, answer.json["status"], answer.json["problems"]


def test_all_is_well(make_app: Make) -> None:
    app = make_app()
    assert app.test_client().get("/livez").status_code == 200
    assert ready(app) == (200, "ok", [])


def test_without_the_tables_no_callback_could_be_kept(make_app: Make) -> None:
    app = make_app()
    with app.extensions["weighbridge"].engine.begin() as connection:
        connection.execute(text("DROP TABLE deliveries"))
    status, word, problems = ready(app)
    assert (status, word) == (503, "unavailable")
    assert "database" in problems[0]
    assert app.test_client().get("/livez").status_code == 200


def test_a_broker_that_is_away_degrades_and_no_more(make_app: Make) -> None:
    app = make_app(REDIS_URL="redis://:password@127.0.0.1:9/0")
    status, word, problems = ready(app)
    assert (status, word) == (200, "degraded")
    assert [problem.partition(":")[0] for problem in problems] == ["broker"]


def test_a_worker_that_was_never_there_a_broken_workflow_and_dead_jobs_are_named(
    make_app: Make, tmp_path: Path
) -> None:
    app = make_app()
    (tmp_path / "workflows/odd.yaml").write_text("workflow: odd\nsteps: 7\n")
    with app.extensions["weighbridge"].engine.begin() as connection:
        connection.execute(text("DELETE FROM worker_heartbeats"))
        queue.enqueue(connection, kinds.PARSE, ["a"])
        connection.execute(update(Job).values(state="dead"))
    status, word, problems = ready(app)
    assert (status, word) == (200, "degraded")
    assert [problem.partition(":")[0] for problem in problems] == ["worker", "jobs", "workflows"]
    assert "odd.yaml:2" in problems[2]
