"""The dispatcher: messages that carry a job's id, never more of them than somebody could hear."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
import redis

from config import Settings
from pipeline.db.ids import new_id
from tests.servers import OwnRedis, wait_until
from workers.dispatcher import DISPATCH_BATCH_SIZE, MAX_QUEUE_LENGTH, JobDispatcher


@pytest.fixture
def dispatcher(redis_url: str) -> Iterator[JobDispatcher]:
    """A dispatcher without a consumer."""
    one = JobDispatcher(Settings(redis_url=redis_url, secret_key="s"))
    yield one
    one.celery.close()


def published(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen("weighbridge"))


def test_each_job_is_dispatched_by_a_message_of_its_own(dispatcher: JobDispatcher, redis_url: str) -> None:
    dispatcher.publish([new_id() for _ in range(5)])
    assert published(redis_url) == 5


def test_while_no_worker_listens_messages_do_not_pile_up(dispatcher: JobDispatcher, redis_url: str) -> None:
    """They expire only when somebody reads them, and workers cannot start with a Redis that is full."""
    for _ in range(MAX_QUEUE_LENGTH // DISPATCH_BATCH_SIZE + 20):
        dispatcher.publish([new_id() for _ in range(DISPATCH_BATCH_SIZE)])
    assert MAX_QUEUE_LENGTH <= published(redis_url) < MAX_QUEUE_LENGTH + DISPATCH_BATCH_SIZE


def test_a_job_after_the_messages_that_waited_has_one_of_its_own(
    dispatcher: JobDispatcher, redis_url: str
) -> None:
    dispatcher.dispatch([new_id() for _ in range(3 * MAX_QUEUE_LENGTH)])
    wait_until(lambda: published(redis_url) >= MAX_QUEUE_LENGTH)
    dispatcher.dispatch([new_id()])  # finds them waiting
    with redis.Redis.from_url(redis_url) as client:
        client.delete("weighbridge")
    dispatcher.dispatch([new_id()])
    wait_until(lambda: published(redis_url) > 0)


def test_a_message_that_was_received_leaves_nothing_in_redis(
    dispatcher: JobDispatcher, redis_url: str
) -> None:
    dispatcher.publish([new_id()])
    with dispatcher.celery.connection_for_read() as connection:
        message = connection.SimpleQueue("weighbridge").get(timeout=10)
        with redis.Redis.from_url(redis_url) as client:
            assert not [key for key in client.scan_iter() if not key.startswith(b"_kombu")]
        message.ack()


def test_after_a_restart_of_redis_the_next_message_is_sent(own_redis: OwnRedis) -> None:
    dispatcher = JobDispatcher(Settings(redis_url=own_redis.url, secret_key="s"))
    dispatcher.publish([new_id()])
    own_redis.kill()
    own_redis.start()
    dispatcher.publish([new_id()])
    assert published(own_redis.url) == 1
    dispatcher.celery.close()


def test_a_message_that_is_sent_ends_the_suspension(own_redis: OwnRedis) -> None:
    """Otherwise /readyz would say for a while that a broker works, whatever became of it."""
    dispatcher = JobDispatcher(Settings(redis_url=own_redis.url, secret_key="s"))
    own_redis.kill()
    assert not dispatcher.publish([new_id()])
    own_redis.start()
    assert dispatcher.publish([new_id()])
    assert not dispatcher.is_suspended
    own_redis.kill()
    assert dispatcher.fault() is not None
    dispatcher.celery.close()


def test_a_broker_that_does_not_answer_is_asked_once_and_not_by_each_who_wants_to_know() -> None:
    """/readyz has the threads of callbacks: many who ask must not hold them all."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dispatcher = JobDispatcher(
            Settings(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}", secret_key="s")
        )
        assert dispatcher.fault() is not None
        silent.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()
        assert all(dispatcher.fault() for _ in range(10))
        with pytest.raises(BlockingIOError):
            silent.accept()
        dispatcher.celery.close()
