"""kombu's transports as this service uses them: Redis, and memory for the embedded service."""

from __future__ import annotations

import threading
import time
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, memory, redis

POLL_INTERVAL_SECONDS = 0.02
"""How often the embedded worker looks for a message that it could not take before, because it had enough of them."""
DRAIN_TIMEOUT_SECONDS = 0.2

POSTED = threading.Event()
"""Set when the embedded service has sent a message to itself."""


def register() -> None:
    """Make kombu use these transports for the schemes redis, rediss, redis+socket and embedded."""
    TRANSPORT_ALIASES["embedded"] = f"{__name__}:Embedded"
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = f"{__name__}:Redis"


class _RedisChannel(redis.Channel):
    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return the client of this channel. A new one for each message would take longer than sending it."""
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()  # type: ignore[no-untyped-call]
        return self._kept


class Redis(redis.Transport):
    """kombu's transport of Redis, which keeps its client."""

    Channel = _RedisChannel


class _EmbeddedChannel(memory.Channel):
    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        super()._put(queue, message, **kwargs)  # type: ignore[no-untyped-call]
        POSTED.set()


class Embedded(memory.Transport):
    """kombu's in-memory transport, which takes a message as soon as it is there, in place of polling. Celery waits twice for it
    before it stops, 2 s each by default."""

    Channel = _EmbeddedChannel

    def drain_events(self, connection: Any, timeout: Any = None, **kwargs: Any) -> Any:
        """Wait for a message, at most DRAIN_TIMEOUT_SECONDS."""
        until = time.monotonic() + DRAIN_TIMEOUT_SECONDS
        while True:
            POSTED.clear()
            try:
                return super().drain_events(connection, timeout=0)  # type: ignore[no-untyped-call]
            except TimeoutError:
                if time.monotonic() > until:
                    raise
            POSTED.wait(POLL_INTERVAL_SECONDS)
