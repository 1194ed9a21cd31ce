"""Errors of the database: transient or permanent, and never with values."""

import json
import random

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from models import Batch, Delivery, Job
from pipeline.service import Service
from tests.assertions import table
from tests.factories.callbacks import callback, receive_callback
from tests.factories.services import open_on


def test_what_the_database_refuses_for_good_is_quarantined_with_its_words(postgres_url: str) -> None:
    """A name that is too long for its index is an OperationalError like a lock that is held too long."""
    service = open_on(postgres_url)
    name = random.Random(1).randbytes(4_000).hex()
    assert (
        receive_callback(service, json.dumps({"batch": name, "status": "completed"}).encode()).status
        == "quarantined"
    )
    assert table(service, Batch) == table(service, Job) == []
    (delivery,) = table(service, Delivery)
    assert "index row" in delivery["reason"]
    service.engine.dispose()


def test_an_error_of_the_database_repeats_no_values(service: Service) -> None:
    """They hold whole bodies, and with them addresses that open files."""
    statement = text("INSERT INTO nowhere (response) VALUES (:response)")
    with pytest.raises(SQLAlchemyError) as refused, service.engine.begin() as connection:
        connection.execute(statement, {"response": "secret"})
    assert "secret" not in str(refused.value)


def test_a_column_that_the_code_does_not_know_costs_no_delivery_and_tells_no_secret(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As when an old version runs on after a migration, or was rolled back to."""
    caplog.set_level("INFO")
    service = open_on(postgres_url)
    signed = {"annotations": {"indexedImage": "https://example.com/i.png?X-Amz-Signature=secret"}}
    body = callback(signed, type="newtype")
    with service.engine.begin() as connection:
        connection.execute(text("ALTER TABLE deliveries ADD COLUMN later TEXT NOT NULL DEFAULT 'x'"))
        connection.execute(text("ALTER TABLE tasks ADD COLUMN later TEXT NOT NULL DEFAULT 'x'"))
        connection.execute(text("ALTER TABLE responses ADD COLUMN later TEXT NOT NULL DEFAULT 'x'"))
    assert receive_callback(service, body).status == "processed"
    with service.engine.begin() as connection:
        connection.execute(text("ALTER TABLE responses ALTER COLUMN later DROP DEFAULT"))
    assert (
        receive_callback(service, callback(signed, type="newtype", task_id="another")).status == "quarantined"
    )
    delivery = next(row for row in table(service, Delivery) if row["status"] == "quarantined")
    assert 'null value in column "later"' in delivery["reason"]
    assert "secret" not in delivery["reason"] + caplog.text
    service.engine.dispose()
