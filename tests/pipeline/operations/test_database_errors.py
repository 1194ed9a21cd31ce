"""Database errors are explained with the real errors of both databases."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from pipeline.operations.database_errors import explain


def error_of(url: str, statement: str = "SELECT 1") -> SQLAlchemyError:
    engine = create_engine(url)
    try:
        with pytest.raises(SQLAlchemyError) as caught, engine.begin() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()
    return caught.value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"database": "nosuch"}, "the database does not exist"),
        ({"username": "nosuch"}, "the role does not exist"),
        ({"port": 9, "host": "127.0.0.1", "query": {}}, "no server listens there"),
        ({"host": "nosuch.invalid", "query": {}}, "host name is unknown"),
        ({"query": {"host": "/nosuch"}}, "no server listens there"),
        ({"query": {"host": "127.0.0.1", "sslmode": "sometimes"}}, "cannot be encrypted"),
    ],
)
def test_a_connection_that_fails_names_the_setting(
    postgres_url: str, changes: dict[str, object], message: str
) -> None:
    url = make_url(postgres_url).set(**changes)  # type: ignore[arg-type]
    found = explain(error_of(url.render_as_string(hide_password=False)))
    assert message in found.message
    assert "DATABASE_URL" in found.fix
    assert "upgrade" not in found.fix


def test_a_missing_table_or_column_leads_to_the_upgrade(postgres_url: str, sqlite_url: str) -> None:
    for url in (postgres_url, sqlite_url):
        for statement in ("SELECT 1 FROM nosuch", "SELECT nosuch FROM deliveries"):
            found = explain(error_of(url, statement))
            assert "schema is out of date" in found.message
            assert "weighbridge db upgrade" in found.fix


def test_a_read_only_server_is_named(postgres_url: str) -> None:
    found = explain(error_of(postgres_url, "SET TRANSACTION READ ONLY; CREATE TABLE x (a int)"))
    assert "read-only" in found.message


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no database at all, but a text of some length" * 100, "not a SQLite database")],
)
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    found = explain(error_of(f"sqlite:///{path}", "SELECT * FROM deliveries"))
    assert message in found.message
    assert "DATABASE_URL" in found.fix


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    found = explain(error_of(f"sqlite:///{tmp_path}/nosuch/x.db"))
    assert "cannot be opened" in found.message


def test_an_error_of_the_disk_names_the_disk() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE  # type: ignore[attr-defined]
    found = explain(_wrapped(error))
    assert "disk" in found.fix
    assert "doctor" not in found.fix


def _wrapped(error: sqlite3.Error) -> SQLAlchemyError:
    wrapped = SQLAlchemyError(str(error))
    wrapped.orig = error  # type: ignore[attr-defined]
    return wrapped
