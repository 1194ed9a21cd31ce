"""The parts of the web worker that decide without a socket: requests as they arrive, and what their parsing costs."""

import http.client
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.message import Request

import gunicorn_worker
from gunicorn_worker import (
    ANSWER_BUFFER_BYTES,
    MAX_CHUNKS,
    MAX_HEAD_BYTES,
    Answer,
    BufferedRequest,
    ClientSocket,
    RequestReader,
    SharedCounts,
)

HEAD = b"POST /callbacks/scale HTTP/1.1\r\nHost: w\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class CountingBuffer(bytearray):
    """Counts the bytes that are added, copied or searched."""

    operations = 0

    def __iadd__(self, data: Any) -> "CountingBuffer":
        self.operations += len(data)
        return super().__iadd__(data)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.operations += len(found) if isinstance(key, slice) else 1
        return found

    def find(self, text: Any, start: Any = 0, end: Any = sys.maxsize) -> int:
        found = super().find(text, start, end)
        self.operations += max(0, (found if found >= 0 else min(len(self), end)) - start) + 1
        return found


class CountedRequest(BufferedRequest):
    buffer_type = CountingBuffer


def operations(data: bytes, piece: int) -> int:
    """How many bytes are touched when `data` arrives in pieces of `piece` bytes."""
    request = CountedRequest()
    for start in range(0, len(data), piece):
        request.feed(data[start : start + piece])
    assert isinstance(request.buffer, CountingBuffer)
    return request.buffer.operations


ARRIVALS: dict[str, Callable[[int], bytes]] = {
    "expect lines without an end": lambda n: HEAD + b"expect: 100-continue\r\na: b\r\n" * (n // 28),
    "empty headers": lambda n: HEAD + b"a:\r\n" * (n // 4),
    "line ends that are no line ends": lambda n: HEAD + b"\r" * n,
    "halves of an end": lambda n: HEAD + b"\r\n\r" * (n // 3),
    "one long header": lambda n: HEAD + b"X: " + b"x" * n,
    "a body of known length": lambda n: HEAD + b"Content-Length: 99999\r\n\r\n" + b"x" * n,
    "one large chunk": lambda n: CHUNKED + b"fffff\r\n" + b"x" * n,
    "chunks of one byte": lambda n: CHUNKED + b"1\r\nx\r\n" * (n // 6),
    "a chunk size without an end": lambda n: CHUNKED + b"0" * n,
    "chunk extensions": lambda n: CHUNKED + (b"1;" + b"e" * 500 + b"\r\nx\r\n") * (n // 507),
    "a trailer without an end": lambda n: CHUNKED + b"0\r\n" + b"a: b\r\n" * (n // 6),
    "halves of the end of a trailer": lambda n: CHUNKED + b"0\r\nX: " + b"\r\n\r" * (n // 3),
}


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize("arrival", ARRIVALS.values(), ids=ARRIVALS)
def test_twice_the_bytes_cost_at_most_twice_the_operations(
    arrival: Callable[[int], bytes], piece: int
) -> None:
    half, whole = arrival(14_000), arrival(28_000)
    assert operations(whole, piece) <= 2.1 * operations(half, piece)


@pytest.fixture
def pair() -> Iterator[tuple[ClientSocket, socket.socket]]:
    """A server's socket and its client's."""
    server, client = socket.socketpair()
    with ClientSocket(server) as wrapped, client:
        yield wrapped, client


def calls(function: Callable[[], object]) -> int:
    """How many functions, of Python or C, are called by `function`."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


PARSED: dict[str, Callable[[int], bytes]] = {
    "fields": lambda n: HEAD + b"".join(b"X-%d: y\r\n" % i for i in range(n // 10)) + b"\r\n",
    "long fields": lambda n: HEAD + (b"X: " + b"y" * n * 4 + b"\r\n") * 3 + b"\r\n",
    "chunks of one byte": lambda n: CHUNKED + b"1\r\nx\r\n" * n + b"0\r\n\r\n",
    "chunk extensions": lambda n: (
        CHUNKED + (b"1;" + b"e=e;" * 100 + b"e\r\nx\r\n") * (n // 10) + b"0\r\n\r\n"
    ),
    "a trailer": lambda n: (
        CHUNKED + b"0\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(n // 10)) + b"\r\n"
    ),
}


@pytest.mark.parametrize("message", PARSED.values(), ids=PARSED)
def test_gunicorns_parser_works_in_proportion_to_the_request(
    message: Callable[[int], bytes], pair: tuple[ClientSocket, socket.socket]
) -> None:
    def parse(data: bytes) -> None:
        request = BufferedRequest()
        request.feed(data)
        parsed = Request(Config(), RequestReader(pair[0], request, 0.0), ("127.0.0.1", 1))
        parsed.body.read()

    parse(message(100))  # what is made once is made
    assert calls(lambda: parse(message(900))) <= 2.2 * calls(lambda: parse(message(450)))


def test_gunicorns_parser_gets_the_head_in_one_piece_and_chunks_in_small_ones(
    pair: tuple[ClientSocket, socket.socket],
) -> None:
    """It copies what is left of a piece after each chunk, and searches all it has after each piece of a head."""
    head = HEAD + b"X: y\r\n" * 90 + b"Transfer-Encoding: chunked\r\n\r\n"
    request = BufferedRequest()
    request.feed(head + b"1\r\nx\r\n" * 100_000)
    reader = RequestReader(pair[0], request, 0.0)
    pieces = [reader.read()]
    while sum(map(len, pieces)) < len(request.buffer):
        pieces.append(reader.read())
    assert pieces[0] == head
    assert max(map(len, pieces[1:])) == gunicorn_worker.PARSER_CHUNK_BYTES
    assert b"".join(pieces) == request.buffer


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(HEAD + b"X: " + b"x" * MAX_HEAD_BYTES, id="no end"),
        pytest.param(HEAD + b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", id="too many bytes"),
        pytest.param(HEAD + b"X: y\r\n" * 101 + b"\r\n", id="too many fields"),
    ],
)
@pytest.mark.parametrize("piece", [1, 100_000])
def test_a_head_beyond_its_limits_is_too_large_however_it_is_cut(data: bytes, piece: int) -> None:
    request = BufferedRequest()
    for start in range(0, len(data), piece):
        request.feed(data[start : start + piece])
    assert request.is_head_too_large
    assert request.head is None


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


def receive_chunks(count: int, piece: int = 1_000_000) -> BufferedRequest:
    """A body of `count` chunks of one byte and the last chunk, as it arrives in pieces of `piece` bytes."""
    request, data = BufferedRequest(), CHUNKED + b"1\r\nx\r\n" * count + b"0\r\n\r\n"
    for start in range(0, len(data), piece):
        request.feed(data[start : start + piece])
    return request


@pytest.mark.parametrize("piece", [1, 1000, 1_000_000])
def test_a_body_of_too_many_chunks_is_known_as_one(piece: int) -> None:
    allowed = receive_chunks(MAX_CHUNKS - 1, piece)
    assert allowed.is_exact
    assert not allowed.has_too_many_chunks
    assert receive_chunks(MAX_CHUNKS, piece).has_too_many_chunks
    assert not receive_chunks(2 * MAX_CHUNKS, piece).is_complete_request


def test_chunks_beyond_the_limit_cost_nothing() -> None:
    assert calls(lambda: receive_chunks(10_000)) == calls(lambda: receive_chunks(2 * MAX_CHUNKS))


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


@pytest.mark.parametrize("has_length", [True, False])
def test_an_answer_is_read_no_further_than_its_client_reads(
    pair: tuple[ClientSocket, socket.socket], has_length: bool
) -> None:
    server, client = pair
    pieces = [bytes([number]) * 100_000 for number in range(40)]
    asked: list[int] = []

    def body() -> Iterator[bytes]:
        for number, piece in enumerate(pieces):
            asked.append(number)
            yield piece

    request = BufferedRequest()
    request.feed(HEAD + b"\r\n")
    parsed = Request(Config(), RequestReader(server, request, 0.0), ("127.0.0.1", 1))
    response = wsgi.Response(parsed, server, Config())
    response.start_response("200 OK", [("Content-Length", "4000000")] if has_length else [])
    answer = Answer(response, body(), {}, 0.0)
    assert not answer.send_turn()
    assert len(asked) < 30
    assert len(server.outgoing) < ANSWER_BUFFER_BYTES + 110_000

    def read(client: socket.socket) -> bytes:
        received = http.client.HTTPResponse(client)
        received.begin()
        return received.read()

    with ThreadPoolExecutor(1) as reader:
        content = reader.submit(read, client)
        is_complete = False
        while server.outgoing or not is_complete:
            is_complete = is_complete or (not server.outgoing and answer.send_turn())
            server.flush()
        assert content.result(30) == b"".join(pieces)


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
