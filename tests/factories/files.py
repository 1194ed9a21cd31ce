"""Result files: a server of them, callbacks that point to them, and the jobs that fetch them."""

from typing import Any

from models import Job
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from tests.assertions import table
from tests.factories.callbacks import callback
from tests.fake_server import Answer, FakeServer, ReceivedRequest, reply
from workers.runner import run_job

BOX = {"type": "box", "label": "car", "left": 1, "top": 2, "width": 3, "height": 4}


class Files:
    """A server of files. What it has for a path may be bytes, JSON, a whole answer, or a function that gives one."""

    def __init__(self) -> None:
        self.has: dict[str, Any] = {}
        self.peer = FakeServer(self._answer)

    def _answer(self, asked: ReceivedRequest) -> Answer:
        found = self.has.get(asked.path, reply(status=404))
        if callable(found):
            return found(asked)
        return found if isinstance(found, bytes) and found.startswith(b"HTTP/1.1 ") else reply(found)

    def url(self, path: str) -> str:
        return f"{self.peer.url}{path}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.peer.port}"

    @property
    def requests(self) -> list[str]:
        return [asked.path for asked in self.peer.requests]


def video(files: Files, *paths: str, **fields: Any) -> bytes:
    """A callback of a video task whose result files are at these paths."""
    names = ("annotations", "events", "links")
    response = {name: {"url": files.url(path)} for name, path in zip(names, paths, strict=False)}
    return callback(response, **{"type": "videoannotation", **fields})


def claim(service: Service, kind: str = kinds.FETCH) -> queue.Job:
    """The next due job, which is of this kind."""
    job = queue.claim(service.engine, 60)
    assert job is not None
    assert job.kind == kind
    return job


def job_kinds(service: Service, state: str = "ready") -> list[str]:
    return sorted(row["kind"] for row in table(service, Job) if row["state"] == state)


def work_without_planning(service: Service) -> None:
    """Run the fetches; the plans that they enqueue stay, to be counted."""
    for row in table(service, Job):
        if row["kind"] == kinds.FETCH and (job := queue.claim(service.engine, 60, job_id=row["id"])):
            run_job(service, job)
