"""Whatever happens to Redis, callbacks are answered in time and every follow-up is made once: it is only the bell."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.reliability.test_kills import PAYLOAD, rows, sandbox_tasks
from tests.servers import OwnRedis, wait_until
from tests.service import KEYS, Service


class Customer:
    """Whose polygons are finished one after another. It knows what it was told, and which tasks must follow."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.kept: dict[str, str] = {}  # task_id → delivery_id

    def send(self, count: int) -> None:
        """So many results; each is answered with 200 within 5 seconds."""
        for _ in range(count):
            task_id = f"{len(self.kept) + 1:024x}"
            body = PAYLOAD | {"task_id": task_id, "task": PAYLOAD["task"] | {"task_id": task_id}}
            started = time.monotonic()
            answer = self.service.post_callback(json.dumps(body).encode())
            assert answer.status_code == 200, answer.text
            assert time.monotonic() - started < 5
            self.kept[task_id] = answer.json()["delivery_id"]

    def is_served(self) -> bool:
        """Whether every follow-up was created, finished and received; a worker that has ended is started again."""
        if not self.service.processes["worker"].running:
            self.service.start("worker")
        states = Counter(
            state for (state,) in rows(self.service.env["DATABASE_URL"], "SELECT state FROM follow_ups")
        )
        return states == {"completed": len(self.kept)}

    def wait(self, seconds: float = 60) -> None:
        wait_until(self.is_served, seconds, "every follow-up is completed")

    def check(self) -> None:
        """Nothing was lost, and nothing created twice."""
        self.wait()
        stored = rows(
            self.service.env["DATABASE_URL"],
            "SELECT task_id, CAST(id AS VARCHAR(36)) FROM deliveries WHERE status = 'processed'",
        )
        found = {task_id: delivery_id.replace("-", "") for task_id, delivery_id in stored}
        assert {name: found.get(name) for name in self.kept} == {
            name: delivery_id.replace("-", "") for name, delivery_id in self.kept.items()
        }
        created = Counter(task["unique_id"] for task in sandbox_tasks(self.service) if "unique_id" in task)
        assert created == {f"polygons-to-boxes.boxes.{task_id}": 1 for task_id in self.kept}
        jobs = "SELECT count(*) FROM jobs"
        wait_until(lambda: rows(self.service.env["DATABASE_URL"], jobs)[0][0] == 0, what="no job is left")


@contextmanager
def refusing(_: Service, broker: OwnRedis) -> Iterator[None]:
    broker.kill()
    yield
    broker.start()


@contextmanager
def frozen(_: Service, broker: OwnRedis) -> Iterator[None]:
    broker.freeze()
    yield
    broker.thaw()


@contextmanager
def out_of_memory(_: Service, broker: OwnRedis) -> Iterator[None]:
    with broker.client() as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


@contextmanager
def emptied(one: Service, broker: OwnRedis) -> Iterator[None]:
    one.kill("worker")  # it would have taken the messages before they are lost
    yield
    with broker.client() as client:
        client.flushall()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whatever_redis_does_callbacks_are_answered_and_every_follow_up_is_made(
    database_url: str, own_redis: OwnRedis, service: Callable[..., Service]
) -> None:
    one = service(database_url, own_redis.url, env={"LEASE_SECONDS": "3", "SWEEP_SECONDS": "0.5"})
    customer = Customer(one)
    customer.send(2)
    customer.wait()
    for trouble in (refusing, frozen, out_of_memory, emptied):
        with trouble(one, own_redis):
            customer.send(4)
            started = time.monotonic()
            ready = requests.get(f"{one.web_url}/readyz", timeout=10)
            assert ready.status_code == 200
            assert (ready.json()["status"] == "degraded") is (trouble in (refusing, frozen)), ready.text
            assert time.monotonic() - started < 5
        customer.wait()
    # The worker with all its children and Redis at once, with work under way.
    customer.send(4)
    one.kill("worker")
    own_redis.kill()
    customer.send(2)
    own_redis.start()
    customer.check()
    said = one.logs(100_000)
    assert [name for name, secret in KEYS.items() if secret in said] == []
