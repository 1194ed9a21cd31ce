"""Explain database errors to people: what is wrong, and the next step."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from pipeline.db.errors import safe_message


class Explanation(NamedTuple):
    """A database error for people."""

    message: str
    fix: str


UPGRADE = "Run `weighbridge db upgrade`."
BY_SQLSTATE = {
    "3D000": ("the database does not exist", "Create it, or correct DATABASE_URL."),
    "28000": ("the role does not exist or may not connect", "Create it, or correct DATABASE_URL."),
    "28P01": ("the password is wrong", "Correct the password in DATABASE_URL."),
    "42P01": ("the database schema is out of date: a table is missing", UPGRADE),
    "42703": ("the database schema is out of date: a column is missing", UPGRADE),
    "42501": ("the role may not do this", "Grant the role of DATABASE_URL rights on the tables."),
    "25006": (
        "the server is read-only",
        "Wait for the failover, or point DATABASE_URL to the primary server.",
    ),
    "53100": ("the server's disk is full", "Free space on the server."),
    "53300": ("the server has no connection left", "Reduce WEB_CONCURRENCY, or raise max_connections."),
    "57P03": ("the server is starting or stopping", "Wait until it is up."),
}
NO_HOST, REFUSED, SILENT, NO_TLS, NOT_ALLOWED = "no host", "refused", "silent", "no tls", "not allowed"
BY_FAULT = {
    NO_HOST: ("the host name is unknown", "Correct the host in DATABASE_URL."),
    REFUSED: ("no server listens there", "Start PostgreSQL, or correct host and port in DATABASE_URL."),
    SILENT: (
        "the server does not answer in time",
        "Check the network and the firewall between this machine and the host of DATABASE_URL.",
    ),
    NO_TLS: (
        "the connection cannot be encrypted as DATABASE_URL says",
        "Correct sslmode, sslrootcert and the other ssl parameters in DATABASE_URL.",
    ),
    NOT_ALLOWED: (
        "the server does not let this machine, role and database connect",
        "Add a line to its pg_hba.conf, or correct DATABASE_URL.",
    ),
}
"""Faults of connections that have no SQLSTATE of their own."""
BY_TEXT = (
    ("no pg_hba.conf entry", "", NOT_ALLOWED),
    ("failed to resolve host", "", NO_HOST),
    ("could not translate host name", "", NO_HOST),
    ("sslmode", "", NO_TLS),
    ("SSL", "", NO_TLS),
    ("certificate", "", NO_TLS),
    ("Connection refused", "", REFUSED),
    ("No such file or directory", "socket", REFUSED),
    ("timeout expired", "", SILENT),
    ("timed out", "", SILENT),
    ('database "', "does not exist", "3D000"),
    ('role "', "does not exist", "28000"),
    ("password authentication failed", "", "28P01"),
    ("too many clients", "", "53300"),
    ("the database system is", "", "57P03"),
)
"""Texts of failed connections, which carry no SQLSTATE: libpq reports them as text alone."""
BY_SQLITE_CODE = {
    sqlite3.SQLITE_FULL: ("the disk is full", "Free space in the folder of DATABASE_URL."),
    sqlite3.SQLITE_READONLY: (
        "the database file is read-only",
        "Correct its permissions, and those of its folder.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the database file cannot be opened",
        "Create its folder, or correct DATABASE_URL.",
    ),
    sqlite3.SQLITE_NOTADB: (
        "the file is not a SQLite database",
        "Correct DATABASE_URL, or restore a backup.",
    ),
    sqlite3.SQLITE_CORRUPT: ("the database file is damaged", "Restore a backup."),
    sqlite3.SQLITE_IOERR: (
        "reading or writing the database file failed",
        "Check the disk with the file of DATABASE_URL: its space, its health, and that it is no network share.",
    ),
    sqlite3.SQLITE_BUSY: ("another process keeps the database locked", "Stop it, or try again."),
}


def explain(error: SQLAlchemyError) -> Explanation:
    """Return what is wrong and the next step. The message contains no values of rows."""
    cause = getattr(error, "orig", None) or error
    found = _by_sqlstate(cause) or _by_sqlite_code(cause)
    text = safe_message(error)
    if found is None:
        return Explanation(
            f"the database does not answer as expected ({text})",
            "Check DATABASE_URL, and the log of the database.",
        )
    message, fix = found
    return Explanation(f"{message} ({text})", fix)


def _by_sqlstate(cause: BaseException) -> tuple[str, str] | None:
    state = getattr(cause, "sqlstate", None)
    if state is None:
        text = str(cause)
        state = next((state for start, end, state in BY_TEXT if start in text and end in text), None)
    return {**BY_FAULT, **BY_SQLSTATE}.get(state or "")


def _by_sqlite_code(cause: BaseException) -> tuple[str, str] | None:
    if not isinstance(cause, sqlite3.Error):
        return None
    text = str(cause)
    if "no such table" in text or "no such column" in text:
        return f"the database schema is out of date: {text}", UPGRADE
    code = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else BY_SQLITE_CODE.get(code & 0xFF)
