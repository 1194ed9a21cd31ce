"""Messages that are sent without waiting: they equal those of kombu, and none is lost."""

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
from workers.messages import CELERY_QUEUE, MessageSender


@pytest.fixture
def dispatcher(own_redis: OwnRedis) -> Iterator[JobDispatcher]:
    """A dispatcher without a consumer."""
    one = JobDispatcher(Settings(redis_url=own_redis.url, secret_key="s"))
    yield one
    one.celery.close()


@pytest.fixture
def sender(dispatcher: JobDispatcher) -> MessageSender:
    return MessageSender(dispatcher.celery)


def take(url: str) -> list[dict[str, Any]]:
    """Every message that waits, the oldest first; they wait no more."""
    with redis.Redis.from_url(url) as client, client.pipeline() as transaction:
        transaction.lrange(CELERY_QUEUE, 0, -1)
        transaction.delete(CELERY_QUEUE)
        found, _ = transaction.execute()
    return [json.loads(message) for message in reversed(found)]


def job_of(message: dict[str, Any]) -> UUID:
    return UUID(json.loads(b64decode(message["body"]))[0][0])


def test_a_message_is_what_kombu_would_send(
    own_redis: OwnRedis, dispatcher: JobDispatcher, sender: MessageSender
) -> None:
    job_id = new_id()
    dispatcher.publish([job_id])
    sender.open()
    assert sender.send(job_id)
    assert sender.read_reply() == 2
    published, sent = take(own_redis.url)
    assert job_of(sent) == job_id
    for names, part in (
        (("id", "root_id", "expires"), "headers"),
        (("correlation_id", "delivery_tag"), "properties"),
    ):
        for name in names:
            assert sent[part].pop(name) != published[part].pop(name)
    assert sent == published


def test_a_worker_receives_it(own_redis: OwnRedis, dispatcher: JobDispatcher, sender: MessageSender) -> None:
    sender.open()
    job_id = new_id()
    assert sender.send(job_id)
    with dispatcher.celery.connection_for_read() as connection:
        message = connection.SimpleQueue(CELERY_QUEUE).get(timeout=10)
        assert message.payload[0] == [str(job_id)]
        message.ack()


def test_at_most_one_message_awaits_its_reply(sender: MessageSender) -> None:
    assert not sender.send(new_id())  # closed
    sender.open()
    assert sender.send(new_id())
    assert not sender.send(new_id())
    assert sender.read_reply() == 1
    assert sender.send(new_id())
    assert sender.read_reply() == 2


def test_a_lost_connection_is_closed_and_opened_again(own_redis: OwnRedis, sender: MessageSender) -> None:
    sender.open()
    own_redis.restart()
    if sender.send(new_id()):  # unless the connection is known to be closed
        with pytest.raises(redis.ConnectionError):
            sender.read_reply()
    assert not sender.send(new_id())
    sender.open()
    assert sender.send(new_id())
    assert sender.read_reply() == 1


def test_an_error_reply_closes_the_connection(own_redis: OwnRedis, sender: MessageSender) -> None:
    sender.open()
    with redis.Redis.from_url(own_redis.url) as client:
        client.set(CELERY_QUEUE, "not a list")
    assert sender.send(new_id())
    with pytest.raises(redis.ResponseError):
        sender.read_reply()
    assert not sender.send(new_id())


def dispatch_one(dispatcher: JobDispatcher, url: str) -> None:
    job_id = new_id()
    dispatcher.dispatch([job_id])
    wait_until(lambda: job_id in map(job_of, take(url)))


def test_after_the_first_message_the_sender_is_used(own_redis: OwnRedis, dispatcher: JobDispatcher) -> None:
    def senders() -> int:
        with redis.Redis.from_url(own_redis.url) as client:
            return sum(one["cmd"] == "lpush" for one in client.client_list())

    dispatch_one(dispatcher, own_redis.url)
    assert senders() == 1

    def is_used() -> bool:  # it connects after the reply to the first message
        dispatch_one(dispatcher, own_redis.url)
        return senders() == 2

    wait_until(is_used)


def test_a_message_lost_in_a_restart_of_redis_is_sent_again(
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
