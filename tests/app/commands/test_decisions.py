"""What a person decides from a terminal: follow-ups, jobs, tokens, pauses and the one switch."""

import json
from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import select, update

from models import AuditEntry, FollowUp, Job
from pipeline.access.tokens import holder
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from tests.app.commands.conftest import Deliver, Flasks
from workers.runner import run_due_jobs


@pytest.fixture
def held(deliver: Deliver, service: Service) -> str:
    """The unique_id of a follow-up that is held, because no API key is set."""
    deliver("polygonannotation/polygons")
    run_due_jobs(service)
    with service.reader.begin() as connection:
        return connection.execute(select(FollowUp.unique_id).where(FollowUp.state == "held")).scalar_one()


def state_of(service: Service, unique_id: str) -> tuple[str, str | None]:
    with service.reader.begin() as connection:
        return tuple(  # type: ignore[return-value]
            connection.execute(
                select(FollowUp.state, FollowUp.decided_by).where(FollowUp.unique_id == unique_id)
            ).one()
        )


def test_a_held_follow_up_is_listed_shown_and_approved(flask: Flasks, held: str, service: Service) -> None:
    assert "SCALE_API_KEY is not set" in flask("follow-ups", "list", "--state", "held").stdout
    assert json.loads(flask("follow-ups", "show", held, "--json").stdout)["request"]["with_labels"] is True
    done = flask("follow-ups", "approve", held)
    assert done.stdout == "1 approved.\n"
    state, who = state_of(service, held)
    assert state == "planned"
    assert who is not None
    assert who.startswith("cli")
    with service.reader.begin() as connection:
        assert connection.scalars(select(AuditEntry.action)).all() == ["follow-up.approve"]
    assert [row["kind"] for row in json.loads(flask("jobs", "list", "--json").stdout)] == ["create"]


def test_many_are_decided_by_their_workflow_after_a_question(
    flask: Flasks, held: str, service: Service
) -> None:
    asked = flask("follow-ups", "cancel", "--workflow", "polygons-to-boxes", input="n\n")
    assert asked.exit_code == 1
    assert state_of(service, held)[0] == "held"
    flask("follow-ups", "cancel", "--workflow", "polygons-to-boxes", "--yes")
    assert state_of(service, held)[0] == "canceled"


def test_a_decision_that_does_not_fit_says_why(flask: Flasks, held: str) -> None:
    done = flask("follow-ups", "retry", held, "no-such-one")
    assert done.exit_code == 1
    assert f"{held}: the follow-up is held" in done.stderr
    assert "No follow-up no-such-one" in done.stderr
    assert flask("follow-ups", "approve").exit_code == 2


@pytest.fixture
def dead(service: Service) -> Sequence[UUID]:
    """Two dead jobs."""
    with service.engine.begin() as connection:
        ids = queue.enqueue(connection, kinds.PLAN, ["one"]) + queue.enqueue(connection, kinds.FETCH, ["two"])
        connection.execute(update(Job).values(state="dead", last_error="it went wrong"))
    return ids


def test_dead_jobs_run_again(flask: Flasks, dead: Sequence[UUID]) -> None:
    assert "it went wrong" in flask("jobs", "list", "--state", "dead").stdout
    assert flask("jobs", "retry", str(dead[0])).stdout == "1 run again now.\n"
    assert flask("jobs", "retry", "--dead", "--kind", "plan").stdout == "0 run again now.\n"
    assert flask("jobs", "retry", "--dead").stdout == "1 run again now.\n"
    assert {row["state"] for row in json.loads(flask("jobs", "list", "--json").stdout)} == {"ready"}


def test_a_job_that_is_gone_is_an_error(flask: Flasks) -> None:
    done = flask("jobs", "retry", "01a2105e-382f-755c-990a-ed1967bfaf2f")
    assert done.exit_code == 1
    assert "01a2105e" in done.stderr


def test_a_token_is_shown_once_and_ends_when_it_is_revoked(flask: Flasks, service: Service) -> None:
    token = flask("tokens", "create", "reader", "--scope", "read").stdout.strip()
    with service.reader.begin() as connection:
        found = holder(connection, token)
    assert found is not None
    assert found.scopes == {"read"}
    (row,) = json.loads(flask("tokens", "list", "--json").stdout)
    assert row["name"] == "reader"
    assert token not in json.dumps(row)
    assert flask("tokens", "revoke", "reader").exit_code == 0
    with service.reader.begin() as connection:
        assert holder(connection, token) is None
    assert flask("tokens", "revoke", "reader").exit_code == 1


def test_the_one_switch_stops_creating_and_starts_it_again(flask: Flasks) -> None:
    assert json.loads(flask("creating", "status", "--json").stdout) == {"stopped": False, "pauses": []}
    flask("creating", "stop")
    stopped = json.loads(flask("creating", "status", "--json").stdout)
    assert stopped["stopped"]
    assert stopped["actor"].startswith("cli")
    assert "Stopped by cli" in flask("creating", "status").stdout
    flask("creating", "start")
    assert flask("creating", "status").stdout == "Tasks are created.\n"
