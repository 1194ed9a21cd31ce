"""SIGTERM to everything under load, and keys that change under load: nothing is lost, and no request with a valid key is refused."""

import json
import os
import signal
import time
from collections.abc import Callable

import pytest
import redis

from tests.amounts import amount
from tests.reliability.load import PAYLOAD, Customer, Sender, rows
from tests.servers import wait_until
from tests.service import KEYS, Service
from workers.dispatcher import CELERY_QUEUE

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
    customer.answer_for(senders)
    assert len(customer.kept) > 20
    customer.check()


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
