"""PostgreSQL ends its connections, or is away, in the middle of requests and jobs: nothing that was acknowledged is lost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from models import Response
from pipeline.db.migrations import migrate
from pipeline.receive.receive import Receipt
from tests.assertions import only
from tests.factories.callbacks import boxes, callback, receive_by_general_path, receive_callback
from tests.factories.services import open_on
from tests.reliability.load import Customer, Sender
from tests.servers import OwnPostgres
from tests.service import Service


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_connections_that_are_killed_and_servers_that_restart_cost_time_and_no_delivery(
    own_postgres: OwnPostgres, redis_url: str, service: Callable[..., Service]
) -> None:
    url = own_postgres.create_database("weighbridge").replace("postgresql://", "postgresql+psycopg://")
    migrate(url)
    one = service(url, redis_url, env={"LEASE_SECONDS": "3", "SWEEP_SECONDS": "0.5"})
    senders = [Sender(one, pause=0.1, first=1 + n * 100_000) for n in range(3)]
    for sender in senders:
        sender.start()
    for _ in range(15):
        time.sleep(0.2)
        own_postgres.close_connections("weighbridge")
    own_postgres.kill()
    time.sleep(1)
    assert requests.get(f"{one.web_url}/livez", timeout=5).status_code == 200
    assert requests.get(f"{one.web_url}/readyz", timeout=10).status_code == 503
    own_postgres.start()
    time.sleep(1)
    customer = Customer(one)
    customer.answer_for(senders, 50)
    customer.check()
    assert "Traceback" not in one.processes["web"].log.read_text()


@contextmanager
def connections_that_end_at_a_response(engine: Engine) -> Iterator[None]:
    """Let the server close each connection that inserts a response."""

    def execute(*statements: str) -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    execute(
        "CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'",
        "CREATE TRIGGER hang_up BEFORE INSERT ON responses FOR EACH ROW EXECUTE FUNCTION hang_up()",
    )
    yield
    execute("DROP FUNCTION hang_up CASCADE")


@pytest.mark.parametrize("receive", [receive_callback, receive_by_general_path])
def test_a_connection_that_ends_in_the_middle_of_a_delivery_leaves_nothing_of_it(
    receive: Callable[..., Receipt], postgres_url: str
) -> None:
    """Otherwise Scale's next try would be a duplicate, and its result lost."""
    service, body = open_on(postgres_url), callback(boxes("car"))
    with connections_that_end_at_a_response(service.engine), pytest.raises(DBAPIError):
        receive(service, body)
    assert receive(service, body).status == "processed"
    assert only(service, Response)["annotation_count"] == 1
    service.engine.dispose()
