"""The sandbox's own receiver of callbacks, bounded in count and size, for tests without a service."""

from typing import Any

from sqlalchemy import delete, func, select

from sandbox.engine.sandbox import Sandbox
from sandbox.storage import clock
from sandbox.storage.store import ReceivedCallback

MAX_BODY_BYTES = 16 * 2**20
MAX_CALLBACKS = 10_000
MAX_STORED_BYTES = 64 * 2**20


def store_callback(sandbox: Sandbox, path: str, headers: dict[str, str], body: bytes) -> None:
    """Store a callback and delete the oldest ones beyond MAX_CALLBACKS and MAX_STORED_BYTES."""
    newest_first = ReceivedCallback.number.desc()
    sizes = select(
        ReceivedCallback.number,
        func.sum(func.length(ReceivedCallback.body)).over(order_by=newest_first).label("bytes"),
        func.row_number().over(order_by=newest_first).label("position"),
    ).subquery()
    excess = select(sizes.c.number).where(
        (sizes.c.bytes > MAX_STORED_BYTES) | (sizes.c.position > MAX_CALLBACKS)
    )
    with sandbox.store.write() as session:
        session.add(ReceivedCallback(path=path, headers=headers, body=body, received_at=clock.now()))
        session.flush()
        session.execute(
            delete(ReceivedCallback).where(ReceivedCallback.number.in_(excess)),
            execution_options={"synchronize_session": False},
        )


def list_callbacks(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Return the stored callbacks, oldest first."""
    with sandbox.store.read() as session:
        return [
            {
                "path": callback.path,
                "headers": callback.headers,
                "body": callback.body.decode("utf-8", "replace"),
                "received_at": clock.format_timestamp(callback.received_at),
            }
            for callback in session.scalars(select(ReceivedCallback).order_by(ReceivedCallback.number))
        ]
