"""Attacks on the web process by clients without a key, at real gunicorn processes.

Each attack goes on until every honest request is answered. An honest client that waits longer than HONEST_SECONDS fails.
"""

import contextlib
import io
import random
import socket
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from config import load_settings
from gunicorn_worker import MAX_BODY_BYTES, MAX_CHUNKS, SEND_BUFFER_BYTES
from pipeline.artifacts.store import ArtifactStore
from pipeline.follow_ups.signed_urls import signed_url
from tests.factories.attacks import API, ATTACKS, CLOSE, EXPECT_LINES, KEY, LOGIN, POST, attackers, connect
from tests.servers import Process, wait_until
from tests.service import KEYS, ROOT, Service

HONEST_SECONDS = 15


def assert_honest_clients_are_answered(web: Service, mark: str) -> None:
    """Small and large callbacks, the API and the health check, several at a time."""

    def callback(number: int) -> int:
        padding = b" " * (0 if number % 3 else 100_000)
        body = b'{"task_id": "%s-%d", "task": {"task_id": "%s-%d"}}' % (
            mark.encode(),
            number,
            mark.encode(),
            number,
        )
        return web.post_callback(body + padding, timeout=HONEST_SECONDS).status_code

    def read(number: int) -> int:
        path = "/livez" if number % 2 else "/api/v1/tasks"
        headers = {"Authorization": f"Bearer {KEYS['API_TOKEN']}"}
        return requests.get(web.web_url + path, headers=headers, timeout=HONEST_SECONDS).status_code

    with ThreadPoolExecutor(4) as clients:
        answers = [*clients.map(callback, range(30)), *clients.map(read, range(10))]
    assert answers == [200] * 40


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_unknown_clients_delay_no_honest_one(
    web_process: Service, attack: tuple[bytes, bytes], request: pytest.FixtureRequest
) -> None:
    first, then = attack
    mark = request.node.callspec.id.replace(" ", "-")
    with attackers(web_process.web_port, 60, first, then):
        assert_honest_clients_are_answered(web_process, mark)
    assert "Traceback" not in web_process.processes["web"].log.read_text()


@pytest.mark.parametrize("start", [POST, API, LOGIN])
def test_what_is_attacked_exists(web_process: Service, start: bytes) -> None:
    answer = exchange(web_process, start + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
    assert int(answer.split()[1]) in (400, 401)


def test_clients_with_a_key_whose_large_bodies_stall_delay_only_large_callbacks(web_process: Service) -> None:
    stalled = POST + KEY + b"Content-Length: 900000\r\n\r\n" + b"x" * 70_000
    with attackers(web_process.web_port, 20, stalled, b"x"), ThreadPoolExecutor(4) as clients:
        callbacks = clients.map(
            lambda number: (
                web_process.post_callback(
                    b'{"task_id": "small-%d", "task": {}}' % number, timeout=HONEST_SECONDS
                ).status_code
            ),
            range(30),
        )
        assert set(callbacks) == {200}
        assert web_process.api("/tasks")["data"]


SHOW_RESTS = (
    "gunicorn_worker.SharedCounts.ARRIVAL_SECONDS = 1000; "
    'gunicorn_worker.RequestReader.rest = lambda reader: reader.must_rest() and print("rests", flush=True)'
)


@pytest.mark.parametrize("has_small_one", [True, False])
def test_a_large_callback_rests_for_small_ones_and_for_no_large_one(
    start_service: Callable[..., Service], sqlite_url: str, has_small_one: bool
) -> None:
    web = start_small_web_process(start_service, sqlite_url, SHOW_RESTS)
    if has_small_one:
        assert web.post_callback(b'{"task_id": "small", "task": {}}').status_code == 200
    for number in range(2):
        large = b'{"task_id": "large-%d", "task": {}}' % number + b" " * 300_000
        assert web.post_callback(large).status_code == 200
    assert ("rests" in web.processes["web"].log.read_text().splitlines()) == has_small_one


# Connections


CROWDS = {
    "that send nothing": b"",
    "that are kept alive": b"GET /livez HTTP/1.1\r\nHost: w\r\n\r\n",
    "that began a request": b"GET /livez HTTP/1.1\r\nHost",
    "that were answered": b"GET /livez HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n",
}


SMALL_LIMIT = 200
"""How many connections a process with 300 file descriptors takes."""


def start_small_web_process(start_service: Callable[..., Service], url: str, setup: str = "") -> Service:
    """Start a web process with SMALL_LIMIT connections, after a statement of Python."""
    web = start_service(url, processes=())
    start = f"import gunicorn_worker; {setup or 'pass'}; from gunicorn.app.wsgiapp import run; run()"
    web.processes["web"] = Process(
        ["sh", "-c", f"ulimit -n 300; exec {sys.executable} -c '{start}' wsgi:app"],
        log=web.folder / "web.log",
        env=web.env,
        cwd=ROOT,
    )
    web.start()
    return web


@pytest.mark.parametrize("first", CROWDS.values(), ids=CROWDS)
def test_a_full_process_closes_the_connection_that_waited_longest(
    start_service: Callable[..., Service], sqlite_url: str, first: bytes
) -> None:
    """Twice as many connections as the process takes: all are accepted, and the newest are those that remain."""
    web = start_small_web_process(start_service, sqlite_url)
    with contextlib.ExitStack() as crowd:
        clients = []
        for _ in range(2 * SMALL_LIMIT):
            client = crowd.enter_context(connect(web.web_port))
            client.sendall(first)
            clients.append(client)
        assert_honest_clients_are_answered(web, "crowd")
        clients[0].setblocking(True)
        with contextlib.suppress(ConnectionResetError):
            while clients[0].recv(65536):  # TimeoutError if the oldest is still connected
                pass
        clients[-1].setblocking(False)
        if first in (CROWDS["that send nothing"], CROWDS["that began a request"]):
            with pytest.raises(BlockingIOError):
                clients[-1].recv(1)


def test_a_process_full_of_requests_closes_no_client_that_has_just_connected(
    start_service: Callable[..., Service], sqlite_url: str
) -> None:
    """While the database is locked, connections wait for threads. New ones wait to be accepted; all are answered.

    A client has a minute to send its request, because this test may be slow.
    """
    web = start_small_web_process(start_service, sqlite_url, "gunicorn_worker.EVICTION_SECONDS = 60")
    body = b'{"task_id": "waits", "task": {"task_id": "waits"}}'
    head = b"POST /callbacks/scale HTTP/1.1\r\nHost: w\r\nConnection: close\r\nscale-callback-auth: %s\r\nContent-Length: %d\r\n\r\n"
    request = head % (KEYS["SCALE_LIVE_CALLBACK_KEYS"].encode(), len(body)) + body
    with (
        contextlib.ExitStack() as crowd,
        contextlib.closing(
            sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        ) as lock,
    ):
        lock.execute("BEGIN EXCLUSIVE")
        clients = [crowd.enter_context(connect(web.web_port)) for _ in range(SMALL_LIMIT + 50)]
        time.sleep(0.3)
        for client in clients:
            client.sendall(request)
        time.sleep(0.3)
        lock.rollback()
        for client in clients:
            client.settimeout(HONEST_SECONDS)
            assert client.recv(12) == b"HTTP/1.1 200"


# Bounds


def exchange(web: Service, data: bytes) -> bytes:
    """Send `data` and return what comes until the server hangs up; an AssertionError if it does not."""
    with socket.create_connection(("127.0.0.1", web.web_port), timeout=10) as client:
        client.sendall(data)
        answer = b""
        try:
            while came := client.recv(65536):
                answer += came
        except TimeoutError:
            raise AssertionError(f"the server waits after {answer!r}") from None
        except ConnectionResetError:
            pass
        return answer


def test_a_head_beyond_the_limit_is_answered_with_431(web_process: Service) -> None:
    for head in (
        POST + EXPECT_LINES,
        POST + (b"X: " + b"x" * 8096 + b"\r\n") * 9,
        POST + b"a:\r\n" * 101 + b"\r\n",
    ):
        assert b" 431 Request Header Fields Too Large\r\n" in exchange(web_process, head)


def test_a_wrong_key_is_answered_before_the_body_is_sent(web_process: Service) -> None:
    for key in (b"", b"scale-callback-auth: wrong\r\n", KEY + KEY):
        for framing in (b"Content-Length: 60000000\r\n", b"Transfer-Encoding: chunked\r\n"):
            answer = exchange(web_process, POST + key + framing + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("start", [API, LOGIN, b"POST /nowhere HTTP/1.1\r\nHost: w\r\n"])
def test_a_large_body_elsewhere_is_answered_with_413(web_process: Service, start: bytes) -> None:
    declared = start + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n200000\r\n" + b"x" * (MAX_BODY_BYTES + 1)
    for request in (declared, chunked):
        assert exchange(web_process, request).startswith(b"HTTP/1.1 413 Content Too Large\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: abc\r\n",
        b"Transfer-Encoding: xchunked\r\n",
    ],
)
def test_requests_that_could_be_read_in_two_ways_are_no_requests(web_process: Service, head: bytes) -> None:
    answer = exchange(web_process, POST + KEY + CLOSE + head + b"\r\n0\r\n\r\n")
    assert answer[9:12] in (b"400", b"501", b"408")


SMALL_CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * (MAX_CHUNKS + 1)


@pytest.mark.parametrize("start", [API, LOGIN, b"POST /nowhere HTTP/1.1\r\nHost: w\r\n"])
def test_a_body_of_too_many_chunks_is_answered_with_400(web_process: Service, start: bytes) -> None:
    answer = exchange(web_process, start + SMALL_CHUNKS)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"more than 512 chunks" in answer


def test_a_callback_of_many_chunks_is_read_by_a_thread(web_process: Service) -> None:
    body = b'{"task_id": "many-chunks", "task": {}}'
    last = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert exchange(web_process, POST + KEY + SMALL_CHUNKS + last).startswith(b"HTTP/1.1 200 OK\r\n")
    assert exchange(web_process, POST + SMALL_CHUNKS + last).startswith(b"HTTP/1.1 401 ")


EXPECT = b"Expect: 100-continue\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (POST + KEY + EXPECT + b"Content-Length: 67108865\r\n\r\n", b"413"),
        (POST + KEY + b"expect:100-Continue\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (POST + EXPECT + b"Content-Length: 100\r\n\r\n", b"401"),
        (POST + b"scale-callback-auth: wrong\r\n" + EXPECT + b"Transfer-Encoding: chunked\r\n\r\n", b"401"),
        (API + EXPECT + b"Content-Length: 2000000\r\n\r\n", b"413"),
    ],
)
def test_a_body_that_would_be_refused_is_not_asked_for(
    web_process: Service, head: bytes, status: bytes
) -> None:
    """The first answer to `Expect: 100-continue` is the refusal."""
    answer = exchange(web_process, head)
    assert answer.startswith(b"HTTP/1.1 " + status + b" ")


@pytest.mark.parametrize("size", [50, 50_000, 500_000])
def test_a_body_that_is_expected_is_asked_for_once(web_process: Service, size: int) -> None:
    body = (b'{"task_id": "expected-%d", "task": {}}' % size).ljust(size)
    with socket.create_connection(("127.0.0.1", web_process.web_port), timeout=10) as client:
        client.sendall(POST + KEY + EXPECT + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size)
        first = client.recv(65536)
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"100 Continue" not in answer


def test_incomplete_bodies_of_unknown_clients_fill_a_bounded_part_of_memory(web_process: Service) -> None:
    (worker,) = (psutil.Process(child.pid) for child in web_process.processes["web"].children())
    before = worker.memory_info().rss
    stalled = API + b"Content-Length: 1000000\r\n\r\n" + b"x" * 990_000
    with contextlib.ExitStack() as crowd:
        for _ in range(150):
            client = crowd.enter_context(connect(web_process.web_port))
            with contextlib.suppress(ConnectionError):  # evicted
                client.sendall(stalled)
        assert_honest_clients_are_answered(web_process, "memory")
        grown = worker.memory_info().rss - before
    assert grown < 100 * 1024 * 1024


def unsent_bytes(port: int) -> list[int]:
    """Bytes that the kernel holds for each client of this port, who has not read them."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, queues, *_ = line.split()
            if int(local.rpartition(":")[2], 16) == port and state != LISTENING:
                found.append(int(queues.partition(":")[0], 16))
    return found


LISTENING = "0A"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_unread_answers_fill_a_bounded_part_of_the_kernels_memory(web_process: Service) -> None:
    """Without a bound the kernel takes megabytes for each client that does not read."""
    port, count = web_process.web_port, 10
    request, _ = ATTACKS["an answer that is not read"]
    with contextlib.ExitStack() as crowd:
        for _ in range(count):
            crowd.enter_context(connect(port)).sendall(request)
        wait_until(lambda: sum(held > 0 for held in unsent_bytes(port)) == count, what="all are answered")
        assert max(unsent_bytes(port)) <= 2 * SEND_BUFFER_BYTES  # Linux doubles the size that is set
        assert_honest_clients_are_answered(web_process, "kernel")
        assert max(unsent_bytes(port)) <= 2 * SEND_BUFFER_BYTES


def test_slow_readers_of_a_large_file_hold_no_thread(web_process: Service) -> None:
    """As many as there are threads take 20 KB a second of 20 MB each; each of them gets the whole file in the end."""
    content = random.Random(1).randbytes(20_000_000)
    sha256, _ = ArtifactStore(web_process.env["ARTIFACT_STORE"]).put(io.BytesIO(content))
    settings = load_settings(web_process.env)
    url = signed_url(settings, sha256, "image/png")
    with contextlib.ExitStack() as opened:
        readers = [opened.enter_context(requests.get(url, stream=True, timeout=60)) for _ in range(12)]
        stop = threading.Event()

        def read_slowly(reader: requests.Response) -> bytes:
            read = b""
            while not stop.wait(0.1):
                read += reader.raw.read(2_000)
            return read + reader.raw.read()

        with ThreadPoolExecutor(len(readers)) as threads:
            received = [threads.submit(read_slowly, reader) for reader in readers]
            try:
                assert_honest_clients_are_answered(web_process, "slow-readers")
            finally:
                stop.set()
            assert [one.result(60) == content for one in received] == [True] * len(readers)


def test_clients_that_reset_before_their_answer_leave_no_traceback(web_process: Service) -> None:
    log = web_process.processes["web"].log
    before = len(log.read_text())
    for _ in range(50):
        with connect(web_process.web_port) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /api/openapi.json HTTP/1.1\r\nHost: w\r\n\r\n")
    assert_honest_clients_are_answered(web_process, "resets")
    assert "Traceback" not in log.read_text()[before:]


@pytest.mark.slow
def test_a_request_that_gets_no_thread_in_time_is_answered_with_503(tmp_path: Path) -> None:
    """All threads of a small application wait; the next request does not wait forever."""
    (tmp_path / "stuck.py").write_text(
        "import threading\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/stuck': threading.Event().wait(60)\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n"
        "    return [b'']\n"
    )
    web = Service(tmp_path, "sqlite://", processes=())
    web.processes["web"] = Process(
        ["gunicorn", "-c", "/dev/null", "--no-control-socket", "-k", "gunicorn_worker.BufferingThreadWorker",
         "--threads", "4", "-b", f"127.0.0.1:{web.web_port}", "--chdir", str(tmp_path), "--pythonpath",
         f"{tmp_path},{ROOT}", "stuck:app"],
        log=tmp_path / "web.log", env=web.env, cwd=ROOT,
    )  # fmt: skip
    with web, contextlib.ExitStack() as stuck:
        client = stuck.enter_context(connect(web.web_port))
        client.sendall(b"GET /stuck HTTP/1.1\r\nHost: w\r\n\r\n")
        time.sleep(0.5)  # it has the only thread of its pool
        answer = requests.get(f"{web.web_url}/", timeout=60)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "15")
        assert requests.get(f"{web.web_url}/livez", timeout=10).status_code == 200


# What an answer gives away, and what headers change


def test_the_lines_about_invalid_requests_are_few_and_short(
    start_service: Callable[..., Service], sqlite_url: str
) -> None:
    web = start_service(sqlite_url, processes=("web",))
    for number in range(60):
        assert b" 400 " in exchange(web, b"GET / HTTP/1.1\r\nbad header %d%s\r\n\r\n" % (number, b"x" * 5000))
    log = web.processes["web"].log.read_text()
    assert 1 <= log.count("Invalid request from") <= 20  # ten a minute
    assert max(map(len, log.splitlines())) < 1000
    assert "Traceback" not in log


def test_a_client_cannot_move_the_routes(start_service: Callable[..., Service], sqlite_url: str) -> None:
    """Also where every proxy is trusted, as on platforms that are reached through their router alone."""
    web = start_service(sqlite_url, processes=("web",), env={"FORWARDED_ALLOW_IPS": "*"})
    for header in ("SCRIPT_NAME: /zz", "SCRIPT_NAME: /livez", "PATH_INFO: /livez"):
        answer = exchange(
            web, f"GET /livez HTTP/1.1\r\nHost: w\r\n{header}\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "path", ["//callbacks//scale", "/callbacks//scale", "//livez", "/api/docs", "/api//v1/tasks"]
)
def test_no_path_is_redirected_to_the_senders_host(web_process: Service, path: str) -> None:
    method = "POST" if "callbacks" in path else "GET"
    request = (
        f"{method} {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    answer = exchange(web_process, request.encode())
    assert b"evil.example" not in answer
    assert not answer.startswith(b"HTTP/1.1 3")


def test_no_answer_names_the_server_software(web_process: Service) -> None:
    for request in (
        b"GET /livez HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        API + b"Content-Length: 2000000\r\n\r\n",
    ):
        assert b"gunicorn" not in exchange(web_process, request).lower()
