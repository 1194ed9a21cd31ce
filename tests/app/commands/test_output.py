"""Tables and records in a terminal, in a pipe, and for names that are not known."""

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from app.commands.output import time_ago
from tests.app.commands.conftest import Deliver, Run
from tests.service import ROOT

LONG = "three-boxes.review." + "x" * 80

SCRIPT = f"""
from app.commands.output import print_rows
rows = [
    {{"unique_id": {LONG!r}, "state": "held", "task_id": None, "reason": "a reason of several words " * 6}},
    {{"unique_id": "short", "state": "created", "task_id": None, "reason": None}},
]
print_rows(rows, ("unique_id", "state", "task_id", "reason"), False, "None.")
"""


def in_terminal(columns: int) -> str:
    """What SCRIPT prints in a terminal of that width."""
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=slave, stderr=slave, stdin=slave, env=env, cwd=ROOT
    ) as process:
        os.close(slave)
        parts = []
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the terminal is closed when the process ends
                break
            if not part:
                break
            parts.append(part)
        process.wait()
    os.close(master)
    return b"".join(parts).decode()


@pytest.mark.parametrize("columns", [40, 80, 140, 300])
def test_an_id_is_never_broken_and_an_empty_column_is_left_out(columns: int) -> None:
    text = in_terminal(columns)
    assert LONG in text
    assert "short" in text
    assert "task id" not in text
    assert "task_id" not in text


def test_ages_are_relative_for_a_month() -> None:
    now = datetime.now(UTC)
    for seconds, text in (
        (5, "5 s ago"),
        (125, "2 min ago"),
        (7300, "2 h ago"),
        (3 * 86_400 + 60, "3 d ago"),
    ):
        assert time_ago(now - timedelta(seconds=seconds)) == text
    assert time_ago(datetime(2020, 1, 2, 3, 4, tzinfo=UTC)) == "2020-01-02 03:04"
    assert time_ago(now + timedelta(hours=1)).startswith("20")


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (
            ("follow-ups", "list", "--workflow", "nosuch"),
            "No workflow is called nosuch; known: polygons-to-boxes.",
        ),
        (("follow-ups", "list", "--step", "nosuch"), "No step is called nosuch; known: boxes."),
        (("follow-ups", "approve", "--workflow", "nosuch"), "No workflow is called nosuch"),
        (("tasks", "list", "--type", "polygonanotation"), "No type is called polygonanotation; known: "),
        (("tasks", "list", "--status", "opn"), "No status is called opn; known: canceled, completed"),
        (("tasks", "list", "--project", "nosuch"), "No project is called nosuch; known: "),
    ],
)
def test_a_filter_value_that_is_not_known_is_named(
    weighbridge: Run, deliver: Deliver, words: tuple[str, ...], note: str
) -> None:
    deliver("polygonannotation/polygons")
    done = weighbridge(*words, "--json")
    assert note in done.stderr
    json.loads(done.stdout)


def test_a_known_value_without_rows_is_no_mistake(weighbridge: Run) -> None:
    assert weighbridge("follow-ups", "list", "--workflow", "polygons-to-boxes", "--json").stderr == ""
