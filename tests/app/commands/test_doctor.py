"""`weighbridge doctor`: each problem with its fix, and exit code 1 if there is one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from config import load_settings
from config.deployment import deployment_problems
from models import Job
from pipeline.db.ids import utcnow
from pipeline.db.migrations import migrate
from pipeline.db.months import Month, drop_month
from pipeline.follow_ups.decisions import pause_creation
from pipeline.jobs import kinds, queue
from pipeline.operations.health import record_heartbeat
from pipeline.service import Service
from tests.app.commands.conftest import Deliver, commands_of
from tests.fake_server import FakeServer, ReceivedRequest, reply
from tests.servers import wait_until

HEALTHY = {
    "API_TOKEN": "a-token-with-many-characters",
    "SECRET_KEY": "a-secret-key-with-many-characters",
    "METRICS_TOKEN": "a-metrics-token-with-many-characters",
    "SCALE_API_KEY": "live_key",
    "SCALE_LIVE_CALLBACK_KEYS": "callback_key_with_many_characters",
}


def looked_at(app: Flask) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by their names."""
    done = commands_of(app)("doctor", "--json")
    output = json.loads(done.stdout)
    assert output["ok"] == (done.exit_code == 0)
    return done.exit_code, {check["name"]: check for check in output["checks"]}


@pytest.fixture
def scale() -> Any:
    """A Scale that knows one key."""

    def answer(asked: ReceivedRequest) -> bytes:
        if "bGl2ZV9rZXk6" in asked.headers.get("authorization", ""):
            return reply({"docs": [], "total": 0, "limit": 1, "has_more": False})
        return reply({"status_code": 401, "error": "Please provide a valid API key"}, 401)

    with FakeServer(answer) as peer:
        yield peer


@pytest.fixture
def working(service: Service, tmp_path: Path) -> dict[str, str]:
    """A worker that has just given a sign of life, and settings shared by several machines."""
    with service.engine.begin() as connection:
        record_heartbeat(connection, "worker:1", 1)
    return {**HEALTHY, "ARTIFACT_STORE": str(tmp_path / "shared")}


def test_all_is_well_when_all_is_set(
    make_app: Callable[..., Flask], working: dict[str, str], scale: FakeServer
) -> None:
    code, found = looked_at(make_app(**working, SCALE_API_URL=f"{scale.url}/v1", PUBLIC_URL=scale.url))
    assert code == 0
    assert [check for check in found.values() if check["state"] not in ("ok", "skipped")] == []
    assert "SCALE_TEST_API_KEY is not set" in found["test API key"]["message"]


@pytest.mark.parametrize(
    ("changed", "name", "state", "message"),
    [
        ({"SCALE_API_KEY": "wrong"}, "live API key", "problem", "Please provide a valid API key"),
        ({"SCALE_API_URL": "http://127.0.0.1:9/v1"}, "live API key", "problem", "unexpected answer"),
        ({"SCALE_LIVE_CALLBACK_KEYS": ""}, "callback keys", "problem", "every callback is refused"),
        ({"PUBLIC_URL": ""}, "PUBLIC_URL", "warning", "planned and held"),
        ({"PUBLIC_URL": "http://weighbridge.example"}, "PUBLIC_URL", "warning", "unencrypted"),
        ({"API_TOKEN": ""}, "API tokens", "warning", "the API cannot be used"),
        ({"REDIS_URL": "redis://127.0.0.1:9"}, "broker", "problem", "takes no messages"),
        ({"ARTIFACT_STORE": "/dev/null/store"}, "artifact store", "problem", "not writable"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_one_thing_that_is_wrong_is_named(
    make_app: Callable[..., Flask],
    working: dict[str, str],
    scale: FakeServer,
    changed: dict[str, str],
    name: str,
    state: str,
    message: str,
) -> None:
    code, found = looked_at(
        make_app(**{**working, "SCALE_API_URL": f"{scale.url}/v1", "PUBLIC_URL": scale.url, **changed})
    )
    assert found[name]["state"] == state
    assert message in found[name]["message"]
    assert found[name]["fix"]
    assert code == (state == "problem")


def test_scale_cannot_call_back_to_this_machine(
    make_app: Callable[..., Flask], working: dict[str, str]
) -> None:
    code, found = looked_at(
        make_app(**{**working, "PUBLIC_URL": "http://127.0.0.1:8000", "SCALE_API_KEY": ""})
    )
    assert code == 1
    assert found["PUBLIC_URL"]["state"] == "problem"


def test_without_a_worker_that_is_a_problem(app: Flask) -> None:
    code, found = looked_at(app)
    assert code == 1
    assert found["worker"]["state"] == "problem"


def test_what_waits_for_a_person_is_a_warning(app: Flask, service: Service, deliver: Deliver) -> None:
    deliver(b"no JSON")
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PLAN, ["one", "two"])
        connection.execute(update(Job).values(state="dead"))
        pause_creation(connection, "cli:me")
    _, found = looked_at(app)
    assert found["jobs"]["state"] == "problem"
    assert "2 dead" in found["jobs"]["message"]
    assert found["quarantine"]["state"] == "warning"
    assert found["creation"]["message"] == "paused by cli:me"
    output = commands_of(app)("doctor").stdout
    assert "→ `weighbridge jobs list --state dead`" in output


def test_a_broken_workflow_file_is_named_with_line_and_field(app: Flask, workflows_dir: Path) -> None:
    (workflows_dir / "wrong.yaml").write_text("workflow: wrong\nsteps:\n  one:\n    after: {state: done}\n")
    output = commands_of(app)("doctor").stdout
    assert "wrong.yaml:4: steps.one.after.state: " in output


def test_a_database_without_tables_is_a_problem_that_one_command_fixes(
    make_app: Callable[..., Flask], empty_database_url: str
) -> None:
    app = make_app(DATABASE_URL=empty_database_url)
    code, found = looked_at(app)
    assert code == 1
    assert found["migrations"]["fix"] == "weighbridge db upgrade"
    assert "weighbridge db upgrade" in commands_of(app)("jobs", "list").stderr
    current = commands_of(app)("db", "current")
    assert current.exit_code == 1
    assert current.stdout.startswith("empty (required: ")
    assert "(it was empty)" in commands_of(app)("db", "upgrade").stdout
    assert "already" in commands_of(app)("db", "upgrade").stdout
    assert commands_of(app)("db", "current").exit_code == 0
    assert looked_at(app)[1]["migrations"]["state"] == "ok"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_month_of_bodies_without_a_partition_is_named_until_it_is_made(
    make_app: Callable[..., Flask], working: dict[str, str], service: Service, deliver: Deliver
) -> None:
    app = make_app(**working)
    this, following = Month.of(utcnow()), Month.of(utcnow()).later(1)

    def found() -> list[tuple[str, str]]:
        checks = json.loads(commands_of(app)("doctor", "--json").stdout)["checks"]
        return [
            (one["message"].split()[0], one["state"]) for one in checks if one["name"] == "months of bodies"
        ]

    def problems() -> list[str]:
        answer = app.test_client().get("/readyz", headers={"Authorization": f"Bearer {working['API_TOKEN']}"})
        assert answer.json is not None
        return [one for one in answer.json["problems"] if "months of bodies" in one]

    assert found() == []
    with service.engine.begin() as connection:
        for month in (this, following, following.later(1)):
            drop_month(connection, month)
    assert found() == [(str(this), "warning"), (str(following), "warning")]
    assert len(problems()) == 2
    deliver(b"no JSON")
    assert found() == [(str(this), "ok"), (str(following), "warning")]
    assert commands_of(app)("db", "upgrade").exit_code == 0
    assert found() == [(str(this), "ok")]
    wait_until(lambda: problems() == [], 10, "the checks run once a second")


def test_a_database_that_is_away_is_a_problem_without_a_traceback(make_app: Callable[..., Flask]) -> None:
    app = make_app(DATABASE_URL="postgresql://nobody:secret@127.0.0.1:9/away")
    done = commands_of(app)("doctor")
    assert done.exit_code == 1
    assert "PostgreSQL, away at 127.0.0.1" in done.stdout
    assert "secret" not in done.stdout
    assert "correct host and port in DATABASE_URL" in commands_of(app)("deliveries", "list").stderr


def test_rows_that_a_migration_loses_are_missed(
    make_app: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SQLite does where a table is rebuilt with foreign keys on: the children go."""
    import sqlite3

    from pipeline.db import migrations

    url = f"sqlite:///{tmp_path / 'old.db'}"
    migrate(url)
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute(
            "INSERT INTO workflow_pauses (workflow, paused_by, paused_at) VALUES ('a', 'ana', '2026-01-01')"
        )
        connection.execute("UPDATE alembic_version SET version_num = '0000'")

    def losing(_url: str) -> None:
        with sqlite3.connect(tmp_path / "old.db") as connection:
            connection.execute("DELETE FROM workflow_pauses")

    monkeypatch.setattr(migrations, "migrate", losing)
    done = commands_of(make_app(DATABASE_URL=url))("db", "upgrade")
    assert done.exit_code == 1
    assert "workflow_pauses: 0 of 1" in done.stderr


def test_a_folder_of_one_machine_is_no_place_for_what_several_share() -> None:
    shared = load_settings({"DATABASE_URL": "postgresql://host/name"})
    assert set(deployment_problems(shared)) == {"SECRET_KEY", "ARTIFACT_STORE"}
    mounted = load_settings(
        {"DATABASE_URL": "postgresql://host/name", "SECRET_KEY": "secret", "ARTIFACT_STORE": "/mnt/shared"}
    )
    assert deployment_problems(mounted) == {}
    on_heroku = load_settings(
        {
            "DATABASE_URL": "postgresql://host/name",
            "SECRET_KEY": "secret",
            "ARTIFACT_STORE": "/app/files",
            "DYNO": "web.1",
        }
    )
    assert set(deployment_problems(on_heroku)) == {"ARTIFACT_STORE"}
    assert deployment_problems(load_settings({})) == {}


SECRETS = {
    "API_TOKEN": "CANARY",
    "METRICS_TOKEN": "CANARY",
    "SCALE_API_KEY": "live_CANARY",
    "SCALE_TEST_API_KEY": "test_CANARY",
    "SCALE_LIVE_CALLBACK_KEYS": "CANARY1",
    "SCALE_TEST_CALLBACK_KEYS": "CANARY2",
    "SCALE_API_URL": "http://user:CANARY@127.0.0.1:9/v1",
    "REDIS_URL": "redis://user:CANARY@127.0.0.1:9/0",
    "ARTIFACT_STORE": "ftp://user:CANARY@127.0.0.1:9/store?token=CANARY",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "command", [("doctor",), ("doctor", "--json"), ("deliveries", "list"), ("scale", "list")]
)
def test_no_command_prints_a_part_of_a_secret(
    make_app: Callable[..., Flask], name: str, command: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    done = commands_of(make_app(**{name: SECRETS[name]}))(*command)
    assert "CANARY" not in done.stdout + done.stderr
    assert "CANARY" not in caplog.text


def test_no_command_prints_a_part_of_a_database_password(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    for url in ("postgresql://user:CANARY@127.0.0.1:9/name", "postgresql://user:p%40CANARY@127.0.0.1:9/name"):
        app = make_app(DATABASE_URL=url)
        for command in (("doctor",), ("deliveries", "list"), ("db", "current")):
            done = commands_of(app)(*command)
            assert "CANARY" not in done.stdout + done.stderr + caplog.text
        assert "CANARY" not in app.test_client().get("/readyz").text


def test_a_public_url_that_leads_elsewhere_is_a_problem(
    make_app: Callable[..., Flask], working: dict[str, str]
) -> None:
    with FakeServer(lambda _: reply({"error": "no such page"}, 404)) as other:
        _, found = looked_at(make_app(**working, PUBLIC_URL=other.url, SCALE_API_URL=f"{other.url}/v1"))
    assert found["callback URL"]["state"] == "problem"
    assert "404" in found["callback URL"]["message"]


def test_the_database_is_written_to(make_app: Callable[..., Flask], working: dict[str, str]) -> None:
    app = make_app(**working)
    _, found = looked_at(app)
    assert found["database write"]["state"] == "ok"
