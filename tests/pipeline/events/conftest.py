"""A receiver of webhooks, and a pipeline that may send to it."""

from collections.abc import Callable, Iterator

import pytest

from tests.factories.pipelines import Pipeline
from tests.factories.receivers import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    with one.peer:
        yield one


@pytest.fixture
def chain(open_pipeline: Callable[..., Pipeline], receiver: Receiver) -> Pipeline:
    return open_pipeline(subscriber_hosts=(receiver.host,))
