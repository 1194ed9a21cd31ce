"""Slow clients at the real web process wait without a thread, and honest requests are answered."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import psutil
import pytest

from tests.servers import Process, wait_until
from tests.service import KEYS, ROOT, Service

HEAD = b"POST /callbacks/scale HTTP/1.1\r\nHost: weighbridge\r\n"
KEY = b"scale-callback-auth: " + KEYS["SCALE_LIVE_CALLBACK_KEYS"].encode() + b"\r\n"

# What each kind of slow client sends at once, and then a byte at a time.
SLOW = {
    "sends nothing": (b"", b""),
    "drips its headers": (HEAD + b"X-Slow: ", b"s"),
    "drips a body": (HEAD + KEY + b"Content-Length: 15000\r\n\r\n", b"b"),
    "drips a body with a wrong key": (
        HEAD + b"scale-callback-auth: wrong\r\nContent-Length: 15000\r\n\r\n",
        b"b",
    ),
    "drips a chunked body": (HEAD + KEY + b"Transfer-Encoding: chunked\r\n\r\n2710\r\n", b"c"),
    "drips the end of a large body": (HEAD + KEY + b"Content-Length: 900000\r\n\r\n" + b"b" * 70_000, b"b"),
    "waits for 100 Continue": (HEAD + KEY + b"Expect: 100-continue\r\nContent-Length: 15000\r\n\r\n", b""),
    "never hangs up after its answer": (b"GET /livez HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n", b""),
    "does not read": (b"GET /api/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: w\r\n\r\n", b""),
    "begins a second request": (b"GET /livez HTTP/1.1\r\nHost: w\r\n\r\nG", b""),
    "drips expect lines": (HEAD + b"expect: x\r\na: b\r\n" * 1600, b"a"),
    "drips nine long headers": (HEAD + (b"X: " + b"x" * 8096 + b"\r\n") * 9, b"x"),
    "drips a body of the API": (
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: w\r\nContent-Length: 900000\r\n\r\n" + b"b" * 20_000,
        b"b",
    ),
    "drips chunks of one byte": (
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
    ),
    "keeps an idle connection": (b"GET /livez HTTP/1.1\r\nHost: w\r\n\r\n", b""),
}


@contextlib.contextmanager
def slow_clients(web_process: Service, count: int) -> Iterator[None]:
    """`count` slow clients of every kind, until the block ends. One that is cut off comes again."""
    stop = threading.Event()
    kinds = list(SLOW.values())

    def connect(number: int) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(("127.0.0.1", web_process.web_port))
        client.sendall(kinds[number % len(kinds)][0])
        client.setblocking(False)
        return client

    def keep_slow() -> None:
        clients = [connect(number) for number in range(count)]
        everyone_there.set()
        while not stop.wait(0.5):
            for number, client in enumerate(clients):
                try:
                    client.send(kinds[number % len(kinds)][1])
                    client.recv(16)
                except BlockingIOError:
                    pass
                except OSError:
                    client.close()
                    # A server that is stopping accepts no connection.
                    with contextlib.suppress(OSError):
                        clients[number] = connect(number)
        for client in clients:
            client.close()

    everyone_there = threading.Event()
    slow = threading.Thread(target=keep_slow, daemon=True)
    slow.start()
    assert everyone_there.wait(30)
    try:
        yield
    finally:
        stop.set()
        slow.join()


def test_five_hundred_slow_clients_do_not_keep_honest_ones_waiting(web_process: Service) -> None:
    """The slow clients stay until all honest requests are answered."""

    def honest(number: int) -> int:
        body = b'{"task_id": "t-%d", "task": {"task_id": "t-%d"}}' % (number, number)
        return web_process.post_callback(body).status_code

    with slow_clients(web_process, 500), ThreadPoolExecutor(4) as clients:
        assert set(clients.map(honest, range(200))) == {200}


@pytest.mark.slow
def test_slow_clients_do_not_keep_a_worker_from_stopping_in_time(web_process: Service) -> None:
    with slow_clients(web_process, 50):
        web_process.stop("web", seconds=25)  # platforms kill after 30
    assert web_process.processes["web"].returncode == 0
    web_process.start("web")


def test_a_worker_that_may_open_few_files_takes_fewer_connections_and_lives(
    start_service: Callable[..., Service], sqlite_url: str
) -> None:
    one = start_service(sqlite_url, processes=())
    gunicorn = Process(
        ["sh", "-c", "ulimit -n 160; exec gunicorn wsgi:app"],
        log=one.folder / "web.log",
        env=one.env,
        cwd=ROOT,
    )
    one.processes["web"] = gunicorn
    one.start()
    (worker,) = gunicorn.children()
    for first in (b"", b"GET /livez HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n"):
        crowd = [socket.create_connection(("127.0.0.1", one.web_port), timeout=10) for _ in range(300)]
        for client in crowd:
            client.sendall(first)
        time.sleep(1)
        assert worker.is_running()
        for client in crowd:
            client.close()
    assert one.post_callback(BODY).status_code == 200
    assert worker.is_running()


def ask(web_process: Service, *pieces: bytes, pause: float = 0.2, seconds: float = 10) -> bytes:
    """Send the pieces one after another and return what the server sends until it hangs up or is silent."""
    with socket.create_connection(("127.0.0.1", web_process.web_port), timeout=seconds) as client:
        for number, piece in enumerate(pieces):
            time.sleep(pause if number else 0)
            client.sendall(piece)
        answer = b""
        with contextlib.suppress(TimeoutError):
            while came := client.recv(65536):
                answer += came
        return answer


BODY = b'{"task_id": "t-1", "task": {"task_id": "t-1"}}'
CUT_OFF = b'{"task_id": "cut-off", "task": {"task_id": "cut-off"}}'
CLOSE = b"Connection: close\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [bytes([byte]) for byte in HEAD[:40]]
            + [HEAD[40:] + KEY + CLOSE, b"Content-Length: 46\r\n\r\n" + BODY],
            id="head in pieces",
        ),
        pytest.param(
            [HEAD + KEY + CLOSE + b"Content-Length: 46\r\n\r\n" + BODY[:10], BODY[10:]], id="body in pieces"
        ),
        pytest.param(
            [HEAD + KEY + CLOSE + b"content-length:46\r\n\r", b"\n", BODY], id="end of head in pieces"
        ),
        pytest.param(
            [
                HEAD + KEY + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n2e\r\n" + BODY,
                b"\r\n0",
                b";x=y\r\n\r\n",
            ],
            id="chunks in pieces",
        ),
        pytest.param(
            [
                HEAD
                + KEY
                + CLOSE
                + b"Transfer-Encoding: chunked\r\n\r\n2e\r\n"
                + BODY
                + b"\r\n00\r\nX-Trailer: t\r\n\r\n"
            ],
            id="chunks with a trailer",
        ),
        pytest.param(
            [HEAD + KEY + CLOSE + b"Expect: 100-continue\r\nContent-Length: 46\r\n\r\n", BODY],
            id="100 Continue",
        ),
        pytest.param(
            [HEAD + KEY + CLOSE + b"Content-Length: 300046\r\n\r\n" + BODY, *[b" " * 100_000] * 3],
            id="larger than the room",
        ),
    ],
)
def test_a_request_is_received_however_it_is_cut(web_process: Service, pieces: list[bytes]) -> None:
    answer = ask(web_process, *pieces, pause=0.02)
    assert b" 200 OK\r\n" in answer
    assert b"delivery_id" in answer


@pytest.mark.parametrize(
    "chunks", [b"xyz\r\n", b"2e\r\n" + BODY + b"more", b"2e\r\n" + BODY + b"\r\n0\r\nHost: w\r\n\r\n"]
)
def test_chunks_that_are_no_chunks_are_refused_with_400(web_process: Service, chunks: bytes) -> None:
    answer = ask(web_process, HEAD + KEY + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"\r\n0\r\n\r\n")
    assert b" 400 " in answer


def test_a_kept_connection_carries_many_requests(web_process: Service) -> None:
    client = HTTPConnection("127.0.0.1", web_process.web_port, timeout=10)
    client.connect()
    connection = client.sock
    for _ in range(5):
        client.request(
            "POST", "/callbacks/scale", BODY, {"scale-callback-auth": KEYS["SCALE_LIVE_CALLBACK_KEYS"]}
        )
        answer = client.getresponse()
        answer.read()
        assert answer.status == 200
        assert client.sock is connection
    client.close()


def test_no_request_follows_one_that_came_with_more_bytes_than_its_own(web_process: Service) -> None:
    """A proxy in front may have read those bytes as a part of the first request."""
    first = HEAD + KEY + b"Content-Length: 46\r\n\r\n" + BODY
    smuggled = b"GET /livez HTTP/1.1\r\nHost: w\r\n\r\n"
    for more in (smuggled, smuggled[:10]):
        answers = ask(web_process, first + more, smuggled)
        assert answers.count(b"HTTP/1.1 ") == 1
        assert b"\r\nconnection: close\r\n" in answers.lower()


def test_kept_connections_are_shared_among_the_web_processes(
    sqlite_url: str, start_service: Callable[..., Service]
) -> None:
    web = start_service(sqlite_url, processes=("web",), env={"WEB_CONCURRENCY": "2"})
    main = psutil.Process(web.processes["web"].pid)

    def shares() -> list[int]:
        """Open 16 connections while those that are open send requests. Return how many each process has."""
        with contextlib.ExitStack() as opened:
            clients: list[HTTPConnection] = []
            for _ in range(16):
                clients.append(opened.enter_context(contextlib.closing(HTTPConnection(*address, timeout=10))))
                for client in clients:
                    client.request("GET", "/livez")
                    assert client.getresponse().read()
            ports = {client.sock.getsockname()[1] for client in clients}
            return [
                sum(bool(one.raddr) and one.raddr.port in ports for one in child.net_connections())
                for child in main.children()
            ]

    address = ("127.0.0.1", web.web_port)
    wait_until(lambda: min(shares()) > 0, 30, "both processes have started")
    assert all(min(shares()) >= 5 for _ in range(10))


def test_a_request_that_is_cut_off_stores_nothing(web_process: Service) -> None:
    with socket.create_connection(("127.0.0.1", web_process.web_port)) as client:
        client.sendall(HEAD + KEY + b"Content-Length: 54\r\n\r\n" + CUT_OFF[:-1])
        client.shutdown(socket.SHUT_WR)
        assert b" 200 OK" not in client.recv(65536)
    assert web_process.post_callback(CUT_OFF[:-1]).json()["status"] == "quarantined"


def test_what_is_not_http_is_refused_in_gunicorns_own_words(web_process: Service) -> None:
    assert b" 400 Bad Request" in ask(web_process, b"this is not HTTP\r\n\r\n")
    assert b" 431 " in ask(web_process, b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 10_000 + b"\r\n\r\n")


@pytest.mark.slow
def test_a_request_that_does_not_arrive_in_time_is_answered_with_408(web_process: Service) -> None:
    assert b" 408 Request Timeout" in ask(web_process, HEAD, seconds=40)


def test_an_unread_body_of_a_refused_request_ends_the_connection(web_process: Service) -> None:
    refused = HEAD + b"scale-callback-auth: wrong\r\nContent-Length: 200000\r\n\r\n" + b"b" * 100_000
    with socket.create_connection(("127.0.0.1", web_process.web_port), timeout=10) as client:
        client.sendall(refused)
        answer = b"".join(
            iter(lambda: client.recv(65536), b"")
        )  # TimeoutError where the server does not hang up
    assert b" 401 " in answer
    assert b"connection: close" in answer.lower()
