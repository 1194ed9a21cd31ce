"""PostgreSQL ends its connections, or is away, in the middle of requests and jobs: nothing that was acknowledged is lost."""

import time
from collections.abc import Callable

import pytest
import requests

from pipeline.db.migrations import migrate
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
    customer.answer_for(senders)
    assert len(customer.kept) > 50
    customer.check()
    assert "Traceback" not in one.processes["web"].log.read_text()
