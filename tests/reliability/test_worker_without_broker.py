"""A worker whose broker is away, or refuses to work, claims due jobs itself, stays alive, and goes back to messages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.reliability.load import Customer
from tests.servers import OwnRedis, wait_until
from tests.service import Service

Trouble = Callable[[OwnRedis], "contextmanager[None]"]


@contextmanager
def away(broker: OwnRedis) -> Iterator[None]:
    broker.kill()
    yield
    broker.start()


@contextmanager
def read_only(broker: OwnRedis) -> Iterator[None]:
    with broker.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    with broker.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("trouble", [away, read_only], ids=lambda trouble: trouble.__name__)
def test_jobs_run_while_the_broker_is_in_trouble_and_the_worker_stays(
    postgres_url: str, own_redis: OwnRedis, service: Callable[..., Service], trouble: Trouble
) -> None:
    one = service(postgres_url, own_redis.url, env={"SWEEP_SECONDS": "1"})
    worker = one.processes["worker"]
    customer = Customer(one)
    customer.send(2)
    customer.wait()

    def runs_jobs_itself() -> bool:
        customer.send(1)
        customer.wait()
        return "running jobs in the main process" in worker.log.read_text()

    with trouble(own_redis):
        customer.send(5)
        customer.wait()
        # A process of the worker that still runs jobs takes what is due, so that the main process has nothing to do.
        wait_until(runs_jobs_itself, 60, "the main process runs jobs")
        assert worker.running
    customer.send(2)
    customer.wait()
    assert worker.running


def has_consumer(broker: OwnRedis) -> bool:
    with broker.client() as client:
        return any(connection["cmd"] == "brpop" for connection in client.client_list())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_starts_and_works_although_the_broker_is_away(
    postgres_url: str, own_redis: OwnRedis, service: Callable[..., Service]
) -> None:
    own_redis.kill()
    one = service(postgres_url, own_redis.url, env={"SWEEP_SECONDS": "1"})
    customer = Customer(one)
    customer.send(3)
    customer.wait()
    own_redis.start()
    wait_until(lambda: has_consumer(own_redis), 60, "Celery has connected")
    customer.send(2)
    customer.wait()
    assert one.processes["worker"].running
