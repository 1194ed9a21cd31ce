"""The bell: messages that carry a job's id, never more of them than somebody could hear."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
import redis

from config import Settings
from pipeline.db.ids import new_id
from tests.servers import OwnRedis
from workers.dispatcher import MOST_WAITING, RINGS_AT_ONCE, Bell


@pytest.fixture
def bell(redis_url: str) -> Iterator[Bell]:
    """A bell that nobody hears."""
    one = Bell(Settings(redis_url=redis_url, secret_key="s"))
    yield one
    one.celery.close()


def rung(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen("weighbridge"))


def test_each_job_is_rung_for_by_a_message_of_its_own(bell: Bell, redis_url: str) -> None:
    bell.publish([new_id() for _ in range(5)])
    assert rung(redis_url) == 5


def test_while_no_worker_listens_messages_do_not_pile_up(bell: Bell, redis_url: str) -> None:
    """They expire only when somebody reads them, and workers cannot start with a Redis that is full."""
    for _ in range(MOST_WAITING // RINGS_AT_ONCE + 20):
        bell.publish([new_id() for _ in range(RINGS_AT_ONCE)])
    assert MOST_WAITING <= rung(redis_url) < MOST_WAITING + RINGS_AT_ONCE


def test_after_a_restart_of_redis_the_next_message_is_sent(own_redis: OwnRedis) -> None:
    bell = Bell(Settings(redis_url=own_redis.url, secret_key="s"))
    bell.publish([new_id()])
    own_redis.kill()
    own_redis.start()
    bell.publish([new_id()])
    assert rung(own_redis.url) == 1
    bell.celery.close()


def test_a_broker_that_does_not_answer_is_asked_once_and_not_by_each_who_wants_to_know() -> None:
    """/readyz has the threads of callbacks: many who ask must not hold them all."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bell = Bell(Settings(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}", secret_key="s"))
        assert not bell.reachable()
        silent.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()
        assert not any(bell.reachable() for _ in range(10))
        with pytest.raises(BlockingIOError):
            silent.accept()
        bell.celery.close()
