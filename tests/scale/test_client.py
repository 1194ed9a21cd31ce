import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from scale import client as scale_client
from scale.client import (
    Client,
    Conflict,
    PermanentError,
    ScaleError,
    Throttled,
    TimedOut,
    TransientError,
    Unauthorized,
)
from tests.fake_server import Answer, FakeServer, ReceivedRequest, reply

TASK = {"task_id": "5774cc78b01249ab09f089dd", "type": "annotation", "status": "pending"}


def scale(answer: Callable[[ReceivedRequest], Answer], **timeouts: float) -> tuple[FakeServer, Client]:
    peer = FakeServer(answer)
    return peer, Client(peer.url + "/v1", "test_key|test", **timeouts)


def refused(status: int, body: Any, **headers: str) -> ScaleError:
    peer, client = scale(lambda asked: reply(body, status, **headers))
    with peer, pytest.raises(ScaleError) as caught:
        client.create_task("annotation", {})
    return caught.value


@pytest.mark.parametrize(
    ("call", "method", "target", "body"),
    [
        (lambda c: c.create_task("annotation", {"a": 1}), "POST", "/v1/task/annotation", {"a": 1}),
        (lambda c: c.get_task("576c"), "GET", "/v1/task/576c", None),
        (lambda c: c.cancel_task("576c"), "POST", "/v1/task/576c/cancel", None),
        (lambda c: c.cancel_task("576c", True), "POST", "/v1/task/576c/cancel?clear_unique_id=true", None),
        (lambda c: c.set_unique_id("576c", "a&b"), "POST", "/v1/task/576c/unique_id", {"unique_id": "a&b"}),
        (lambda c: c.clear_unique_id("576c"), "DELETE", "/v1/task/576c/unique_id", None),
        (lambda c: c.set_tags("576c", ["x"]), "POST", "/v1/task/576c/tags", ["x"]),
        (lambda c: c.add_tags("576c", ["x"]), "PUT", "/v1/task/576c/tags", ["x"]),
        (lambda c: c.remove_tags("576c", ["x"]), "DELETE", "/v1/task/576c/tags", ["x"]),
        (lambda c: c.set_metadata("576c", {}), "POST", "/v1/task/576c/setMetadata", {}),
        (
            lambda c: c.audit("576c", False, "no"),
            "POST",
            "/v1/task/576c/audit",
            {"accepted": False, "comments": "no"},
        ),
        (lambda c: c.resend_callback("576c"), "POST", "/v1/task/576c/send_callback", None),
        (
            lambda c: c.create_project("p", "annotation"),
            "POST",
            "/v1/projects",
            {"name": "p", "type": "annotation", "params": None},
        ),
        (lambda c: c.get_project("städte/nord 1"), "GET", "/v1/projects/st%C3%A4dte%2Fnord%201", None),
        (
            lambda c: c.set_project_params("p", {"instruction": "x"}, patch=True),
            "POST",
            "/v1/projects/p/setParams",
            {"instruction": "x", "patch": True},
        ),
        (lambda c: c.create_batch("p", "b"), "POST", "/v1/batches", {"project": "p", "name": "b"}),
        (lambda c: c.get_batch("b?x#y"), "GET", "/v1/batches/b%3Fx%23y", None),
        (lambda c: c.batch_status("b"), "GET", "/v1/batches/b/status", None),
        (lambda c: c.finalize_batch("b"), "POST", "/v1/batches/b/finalize", None),
        (lambda c: c.set_batch_metadata("b", {"k": 1}), "POST", "/v1/batches/b/setMetadata", {"k": 1}),
    ],
)
def test_each_call_asks_what_scale_documents(
    call: Callable[[Client], Any], method: str, target: str, body: Any
) -> None:
    peer, client = scale(lambda asked: reply(TASK))
    with peer:
        assert call(client) == TASK
    (asked,) = peer.requests
    assert (asked.method, asked.target) == (method, target)
    assert (asked.json if asked.body else None) == body


def test_the_key_is_the_user_name_and_the_password_is_empty() -> None:
    peer, client = scale(lambda asked: reply(TASK))
    with peer:
        client.get_task("576c")
    assert (
        base64.b64decode(peer.requests[0].headers["authorization"].removeprefix("Basic "))
        == b"test_key|test:"
    )
    assert "test_key" not in repr(client)


@pytest.mark.parametrize("task_id", ["", " ", ".", "..", "a\nb", "\ud800", "x" * 2000])
def test_what_can_not_be_an_id_is_refused_before_anything_is_sent(task_id: str) -> None:
    peer, client = scale(lambda asked: reply(TASK))
    with peer, pytest.raises(PermanentError):
        client.get_task(task_id)
    assert peer.requests == []


def test_an_id_can_not_leave_its_place_in_the_path() -> None:
    peer, client = scale(lambda asked: reply(TASK))
    with peer:
        client.get_task("../tasks?limit=1#")
    assert peer.requests[0].target == "/v1/task/..%2Ftasks%3Flimit%3D1%23"


def test_filters_go_out_as_scale_takes_them() -> None:
    peer, client = scale(lambda asked: reply({"docs": []}))
    with peer:
        client.list_tasks(
            unique_id=["a&b", "c"],
            customer_review_status=["accepted", "fixed"],
            updated_after=datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2))),
            include_attachment_url=True,
            project=None,
            limit=10,
        )
    assert peer.requests[0].query == {
        "unique_id": ["a&b", "c"],
        "customer_review_status": ["accepted,fixed"],
        "updated_after": ["2026-01-31T10:00:00Z"],
        "include_attachment_url": ["True"],
        "limit": ["10"],
    }


@pytest.mark.parametrize("old", [False, True])
def test_a_list_is_read_to_its_end_by_token_and_by_the_old_offset(old: bool) -> None:
    tasks = [{"task_id": str(n)} for n in range(7)]

    def answer(asked: ReceivedRequest) -> bytes:
        at = int((asked.query.get("offset" if old else "next_token") or ["0"])[0])
        page: dict[str, Any] = {"docs": tasks[at : at + 3], "has_more": at + 3 < 7, "limit": 3}
        page |= {"offset": at} if old else {"next_token": str(at + 3)}
        return reply(page)

    peer, client = scale(answer)
    with peer:
        assert list(client.iter_tasks(project="p", limit=3)) == tasks
        assert [len(page["docs"]) for page in client.iter_task_pages(limit=3)] == [3, 3, 1]
    assert all(asked.query["project"] == ["p"] for asked in peer.requests[:3])


def test_a_list_that_never_goes_on_ends_in_an_error_and_not_in_a_loop() -> None:
    peer, client = scale(lambda asked: reply({"docs": [TASK], "has_more": True, "next_token": "same"}))
    with peer, pytest.raises(TransientError, match="does not go on"):
        list(client.iter_tasks())


def test_a_task_is_found_by_its_unique_id_also_where_the_filter_is_ignored() -> None:
    tasks = [{"task_id": "1", "unique_id": "other"}, {"task_id": "2", "unique_id": "mine"}]
    peer, client = scale(lambda asked: reply({"docs": tasks}))
    with peer:
        assert client.task_by_unique_id("mine") == tasks[1]
        assert client.task_by_unique_id("nobody's") is None


def test_projects_are_a_bare_list() -> None:
    peer, client = scale(lambda asked: reply([{"name": "p"}]))
    with peer:
        assert client.list_projects() == [{"name": "p"}]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, TransientError),
        (400, PermanentError),
        (401, Unauthorized),
        (402, PermanentError),
        (403, Unauthorized),
        (404, PermanentError),
        (408, TransientError),
        (409, Conflict),
        (422, PermanentError),
        (429, Throttled),
        (500, TransientError),
        (503, TransientError),
        (504, TransientError),
    ],
)
def test_each_refusal_is_an_exception_with_scales_words(status: int, kind: type[ScaleError]) -> None:
    body = {"status_code": status, "error": 'Parameter is invalid, reason: "attachments" is required'}
    error = refused(status, body, Location="/elsewhere")
    assert type(error) is kind
    assert error.status == status
    assert error.body == body
    assert str(error) == error.message == body["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "Project not found"}, "Project not found"),
        ({"error": {"message": "inner", "code": 7}}, "inner"),
        ({"error": None}, "Scale answered 404 Reason"),
        ([1], "Scale answered 404 Reason"),
        (b"plain words", "plain words"),
        (b"<html><body>nginx</body></html>", "Scale answered 404 Reason"),
        (b"", "Scale answered 404 Reason"),
        (b"[" * 100_000, "[" * 300),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_a_refusal_in_any_form_says_something(body: Any, message: str) -> None:
    error = refused(404, body)
    assert type(error) is PermanentError
    assert error.message == message


@pytest.mark.parametrize(
    ("text", "task_id"),
    [
        (
            'The unique_id ("s3://bucket/file.png") is already used for a different task (602c399c6d092c00115aa3c9).',
            "602c399c6d092c00115aa3c9",
        ),
        (
            'The unique_id ("different task (abc)") is already used for a different task (602c399c6d092c00115aa3c9).',
            "602c399c6d092c00115aa3c9",
        ),
        ("A project with that name exists", None),
    ],
)
def test_a_conflict_names_the_task_that_has_the_unique_id(text: str, task_id: str | None) -> None:
    error = refused(409, {"status_code": 409, "error": text})
    assert isinstance(error, Conflict)
    assert error.existing_task_id == task_id


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert refused(429, {}, Retry_After="7").retry_after == 7
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert refused(429, {}, Retry_After=in_a_minute).retry_after == pytest.approx(60, abs=3)
    assert refused(503, {}, Retry_After="Mon, 01 Jan 2024 00:00:00 GMT").retry_after == 0
    assert refused(429, {}, Retry_After="soon").retry_after is None
    assert refused(429, {}).retry_after is None


def test_a_completed_task_can_not_be_canceled_whether_scale_says_400_or_500() -> None:
    words = {"error": "The task was already completed and cannot be canceled."}
    for status in (400, 500):
        peer, client = scale(lambda asked, status=status: reply(words, status))
        with peer, pytest.raises(PermanentError, match="already completed"):
            client.cancel_task("576c")


@pytest.mark.parametrize(
    "body", [b"OK", b"", b"<html>", b"[]", b"{}", b'{"task_id": 5}', b"null", b"[" * 100_000]
)
def test_a_200_that_is_no_task_is_transient(body: bytes) -> None:
    error = refused(200, body)
    assert type(error) is TransientError
    assert error.status == 200


def test_a_body_that_is_no_json_is_refused_for_good() -> None:
    peer, client = scale(lambda asked: reply(TASK))
    with peer:
        for body in ({"a": float("nan")}, {"a": object()}):
            with pytest.raises(PermanentError, match="JSON"):
                client.create_task("annotation", body)
        with pytest.raises(PermanentError):
            client.list_tasks(project="\ud800")
    assert peer.requests == []


def test_no_post_is_ever_repeated() -> None:
    def resets(asked: ReceivedRequest) -> bytes:
        raise ConnectionResetError

    for answer in (
        lambda asked: reply({"error": "x"}, 500),
        lambda asked: reply({}, 503),
        resets,
        lambda asked: b"",
    ):
        peer, client = scale(answer, read_timeout=0.3)
        with peer, pytest.raises(TransientError):
            client.create_task("annotation", {})
        assert len(peer.requests) == 1


def test_a_redirect_is_not_followed() -> None:
    def answer(asked: ReceivedRequest) -> Iterator[bytes]:
        yield b"HTTP/1.1 302 Found\r\nLocation: /v1/task/other\r\n\r\n"
        for _ in range(64):
            yield b"x" * 1024

    peer, client = scale(answer)
    with peer, pytest.raises(TransientError):
        client.create_task("annotation", {})
    assert len(peer.requests) == 1


def test_a_silent_server_is_left_after_the_read_timeout() -> None:
    def answer(asked: ReceivedRequest) -> Iterator[bytes]:
        peer.wait(5)
        yield b""

    peer, client = scale(answer, read_timeout=0.3)
    with peer, pytest.raises(TransientError, match="in time"):
        client.get_task("576c")


@pytest.mark.parametrize(
    "head",
    [
        b"",  # the status line itself comes drop by drop
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
    ],
)
def test_a_server_that_drips_is_left_after_the_total_timeout(head: bytes) -> None:
    def answer(asked: ReceivedRequest) -> Iterator[bytes]:
        yield head
        while not peer.wait(0.05):
            yield b"1"

    peer, client = scale(answer, read_timeout=30, total_timeout=0.5)
    with peer, pytest.raises(TransientError, match="in time"):
        client.get_task("576c")


def test_an_answer_cut_short_is_transient() -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n{"
    peer, client = scale(lambda asked: cut)
    with peer, pytest.raises(TransientError):
        client.get_task("576c")


def test_an_answer_larger_than_the_bound_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_client, "MAX_ANSWER_BYTES", 100_000)
    peer, client = scale(lambda asked: reply(b"1" * 200_000))
    with peer, pytest.raises(PermanentError, match="100,000 bytes"):
        client.get_task("576c")


def test_nobody_listening_is_transient() -> None:
    peer, client = scale(lambda asked: reply(TASK))
    with peer:
        pass
    with pytest.raises(TransientError):
        client.get_task("576c")


@pytest.mark.parametrize("address", ["", "api.scale.com/v1", "ftp://api.scale.com", "https://"])
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Client(address, "key")


def test_threads_share_a_client_and_each_keeps_its_connection() -> None:
    peer, client = scale(lambda asked: reply({**TASK, "task_id": asked.path.rsplit("/", 1)[1]}))
    wrong = []

    def ask(thread: int) -> None:
        for n in range(20):
            task_id = f"{thread}-{n}"
            if client.get_task(task_id)["task_id"] != task_id:
                wrong.append(task_id)

    with peer:
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(peer.requests) == 160
    assert peer.connections == 8


def test_a_forked_child_opens_its_own_connection() -> None:
    peer, client = scale(lambda asked: reply(TASK))
    with peer:
        client.get_task("parent")
        child = os.fork()
        if child == 0:
            os._exit(0 if client.get_task("child") == TASK else 1)
        assert os.waitpid(child, 0)[1] == 0
        client.get_task("parent")
    assert peer.connections == 2


def test_no_error_shows_the_key() -> None:
    peer, client = scale(lambda asked: reply(b"", 500), read_timeout=0.3)
    with peer, pytest.raises(ScaleError) as caught:
        client.get_task("576c")
    assert "test_key" not in f"{caught.value!r} {json.dumps(caught.value.body)}"


def test_a_slow_list_is_read_with_longer_time_outs_and_smaller_pages() -> None:
    """A page of 100 takes longer than the time-out, one of 25 does not; the next page begins with what worked."""
    limits: list[int] = []

    def answer(asked: ReceivedRequest) -> bytes:
        limit = int(asked.query.get("limit", ["100"])[0])
        limits.append(limit)
        if limit > 25:
            peer.wait(2)
        more = len(limits) < 4
        page = {"docs": [{"task_id": str(len(limits))}], "total": 2, "limit": limit, "has_more": more}
        return reply({**page, "next_token": "t"} if more else page)

    with FakeServer(answer) as peer:
        impatient = Client(peer.url, "key", read_timeout=0.2, total_timeout=5)
        assert len(list(impatient.iter_task_pages())) == 2
    assert limits == [100, 50, 25, 25]


def test_a_list_that_never_answers_ends() -> None:
    with FakeServer(lambda _: _never(peer)) as peer, pytest.raises(TimedOut):
        next(Client(peer.url, "key", read_timeout=0.05, total_timeout=5).iter_task_pages())
    assert [one.query.get("limit", ["100"])[0] for one in peer.requests] == ["100", "50", "25", "12", "6"]


def _never(peer: FakeServer) -> bytes:
    peer.wait(3)
    return b""


def test_a_server_that_is_away_or_fails_is_not_called_with_patience() -> None:
    with FakeServer(lambda _: reply({"error": "no"}, 503)) as peer, pytest.raises(TransientError):
        next(Client(peer.url, "key").iter_task_pages())
    assert len(peer.requests) == 1
