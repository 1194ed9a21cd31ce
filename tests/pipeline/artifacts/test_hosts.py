"""A host that does not answer is left alone: the back-off is shared by all workers."""

from datetime import timedelta

from sqlalchemy import update

from models import Artifact, Job, RateLimit
from pipeline.db.ids import utcnow
from pipeline.service import Service
from tests.assertions import TimeSpan, only, table
from tests.factories.callbacks import receive_callback
from tests.factories.files import BOX, Files, video
from tests.fake_server import ReceivedRequest, reply
from workers.runner import run_due_jobs


def silent(_: ReceivedRequest) -> bytes:
    raise ConnectionResetError


def test_a_host_that_does_not_answer_is_left_alone_for_a_while_and_longer_each_time(
    service: Service, files: Files
) -> None:
    names = [f"/{n}" for n in range(5)]
    files.has = dict.fromkeys(names, silent)
    for n, name in enumerate(names):
        receive_callback(service, video(files, name, type="videoboxannotation", task_id=f"task-{n}"))
    with TimeSpan() as then:
        run_due_jobs(service)
    assert len(files.requests) == 1
    waiting = [row for row in table(service, Job) if row["last_error"] == f"{files.host} does not answer"]
    assert [row["attempts"] for row in waiting] == [0] * 4
    assert sorted(row["attempts"] for row in table(service, Artifact)) == [0, 0, 0, 0, 1]
    past = utcnow() - timedelta(seconds=5)
    for tries, seconds in enumerate((15, 30, 60), 1):
        pause = only(service, RateLimit)
        until = pause["until"]
        assert until in then.shift(seconds)
        assert len(files.requests) == tries
        with service.engine.begin() as connection:
            connection.execute(update(RateLimit).values(until=past))
            connection.execute(update(Job).values(run_at=past))
        with TimeSpan() as then:
            run_due_jobs(service)
    files.has = dict.fromkeys(names, reply([{"annotations": [BOX]}]))
    with service.engine.begin() as connection:
        connection.execute(RateLimit.__table__.delete())
        connection.execute(update(Job).values(run_at=past))
    run_due_jobs(service)
    assert {row["state"] for row in table(service, Artifact)} == {"stored"}
    assert table(service, RateLimit) == []


def test_a_file_that_is_missing_is_no_reason_to_leave_its_host_alone(service: Service, files: Files) -> None:
    files.has = {"/there": []}
    receive_callback(service, video(files, "/not-there", "/there", type="videoboxannotation"))
    run_due_jobs(service)
    assert sorted(row["state"] for row in table(service, Artifact)) == ["pending", "stored"]
    assert table(service, RateLimit) == []
