"""Attacks with many or slow result files: one result may neither fill the queue nor hold the workers of the others."""

import io
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import delete

from models import Artifact, Job
from pipeline.artifacts import extract
from pipeline.follow_ups.request_files import RequestFileError, crop_image
from pipeline.http import download
from pipeline.http.client import Unreachable
from pipeline.jobs import kinds, queue, queues
from pipeline.service import Service
from scale.task_types import parse_response
from tests.assertions import table
from tests.factories.callbacks import callback, receive_callback
from tests.factories.pictures import step
from tests.factories.pipelines import Pipeline
from tests.fake_server import FakeServer, ReceivedRequest, reply
from workers.runner import max_running, next_job, run_due_jobs

BOX = {"type": "box", "label": "car", "left": 1, "top": 2, "width": 3, "height": 4}


def labeled(urls: list[str]) -> dict[str, Any]:
    return {"annotations": {"labeled": {"c": urls}}, "labelMapping": {"c": [{"index": 1}]}}


def roles(response: dict[str, Any]) -> list[tuple[str, str]]:
    parsed = parse_response("segmentannotation", response, None)
    return [(artifact.role, artifact.url) for artifact in parsed.artifacts]


# Many files.


def test_text_that_is_no_url_makes_no_file() -> None:
    response = labeled(["x"] * 1_000 + ["file:///etc/passwd", "s3://bucket/x", "https://files.example/1"])
    assert roles(response) == [("labeled:c:1002", "https://files.example/1")]
    assert parse_response("segmentannotation", response, None).answer is not None


@pytest.mark.parametrize(
    "text", ["x", "file:///etc/passwd", "ftp://files.example/x", "//files.example/x", "javascript:1", ""]
)
def test_only_a_http_url_is_a_file_for_any_task_type(text: str) -> None:
    for task_type in ("videoannotation", "lidarannotation", "segmentannotation", "nosuchtype"):
        response = {"annotations": {"url": text}, "events": {"url": text}}
        assert parse_response(task_type, response, None).artifacts == []


def test_one_url_many_times_is_one_file() -> None:
    assert len(roles(labeled(["https://files.example/x"] * 5_000))) == 1


def test_one_url_in_several_roles_is_fetched_once(
    open_service: Callable[..., Service],
) -> None:
    with FakeServer(lambda _: reply([{"annotations": [BOX]}])) as server:
        service = open_service(artifact_hosts=(server.url.removeprefix("http://"),))
        url = f"{server.url}/x"
        response = {"annotations": {"url": url}, "other": {"url": url}, "third": {"url": url}}
        receive_callback(service, callback(response, type="videoannotation"))
        run_due_jobs(service)
        assert Counter(row["state"] for row in table(service, Artifact)) == {"stored": 3}
        assert len({row["sha256"] for row in table(service, Artifact)}) == 1
        assert len(server.requests) == 1


def test_label_images_are_loaded_for_comparison_once_however_many_fail(
    open_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of rows that are read for the comparison grows with the files, not with their square."""
    service = open_service(artifact_hosts=("files.example",))
    urls = [f"http://127.0.0.1:1/{number}" for number in range(20)]
    receive_callback(service, callback(labeled(urls), type="segmentannotation"))
    loaded: list[Any] = []
    mask_rows = extract.mask_rows
    monkeypatch.setattr(extract, "mask_rows", lambda *given: loaded.append(given) or mask_rows(*given))
    while any(row["state"] == "ready" for row in table(service, Job)):
        run_due_jobs(service)
    assert {row["state"] for row in table(service, Artifact)} == {"failed"}
    assert len(loaded) == 1


def test_the_jobs_of_many_files_do_not_delay_those_of_others(open_service: Callable[..., Service]) -> None:
    """A result with 200 files is received before an honest one: the honest one's planning is claimed first."""
    service = open_service(artifact_hosts=("files.example",))
    many = labeled([f"https://files.example/{number}" for number in range(200)])
    receive_callback(service, callback(many, type="segmentannotation"))
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PLAN, ["honest"])
        queue.enqueue(connection, kinds.CREATE, ["honest"], queue="live")
    first = next_job(service)
    assert (first and first.kind) == kinds.PLAN
    second = next_job(service)
    assert (second and second.kind) == kinds.CREATE
    third = next_job(service, after=second)
    assert (third and third.kind) == kinds.FETCH


# Slow files.


def slow_server() -> FakeServer:
    """Sends a file at one byte each fifth of a second."""

    def slowly(_: ReceivedRequest) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        while not server.wait(0.2):
            yield b" "

    server = FakeServer(slowly)
    return server


def test_a_file_slower_than_the_minimum_rate_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RATE_WINDOW_SECONDS", 1.0)

    class Sink:
        def write(self, chunk: bytes, /) -> None:
            pass

    with slow_server() as server:
        limits = {"hosts": [server.url.removeprefix("http://")], "max_bytes": 200_000, "max_seconds": 60}
        with pytest.raises(Unreachable, match="sends less than 1,024 bytes a second"):
            download.fetch(f"{server.url}/x", sink=Sink(), **limits)


@pytest.mark.parametrize(("places", "most"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (16, 12)])
def test_long_jobs_leave_places_to_other_jobs(
    open_service: Callable[..., Service], places: int, most: int
) -> None:
    assert max_running(open_service(worker_concurrency=places)) == most


@pytest.mark.parametrize(("kind", "name"), [(kinds.FETCH, queues.FETCH), (kinds.PARSE, queues.PARSE)])
def test_no_more_long_jobs_run_than_their_bound_however_many_workers_claim(
    open_service: Callable[..., Service], kind: str, name: str
) -> None:
    service = open_service(worker_concurrency=4)
    with service.engine.begin() as connection:
        queue.enqueue(connection, kind, [str(number) for number in range(50)])
    claimed: list[Any] = []

    def claim() -> None:
        for _ in range(5):
            if (job := queue.claim_bounded(service.engine, 60, name, max_running(service))) is not None:
                claimed.append(job)

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 3
    with service.engine.begin() as connection:
        queue.finish(connection, claimed[0])
    assert queue.claim_bounded(service.engine, 60, name, 3) is not None
    assert queue.claim_bounded(service.engine, 60, name, 3) is None


def test_a_message_that_names_a_fetch_runs_another_job_while_fetches_are_at_their_bound(
    open_service: Callable[..., Service],
) -> None:
    service = open_service(worker_concurrency=2)
    with service.engine.begin() as connection:
        fetches = queue.enqueue(connection, kinds.FETCH, ["00000000-0000-0000-0000-000000000001", "b"])
        queue.enqueue(connection, kinds.PLAN, ["unknown"])
    assert queue.claim_bounded(service.engine, 60, queues.FETCH, 1) is not None
    run_due_jobs(service, fetches[1])
    left = [(row["kind"], row["state"]) for row in table(service, Job)]
    assert sorted(left) == [("fetch", "ready"), ("fetch", "running")]


@contextmanager
def four_workers(service: Service) -> Iterator[None]:
    """Four worker places that run whatever is due."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            run_due_jobs(service)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        with service.engine.begin() as connection:  # so that each worker ends after its current job
            connection.execute(delete(Job).where(Job.state == "ready"))
    for thread in threads:
        thread.join()


def is_planned_while_three_wait(service: Service, server: FakeServer) -> None:
    """Wait until three downloads run and an honest task is planned along with them."""
    _wait(lambda: len(server.requests) == 3)
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PLAN, ["honest"])
    _wait(lambda: not any(row["kind"] == kinds.PLAN for row in table(service, Job)))
    assert len(server.requests) == 3


def test_twelve_slow_files_do_not_hold_up_others_follow_ups(open_service: Callable[..., Service]) -> None:
    """Twelve result files at a few bytes a second; an honest task is planned at once."""
    server = slow_server()
    service = open_service(artifact_hosts=(f"127.0.0.1:{server.port}",), worker_concurrency=4)
    for number in range(12):
        response = {"annotations": {"url": f"{server.url}/{number}"}}
        task_id = f"5f1e9b00000000000000a{number:03}"
        receive_callback(service, callback(response, type="videoannotation", task_id=task_id))
    with four_workers(service), server:
        is_planned_while_three_wait(service, server)


@pytest.mark.parametrize("keys", [{"crop": {"padding": 5}}, {"mirror": ["attachment"]}])
def test_twelve_slow_attachments_do_not_hold_up_others_follow_ups(
    open_pipeline: Callable[..., Pipeline], keys: dict[str, Any]
) -> None:
    """The same for the attachments that requests cut or copy: the host is one that the operator trusts, and slow."""
    server = slow_server()
    chain = open_pipeline(attachment_hosts=(f"127.0.0.1:{server.port}",), worker_concurrency=4)
    chain.workflow({"each": step(for_each="annotation", **keys)})
    for number in range(12):
        body = callback(
            {"annotations": [BOX]},
            params={"attachment": f"{server.url}/{number}.png"},
            task_id=f"5f1e9b00000000000000a{number:03}",
        )
        receive_callback(chain.service, body)
    with four_workers(chain.service), server:
        is_planned_while_three_wait(chain.service, server)


def test_an_export_waits_in_the_queue_of_downloads(open_service: Callable[..., Service]) -> None:
    """It runs for minutes and may fetch images."""
    service = open_service()
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.EXPORT, ["00000000-0000-0000-0000-000000000001"])
    assert [row["queue"] for row in table(service, Job)] == [queues.FETCH]


def _wait(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Images.


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def icon_of_a_large_image() -> bytes:
    """An ICO whose directory says 16 × 16, around a PNG of 20,000 × 20,000 pixels."""
    content = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(content, "PNG")
    png = content.getvalue()
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


@pytest.mark.parametrize("content", [eps, icon_of_a_large_image])
def test_an_image_of_a_dangerous_format_is_not_decoded(
    content: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(RequestFileError, match="cannot be read"):
        crop_image(io.BytesIO(content()), (0, 0, 10, 10))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_images_of_common_formats_are_cropped(form: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (30, 20)).save(content, form)
    cropped, _ = crop_image(content, (0, 0, 10, 10))
    assert Image.open(io.BytesIO(cropped)).size == (10, 10)


def test_only_one_function_opens_images_from_outside() -> None:
    """Every other use of Image.open names its formats."""
    root = Path(__file__).parents[2]
    rooms = ("app", "exports", "pipeline", "sandbox", "scale", "workers", "workflows")
    opened = [
        line
        for room in rooms
        for path in (root / room).rglob("*.py")
        for line in path.read_text().splitlines()
        if "Image.open(" in line and "formats=" not in line
    ]
    assert opened == []
