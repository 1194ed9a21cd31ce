"""`/metrics`: what Prometheus reads, from one process and from several."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert

from app.application import create_app
from config import load_settings
from config.version import VERSION
from models import Artifact, Task
from pipeline.jobs import kinds, queue
from pipeline.operations.health import record_heartbeat
from tests.servers import free_port, wait_until
from tests.service import Service

BODY = Path(__file__).parent.parent / "payloads" / "annotation" / "accepted.json"

Start = Callable[..., Service]


def samples(content: str) -> dict[tuple[str, ...], float]:
    """(name, label value, …) → value"""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(content)
        for sample in family.samples
    }


def client(database_url: str, tmp_path: Path, **settings: str) -> FlaskClient:
    environment = {
        "DATABASE_URL": database_url,
        "SECRET_KEY": "secret",
        "SCALE_LIVE_CALLBACK_KEYS": "key",
        "ARTIFACT_STORE": str(tmp_path / "artifacts"),
    }
    return create_app(load_settings({**environment, **settings})).test_client()


def test_the_gauges_say_how_much_work_there_is(database_url: str, tmp_path: Path) -> None:
    web = client(database_url, tmp_path)
    service = web.application.extensions["weighbridge"]
    web.post("/callbacks/scale", data=b"no JSON", headers={"scale-callback-auth": "key"})
    before = samples(web.get("/metrics").text)
    assert before["weighbridge_database_up",] == 1
    assert before["weighbridge_deliveries", "quarantined"] == 1
    assert before["weighbridge_deliveries", "stored"] == 0
    assert ("weighbridge_worker_heartbeat_age_seconds",) not in before
    assert before["weighbridge_callbacks_total", "quarantined"] >= 1
    assert before["weighbridge_late_tasks",] == 0
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PLAN, ["a", "b"])
        record_heartbeat(connection, "here", 1)
        connection.execute(insert(Task), list(map(_task, range(11))))
    after = samples(client(database_url, tmp_path).get("/metrics").text)
    assert after["weighbridge_jobs", "plan", "ready"] == 2
    assert after["weighbridge_late_tasks",] == 1
    assert after["weighbridge_worker_heartbeat_age_seconds",] >= 0
    assert after["weighbridge_oldest_due_job_age_seconds",] >= 0
    service.engine.dispose()


def _task(number: int) -> dict[str, Any]:
    """Ten tasks that took an hour, and one that is open since."""
    created = datetime(2026, 3, 2, tzinfo=UTC)
    return {
        "task_id": f"t{number}",
        "id": uuid4(),
        "environment": "live",
        "type": "annotation",
        "status": "completed" if number else "pending",
        "created_at": created,
        "completed_at": created + timedelta(hours=1) if number else None,
        "response_count": 1,
    }


def test_metrics_are_answered_when_the_database_is_away(tmp_path: Path) -> None:
    web = client("postgresql://nobody@127.0.0.1:1/nothing", tmp_path)
    answer = web.get("/metrics")
    assert answer.status_code == 200
    assert samples(answer.text)["weighbridge_database_up",] == 0


def test_failed_files_held_follow_ups_and_the_version_are_shown(database_url: str, tmp_path: Path) -> None:
    web = client(database_url, tmp_path)
    service = web.application.extensions["weighbridge"]
    with service.engine.begin() as connection:
        connection.execute(
            insert(Artifact).values(
                id=uuid4(),
                response_id=uuid4(),
                task_id="t",
                ordinal=1,
                role="mask",
                url="https://a/b",
                state="failed",
            )
        )
    found = samples(web.get("/metrics").text)
    assert found["weighbridge_artifacts", "failed"] == 1
    assert found["weighbridge_artifacts", "pending"] == 0
    assert ("weighbridge_reconcile_age_seconds",) not in found
    (build,) = (labels for labels in found if labels[0] == "weighbridge_build_info")
    assert VERSION in build
    service.engine.dispose()


@pytest.mark.slow
def test_a_worker_serves_what_its_processes_measured(
    start_service: Start, postgres_url: str, redis_url: str
) -> None:
    port = free_port()
    running = start_service(
        postgres_url, redis_url, env={"WORKER_METRICS_PORT": str(port), "INLINE_CALLBACK_BYTES": "1"}
    )
    running.post_callback(BODY.read_bytes())

    def finished_jobs() -> dict[tuple[str, ...], float]:
        found = samples(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text)
        return {
            labels: number
            for labels, number in found.items()
            if labels[0] == "weighbridge_job_duration_seconds_count" and "finished" in labels
        }

    assert wait_until(finished_jobs, 30, "a job was measured")
    found = samples(requests.get(f"{running.web_url}/metrics", timeout=10).text)
    assert found["weighbridge_callback_duration_seconds_count", "200"] == 1


@pytest.mark.slow
def test_the_counters_of_all_web_processes_are_added_up(service: Start, sqlite_url: str) -> None:
    running = service(sqlite_url, env={"WEB_CONCURRENCY": "2"}, processes=("web",))
    body = BODY.read_bytes()
    for _ in range(20):
        running.post_callback(body)  # a new connection each time: both processes answer some
    for _ in range(5):
        found = samples(requests.get(f"{running.web_url}/metrics", timeout=10).text)
        assert found["weighbridge_callbacks_total", "processed"] == 1
        assert found["weighbridge_callbacks_total", "duplicate"] == 19
