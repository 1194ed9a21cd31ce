"""What one request costs, in operations: arriving, parsing and answering are in proportion to its bytes, and bounded."""

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
)
from tests.counting import calls
from tests.test_gunicorn_worker import CHUNKED, HEAD, pair

__all__ = ["pair"]


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
