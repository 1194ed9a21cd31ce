"""Files behind responses: fetched from a real server, kept, read into rows; and what becomes of those that cannot be had."""

import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from sqlalchemy import update

from models import Annotation, Artifact, Job, RateLimit, Response
from pipeline.artifacts import extract, jobs
from pipeline.db.ids import utcnow
from pipeline.follow_ups.views import load_snapshot
from pipeline.jobs import kinds, queue
from pipeline.receive import replay
from pipeline.service import Service
from scale.annotations import Annotation as Value
from scale.masks import INDEX_IMAGE_ROLES
from tests.assertions import TimeSpan, only, table
from tests.factories.callbacks import PAYLOADS, callback, receive_callback
from tests.fake_server import Answer, FakeServer, ReceivedRequest, reply
from workers.runner import run_due_jobs, run_job

FILES = PAYLOADS / "files"
CASES = sorted(path.name.removesuffix(".rows.json") for path in FILES.glob("*.rows.json"))
BOX = {"type": "box", "label": "car", "left": 1, "top": 2, "width": 3, "height": 4}
TASK_ID = "5f1e9b000000000000000001"


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


@pytest.fixture
def files() -> Iterator[Files]:
    one = Files()
    with one.peer:
        yield one


@pytest.fixture
def service(open_service: Callable[..., Service], files: Files, tmp_path: Path) -> Service:
    """A service that may fetch from `files`, with a workflow that looks at every completed video."""
    (tmp_path / "workflows" / "videos.yaml").write_text(
        "workflow: videos\nsteps:\n  look:\n    after: {type: videoannotation}\n    dry_run: true\n"
        "    create: {type: imageannotation, params: {attachment: 'https://example.com/a.png',"
        " geometries: {box: {objects_to_annotate: [car]}}}}\n"
    )
    return open_service(artifact_hosts=(files.host,))


def video(files: Files, *paths: str, **fields: Any) -> bytes:
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
    """Run the fetches; the plans that they ask for stay, to be counted."""
    for row in table(service, Job):
        if row["kind"] == kinds.FETCH and (job := queue.claim(service.engine, 60, job_id=row["id"])):
            run_job(service, job)


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_file_is_fetched_kept_and_read_into_rows(
    case: str, service: Service, files: Files
) -> None:
    expected = json.loads((FILES / f"{case}.rows.json").read_text())
    content = (FILES / f"{case}.json").read_bytes()
    files.has["/result"] = reply(content, Content_Type="application/json; charset=utf-8")
    response = {expected["role"]: {"url": files.url("/result")}}
    receive_callback(service, callback(response, type=expected["task_type"], params=expected["params"]))
    run_due_jobs(service)
    artifact, count = only(service, Artifact), len(expected["rows"])
    digest = hashlib.sha256(content).hexdigest()
    assert {
        name: artifact[name] for name in ("state", "role", "sha256", "size_bytes", "media_type", "path")
    } == {
        "state": "stored",
        "role": expected["role"],
        "sha256": digest,
        "size_bytes": len(content),
        "media_type": "application/json",
        "path": f"{digest[:2]}/{digest[2:4]}/{digest}",
    }
    rows = sorted(table(service, Annotation), key=lambda row: row["position"])
    assert [{name: row[name] for name in Value._fields} for row in rows] == expected["rows"]
    assert {row["file"] for row in rows} <= {1}
    assert artifact["annotation_count"] == only(service, Response)["annotation_count"] == count
    assert (artifact["reason"] or "") == "; ".join(expected["warnings"])
    assert (artifact["details"] or {}).get("global_attributes", []) == expected["global_attributes"]
    with service.store.open(digest) as kept:
        assert kept.read() == content
    assert job_kinds(service) == job_kinds(service, "dead") == []


def test_the_last_file_makes_the_response_whole_and_asks_for_planning(service: Service, files: Files) -> None:
    files.has = {
        "/a": [{"annotations": [BOX]}],
        "/b": {"events": [{"label": "turn", "type": "point", "start": 1}]},
    }
    receive_callback(service, video(files, "/a", "/b"))
    for row in table(service, Job):  # the plan that the callback itself asked for
        if row["kind"] == kinds.PLAN and (job := queue.claim(service.engine, 60, job_id=row["id"])):
            run_job(service, job)
    assert job_kinds(service) == [kinds.FETCH, kinds.FETCH]
    run_job(service, claim(service))
    assert job_kinds(service) == [kinds.FETCH]
    with service.reader.begin() as connection:
        assert load_snapshot(connection, TASK_ID) is None
    run_job(service, claim(service))
    assert job_kinds(service) == [kinds.PLAN]
    with service.reader.begin() as connection:
        seen = load_snapshot(connection, TASK_ID)
    assert seen is not None
    assert [row["label"] for row in seen.view.annotations] == ["car", "turn"]
    assert only(service, Response)["annotation_count"] == 2


def test_files_of_a_version_that_is_not_current_ask_for_no_planning(service: Service, files: Files) -> None:
    files.has = {"/old": [], "/new": []}
    receive_callback(service, video(files, "/new", updated_at="2026-01-02T00:00:00Z"))
    receive_callback(service, video(files, "/old"))
    run_due_jobs(service)
    receive_callback(service, video(files, "/older", updated_at="2025-12-31T00:00:00Z", completed_at=None))
    files.has["/older"] = []
    for job in [row for row in table(service, Job) if row["kind"] == kinds.PLAN]:
        run_job(service, queue.claim(service.engine, 60, job_id=job["id"]))  # type: ignore[arg-type]
    run_job(service, claim(service))
    assert job_kinds(service) == []


def test_a_type_that_no_workflow_looks_at_is_not_planned(service: Service, files: Files) -> None:
    files.has["/a"] = []
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    run_job(service, claim(service))
    assert job_kinds(service) == []


def test_no_transaction_is_open_while_the_file_is_fetched(service: Service, files: Files) -> None:
    body = reply([{"annotations": [BOX]}])
    taken: list[str] = []

    def slowly(_: ReceivedRequest) -> Iterator[bytes]:
        yield body[:-5]
        taken.append(receive_callback(service, callback({"annotations": []}, task_id="another")).status)
        yield body[-5:]

    files.has["/a"] = lambda asked: slowly(asked)
    receive_callback(service, video(files, "/a"))
    work_without_planning(service)
    assert taken == ["processed"]
    assert only(service, Artifact)["state"] == "stored"


# What cannot be had.


def test_a_host_that_is_not_named_is_refused_at_once_with_the_reason(
    open_service: Callable[..., Service], files: Files
) -> None:
    files.has["/a"] = [{"annotations": [BOX]}]
    service = open_service(artifact_hosts=("scale.example",))
    receive_callback(service, video(files, "/a"))
    run_job(service, claim(service))
    artifact = only(service, Artifact)
    assert (artifact["state"], artifact["reason"]) == (
        "failed",
        f"{files.host} is not among the hosts that files may be fetched from",
    )
    assert files.requests == []
    assert job_kinds(service, "dead") == [kinds.FETCH]
    assert only(service, Job)["last_error"] == artifact["reason"]


def test_a_failed_file_makes_the_response_whole_too(service: Service, files: Files) -> None:
    files.has = {"/a": [{"annotations": [BOX]}]}
    receive_callback(
        service,
        callback(
            {"annotations": {"url": files.url("/a")}, "events": {"url": "http://127.0.0.1:1/x"}},
            type="videoannotation",
        ),
    )
    work_without_planning(service)
    assert sorted((row["role"], row["state"]) for row in table(service, Artifact)) == [
        ("annotations", "stored"),
        ("events", "failed"),
    ]
    assert job_kinds(service) == [kinds.PLAN]


def test_a_refused_file_is_fetched_when_a_person_asks_for_its_job_again(
    open_service: Callable[..., Service], files: Files
) -> None:
    files.has["/a"] = [{"annotations": [BOX]}]
    before = open_service(artifact_hosts=())
    receive_callback(before, video(files, "/a"))
    run_job(before, claim(before))
    service = open_service(artifact_hosts=(files.host,))
    with service.engine.begin() as connection:
        assert queue.retry(connection, only(service, Job)["id"])
    run_job(service, claim(service))
    assert (only(service, Artifact)["state"], only(service, Artifact)["reason"]) == ("stored", None)
    assert only(service, Artifact)["stored_at"] is not None
    assert only(service, Response)["annotation_count"] == 1
    assert table(service, Job) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(status=403), "answered 403"),
        (reply(status=404), "answered 404"),
        (reply(status=503), "answered 503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nshort", "failed"),
        (reply(b"\x1f\x8bnothing", Content_Encoding="gzip"), "cannot be decompressed"),
    ],
)
def test_what_may_be_there_later_is_asked_for_again_with_back_off(
    answer: bytes, reason: str, service: Service, files: Files
) -> None:
    files.has["/a"] = answer if b"close" not in answer else lambda _: iter([answer])
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    for attempt in (1, 2, 3):
        with service.engine.begin() as connection:
            connection.execute(RateLimit.__table__.delete())  # the pause for its host
        with TimeSpan() as then:
            run_job(service, claim(service))
        artifact, job = only(service, Artifact), only(service, Job)
        assert (artifact["state"], artifact["attempts"]) == ("pending", attempt)
        assert reason in artifact["reason"]
        assert (job["state"], job["last_error"]) == ("ready", artifact["reason"])
        assert job["run_at"] in then.shift(0.75 * 2 ** (attempt - 1), 1.25 * 2 ** (attempt - 1))
        with service.engine.begin() as connection:
            queue.retry(connection, job["id"])
    files.has["/a"] = [{"annotations": [BOX]}]
    with service.engine.begin() as connection:
        connection.execute(RateLimit.__table__.delete())
    run_job(service, claim(service))
    assert (only(service, Artifact)["state"], only(service, Artifact)["reason"]) == ("stored", None)


def test_a_file_is_given_up_after_more_than_a_day_and_not_before(service: Service, files: Files) -> None:
    receive_callback(service, video(files, "/never", type="videoboxannotation"))
    for hours, state in ((24, "pending"), (26, "failed")):
        run_job(service, claim(service))
        with service.engine.begin() as connection:
            connection.execute(update(Artifact).values(first_attempt_at=utcnow() - timedelta(hours=hours)))
            queue.retry(connection, only(service, Job)["id"])
        run_job(service, claim(service))
        assert only(service, Artifact)["state"] == state
        if state == "pending":
            with service.engine.begin() as connection:
                queue.retry(connection, only(service, Job)["id"])
    assert only(service, Artifact)["reason"] == f"{files.host} answered 404; retried for 25 hours"
    files.has["/never"] = []
    with service.engine.begin() as connection:
        jobs.retry(connection, only(service, Artifact)["id"], "ana")
    run_job(service, claim(service))
    assert only(service, Artifact)["state"] == "stored"


def test_waiting_for_a_file_uses_up_no_attempts_of_its_job(service: Service, files: Files) -> None:
    receive_callback(service, video(files, "/never", type="videoboxannotation"))
    for _ in range(kinds.MAX_ATTEMPTS[kinds.FETCH] + 5):
        run_job(service, claim(service))
        with service.engine.begin() as connection:
            connection.execute(update(Job).values(run_at=utcnow() - timedelta(seconds=1)))
    assert only(service, Job)["state"] == "ready"


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


def test_a_file_larger_than_allowed_is_refused_and_leaves_nothing(
    open_service: Callable[..., Service], files: Files, tmp_path: Path
) -> None:
    service = open_service(artifact_hosts=(files.host,), max_artifact_bytes=100_000)
    bomb = gzip.compress(b"[" + b" " * 10_000_000 + b"]")
    files.has = {"/bomb": reply(bomb, Content_Encoding="gzip"), "/large": b" " * 100_001}
    receive_callback(service, video(files, "/bomb", "/large"))
    work_without_planning(service)
    for artifact in table(service, Artifact):
        assert artifact["state"] == "failed"
        assert "larger than 100,000 bytes" in artifact["reason"]
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


def test_a_redirect_to_a_private_address_is_refused(service: Service, files: Files) -> None:
    files.has["/a"] = reply(status=302, Location="http://169.254.169.254/latest/meta-data")
    receive_callback(service, video(files, "/a"))
    work_without_planning(service)
    assert only(service, Artifact)["reason"] == (
        "169.254.169.254:80 is not among the hosts that files may be fetched from"
    )


def test_no_secret_of_an_address_gets_into_a_reason(service: Service, files: Files) -> None:
    receive_callback(
        service,
        callback({"annotations": {"url": files.url("/a?X-Amz-Signature=secret")}}, type="videoboxannotation"),
    )
    run_job(service, claim(service))
    assert "secret" not in repr([only(service, Artifact)["reason"], only(service, Job)])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>Not JSON</html>", "not JSON"),
        (b'[{"annotations": [{"type": "box"}, ', "not JSON"),
        (b'"a text"', "a string"),
    ],
)
def test_a_file_that_cannot_be_read_has_failed_and_leaves_no_row(
    content: bytes, reason: str, service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "ANNOTATION_BATCH_SIZE", 1)
    files.has["/a"] = content
    receive_callback(service, video(files, "/a"))
    work_without_planning(service)
    artifact = only(service, Artifact)
    assert artifact["state"] == "failed"
    assert reason in artifact["reason"]
    assert table(service, Annotation) == []
    assert only(service, Response)["annotation_count"] == 0
    assert service.store.exists(artifact["sha256"])
    files.has["/a"] = [{"annotations": [BOX]}]
    with service.engine.begin() as connection:
        jobs.retry(connection, artifact["id"], "ana")
    work_without_planning(service)
    assert (only(service, Artifact)["state"], len(table(service, Annotation))) == ("stored", 1)


def test_a_mistake_of_our_own_about_a_file_is_its_reason_and_it_is_read_when_it_is_mended(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: Any) -> Iterator[Any]:
        yield Value(0, "box", "car", None, 0, None, {}, None)
        raise KeyError("a mistake")

    files.has["/a"] = [{"annotations": [BOX] * 3}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    with monkeypatch.context() as broken:
        broken.setattr(extract, "ResultFileReader", mistaken)
        run_job(service, claim(service))
    assert (only(service, Artifact)["state"], only(service, Artifact)["reason"]) == (
        "failed",
        "reading it failed: KeyError: 'a mistake'",
    )
    assert table(service, Annotation) == []
    with service.engine.begin() as connection:
        queue.retry(connection, only(service, Job)["id"])
    run_job(service, claim(service))
    assert len(table(service, Annotation)) == 3


def test_content_that_was_lost_from_the_store_is_fetched_anew(service: Service, files: Files) -> None:
    files.has["/a"] = [{"annotations": [BOX]}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    run_job(service, claim(service))
    service.store.delete(only(service, Artifact)["sha256"])
    files.has = {}
    with service.engine.begin() as connection:
        connection.execute(update(Artifact).values(first_attempt_at=None))
        jobs.retry(connection, only(service, Artifact)["id"], "ana")
    run_job(service, claim(service))
    assert (only(service, Artifact)["state"], len(table(service, Annotation))) == ("pending", 1)
    files.has["/a"] = [{"annotations": [BOX] * 2}]
    with service.engine.begin() as connection:
        queue.retry(connection, only(service, Job)["id"])
    run_job(service, claim(service))
    assert (only(service, Artifact)["state"], only(service, Response)["annotation_count"]) == ("stored", 2)


def test_what_postgresql_does_not_store_is_replaced(service: Service, files: Files) -> None:
    files.has["/a"] = (
        b'[{"annotations": [{"type": "point", "label": "a\\u0000b", "x": 1, "y": 2, "n\\u0000": "\\\\u0000"}]}]'
    )
    receive_callback(service, video(files, "/a"))
    work_without_planning(service)
    row = only(service, Annotation)
    assert (row["label"], row["geometry"]) == ("a\ufffdb", {"x": 1, "y": 2, "n\ufffd": "\\u0000"})


# Interruptions.


def test_a_worker_that_vanishes_while_reading_leaves_no_row_twice(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "ANNOTATION_BATCH_SIZE", 2)
    files.has["/a"] = [{"annotations": [BOX] * 5}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    written = extract.write_annotations

    def vanish_at_the_third(*given: Any) -> int:
        if len(table(service, Annotation)) == 4:
            raise SystemExit
        return written(*given)

    monkeypatch.setattr(extract, "write_annotations", vanish_at_the_third)
    first = claim(service)
    with pytest.raises(SystemExit):
        run_job(service, first)
    assert len(table(service, Annotation)) == 4
    assert only(service, Response)["annotation_count"] == 0
    monkeypatch.setattr(extract, "write_annotations", written)
    with service.engine.begin() as connection:
        connection.execute(update(Job).values(run_at=utcnow() - timedelta(seconds=1)))
    run_job(service, claim(service))
    assert sorted(row["position"] for row in table(service, Annotation)) == [0, 1, 2, 3, 4]
    assert only(service, Response)["annotation_count"] == 5
    assert files.requests == ["/a"]  # what was kept is not fetched again


def test_a_worker_that_lost_its_lease_writes_nothing_more(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "ANNOTATION_BATCH_SIZE", 1)
    files.has["/a"] = [{"annotations": [BOX] * 3}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    late, rows, written = claim(service), [], extract.write_annotations

    def lose(*given: Any) -> int:
        monkeypatch.setattr(extract, "write_annotations", written)
        return written(*given)

    def expire(*given: Any) -> Iterator[Any]:
        for piece in pieces(*given):
            yield piece
            rows.append(len(piece))
            if len(rows) == 1:
                with service.engine.begin() as connection:
                    connection.execute(update(Job).values(run_at=utcnow() - timedelta(seconds=1)))
                run_job(service, claim(service))

    pieces = extract.batches
    monkeypatch.setattr(extract, "batches", lambda *some: expire(*some) if not rows else pieces(*some))
    monkeypatch.setattr(extract, "write_annotations", lose)
    run_job(service, late)
    assert sorted(row["position"] for row in table(service, Annotation)) == [0, 1, 2]
    assert only(service, Response)["annotation_count"] == 3
    assert table(service, Job) == []


def test_a_fetch_longer_than_its_lease_stays_leased(
    open_service: Callable[..., Service], files: Files
) -> None:
    service = open_service(artifact_hosts=(files.host,), lease_seconds=1)
    body = reply([{"annotations": [BOX]}])
    stolen: list[Any] = []

    def slowly(_: ReceivedRequest) -> Iterator[bytes]:
        yield body[:-1]
        for _ in range(10):
            files.peer.wait(0.25)
            stolen.append(queue.claim(service.engine, 60))
        yield body[-1:]

    files.has["/a"] = slowly
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    job = queue.claim(service.engine, 1)
    assert job is not None
    run_job(service, job)
    assert stolen == [None] * 10
    assert only(service, Artifact)["state"] == "stored"


def test_files_of_a_response_that_is_understood_anew_meanwhile_are_dropped(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.has["/a"] = [{"annotations": [BOX] * 3}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    fetching, pieces = claim(service), extract.batches

    def replaced(*rows: Any) -> Iterator[Any]:
        with service.engine.begin() as connection:
            connection.execute(Artifact.__table__.delete())
        yield from pieces(*rows)

    monkeypatch.setattr(extract, "batches", replaced)
    run_job(service, fetching)
    assert table(service, Annotation) == []
    assert table(service, Job) == []


def test_a_file_that_is_here_can_be_read_anew_without_being_fetched(service: Service, files: Files) -> None:
    files.has["/a"] = [{"annotations": [BOX] * 3}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    run_job(service, claim(service))
    with service.engine.begin() as connection:
        connection.execute(Annotation.__table__.delete())
        jobs.retry(connection, only(service, Artifact)["id"], "ana")
    run_job(service, claim(service))
    assert len(table(service, Annotation)) == only(service, Response)["annotation_count"] == 3
    assert files.requests == ["/a"]


def test_retrying_a_file_that_is_not_known_is_an_error(service: Service) -> None:
    with service.engine.begin() as connection, pytest.raises(LookupError):
        jobs.retry(connection, UUID(int=1), "ana")


def test_two_workers_that_end_with_the_last_two_files_plan_once_and_count_all(
    service: Service, files: Files
) -> None:
    together = threading.Barrier(2)

    def held(_: ReceivedRequest) -> bytes:
        together.wait(20)
        return reply([{"annotations": [BOX]}])

    files.has = {"/a": held, "/b": held}
    receive_callback(service, video(files, "/a", "/b"))
    claimed = [
        queue.claim(service.engine, 60, job_id=row["id"])
        for row in table(service, Job)
        if row["kind"] == kinds.FETCH
    ]
    threads = [threading.Thread(target=run_job, args=(service, job)) for job in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert job_kinds(service) == [kinds.PLAN]
    assert only(service, Response)["annotation_count"] == 2


# Masks.

SCENE = np.array([[0, 0, 1, 1, 0], [0, 2, 1, 1, 0], [0, 2, 2, 3, 0]])
MAPPING = {
    "road": {"index": 1, "color": "#ff0000", "numPixels": 4},
    "car": [{"index": 2, "color": "#00ff00"}, {"index": 3, "color": "#00ff00"}],
    "sky": {"index": 4, "color": "#0000ff"},
}


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


def extended(scene: Any) -> bytes:
    scene = np.asarray(scene, np.uint32)
    channels = [scene & 255, scene >> 8 & 255, scene >> 16 & 255, np.full_like(scene, 255)]
    return png(np.stack(channels, -1))


def segmentation(
    files: Files, *roles: str, labeled: Any = None, unlabeled: bool = False, mapping: Any = MAPPING
) -> bytes:
    images: dict[str, Any] = {"combined": {role: files.url(f"/{role}") for role in roles}}
    if labeled:
        images["labeled"] = labeled
    if unlabeled:
        images["unlabeled"] = files.url("/unlabeled")
    return callback({"annotations": images, "labelMapping": mapping}, type="segmentannotation")


def masks(service: Service) -> list[tuple[Any, ...]]:
    names = ("pixels", "left", "top", "width", "height")
    rows = sorted(table(service, Annotation), key=lambda row: row["position"])
    return [(row["type"], row["label"], *(row["geometry"].get(name) for name in names)) for row in rows]


MEASURED = [
    ("mask", "road", 4, 2, 0, 2, 2),
    ("mask", "car", 3, 1, 1, 2, 2),
    ("mask", "car", 1, 3, 2, 1, 1),
    ("mask", "sky", 0, 0, 0, 0, 0),
]


@pytest.mark.parametrize("role", INDEX_IMAGE_ROLES)
def test_an_index_image_completes_one_mask_row_an_index(role: str, service: Service, files: Files) -> None:
    files.has[f"/{role}"] = png(SCENE) if role == "indexedImage" else extended(SCENE)
    receive_callback(service, segmentation(files, role))
    assert masks(service)[0] == ("mask", "road", None, None, None, None, None)
    run_due_jobs(service)
    assert masks(service) == MEASURED
    for row in table(service, Annotation):
        rle = row["geometry"]["rle"]
        assert (coco.decode(rle) == (row["geometry"]["index"] == SCENE)).all()
    artifact = only(service, Artifact)
    assert artifact["details"] == {"width": 5, "height": 3, "unlabeled_pixels": 7}
    assert (artifact["state"], artifact["reason"], artifact["annotation_count"]) == ("stored", None, None)
    assert only(service, Response)["annotation_count"] == 4


@pytest.mark.parametrize("first", [0, 1])
def test_the_extended_index_image_wins_in_either_order(first: int, service: Service, files: Files) -> None:
    files.has = {"/indexedImage": png(SCENE % 2), "/extendedIndexedImage": extended(SCENE)}
    receive_callback(service, segmentation(files, *INDEX_IMAGE_ROLES))
    by_role = {str(row["id"]): row["role"] for row in table(service, Artifact)}
    waiting = {by_role[row["subject"]]: row["id"] for row in table(service, Job)}
    for role in (INDEX_IMAGE_ROLES[first], INDEX_IMAGE_ROLES[1 - first]):
        run_job(service, queue.claim(service.engine, 60, job_id=waiting[role]))  # type: ignore[arg-type]
    assert masks(service) == MEASURED


def test_the_plain_index_image_counts_where_the_extended_one_cannot_be_read(
    service: Service, files: Files
) -> None:
    files.has = {"/indexedImage": png(SCENE), "/extendedIndexedImage": b"no image"}
    receive_callback(service, segmentation(files, *INDEX_IMAGE_ROLES))
    run_due_jobs(service)
    assert masks(service) == MEASURED
    failed = next(row for row in table(service, Artifact) if row["state"] == "failed")
    assert failed["reason"] == "it is not a PNG image"


def test_what_mapping_counts_and_pixels_disagree_about_is_said(service: Service, files: Files) -> None:
    files.has["/indexedImage"] = png(np.where(SCENE == 3, 9, SCENE))
    mapping = {**MAPPING, "road": {"index": 1, "numPixels": 5}}
    receive_callback(service, segmentation(files, "indexedImage", mapping=mapping))
    run_due_jobs(service)
    assert only(service, Artifact)["reason"] == (
        "label 'road', index 1: numPixels is 5, the image has 4; "
        "index 9 has 1 pixels and no entry in labelMapping"
    )


def test_the_images_of_labels_are_compared_once_all_are_here_in_any_order(
    service: Service, files: Files
) -> None:
    files.has = {
        "/indexedImage": png(SCENE),
        "/road": png((SCENE == 1) * 255),
        "/car-0": png((SCENE == 2) * 255),
        "/car-1": png((SCENE == 1) * 255),
        "/broken": b"no image",
        "/unlabeled": png((SCENE == 0) * 255),
    }
    labeled = {
        "road": files.url("/road"),
        "car": [files.url("/car-0"), files.url("/car-1")],
        "sky": files.url("/broken"),
    }
    for number, last in enumerate(("indexedImage", "labeled:road")):
        receive_callback(
            service,
            segmentation(files, "indexedImage", labeled=labeled, unlabeled=True).replace(
                b"0001", b"000%d" % number
            ),
        )
        of_role = {
            str(row["id"]): row["role"] for row in table(service, Artifact) if row["state"] == "pending"
        }
        for row in sorted(table(service, Job), key=lambda row: of_role[row["subject"]] == last):
            run_job(service, queue.claim(service.engine, 60, job_id=row["id"]))  # type: ignore[arg-type]
    reasons = {(row["task_id"][-1], row["role"]): row["reason"] for row in table(service, Artifact)}
    for number in "01":
        assert {role: reason for (at, role), reason in reasons.items() if at == number} == {
            "indexedImage": None,
            "labeled:road": None,
            "labeled:car:0": None,
            "labeled:car:1": "the image 'labeled:car:1' lacks 1 pixels of the index image and has 4 others",
            "labeled:sky": "it is not a PNG image",
            "unlabeled": None,
        }
    assert {row["state"] for row in table(service, Artifact)} == {"stored"}


def test_a_replay_measures_the_masks_again_without_fetching(service: Service, files: Files) -> None:
    files.has["/indexedImage"] = png(SCENE)
    receipt = receive_callback(service, segmentation(files, "indexedImage"))
    run_due_jobs(service)
    replay.replay(service, receipt.delivery_id, "ana")
    assert only(service, Artifact)["state"] == "pending"
    run_due_jobs(service)
    assert masks(service) == MEASURED
    assert files.requests == ["/indexedImage"]
    assert table(service, Job) == []


def test_a_mask_bomb_is_refused(service: Service, files: Files) -> None:
    width = (100_000).to_bytes(4, "big")
    files.has["/indexedImage"] = png(SCENE)[:16] + width + width + png(SCENE)[24:]
    receive_callback(service, segmentation(files, "indexedImage"))
    run_due_jobs(service)
    assert "100,000 × 100,000 pixels are more than" in only(service, Artifact)["reason"]


# Size.

FETCH_WITHIN = """
import resource, sys
from uuid import UUID
import psutil
from config import Settings
from pipeline.bootstrap import build_service
from pipeline.jobs import queue
from sqlalchemy import select
from models import Artifact, Response
from workers.runner import run_job
import workers.celery_app

url, host, store, megabytes = sys.argv[1:]
service = build_service(Settings(database_url=url, artifact_hosts=(host,), artifact_store=store, secret_key="s",
                                max_artifact_bytes=2**31))
with service.reader.begin() as connection:
    connection.execute(select(Artifact)).all()
idle = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (idle + int(megabytes) * 2**20,) * 2)
run_job(service, queue.claim_fetch(service.engine, 60, 1))
with service.reader.begin() as connection:
    print(*connection.execute(select(Artifact.state, Artifact.reason, Response.annotation_count)).one(), sep="|")
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_large_file_becomes_rows_within_300_mb_over_the_idle_worker(
    service: Service, files: Files, database_url: str, tmp_path: Path
) -> None:
    vertices = ",".join(f'{{"x":{n}.5,"y":{n}}}' for n in range(300))
    shape = f'{{"type":"polygon","label":"road","uuid":"u","vertices":[{vertices}]}}'
    frame = ('{"annotations":[' + ",".join([shape] * 20) + "]}").encode()
    frames = 200_000_000 // len(frame)

    def large(_: ReceivedRequest) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n["
        for _ in range(frames - 1):
            yield frame + b","
        yield frame + b"]"

    files.has["/large"] = large
    receive_callback(service, video(files, "/large", type="videopolygonannotation"))
    service.engine.dispose()
    command = [
        sys.executable,
        "-c",
        FETCH_WITHIN,
        database_url,
        files.host,
        str(tmp_path / "artifacts"),
        "300",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == f"stored|None|{20 * frames}", done.stderr[-3000:]


def test_a_file_whose_rows_are_far_larger_than_it_fails_with_the_number_and_leaves_no_row(
    service: Service, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "FREE_CHARACTERS", 100_000)
    monkeypatch.setattr(extract, "MAX_BATCH_CHARACTERS", 20_000)
    keys = [{"key": key, "x": 1, "y": 2} for key in range(500)]
    track = {"label": "x", "geometry": "point", "attributes": {"a": "A" * 5_000}, "frames": keys}
    files.has["/result"] = json.dumps({"annotations": {"u1": track}}).encode()
    receive_callback(service, video(files, "/result", type="videoplaybackannotation"))
    work_without_planning(service)
    artifact = only(service, Artifact)
    assert artifact["state"] == "failed"
    assert re.match(r"its rows have more than [\d,]+ characters, 10 times", artifact["reason"])
    assert table(service, Annotation) == []


@pytest.mark.parametrize("mapping", [{}, None])
def test_an_index_image_without_a_mapping_gives_masks_without_labels(
    mapping: Any, service: Service, files: Files
) -> None:
    files.has = {"/indexedImage": png(SCENE), "/extendedIndexedImage": extended(SCENE)}
    receive_callback(service, segmentation(files, *INDEX_IMAGE_ROLES, mapping=mapping))
    work_without_planning(service)
    assert masks(service) == [
        ("mask", None, 4, 2, 0, 2, 2),
        ("mask", None, 3, 1, 1, 2, 2),
        ("mask", None, 1, 3, 2, 1, 1),
    ]
    assert [row["geometry"]["index"] for row in table(service, Annotation)] == [1, 2, 3]
    assert only(service, Response)["annotation_count"] == 3
    assert [row["state"] for row in table(service, Artifact)] == ["stored", "stored"]
