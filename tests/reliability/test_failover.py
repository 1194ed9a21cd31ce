"""The name of the database leads to another server: callbacks and jobs are back at once, in every process."""

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.exc import SQLAlchemyError

from config import load_settings
from models import Delivery, Job
from pipeline.bootstrap import build_service
from pipeline.db.migrations import migrate
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from tests.assertions import table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.servers import OwnPostgres, Switch, wait_until
from workers.runner import run_due_jobs

CLIENTS = 8


def demote(server: OwnPostgres) -> None:
    server.demote()


def close_connections(server: OwnPostgres) -> None:
    server.close_connections("weighbridge")


def stop(server: OwnPostgres) -> None:
    server.stop()


def crash(server: OwnPostgres) -> None:
    server.kill()


@pytest.fixture
def switch(own_postgres: OwnPostgres, other_postgres: OwnPostgres) -> Iterator[Switch]:
    for server in (own_postgres, other_postgres):
        url = server.create_database("weighbridge")
        migrate(url.replace("postgresql:", "postgresql+psycopg:"))
    one = Switch(own_postgres)
    yield one
    one.close()


@pytest.fixture
def service(switch: Switch) -> Iterator[Service]:
    environment = {"DATABASE_URL": switch.url("weighbridge"), "WORKFLOWS_DIR": "nowhere", "SECRET_KEY": "s"}
    one = build_service(load_settings(environment), pool_size=CLIENTS)
    yield one
    one.engine.dispose()


def post(service: Service, round_name: str) -> tuple[int, int]:
    """Receive five callbacks from each of several clients at once. Return how many were stored, and how many were not."""
    stored: list[int] = []
    failed: list[int] = []

    def client(number: int) -> None:
        for n in range(5):
            try:
                receive_callback(service, callback(boxes("car"), task_id=f"{round_name}-{number}-{n}"))
            except SQLAlchemyError:  # the endpoint answers 503, and Scale sends the callback again
                failed.append(n)
            else:
                stored.append(n)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    return len(stored), len(failed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", [demote, close_connections, stop, crash], ids=lambda end: end.__name__)
def test_after_a_failover_callbacks_are_stored_and_jobs_run_on_the_new_server(
    end: Callable[[OwnPostgres], None],
    service: Service,
    switch: Switch,
    own_postgres: OwnPostgres,
    other_postgres: OwnPostgres,
) -> None:
    assert post(service, "before") == (5 * CLIENTS, 0)
    switch.server = other_postgres
    end(own_postgres)
    _, failed = post(service, "during")
    assert failed <= CLIENTS  # no more than one for each connection to the old server
    assert post(service, "after") == (5 * CLIENTS, 0)
    assert len(table(service, Delivery)) == 10 * CLIENTS - failed
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.CHECK_RUN, ["after-0-0"])
    run_due_jobs(service)
    assert kinds.CHECK_RUN not in {row["kind"] for row in table(service, Job)}


@pytest.mark.timeout(300)
def test_a_worker_that_only_claims_jobs_finds_the_new_server(
    service: Service, switch: Switch, own_postgres: OwnPostgres, other_postgres: OwnPostgres
) -> None:
    assert queue.claim(service.engine, 60) is None
    switch.server = other_postgres
    demote(own_postgres)
    with pytest.raises(SQLAlchemyError):
        wait_until(lambda: queue.claim(service.engine, 60), 30, "the old server refuses the claim")
    assert queue.claim(service.engine, 60) is None
