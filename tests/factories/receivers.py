"""A receiver of outbound webhooks, and its subscription."""

from typing import Any

from standardwebhooks.webhooks import Webhook

from pipeline.events import subscriptions
from tests.factories.callbacks import receive_callback
from tests.factories.pipelines import Pipeline
from tests.fake_server import FakeServer, reply


class Receiver:
    """Somebody else's service that takes webhooks."""

    def __init__(self) -> None:
        self.status, self.headers = 200, dict[str, str]()
        self.peer = FakeServer(lambda asked: reply(status=self.status, **self.headers))
        self.host = f"127.0.0.1:{self.peer.port}"
        self.url = f"{self.peer.url}/hook"

    def heard(self, secret: str) -> list[dict[str, Any]]:
        """What came, each with its signature checked as a receiver checks it."""
        return [Webhook(secret).verify(asked.body, asked.headers) for asked in self.peer.requests]


def subscribe(chain: Pipeline, receiver: Receiver, *events: str, **given: Any) -> str:
    """Register the receiver; its secret."""
    with chain.service.engine.begin() as connection:
        row = subscriptions.add(connection, chain.service.settings, "ana", receiver.url, events, **given)
    return str(row["secret"])


def receive(chain: Pipeline, body: bytes) -> None:
    receive_callback(chain.service, body)
    chain.work()
