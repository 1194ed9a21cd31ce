"""The parts of the web worker that decide without a socket: requests as they arrive, answers, and shared counts."""

import socket
from collections.abc import Iterator

import pytest
from gunicorn.config import Config
from gunicorn.http.message import Request

import gunicorn_worker
from gunicorn_worker import (
    BufferedRequest,
    ClientSocket,
    RequestReader,
    SharedCounts,
)

HEAD = b"POST /callbacks/scale HTTP/1.1\r\nHost: w\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[ClientSocket, socket.socket]]:
    """A server's socket and its client's."""
    server, client = socket.socketpair()
    with ClientSocket(server) as wrapped, client:
        yield wrapped, client


@pytest.mark.parametrize(
    "body",
    [
        b"2e\r\n" + b"x" * 46 + b"\r\n0\r\n\r\n",
        b"2E;a=b\r\n" + b"x" * 46 + b"\r\n1\r\nx\r\n000;c\r\nX-Trailer: t\r\n\r\n",
        b"5\r\n\r\n0\r\n\r\n0\r\n\r\n",  # what looks like an end inside of a chunk
        b"0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
def test_a_chunked_request_is_complete_at_its_last_byte(body: bytes, piece: int) -> None:
    request, data = BufferedRequest(), CHUNKED + body
    for start in range(0, len(data) - 1, piece):
        request.feed(data[start : min(start + piece, len(data) - 1)])
    assert not request.is_complete_request
    request.feed(data[-1:])
    assert request.is_complete_request
    assert request.is_exact


@pytest.mark.parametrize("size", [b"xyz", b"-5", b"+5", b"1_0", b"", b" 5", b"0x5"])
def test_chunks_that_are_malformed_need_no_more_bytes(size: bytes) -> None:
    request = BufferedRequest()
    request.feed(CHUNKED + size + b"\r\n")
    assert request.is_complete_request
    assert not request.is_exact


@pytest.mark.parametrize("length", [b"abc", b"-1", b"+5", b"5 5", b"1" * 5000])
def test_a_length_that_is_no_number_needs_no_body(length: bytes) -> None:
    """gunicorn answers with 400."""
    request = BufferedRequest()
    request.feed(HEAD + b"Content-Length: " + length + b"\r\n\r\n")
    assert request.is_complete_request


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        (b"scale-callback-auth: k\r\n", "k"),
        (b"Scale-Callback-Auth:\t k \t\r\n", "k"),
        (b"scale-callback-auth: a\r\nSCALE-CALLBACK-AUTH: b\r\n", "a,b"),
        (b"scale-callback-auth: \xe9\r\n", "\xe9"),
        (b"scale-callback-auth:\r\n", ""),
        (b"scale-callback-auth : k\r\n", None),
        (b"scale_callback_auth: k\r\n", None),
        (b"", None),
    ],
)
def test_the_event_loop_reads_the_same_key_as_gunicorn(
    headers: bytes, key: str | None, pair: tuple[ClientSocket, socket.socket]
) -> None:
    request = BufferedRequest()
    request.feed(HEAD + headers + b"\r\n")
    assert request.head is not None
    assert request.head.key == key
    if b"auth :" not in headers:  # refused by gunicorn
        parsed = Request(Config(), RequestReader(pair[0], request, 0.0), ("127.0.0.1", 1))
        values = [value for name, value in parsed.headers if name == "SCALE-CALLBACK-AUTH"]
        assert (",".join(values) if values else None) == key


def test_headers_are_sent_with_the_first_bytes_of_the_body(
    pair: tuple[ClientSocket, socket.socket],
) -> None:
    server, client = pair
    server.holds_headers = True
    server.sendall(b"headers")
    server.sendall(b"body")
    assert client.recv(100) == b"headersbody"


def test_a_process_with_more_connections_leaves_new_ones_to_a_process_that_can_take_them() -> None:
    counts = SharedCounts(3)
    counts.report(0, 5, now=10.0)
    counts.report(1, 4, now=10.0)
    assert not counts.is_more_than_another(5, 10.0)  # a difference of one stays
    counts.report(1, 3, now=10.0)
    assert counts.is_more_than_another(5, 10.0)
    assert not counts.is_more_than_another(3, 10.0)
    counts.report(1, float("inf"), now=10.0)  # it accepts nothing
    assert not counts.is_more_than_another(5, 10.0)


def test_a_process_that_is_frozen_or_gone_is_left_nothing() -> None:
    counts = SharedCounts(2)
    counts.report(0, 9, now=10.0)
    counts.report(1, 0, now=10.0)
    assert counts.is_more_than_another(9, 11.9)
    assert not counts.is_more_than_another(9, 12.1)


class Clock:
    """Stands in for the module `time`: a sleep passes at once, and is noted."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def rests(
    pair: tuple[ClientSocket, socket.socket], clock: Clock, *, must_rest: bool, seconds_left: float
) -> list[float]:
    """How long a thread rests that works for 1 s on each of three pieces of a body."""
    server, client = pair
    request = BufferedRequest()
    request.feed(HEAD + b"Content-Length: 9\r\n\r\n")
    reader = RequestReader(server, request, clock.now + seconds_left, lambda: must_rest)
    reader.chunk()
    for piece in (b"one", b"two", b"six"):
        client.sendall(piece)
        assert reader.chunk() == piece
        clock.now += 1.0
    reader.rest()
    return clock.slept


@pytest.mark.parametrize(
    ("must_rest", "seconds_left", "expected"),
    [
        (True, 30.0, [2.0, 2.0, 2.0]),
        (False, 30.0, []),
        (True, 19.5, [2.0, 0.5]),  # the sender has a right to half of the time
        (True, 10.0, []),
    ],
)
def test_a_thread_rests_between_the_pieces_of_a_large_body_and_after_the_last(
    pair: tuple[ClientSocket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    must_rest: bool,
    seconds_left: float,
    expected: list[float],
) -> None:
    clock = Clock()
    monkeypatch.setattr(gunicorn_worker, "time", clock)
    assert rests(pair, clock, must_rest=must_rest, seconds_left=seconds_left) == expected


def test_an_answer_that_is_held_is_sent_after_the_rest(pair: tuple[ClientSocket, socket.socket]) -> None:
    server, client = pair
    client.setblocking(False)
    server.holds_answer = True
    server.sendall(b"answer")
    with pytest.raises(BlockingIOError):
        client.recv(100)
    server.flush()
    assert client.recv(100) == b"answer"


def test_callbacks_arrive_until_there_was_none_for_a_while() -> None:
    counts = SharedCounts(2)
    assert not counts.callbacks_arrive(10.0)
    counts.report_callback(10.0)
    assert counts.callbacks_arrive(10.4)
    assert not counts.callbacks_arrive(10.6)
