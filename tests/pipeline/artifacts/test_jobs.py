"""Files behind responses: fetched from a real server, kept, read into rows; and what becomes of those that cannot be had."""

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from models import Annotation, Artifact, Job, RateLimit, Response
from pipeline.artifacts.retry import retry
from pipeline.db.ids import utcnow
from pipeline.follow_ups.views import load_snapshot
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from scale.annotations import Annotation as Value
from tests.assertions import TimeSpan, only, table
from tests.factories.callbacks import PAYLOADS, callback, receive_callback
from tests.factories.files import BOX, Files, claim, job_kinds, video, work_without_planning
from tests.fake_server import ReceivedRequest, reply
from workers.runner import run_due_jobs, run_job

FILES = PAYLOADS / "files"
CASES = sorted(path.name.removesuffix(".rows.json") for path in FILES.glob("*.rows.json"))
TASK_ID = "5f1e9b000000000000000001"


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


def test_the_last_file_completes_the_response_and_enqueues_planning(service: Service, files: Files) -> None:
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


def test_files_of_a_version_that_is_not_current_enqueue_no_planning(service: Service, files: Files) -> None:
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


def test_a_failed_file_completes_the_response_too(service: Service, files: Files) -> None:
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


def test_a_refused_file_is_fetched_when_a_person_retries_it(
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
def test_what_may_be_there_later_is_retried_with_back_off(
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
        retry(connection, only(service, Artifact)["id"], "ana")
    run_job(service, claim(service))
    assert only(service, Artifact)["state"] == "stored"


def test_waiting_for_a_file_uses_up_no_attempts_of_its_job(service: Service, files: Files) -> None:
    receive_callback(service, video(files, "/never", type="videoboxannotation"))
    for _ in range(kinds.MAX_ATTEMPTS[kinds.FETCH] + 5):
        run_job(service, claim(service))
        with service.engine.begin() as connection:
            connection.execute(update(Job).values(run_at=utcnow() - timedelta(seconds=1)))
    assert only(service, Job)["state"] == "ready"


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


def test_content_that_was_lost_from_the_store_is_fetched_again(service: Service, files: Files) -> None:
    files.has["/a"] = [{"annotations": [BOX]}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    run_job(service, claim(service))
    service.store.delete(only(service, Artifact)["sha256"])
    files.has = {}
    with service.engine.begin() as connection:
        connection.execute(update(Artifact).values(first_attempt_at=None))
        retry(connection, only(service, Artifact)["id"], "ana")
    run_job(service, claim(service))
    assert (only(service, Artifact)["state"], len(table(service, Annotation))) == ("pending", 1)
    files.has["/a"] = [{"annotations": [BOX] * 2}]
    with service.engine.begin() as connection:
        queue.retry(connection, only(service, Job)["id"])
    run_job(service, claim(service))
    assert (only(service, Artifact)["state"], only(service, Response)["annotation_count"]) == ("stored", 2)


def test_a_fetch_longer_than_its_lease_stays_leased(
    open_service: Callable[..., Service], files: Files
) -> None:
    service = open_service(artifact_hosts=(files.host,), lease_seconds=3)
    body = reply([{"annotations": [BOX]}])
    stolen: list[Any] = []

    def slowly(_: ReceivedRequest) -> Iterator[bytes]:
        yield body[:-1]
        for _ in range(30):
            files.peer.wait(0.25)
            stolen.append(queue.claim(service.engine, 60))
        yield body[-1:]

    files.has["/a"] = slowly
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    job = queue.claim(service.engine, 3)
    assert job is not None
    run_job(service, job)
    assert stolen == [None] * 30
    assert only(service, Artifact)["state"] == "stored"


def test_a_stored_file_can_be_read_again_without_being_fetched(service: Service, files: Files) -> None:
    files.has["/a"] = [{"annotations": [BOX] * 3}]
    receive_callback(service, video(files, "/a", type="videoboxannotation"))
    run_job(service, claim(service))
    with service.engine.begin() as connection:
        connection.execute(Annotation.__table__.delete())
        retry(connection, only(service, Artifact)["id"], "ana")
    run_job(service, claim(service))
    assert len(table(service, Annotation)) == only(service, Response)["annotation_count"] == 3
    assert files.requests == ["/a"]


def test_retrying_a_file_that_is_not_known_is_an_error(service: Service) -> None:
    with service.engine.begin() as connection, pytest.raises(LookupError):
        retry(connection, UUID(int=1), "ana")


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


# Several roles with one URL.


def events_and_annotations(files: Files) -> bytes:
    url = {"url": files.url("/both")}
    return callback({"annotations": url, "events": url}, type="videoplaybackannotation")


BOTH = {
    "annotations": {"u1": {"label": "car", "geometry": "box", "frames": [{"key": 1, **BOX}]}},
    "events": [{"label": "turns", "type": "point", "start": 3}],
}


def test_an_address_that_a_response_names_twice_is_fetched_once(service: Service, files: Files) -> None:
    files.has["/both"] = reply(BOTH)
    receive_callback(service, events_and_annotations(files))
    assert job_kinds(service).count(kinds.FETCH) == 1
    run_due_jobs(service)
    assert files.requests == ["/both"]
    stored = table(service, Artifact)
    assert {row["role"]: row["state"] for row in stored} == {"annotations": "stored", "events": "stored"}
    assert len({row["sha256"] for row in stored}) == 1
    assert kinds.FETCH not in job_kinds(service)


def test_files_with_one_address_fail_together_and_arrive_together(service: Service, files: Files) -> None:
    files.has["/both"] = reply(b"", 302, Location="http://127.0.0.1:1/elsewhere")
    receive_callback(service, events_and_annotations(files))
    run_due_jobs(service)
    failed = table(service, Artifact)
    assert [row["state"] for row in failed] == ["failed", "failed"]
    assert len({row["reason"] for row in failed}) == 1
    assert files.requests == ["/both"]
    files.has["/both"] = reply(BOTH)
    with service.engine.begin() as connection:
        retry(connection, failed[0]["id"], "ana")
    run_due_jobs(service)
    assert [row["state"] for row in table(service, Artifact)] == ["stored", "stored"]
    assert files.requests == ["/both", "/both"]


def test_a_file_that_one_role_cannot_read_is_still_read_by_the_other(service: Service, files: Files) -> None:
    files.has["/both"] = reply([{"label": "turns", "type": "point", "start": 3}])
    receive_callback(service, events_and_annotations(files))
    run_due_jobs(service)
    assert files.requests == ["/both"]
    assert {row["role"]: row["state"] for row in table(service, Artifact)}["events"] == "stored"
