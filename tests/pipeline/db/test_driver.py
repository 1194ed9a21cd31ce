"""Statements by libpq on the engine's pool: what the pool and SQLAlchemy's Connection promise holds for them too."""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, Integer, bindparam, literal, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pipeline.db.compiled import fetch_one
from pipeline.db.driver import execute, execute_alone, pooled_connection
from tests.factories.services import open_on
from tests.servers import OwnPostgres

ADD = "SELECT %(number)s::int + length(%(bytes)s::bytea) + coalesce(length(%(none)s::text), 0)"
VALUES = {"number": 40, "bytes": b"\0\xff", "none": None}


def add(engine: Engine, number: object) -> Any:
    ((result,),) = execute_alone(engine, ADD, {**VALUES, "number": number}, binary=False)
    return result


@pytest.mark.parametrize("binary", [False, True])
def test_values_are_passed_as_they_are(postgres_url: str, binary: bool) -> None:
    engine = open_on(postgres_url).engine
    values = {
        "text": "100 % 'é' \\\n",
        "none": None,
        "bytes": b"\0\xff\\x",
        "whole": -(2**40),
        "real": 0.1,
        "yes": True,
        "id": UUID(int=7),
        "moment": datetime(2026, 3, 2, 12, 0, 0, 123456, tzinfo=UTC),
        "texts": ["a,b", '"', "", "{}"],
        "no_texts": [],
        "json": '{"a": [1, "%"]}',
    }
    types = (
        "text",
        "text",
        "bytea",
        "bigint",
        "float",
        "bool",
        "uuid",
        "timestamptz",
        "text[]",
        "text[]",
        "jsonb",
    )
    casts = ", ".join(f"%({name})s::{type_}" for name, type_ in zip(values, types, strict=True))
    statement = f"SELECT {casts}, %(text)s::text, '%%'"
    expected = [(*{**values, "json": {"a": [1, "%"]}}.values(), values["text"], "%")]

    def run() -> Any:
        return [execute_alone(engine, statement, {**values, "unused": 1}, binary) for _ in range(2)]

    assert run() == [expected, expected]
    with ThreadPoolExecutor() as threads:  # the main thread waits for a server in another way
        assert threads.submit(run).result() == [expected, expected]
    engine.dispose()


def test_a_statement_may_return_no_row_or_many(postgres_url: str) -> None:
    engine = open_on(postgres_url).engine
    statement = "SELECT number FROM generate_series(1, %(last)s::int) AS number"
    assert execute_alone(engine, statement, {"last": 0}, binary=False) == []
    assert execute_alone(engine, statement, {"last": 3}, binary=False) == [(1,), (2,), (3,)]
    engine.dispose()


def test_percent_signs_of_a_compiled_statement_and_its_constants_stay(postgres_url: str) -> None:
    engine = open_on(postgres_url).engine
    rest = (bindparam("number", type_=Integer) % 4).label("rest")
    statement = select(rest, literal("100 %s").label("constant"))
    assert fetch_one(engine, statement, {"number": 7}) == {"rest": 3, "constant": "100 %s"}
    engine.dispose()


def test_a_signal_interrupts_the_wait_for_a_frozen_server(own_postgres: OwnPostgres) -> None:
    """A worker runs its jobs in the main thread, and must end while the server does not answer."""

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    own_postgres.create_database("weighbridge")
    engine = open_on(own_postgres.url("weighbridge").replace("postgresql:", "postgresql+psycopg:")).engine
    assert add(engine, 1) == 3
    handler = signal.signal(signal.SIGALRM, interrupt)
    own_postgres.freeze()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            add(engine, 1)
    finally:
        own_postgres.thaw()
        signal.signal(signal.SIGALRM, handler)
    assert add(engine, 2) == 4
    engine.dispose()


def test_a_statement_that_the_driver_dropped_is_prepared_again(postgres_url: str) -> None:
    """psycopg deallocates every statement of a connection after a rollback."""
    engine = open_on(postgres_url).engine
    add(engine, 1)
    with engine.connect() as connection:
        for _ in range(10):  # so often that psycopg prepares it
            connection.execute(text("SELECT 1"))
        connection.rollback()
        connection.execute(text("SELECT 1"))
        prepared = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'weighbridge%'"
        assert connection.scalar(text(prepared)) == 0
    assert add(engine, 1) == 3
    engine.dispose()


def test_a_fault_of_the_statement_shows_no_value_and_leaves_the_connection_in_use(postgres_url: str) -> None:
    engine = open_on(postgres_url).engine
    add(engine, 1)
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
        add(engine, 1)
    assert raised.value.connection_invalidated
    with ExitStack() as held:
        for _ in range(3):
            connection = held.enter_context(pooled_connection(engine))
            assert execute(engine, connection, ADD, {**VALUES, "number": 1}) == [(3,)]
    own_postgres.kill()
    engine.dispose()
    with pytest.raises(SQLAlchemyError):
        add(engine, 1)
