"""Whatever happens to Redis, callbacks are answered in time and every follow-up is made once: it is only the dispatcher."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.reliability.load import Customer
from tests.servers import OwnRedis, wait_until
from tests.service import KEYS, Service


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
    # Frozen first: after a refusal nothing is sent for a while.
    for trouble in (frozen, refusing, out_of_memory, emptied):
        with trouble(one, own_redis):
            customer.send(4)
            ready = requests.get(f"{one.web_url}/readyz", timeout=10)
            assert ready.status_code == 200
            assert ready.json()["status"] == "degraded" or trouble not in (refusing, frozen), ready.text
        customer.wait()
    # The worker with all its children and Redis at once, with work under way.
    one.freeze("sandbox")
    customer.send(4)
    wait_until(customer.is_creating, 30, "the worker waits for Scale")
    one.kill("worker")
    own_redis.kill()
    one.thaw("sandbox")
    customer.send(2)
    own_redis.start()
    customer.check()
    said = one.logs(100_000)
    assert [name for name, secret in KEYS.items() if secret in said] == []
