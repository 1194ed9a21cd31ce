"""What squawk says about the SQL that revisions run."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.service import BIN

FIRST = "0001"
"""Creates the tables: nothing runs before it."""
EXCLUDED = "require-lock-timeout,require-statement-timeout,prefer-robust-stmts,prefer-text-field,prefer-bigint-over-int"
"""Time-outs are set on the connection; the others are taste."""
IGNORED = ("BEGIN", "SELECT", "SET", "SHOW", "UPDATE ALEMBIC_VERSION")


def statements_of(config: Config) -> Iterator[str]:
    """Run the revisions after the first one, and return the SQL that they ran."""
    command.upgrade(config, FIRST)
    ran: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.lstrip().upper().startswith(IGNORED):
            ran.append(statement)

    event.listen(Engine, "before_cursor_execute", record)
    try:
        command.upgrade(config, "head")
    finally:
        event.remove(Engine, "before_cursor_execute", record)
    yield from ran


def judged(statements: Iterator[str]) -> set[str]:
    """Return the rules of squawk that the statements break."""
    done = subprocess.run(
        [BIN / "squawk", "--reporter", "json", "--pg-version", "15", "--exclude", EXCLUDED],
        input=";\n".join(statements) + ";\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return {found["rule_name"] for found in json.loads(done.stdout or "[]")}
