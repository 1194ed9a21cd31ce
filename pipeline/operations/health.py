"""What is not as it should be although callbacks are kept: for /readyz, `flask doctor` and the console."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, select

from models import Job, KeyValue
from pipeline.db.dialect import from_now
from pipeline.follow_ups.pauses import CREATING, STOPPED
from pipeline.service import Service

HEARTBEAT = "heartbeat:"
HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60
FORGOTTEN_SECONDS = 86_400.0


def degradations(service: Service, connection: Connection) -> list[str]:
    """Sentences, each naming what suffers and what to do; none when all is well."""
    problems = []
    beats = select(func.max(KeyValue.changed_at), from_now()).where(KeyValue.key.startswith(HEARTBEAT))
    beat, present = connection.execute(beats).one()
    if beat is None:
        problems.append("worker: none has ever reported; start one (`celery -A workers.celery_app worker`)")
    elif present - beat > timedelta(seconds=SILENT_SECONDS):
        problems.append(f"worker: none has reported since {beat:%Y-%m-%d %H:%M:%S} UTC; start one")
    creating = (KeyValue.key, KeyValue.value)
    for key, value in connection.execute(select(*creating).where(KeyValue.key.startswith("creating"))):
        if key == STOPPED:
            problems.append(f"creating: stopped by {value.get('actor')}; `flask creating start` starts it")
        elif datetime.fromisoformat(value["until"]) > present:
            environment = key.removeprefix(f"{CREATING}:")
            problems.append(f"creating: {environment} tasks wait until {value['until']}: {value['reason']}")
    problems += [f"workflow: {problem}" for broken in service.workflows.invalid for problem in broken.errors]
    if dead := connection.scalar(select(func.count()).where(Job.state == "dead")):
        problems.append(f"jobs: {dead} dead; see `flask jobs list --state dead`")
    return problems


def forget_the_silent(connection: Connection) -> None:
    """Workers that have not reported for a day are gone: each has a name of its own."""
    silent = KeyValue.changed_at < from_now(-FORGOTTEN_SECONDS)
    connection.execute(delete(KeyValue).where(KeyValue.key.startswith(HEARTBEAT), silent))
