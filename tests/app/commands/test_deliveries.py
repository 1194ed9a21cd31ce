"""`weighbridge deliveries …`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update

from models import Annotation, AuditEntry, Delivery, Response
from pipeline.service import Service
from tests.app.commands.conftest import PAYLOADS, Deliver, Run
from tests.app.commands.folder import Folder, Terminal


def test_the_newest_come_first_and_json_has_the_names_of_the_api(weighbridge: Run, deliver: Deliver) -> None:
    deliver("polygonannotation/polygons")
    second = deliver(b"no JSON")
    listed = json.loads(weighbridge("deliveries", "list", "--json").stdout)
    assert [row["status"] for row in listed] == ["quarantined", "processed"]
    assert listed[0]["id"] == str(second.delivery_id)
    assert listed[1]["event"] == "completed"
    chosen = json.loads(
        weighbridge("deliveries", "list", "--status", "quarantined", "--since", "1h", "--json").stdout
    )
    assert [row["id"] for row in chosen] == [str(second.delivery_id)]
    table = weighbridge("deliveries", "list", "--task", listed[1]["task_id"]).stdout
    assert listed[1]["task_id"] in table
    assert "quarantined" not in table
    assert json.loads(weighbridge("deliveries", "list", "--event", "recalled", "--json").stdout) == []


def test_one_is_shown_whole_and_its_bytes_come_as_they_came(
    weighbridge: Run, deliver: Deliver, tmp_path: Path
) -> None:
    body = b'\xff{"not": "UTF-8"}'
    receipt = deliver(body)
    shown = weighbridge("deliveries", "show", str(receipt.delivery_id)).stdout
    assert "quarantined" in shown
    assert weighbridge("deliveries", "body", str(receipt.delivery_id)).stdout_bytes == body
    weighbridge("deliveries", "body", str(receipt.delivery_id), "--output", str(tmp_path / "body"))
    assert (tmp_path / "body").read_bytes() == body


def test_an_unknown_one_is_an_error_that_says_where_to_look(weighbridge: Run) -> None:
    for command in ("show", "body", "replay"):
        done = weighbridge("deliveries", command, "01a2105e-382f-755c-990a-ed1967bfaf2f")
        assert done.exit_code == 1
        assert "`weighbridge deliveries list`" in done.stderr


def test_what_a_labeler_wrote_does_not_reach_the_terminal_as_a_command(
    weighbridge: Run, deliver: Deliver
) -> None:
    deliver(json.dumps({"task_id": "t\x1b[2J"}).encode())
    assert "\x1b" not in weighbridge("deliveries", "list").stdout


def test_a_replay_says_what_changed_and_is_written_down(
    weighbridge: Run, deliver: Deliver, service: Service
) -> None:
    receipt = deliver("polygonannotation/polygons")
    # As if an older version of this code had not understood it.
    with service.engine.begin() as connection:
        connection.execute(update(Delivery).values(status="quarantined", reason="not understood then"))
        connection.execute(delete(Annotation))
        connection.execute(update(Response).values(annotation_count=0))
    dry = weighbridge("deliveries", "replay", "--quarantined", "--dry-run", "--json")
    assert json.loads(dry.stdout) == [{"delivery_id": str(receipt.delivery_id)}]
    done = weighbridge("deliveries", "replay", "--quarantined")
    assert done.exit_code == 0
    assert "delivery quarantined → processed" in done.stdout
    assert "annotation_count 0 → " in done.stdout
    again = json.loads(weighbridge("deliveries", "replay", str(receipt.delivery_id), "--json").stdout)
    assert again == [{"delivery_id": str(receipt.delivery_id), "status": "processed", "changed": {}}]
    assert json.loads(weighbridge("deliveries", "replay", "--quarantined", "--json").stdout) == []
    with service.reader.begin() as connection:
        assert connection.scalar(select(func.count()).select_from(AuditEntry)) == 2
        assert connection.scalar(select(func.count()).select_from(Response)) == 1


def test_a_replay_without_a_choice_does_not_replay_everything(weighbridge: Run) -> None:
    assert weighbridge("deliveries", "replay").exit_code == 2


@pytest.mark.parametrize("moment", ["yesterday", "2026-13-01", "7 d"])
def test_a_moment_that_is_none_says_how_to_write_one(
    weighbridge: Run, moment: str, database_url: str
) -> None:
    done = weighbridge("deliveries", "list", "--since", moment)
    assert done.exit_code == 2
    assert "2026-01-31" in done.stderr


def test_tail_shows_what_comes(
    start: Callable[..., Terminal], folder: Folder, deliver: Deliver, database_url: str
) -> None:
    first = deliver("polygonannotation/polygons")
    tail = start("weighbridge", "deliveries", "tail", DATABASE_URL=database_url, SECRET_KEY="secret")
    tail.says(str(first.delivery_id))
    second = deliver((PAYLOADS / "annotation/live_form.json").read_bytes())
    tail.says(f"{second.delivery_id}.*processed  completed")
