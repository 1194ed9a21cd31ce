"""The callback endpoint: authentication, limits and answers, on SQLite and PostgreSQL."""

import io
import json
import socket
import sqlite3
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, text
from sqlalchemy.exc import TimeoutError as QueuePoolTimeout

from app.application import create_app
from config import load_settings
from models import Annotation, Delivery, DeliveryBody, Response, Task
from scale import task_types
from scale.task_types import task_type
from tests.servers import OwnPostgres, wait_until
from tests.service import Service

PAYLOADS = Path(__file__).parent.parent / "payloads"
LIVE, TEST = "live_key", "test_key"
Post = Callable[..., Any]


def make_app(database_url: str, tmp_path: Path, **environment: str) -> Flask:
    settings = load_settings(
        {
            **environment,
            "DATABASE_URL": database_url,
            "SCALE_LIVE_CALLBACK_KEYS": f"{LIVE}, newer_live_key",
            "SCALE_TEST_CALLBACK_KEYS": TEST,
            "SECRET_KEY": "secret",
            "ARTIFACT_STORE": str(tmp_path / "artifacts"),
            "MAX_CALLBACK_BYTES": "200000",
            "INLINE_CALLBACK_BYTES": "100000",
        }
    )
    return create_app(settings)


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Flask:
    return make_app(database_url, tmp_path)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def post(client: FlaskClient) -> Post:
    def send(body: bytes | dict[str, Any], key: str | None = LIVE, **headers: str) -> Any:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"scale-callback-auth": key} if key is not None else {}
        return client.post("/callbacks/scale", data=sent, headers={**given, **headers})

    return send


def payload(name: str, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PAYLOADS / name).read_text())
    return found | changes


def count(app: Flask, table: Any) -> int:
    with app.extensions["weighbridge"].reader.begin() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def delivery(app: Flask, delivery_id: str) -> Any:
    with app.extensions["weighbridge"].reader.begin() as connection:
        of_body = DeliveryBody.delivery_id == Delivery.id
        statement = select(Delivery.__table__, DeliveryBody.body).join(DeliveryBody, of_body)
        return connection.execute(statement.where(Delivery.id == UUID(delivery_id))).one()


# Who gets in.


@pytest.mark.parametrize("header", ["scale-callback-auth", "Scale-Callback-Auth", "SCALE-CALLBACK-AUTH"])
@pytest.mark.parametrize("key", [LIVE, "newer_live_key"])
def test_each_key_of_a_rotation_opens_in_any_spelling_of_the_header(
    client: FlaskClient, header: str, key: str
) -> None:
    body = json.dumps(payload("annotation/boxes_of_2017.json"))
    answer = client.post("/callbacks/scale", data=body, headers={header: key})
    assert answer.status_code == 200


def test_the_test_key_makes_a_test_delivery(app: Flask, post: Post) -> None:
    answer = post(payload("annotation/boxes_of_2017.json"), TEST)
    assert delivery(app, answer.json["delivery_id"]).environment == "test"


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch"])
def test_only_post_is_a_callback(client: FlaskClient, method: str) -> None:
    assert getattr(client, method)("/callbacks/scale").status_code == 405


# What is taken.


def test_a_callback_is_visible_when_its_answer_arrives(app: Flask, post: Post) -> None:
    answer = post(payload("annotation/boxes_of_2017.json"))
    assert (answer.status_code, answer.json["status"]) == (200, "processed")
    expected = payload("annotation/boxes_of_2017.expected.json")
    assert count(app, Annotation) == len(expected["annotations"]) > 0
    assert (count(app, Task), count(app, Response)) == (1, 1)


def test_the_same_bytes_again_are_counted_and_change_nothing(app: Flask, post: Post) -> None:
    body = payload("annotation/boxes_of_2017.json")
    first = post(body)
    for _ in range(19):
        again = post(body)
        assert (again.status_code, again.json) == (
            200,
            {"delivery_id": first.json["delivery_id"], "status": "duplicate"},
        )
    kept = delivery(app, first.json["delivery_id"])
    assert (kept.duplicates, kept.last_received_at > kept.received_at) == (19, True)
    assert (count(app, Delivery), count(app, Response)) == (1, 1)


def test_fifty_duplicates_at_once_leave_one_response(app: Flask) -> None:
    body = json.dumps(payload("annotation/boxes_of_2017.json"))
    together, answers = threading.Barrier(50), []

    def send() -> None:
        together.wait()
        answers.append(
            app.test_client().post("/callbacks/scale", data=body, headers={"scale-callback-auth": LIVE})
        )

    threads = [threading.Thread(target=send) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert sum(answer.json["status"] == "processed" for answer in taken) == 1
    assert len({answer.json["delivery_id"] for answer in taken}) == 1
    assert (count(app, Delivery), count(app, Response), count(app, Task)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"not json", "not JSON"),
        (b"[]", "not an object"),
        (b'"text"', "not an object"),
        (b"{}", "no task_id"),
        (b'{"task_id": null, "response": {}}', "no task_id"),
        (b'{"error": "x", "attachments": []}', "no task_id"),
        (b'{"task_id": "a", "task": "x", "response": {"category": "y"}}', "its task is a string"),
        (b'{"task_id": "' + b"x" * 201 + b'"}', "200 characters"),
        (b"[" * 10_000 + b"]" * 10_000, "nested deeper"),
        (b'{"task_id":"a","response":' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b"}", "nested deeper"),
        (b"\x1f\x8b\x08\x00compressed", "not JSON"),
        ("{'größe': 1}".encode("latin-1"), "not JSON"),
    ],
)
def test_what_is_authentic_but_not_understood_is_kept_whole_with_the_reason(
    app: Flask, post: Post, body: bytes, reason: str
) -> None:
    answer = post(body)
    assert (answer.status_code, answer.json["status"]) == (200, "quarantined")
    kept = delivery(app, answer.json["delivery_id"])
    assert (kept.body, kept.status) == (body, "quarantined")
    assert reason in kept.reason
    assert count(app, Task) == 0


@pytest.mark.parametrize(
    "odd",
    [
        b'"a\\u0000b"',
        b'"\\ud800"',
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"9" * 400,
        b"123456789012345678901234567890",
        b'{"\\u0000": "\\udfff"}',
    ],
)
def test_odd_but_readable_values_are_taken(app: Flask, post: Post, odd: bytes) -> None:
    body = (
        b'{"task_id": "odd", "task": {"task_id": "odd", "type": "annotation", "status": "completed",'
        b' "metadata": {"odd": ' + odd + b'}}, "response": {"annotations": [{"left": 1, "top": 2, "width": 3,'
        b' "height": 4, "label": "a", "attributes": {"odd": ' + odd + b"}}]}}"
    )
    answer = post(body)
    assert (answer.status_code, answer.json["status"]) == (200, "processed")
    assert delivery(app, answer.json["delivery_id"]).body == body
    assert count(app, Annotation) == 1


def test_a_byte_order_mark_is_no_reason_to_refuse(post: Post) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(payload("annotation/boxes_of_2017.json")).encode()
    assert post(body).json["status"] in ("processed", "quarantined")


def test_a_very_long_label_project_and_batch_are_stored(app: Flask, post: Post) -> None:
    long = "ß" * 4_000
    body = payload("annotation/boxes_of_2017.json")
    body["response"]["annotations"][0]["label"] = long
    body["task"] |= {"project": long, "batch": long}
    assert post(body).json["status"] == "processed"
    with app.extensions["weighbridge"].reader.begin() as connection:
        assert connection.scalar(select(Task.project)) == long
        assert long in connection.scalars(select(Annotation.label)).all()


def test_a_task_type_whose_code_raises_is_quarantined_and_replayed_when_fixed(
    app: Flask, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.receive import replay as replay_module

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    with monkeypatch.context() as bug:
        boxes = task_type("annotation")
        bug.setitem(task_types._BY_NAME, "annotation", replace(boxes, parse=broken))
        answer = post(payload("annotation/boxes_of_2017.json"))
    assert (answer.status_code, answer.json["status"]) == (200, "quarantined")
    kept = delivery(app, answer.json["delivery_id"])
    assert "ZeroDivisionError: a bug of ours" in kept.reason
    assert (count(app, Task), count(app, Response)) == (0, 0)

    replay = replay_module.replay(app.extensions["weighbridge"], kept.id, "ana")
    assert replay.changed["delivery"] == ("quarantined", "processed")
    assert delivery(app, answer.json["delivery_id"]).reason is None
    assert (count(app, Task), count(app, Response)) == (1, 1)


def test_a_large_body_is_stored_and_left_to_the_worker(app: Flask, post: Post) -> None:
    from pipeline.jobs import queue
    from workers.runner import run_job

    body = payload("annotation/boxes_of_2017.json")
    body["response"]["annotations"] = [
        {"left": n, "top": 1, "width": 2, "height": 3, "label": "car"} for n in range(2_000)
    ]
    body["task"].pop("response", None)
    answer = post(body)
    assert (answer.status_code, answer.json["status"]) == (200, "stored")
    assert count(app, Task) == 0
    assert post(body).json == {"delivery_id": answer.json["delivery_id"], "status": "duplicate"}

    service = app.extensions["weighbridge"]
    job = queue.claim(service.engine, 60)
    assert job is not None
    run_job(service, job)
    assert delivery(app, answer.json["delivery_id"]).status == "processed"
    assert count(app, Annotation) == 2_000


def test_a_body_that_names_only_a_batch_updates_the_batch(app: Flask, post: Post) -> None:
    answer = post({"batch": "spring", "status": "completed"})
    assert answer.json["status"] == "processed"
    with app.extensions["weighbridge"].reader.begin() as connection:
        assert connection.execute(text("SELECT name, status, environment FROM batches")).one() == (
            "spring",
            "completed",
            "live",
        )


def test_a_callback_url_with_a_slash_at_its_end_is_the_same(client: FlaskClient) -> None:
    body = json.dumps(payload("annotation/boxes_of_2017.json"))
    answer = client.post("/callbacks/scale/", data=body, headers={"scale-callback-auth": LIVE})
    assert (answer.status_code, answer.json and answer.json["status"]) == (200, "processed")


# A failure of ours: Scale has to send the callback again.


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        RecursionError(),
        UnicodeError("no"),
        TimeoutError(),
        QueuePoolTimeout("no connection"),
        KeyError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_whatever_keeps_a_delivery_from_being_written_is_answered_with_503(
    post: Post, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    body = payload("annotation/boxes_of_2017.json")
    with monkeypatch.context() as trouble:
        trouble.setattr("app.callbacks.receive", fail)
        answer = post(body)
    assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
    assert post(body).status_code == 200


def test_a_body_for_which_there_is_no_room_on_the_disk_is_answered_with_503(
    app: Flask, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"task_id": "large", "response": {"x": "' + b"x" * 150_000 + b'"}}'
    with monkeypatch.context() as trouble:
        trouble.setattr(tempfile, "tempdir", "/nowhere")
        answer = post(body)
    assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
    assert count(app, Delivery) == 0
    assert post(body).status_code == 200


def test_what_is_stored_is_acknowledged_although_nothing_can_be_dispatched(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_threads(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    app = make_app(sqlite_url, tmp_path, REDIS_URL="redis://127.0.0.1:9")
    body = json.dumps(payload("annotation/boxes_of_2017.json") | {"task": None})
    monkeypatch.setattr(threading.Thread, "start", no_more_threads)
    answer = app.test_client().post("/callbacks/scale", data=body, headers={"scale-callback-auth": LIVE})
    assert (answer.status_code, answer.json and answer.json["status"]) == (200, "processed")


def test_the_log_of_a_callback_that_could_not_be_kept_holds_nothing_of_its_body(
    app: Flask, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    with app.extensions["weighbridge"].engine.begin() as connection:
        connection.execute(text("DROP TABLE deliveries"))
    signed = {"annotations": {"indexedImage": "https://example.com/i.png?X-Amz-Signature=secret"}}
    assert post({"task_id": "a", "response": signed}).status_code == 503
    assert "could not store callback" in caplog.text
    assert "secret" not in caplog.text


# How much, and how fast.


class Unread(io.BytesIO):
    """A body that must not be read."""

    def read(self, size: int | None = -1) -> bytes:
        raise AssertionError("the body was read")


def test_a_declared_body_that_is_too_large_is_refused_unread(app: Flask, client: FlaskClient) -> None:
    answer = client.post(
        "/callbacks/scale",
        input_stream=Unread(b"x" * 200_001),
        headers={"scale-callback-auth": LIVE},
    )
    assert (answer.status_code, answer.headers["Connection"]) == (413, "close")
    assert "MAX_CALLBACK_BYTES" in answer.json["error"]
    assert count(app, Delivery) == 0


def test_a_locked_task_row_makes_the_delivery_wait_for_the_worker(postgres_url: str, tmp_path: Path) -> None:
    app = make_app(postgres_url, tmp_path)
    body = payload("annotation/boxes_of_2017.json")

    def send() -> Any:
        key = {"scale-callback-auth": LIVE}
        return app.test_client().post("/callbacks/scale", data=json.dumps(body), headers=key)

    send()
    with app.extensions["weighbridge"].engine.begin() as other:
        other.execute(select(Task.task_id).with_for_update())
        body["task"]["updated_at"] = "2031-01-01T00:00:00.000Z"
        answer = send()
    assert (answer.status_code, answer.json["status"]) == (200, "stored")
    assert delivery(app, answer.json["delivery_id"]).status == "stored"


def test_without_a_database_the_answer_is_503_and_with_it_back_the_retry_is_taken(
    service: Callable[..., Service], own_postgres: OwnPostgres
) -> None:
    from pipeline.db.migrations import migrate

    url = own_postgres.create_database("door")
    migrate(url.replace("postgresql://", "postgresql+psycopg://"))
    one = service(url, processes=("web",))
    body = json.dumps(payload("annotation/boxes_of_2017.json")).encode()
    own_postgres.kill()
    refused = one.post_callback(body)
    assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (503, True)
    own_postgres.start()
    wait_until(lambda: one.post_callback(body).status_code == 200, 20, "the retry is taken")


def test_a_database_that_takes_connections_and_says_nothing_is_given_up_for_all_callers_at_once(
    service: Callable[..., Service],
) -> None:
    body = json.dumps(payload("annotation/boxes_of_2017.json")).encode()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        web = service(f"postgresql://somebody:password@127.0.0.1:{port}/nothing", processes=("web",))
        with ThreadPoolExecutor(8) as senders:
            answers = list(senders.map(lambda _: web.post_callback(body, timeout=15).status_code, range(8)))
    assert set(answers) == {503}
    assert "password" not in web.processes["web"].log.read_text()


def raw(port: int, *pieces: bytes) -> bytes:
    """What the server answers to these bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        for piece in pieces:
            try:
                sock.sendall(piece)
            except OSError:
                break
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        return answer


@pytest.fixture
def web(service: Callable[..., Service], sqlite_url: str) -> Service:
    limits = {"MAX_CALLBACK_BYTES": "200000", "INLINE_CALLBACK_BYTES": "100000"}
    return service(sqlite_url, processes=("web",), env=limits)


def test_while_another_transaction_writes_for_long_callers_get_an_answer_and_readers_are_served(
    service: Callable[..., Service], sqlite_url: str
) -> None:
    web = service(sqlite_url, processes=("web",), env={"WEB_THREADS": "60"})
    body = json.dumps(payload("annotation/boxes_of_2017.json")).encode()
    web.post_callback(b"{}")

    def send(number: int) -> int:
        return web.post_callback(body + b" " * number, timeout=15).status_code

    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(20) as senders:
            answers = senders.map(send, range(20))
            time.sleep(1)
            assert len(web.api("/deliveries")["data"]) == 1
        other.execute("ROLLBACK")
    assert set(answers) == {503}
    assert web.post_callback(body).status_code == 200


HEAD = (
    b"POST /callbacks/scale HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"scale-callback-auth: live_callback_key\r\nContent-Type: application/json\r\n"
)


def test_a_chunked_body_is_read_whole(web: Service) -> None:
    body = json.dumps(payload("annotation/boxes_of_2017.json")).encode()
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (body[n : n + 100] for n in range(0, len(body), 100))
    )
    answer = raw(web.web_port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"processed"' in answer


def test_a_chunked_body_that_is_too_large_is_refused(web: Service) -> None:
    chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    answer = raw(web.web_port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 30, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("size", [500, 150_000])
def test_a_body_that_is_cut_short_is_not_kept(web: Service, size: int) -> None:
    """The event loop collects a small body; a thread reads a large one."""
    whole = b'{"task_id": "cut"}'.ljust(size)
    with socket.create_connection(("127.0.0.1", web.web_port), timeout=30) as sock:
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % size + whole[:-1])
        sock.shutdown(socket.SHUT_WR)
        answer = sock.recv(65536)
    assert not answer or answer.startswith(b"HTTP/1.1 400")
    assert web.post_callback(whole[:-1]).json()["status"] != "duplicate"


def test_a_client_that_resets_after_sending_finds_its_delivery_once_when_it_sends_again(web: Service) -> None:
    whole = payload("annotation/boxes_of_2017.json")
    bodies = [json.dumps({**whole, "task": None, "task_id": f"reset-{n}"}).encode() for n in range(30)]
    for number, body in enumerate(bodies):
        sock = socket.create_connection(("127.0.0.1", web.web_port), timeout=30)
        sock.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(number % 3 * 0.003)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    answers = [web.post_callback(body).json() for body in bodies]
    assert {answer["status"] for answer in answers} <= {"processed", "duplicate"}
    kept = {one["id"]: one["duplicates"] for one in web.api("/deliveries")["data"]}
    assert kept.keys() == {answer["delivery_id"] for answer in answers}
    assert set(kept.values()) <= {0, 1}
    tasks = web.api("/tasks")["data"]
    assert sorted(task["response_count"] for task in tasks) == [1] * len(bodies)
