"""Jobs and batches in the API."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from flask.testing import FlaskClient
from sqlalchemy import update

from models import Job
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from tests.app.api.conftest import Deliver

Get = Callable[..., Any]


def test_jobs_are_listed_with_what_they_work_on(service: Service, get: Get) -> None:
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PLAN, ["task"])
        queue.enqueue(connection, kinds.FETCH, ["file"], delay=60)
        connection.execute(update(Job).where(Job.kind == kinds.FETCH).values(state="dead", last_error="why"))
    dead, waiting = get("/jobs")["data"]
    assert (dead["kind"], dead["subject"], dead["state"], dead["last_error"]) == (
        "fetch",
        "file",
        "dead",
        "why",
    )
    assert (waiting["kind"], waiting["subject"], waiting["state"]) == ("plan", "task", "ready")
    assert get("/jobs", state="dead")["data"] == [dead]
    assert get("/jobs", kind="plan")["data"] == [waiting]


def test_a_dead_job_and_one_that_waits_run_now_when_they_are_retried(
    client: FlaskClient, service: Service, get: Get
) -> None:
    with service.engine.begin() as connection:
        dead, waiting = (queue.enqueue(connection, kinds.FETCH, [subject], delay=3600)[0] for subject in "ab")
        connection.execute(update(Job).where(Job.id == dead).values(state="dead", attempts=40))
    for job_id in (dead, waiting):
        answer = client.post(f"/api/v1/jobs/{job_id}/retry")
        assert answer.status_code == 200
        assert (answer.json["state"], answer.json["attempts"]) == ("ready", 0)
    with service.reader.begin() as connection:
        assert set(queue.due(connection, 10)) == {dead, waiting}


def test_a_running_job_is_left_alone(client: FlaskClient, service: Service) -> None:
    with service.engine.begin() as connection:
        (job_id,) = queue.enqueue(connection, kinds.PLAN, ["task"])
    assert queue.claim(service.engine, 60) is not None
    assert client.post(f"/api/v1/jobs/{job_id}/retry").status_code == 409
    assert client.post(f"/api/v1/jobs/{uuid4()}/retry").status_code == 404


def test_batches_are_listed_with_their_newest_state(deliver: Deliver, get: Get) -> None:
    deliver(b'{"batch": "first", "status": "in_progress", "updated_at": "2021-01-01T00:00:00Z"}')
    deliver(b'{"batch": "second", "status": "completed", "updated_at": "2021-01-02T00:00:00Z"}')
    deliver(b'{"batch": "undated", "status": "completed"}', "test")
    deliver(b'{"batch": "first", "status": "completed", "updated_at": "2021-01-03T00:00:00Z"}')
    batches = get("/batches")["data"]
    assert [(batch["name"], batch["status"]) for batch in batches] == [
        ("undated", "completed"),  # its receipt is its clock
        ("first", "completed"),
        ("second", "completed"),
    ]
    page = get("/batches", limit=1)
    assert get("/batches", cursor=page["next_cursor"])["data"] == batches[1:]
    assert get("/batches", environment="test")["data"] == batches[:1]
    assert get("/batches", name="first")["data"] == batches[1:2]


def test_only_a_dead_job_can_be_dismissed(client: FlaskClient, service: Service) -> None:
    with service.engine.begin() as connection:
        (job_id,) = queue.enqueue(connection, kinds.PLAN, ["one"])
    path = f"/api/v1/jobs/{job_id}/dismiss"
    assert client.post(path, json={"reason": "known"}).status_code == 409
    with service.engine.begin() as connection:
        connection.execute(update(Job).values(state="dead"))
    assert client.post(path, json={}).status_code == 400
    assert client.post(path, json={"reason": "known"}).status_code == 204
    assert client.post(path, json={"reason": "known"}).status_code == 404
