"""The line to Redis: messages that are sent at once are those that kombu would send, and none is lost."""

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import redis

from config import Settings
from pipeline.db.ids import new_id
from tests.servers import OwnRedis, wait_until
from workers.dispatcher import JobDispatcher
from workers.messages import CELERY_QUEUE, MessageLine


@pytest.fixture
def dispatcher(own_redis: OwnRedis) -> Iterator[JobDispatcher]:
    """A dispatcher without a consumer."""
    one = JobDispatcher(Settings(redis_url=own_redis.url, secret_key="s"))
    yield one
    one.celery.close()


@pytest.fixture
def line(dispatcher: JobDispatcher) -> MessageLine:
    return MessageLine(dispatcher.celery)


def take(url: str) -> list[dict[str, Any]]:
    """Every message that waits, the oldest first; they wait no more."""
    with redis.Redis.from_url(url) as client:
        found = client.lrange(CELERY_QUEUE, 0, -1)
        client.delete(CELERY_QUEUE)
    return [json.loads(message) for message in reversed(found)]


def job_of(message: dict[str, Any]) -> UUID:
    return UUID(json.loads(b64decode(message["body"]))[0][0])


def test_a_message_is_what_kombu_would_send(
    own_redis: OwnRedis, dispatcher: JobDispatcher, line: MessageLine
) -> None:
    job_id = new_id()
    dispatcher.publish([job_id])
    line.open()
    assert line.send(job_id)
    assert line.answer() == 2
    published, sent = take(own_redis.url)
    assert job_of(sent) == job_id
    for names, part in (
        (("id", "root_id", "expires"), "headers"),
        (("correlation_id", "delivery_tag"), "properties"),
    ):
        for name in names:
            assert sent[part].pop(name) != published[part].pop(name)
    assert sent == published


def test_a_worker_reads_it(own_redis: OwnRedis, dispatcher: JobDispatcher, line: MessageLine) -> None:
    line.open()
    job_id = new_id()
    assert line.send(job_id)
    with dispatcher.celery.connection_for_read() as connection:
        message = connection.SimpleQueue(CELERY_QUEUE).get(timeout=10)
        assert message.payload[0] == [str(job_id)]
        message.ack()


def test_one_message_is_under_way_at_a_time(line: MessageLine) -> None:
    assert not line.send(new_id())  # closed
    line.open()
    assert line.send(new_id())
    assert not line.send(new_id())
    assert line.answer() == 1
    assert line.send(new_id())
    assert line.answer() == 2


def test_a_line_that_broke_is_closed_and_opened_again(own_redis: OwnRedis, line: MessageLine) -> None:
    line.open()
    own_redis.restart()
    if line.send(new_id()):  # the kernel takes it, or knows already that nobody listens
        with pytest.raises(redis.ConnectionError):
            line.answer()
    assert not line.send(new_id())
    line.open()
    assert line.send(new_id())
    assert line.answer() == 1


def test_a_refused_message_closes_the_line(own_redis: OwnRedis, line: MessageLine) -> None:
    line.open()
    with redis.Redis.from_url(own_redis.url) as client:
        client.set(CELERY_QUEUE, "not a list")
    assert line.send(new_id())
    with pytest.raises(redis.ResponseError):
        line.answer()
    assert not line.send(new_id())


def dispatch_one(dispatcher: JobDispatcher, url: str) -> None:
    job_id = new_id()
    dispatcher.dispatch([job_id])
    wait_until(lambda: job_id in map(job_of, take(url)))


def test_after_the_first_message_the_line_is_used(own_redis: OwnRedis, dispatcher: JobDispatcher) -> None:
    def senders() -> int:
        with redis.Redis.from_url(own_redis.url) as client:
            return sum(one["cmd"] == "lpush" for one in client.client_list())

    dispatch_one(dispatcher, own_redis.url)
    assert senders() == 1

    def is_used() -> bool:  # the line is opened after the answer to the first message
        dispatch_one(dispatcher, own_redis.url)
        return senders() == 2

    wait_until(is_used)


def test_the_message_that_a_restart_of_redis_swallowed_is_sent_again(
    own_redis: OwnRedis, dispatcher: JobDispatcher
) -> None:
    for _ in range(3):
        dispatch_one(dispatcher, own_redis.url)
    own_redis.restart()
    dispatch_one(dispatcher, own_redis.url)


def test_dispatching_does_not_wait_for_a_frozen_redis(own_redis: OwnRedis, dispatcher: JobDispatcher) -> None:
    for _ in range(3):
        dispatch_one(dispatcher, own_redis.url)
    own_redis.freeze()
    job_ids = [new_id() for _ in range(5)]
    dispatcher.dispatch(job_ids)
    own_redis.thaw()
    found: set[UUID] = set()
    wait_until(lambda: found.update(map(job_of, take(own_redis.url))) or found >= set(job_ids))
