"""Latency of honest callbacks during denial-of-service attacks, as a ratio to the same callbacks undisturbed."""

import functools
import itertools
import math
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe

import requests
from rich.table import Table

from benchmarks import stack
from benchmarks.bodies import ONE_BOX
from benchmarks.load import KEY, Connection
from tests.factories.attacks import ATTACKS, attackers

MAX_RATIO = 3.0
MAX_MILLISECONDS = 50
CLIENTS = 2
PAUSE_SECONDS = 0.02
HONEST_TIMEOUT_SECONDS = 5.0
ATTACK_TIMEOUT_SECONDS = 10.0
API_TOKEN = "bench_api_token"

ids = itertools.count(1, 10_000_000)


def _post(port: int, seconds: float, first_id: int, report: Pipe) -> None:
    """Post callbacks from CLIENTS connections, one every PAUSE_SECONDS each, and report how long each took.

    One that is not accepted within HONEST_TIMEOUT_SECONDS took infinitely long.
    """
    numbers, taken, lock = itertools.count(first_id), [], threading.Lock()
    end = time.monotonic() + seconds

    def client() -> None:
        connection = Connection(port, HONEST_TIMEOUT_SECONDS)
        while time.monotonic() < end:
            start = time.perf_counter()
            try:
                status = connection.post(ONE_BOX.with_id(next(numbers)))
            except OSError:
                status, connection = 0, Connection(port, HONEST_TIMEOUT_SECONDS)
            with lock:
                taken.append((time.perf_counter() - start) if status == 200 else float("inf"))
            time.sleep(PAUSE_SECONDS)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.send(taken)


def latencies(port: int, seconds: float) -> list[float]:
    """Return the seconds that each honest callback took; infinity for one that was not accepted."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_post, args=(port, seconds, next(ids), sender))
    process.start()
    sender.close()
    taken: list[float] = receiver.recv()
    process.join()
    return taken


def p99(taken: list[float]) -> float:
    """Return the 99th percentile of latencies."""
    return sorted(taken)[math.ceil(len(taken) * 0.99) - 1]


@contextmanager
def repeated(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` again and again in another thread."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            try:
                work()
            except requests.RequestException:
                time.sleep(0.1)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(ATTACK_TIMEOUT_SECONDS)  # the service ends next, so a request that goes on ends with it


def key_holder_attacks(port: int) -> dict[str, Callable[[], object]]:
    """Return the attacks of a client that holds a callback key or an API token: one request each, to be repeated."""
    url = f"http://127.0.0.1:{port}"

    def post(body: bytes) -> None:
        headers = {"scale-callback-auth": KEY}
        requests.post(f"{url}/callbacks/scale", body, headers=headers, timeout=ATTACK_TIMEOUT_SECONDS)

    def get(path: str, token: str = API_TOKEN) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        requests.get(f"{url}/api/v1{path}", headers=headers, timeout=ATTACK_TIMEOUT_SECONDS)

    def many_files() -> None:
        start = b'{"task_id":"files-%d","task":{"type":"segmentannotation","status":"completed"},' % next(ids)
        post(start + b'"response":{"annotations":{"labeled":{"c":["x"' + b',"x"' * 249_000 + b"]}}}}")

    def large() -> None:
        start = b'{"task_id":"large-%d","task":{"type":"annotation","status":"completed"},' % next(ids)
        post(start + b'"response":{"annotations":[{}' + b",{}" * 10_000_000 + b"]}}")

    def read() -> None:
        for path in ("/tasks?limit=1000", "/deliveries?limit=1000", "/jobs?limit=1000"):
            get(path)

    @functools.cache
    def post_dense_boxes() -> None:
        for width in (100, 101):
            box = b'{"label":"car","left":0,"top":0,"width":%d,"height":100}' % width
            start = b'{"task_id":"dense","task":{"type":"annotation","status":"completed"},'
            post(start + b'"response":{"annotations":[' + b",".join([box] * 4_000) + b"]}}")

    def compare() -> None:
        post_dense_boxes()
        get("/tasks/dense/responses/2/diff")

    return {
        "with a key: 250,000 files in one callback": many_files,
        "with a key: 30 MB of empty objects": large,
        "with a token: the largest pages of the API": read,
        "with a token: comparisons of 4,000 boxes that overlap": compare,
        "guesses of a token": lambda: get("/tasks", "guess"),
    }


KEY_HOLDER_ATTACKS = tuple(key_holder_attacks(0))


def add_row(table: Table, name: str, undisturbed: list[float], found: list[float]) -> None:
    """Add the latencies of one attack next to the undisturbed ones."""
    floor, worst = p99(undisturbed), p99(found)
    table.add_row(
        name, f"{len(found):,}", f"{floor * 1000:.1f} ms", f"{statistics.median(found) * 1000:.1f} ms",
        f"{worst * 1000:.1f} ms", f"{worst / floor:.1f}", f"≤ {MAX_RATIO:.0f} and < {MAX_MILLISECONDS} ms",
    )  # fmt: skip


def attacks(servers: stack.Servers, seconds: float) -> Table:
    """Measure each attack next to undisturbed callbacks, so that a slow minute of the machine affects both."""
    table = Table("attack", "honest callbacks", "undisturbed p99", "p50", "p99", "÷ undisturbed", "goal")
    with stack.weighbridge(servers) as ours:
        latencies(ours.port, 2)  # warm
        before = latencies(ours.port, seconds)
        for name, attack in ATTACKS.items():
            with attackers(ours.port, 40, *attack):
                found = latencies(ours.port, seconds)
            after = latencies(ours.port, seconds)
            add_row(table, name, before + after, found)
            before = after
    for name in KEY_HOLDER_ATTACKS:  # each leaves work behind, so each has a service of its own
        with stack.weighbridge(servers, API_TOKEN=API_TOKEN) as ours:
            latencies(ours.port, 2)
            before = latencies(ours.port, 2 * seconds)
            with repeated(key_holder_attacks(ours.port)[name]):
                add_row(table, name, before, latencies(ours.port, seconds))
    return table
