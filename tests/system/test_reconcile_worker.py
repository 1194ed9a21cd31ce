"""Reconciliation by a running worker: lost callbacks and their files arrive without a person."""

from collections.abc import Callable

from sqlalchemy import create_engine, select

from models import Annotation, Artifact, Delivery
from scale.client import Client
from tests.servers import wait_until
from tests.service import Service as Processes


def test_a_running_worker_receives_lost_callbacks_and_fetches_their_files(
    database_url: str, service: Callable[..., Processes]
) -> None:
    processes = ("sandbox", "worker")
    running = service(database_url, processes=processes, env={"RECONCILE_EVERY_SECONDS": "1"})
    client = Client(running.sandbox_url, running.env["SCALE_TEST_API_KEY"])
    request = {"callback_url": "http://127.0.0.1:9/nowhere", "attachment": "https://example.com/a.png"}
    client.create_task(
        "segmentannotation", {**request, "labels": ["car", "road"], "instruction": "Colour it"}
    )
    engine = create_engine(database_url)

    def measured() -> bool:
        with engine.connect() as connection:
            geometries = connection.execute(select(Annotation.geometry)).scalars().all()
            states = set(connection.execute(select(Artifact.state)).scalars())
        return bool(geometries) and all("rle" in one for one in geometries) and states == {"stored"}

    wait_until(measured, 60)
    with engine.connect() as connection:
        assert connection.execute(select(Delivery.kind)).scalars().all() == ["reconciled"]
    engine.dispose()
