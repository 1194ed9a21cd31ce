"""SIGTERM to everything under load, and keys that change under load: nothing is lost, and no request with a valid key is refused."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable

import pytest
import redis

from tests.amounts import amount
from tests.reliability.load import PAYLOAD, Customer, Sender, rows
from tests.servers import wait_until
from tests.service import KEYS, Service
from workers.messages import CELERY_QUEUE

WEB_PROCESSES = amount(2, 4)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_sigterm_to_everything_under_load_loses_nothing(
    database: str, service: Callable[..., Service], request: pytest.FixtureRequest
) -> None:
    """On SQLite with several web processes that write at once, and the worker."""
    redis_url = request.getfixturevalue("redis_url") if database == "postgresql" else None
    database_url = request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url")
    one = service(database_url, redis_url, env={"WEB_CONCURRENCY": str(WEB_PROCESSES), "LEASE_SECONDS": "5"})
    senders = [Sender(one, pause=0.1, first=1 + n * 100_000) for n in range(4)]
    for sender in senders:
        sender.start()
    completed = "SELECT count(*) FROM follow_ups WHERE state = 'completed'"
    wait_until(lambda: rows(database_url, completed)[0][0] >= 10, 60, "everything is at work")
    one.stop("web", "worker", seconds=25)  # platforms kill after 30
    assert {name: one.processes[name].returncode for name in ("web", "worker")} == {"web": 0, "worker": 0}
    one.start("web", "worker")
    time.sleep(0.5)
    customer = Customer(one)
    customer.answer_for(senders, 20)
    customer.check()


@pytest.mark.slow
def test_a_request_that_has_begun_to_arrive_is_answered_before_the_web_ends(
    sqlite_url: str, service: Callable[..., Service]
) -> None:
    one = service(sqlite_url, processes=("web",))
    web, body = one.processes["web"], json.dumps(PAYLOAD).encode()
    head = f"POST /callbacks/scale HTTP/1.1\r\nHost: w\r\nContent-Length: {len(body)}\r\n"
    key = f"scale-callback-auth: {KEYS['SCALE_LIVE_CALLBACK_KEYS']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", one.web_port), timeout=30) as client:
        client.sendall(f"{head}{key}".encode() + body[:100])
        time.sleep(0.2)
        os.kill(web.pid, signal.SIGTERM)
        time.sleep(0.5)  # a client has two seconds to send the rest
        client.sendall(body[100:])
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert web.popen is not None
    assert web.popen.wait(20) == 0
    assert rows(sqlite_url, "SELECT status FROM deliveries") == [("processed",)]


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_job_that_has_begun_is_finished_before_the_worker_ends(
    database: str, service: Callable[..., Service], request: pytest.FixtureRequest
) -> None:
    """With threads, and with processes as REMAP_SIGTERM lets Celery end on platforms that signal all of them."""
    redis_url = request.getfixturevalue("redis_url") if database == "postgresql" else None
    database_url = request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url")
    one = service(database_url, redis_url, env={"REMAP_SIGTERM": "SIGQUIT"} if redis_url else {})
    worker, customer = one.processes["worker"], Customer(one)
    one.freeze("sandbox")
    customer.send(1)
    wait_until(customer.is_creating, 30, "the worker waits for Scale")
    os.kill(worker.pid, signal.SIGTERM)
    time.sleep(1)
    one.thaw("sandbox")
    assert worker.popen is not None
    assert worker.popen.wait(25) == 0
    assert rows(database_url, "SELECT state FROM follow_ups") in ([("created",)], [("completed",)])
    assert rows(database_url, "SELECT key FROM jobs WHERE kind = 'create'") == []


@pytest.mark.slow
def test_a_worker_stops_soon_whose_results_are_not_read_any_more(
    postgres_url: str, redis_url: str, service: Callable[..., Service]
) -> None:
    """Celery loses its connection while a message is on its way to a process, forgets the message, and gets SIGTERM."""
    one = service(postgres_url, redis_url, env={"WORKER_CONCURRENCY": "1"})
    worker, customer, broker = one.processes["worker"], Customer(one), redis.from_url(redis_url)
    customer.send(3)
    customer.check()
    time.sleep(0.5)  # the process waits for a message
    (child,) = worker.children()
    child.suspend()
    customer.send(1)
    wait_until(lambda: broker.llen(CELERY_QUEUE) == 0, 10, "the message is taken")
    time.sleep(0.5)  # and written to the frozen process
    broker.client_kill_filter(_type="normal")
    os.kill(worker.pid, signal.SIGTERM)
    time.sleep(3)
    child.resume()
    assert worker.popen is not None
    assert worker.popen.wait(20) == 0
    customer.check()  # which starts the worker again


@pytest.mark.slow
def test_keys_change_under_load_and_no_callback_with_a_valid_one_is_refused(
    sqlite_url: str, service: Callable[..., Service]
) -> None:
    """The new key is added, Scale changes to it, and the old one is taken away."""
    old, new = KEYS["SCALE_LIVE_CALLBACK_KEYS"], "newer_key"
    one = service(sqlite_url, processes=("web",))
    sender = Sender(one, pause=0.02)
    sender.start()
    time.sleep(0.5)
    one.restart("web", {"SCALE_LIVE_CALLBACK_KEYS": f"{old}, {new}"})
    time.sleep(0.5)
    sender.key = new
    time.sleep(0.5)
    one.restart("web", {"SCALE_LIVE_CALLBACK_KEYS": new})
    time.sleep(0.5)
    sender.ending.set()
    sender.join(30)
    assert (sender.failures, sender.is_alive()) == ([], False)
    assert one.post_callback(json.dumps(PAYLOAD).encode(), old).status_code == 401
    kept = rows(sqlite_url, "SELECT task_id FROM deliveries WHERE status = 'processed'")
    assert {task_id for (task_id,) in kept} == set(sender.acknowledged)
