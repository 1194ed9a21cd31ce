"""Statements by libpq on the engine's pool: what the pool and SQLAlchemy's Connection promise holds for them too."""

from contextlib import ExitStack

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pipeline.db.driver import execute_prepared, pooled_connection
from tests.factories.services import open_on
from tests.servers import OwnPostgres

ADD = "SELECT %s::int + length(%s::bytea) + coalesce(length(%s::text), 0)"


def add(engine: Engine, number: str) -> bytes | None:
    with pooled_connection(engine) as connection:
        return execute_prepared(engine, connection, b"add", ADD, (number, b"\0\xff", None))


def test_texts_bytes_and_null_are_passed_as_they_are(postgres_url: str) -> None:
    engine = open_on(postgres_url).engine
    assert [add(engine, "40"), add(engine, "-2")] == [b"42", b"0"]
    engine.dispose()


def test_a_statement_that_the_driver_dropped_is_prepared_again(postgres_url: str) -> None:
    """psycopg deallocates every statement of a connection after a rollback."""
    engine = open_on(postgres_url).engine
    add(engine, "1")
    with engine.connect() as connection:
        for _ in range(10):  # so often that psycopg prepares it
            connection.execute(text("SELECT 1"))
        connection.rollback()
        connection.execute(text("SELECT 1"))
        assert connection.scalar(text("SELECT count(*) FROM pg_prepared_statements WHERE name = 'add'")) == 0
    assert add(engine, "1") == b"3"
    engine.dispose()


def test_a_fault_of_the_statement_shows_no_value_and_leaves_the_connection_in_use(postgres_url: str) -> None:
    engine = open_on(postgres_url).engine
    add(engine, "1")
    with engine.connect() as connection:
        server = connection.scalar(text("SELECT pg_backend_pid()"))
    with pytest.raises(DBAPIError) as raised:
        add(engine, "x")
    assert not raised.value.connection_invalidated
    assert raised.value.params is None
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) == server
    engine.dispose()


def test_a_lost_connection_has_the_others_of_the_pool_replaced(own_postgres: OwnPostgres) -> None:
    own_postgres.create_database("weighbridge")
    engine = open_on(own_postgres.url("weighbridge").replace("postgresql:", "postgresql+psycopg:")).engine
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(pooled_connection(engine))
    own_postgres.close_connections("weighbridge")
    with pytest.raises(DBAPIError) as raised:
        add(engine, "1")
    assert raised.value.connection_invalidated
    with ExitStack() as held:
        for _ in range(3):
            connection = held.enter_context(pooled_connection(engine))
            assert execute_prepared(engine, connection, b"add", ADD, ("1", b"", None)) == b"1"
    own_postgres.kill()
    engine.dispose()
    with pytest.raises(SQLAlchemyError):
        add(engine, "1")
