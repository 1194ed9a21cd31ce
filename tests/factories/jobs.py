"""Jobs as a worker and its tests handle them: enqueued, claimed, finished, expired."""

from datetime import timedelta

from sqlalchemy import update

from models import Job
from pipeline.db.ids import utcnow
from pipeline.jobs import kinds, queue
from pipeline.service import Service


def ask(service: Service, *subjects: str, kind: str = kinds.PLAN, delay: float = 0) -> None:
    with service.engine.begin() as connection:
        queue.enqueue(connection, kind, subjects, delay=delay)


def claim(service: Service, lease: float = 60) -> queue.Job:
    job = queue.claim(service.engine, lease)
    assert job is not None
    return job


def finish(service: Service, job: queue.Job) -> None:
    with service.engine.begin() as connection:
        queue.finish(connection, job)


def expire(service: Service) -> None:
    """Let the lease, or the pause, of every job be over."""
    with service.engine.begin() as connection:
        connection.execute(update(Job).values(run_at=utcnow() - timedelta(seconds=1)))
