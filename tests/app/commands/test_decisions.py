"""What a person decides from a terminal: follow-ups, jobs, tokens, pauses and the one switch."""

import json
from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import select, update

from models import AuditEntry, FollowUp, Job
from pipeline.access.tokens import holder
from pipeline.jobs import kinds, queue
from pipeline.operations import bulk_actions
from pipeline.service import Service
from tests.app.commands.conftest import Deliver, Run
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


def test_a_held_follow_up_is_listed_shown_and_approved(weighbridge: Run, held: str, service: Service) -> None:
    assert "SCALE_API_KEY is not set" in weighbridge("follow-ups", "list", "--state", "held").stdout
    assert (
        json.loads(weighbridge("follow-ups", "show", held, "--json").stdout)["request"]["with_labels"] is True
    )
    done = json.loads(weighbridge("follow-ups", "approve", held, "--json").stdout)
    assert done == {"decided": [held], "errors": {}}
    state, actor = state_of(service, held)
    assert state == "planned"
    assert actor is not None
    assert actor.startswith("cli")
    with service.reader.begin() as connection:
        assert connection.scalars(select(AuditEntry.action)).all() == ["follow-up.approve"]
    assert [row["kind"] for row in json.loads(weighbridge("jobs", "list", "--json").stdout)] == ["create"]


def test_many_are_decided_by_their_workflow_after_a_question(
    weighbridge: Run, held: str, service: Service
) -> None:
    asked = weighbridge("follow-ups", "cancel", "--workflow", "polygons-to-boxes", input="n\n")
    assert asked.exit_code == 1
    assert state_of(service, held)[0] == "held"
    weighbridge("follow-ups", "cancel", "--workflow", "polygons-to-boxes", "--yes")
    assert state_of(service, held)[0] == "canceled"


def test_a_decision_that_does_not_fit_says_why(weighbridge: Run, held: str) -> None:
    done = weighbridge("follow-ups", "retry", held, "no-such-one", "--json")
    assert done.exit_code == 1
    assert set(json.loads(done.stdout)["errors"]) == {held, "no-such-one"}
    assert f"{held}: the follow-up is held" in done.stderr
    assert "`weighbridge follow-ups list` shows the known ones" in done.stderr
    assert weighbridge("follow-ups", "approve").exit_code == 2


@pytest.fixture
def dead(service: Service) -> Sequence[UUID]:
    """Two dead jobs."""
    with service.engine.begin() as connection:
        ids = queue.enqueue(connection, kinds.PLAN, ["one"]) + queue.enqueue(connection, kinds.FETCH, ["two"])
        connection.execute(update(Job).values(state="dead", last_error="it went wrong"))
    return ids


def test_dead_jobs_run_again(weighbridge: Run, dead: Sequence[UUID]) -> None:
    assert "it went wrong" in weighbridge("jobs", "list", "--state", "dead").stdout

    def retried(*options: str) -> list[str]:
        return json.loads(weighbridge("jobs", "retry", *options, "--json").stdout)["retried"]

    assert retried(str(dead[0])) == [str(dead[0])]
    assert retried("--dead", "--kind", "plan") == []
    assert retried("--dead") == [str(dead[1])]
    assert {row["state"] for row in json.loads(weighbridge("jobs", "list", "--json").stdout)} == {"ready"}


def test_a_job_that_is_gone_is_an_error(weighbridge: Run) -> None:
    done = weighbridge("jobs", "retry", "01a2105e-382f-755c-990a-ed1967bfaf2f")
    assert done.exit_code == 1
    assert "01a2105e" in done.stderr


def test_a_token_is_shown_once_and_ends_when_it_is_revoked(weighbridge: Run, service: Service) -> None:
    token = weighbridge("tokens", "create", "reader", "--scope", "read").stdout.strip()
    with service.reader.begin() as connection:
        found = holder(connection, token)
    assert found is not None
    assert found.scopes == {"read"}
    (row,) = json.loads(weighbridge("tokens", "list", "--json").stdout)
    assert row["name"] == "reader"
    assert token not in json.dumps(row)
    assert weighbridge("tokens", "revoke", "reader").exit_code == 0
    with service.reader.begin() as connection:
        assert holder(connection, token) is None
    assert weighbridge("tokens", "revoke", "reader").exit_code == 1


@pytest.mark.parametrize("names", [("creation", "pause", "resume"), ("creating", "stop", "start")])
def test_creation_is_paused_and_resumed_under_its_new_and_its_former_name(
    weighbridge: Run, names: tuple[str, str, str]
) -> None:
    group, pause, resume = names
    running = {
        "stopped": False,
        "stopped_by": None,
        "stopped_at": None,
        "reason": None,
        "environments": [],
        "pauses": [],
    }
    assert json.loads(weighbridge(group, "status", "--json").stdout) == running
    paused = json.loads(weighbridge(group, pause, "--json").stdout)
    assert paused["stopped"]
    assert paused["stopped_by"].startswith("cli")
    assert json.loads(weighbridge(group, "status", "--json").stdout) == paused
    assert json.loads(weighbridge(group, resume, "--json").stdout) == running


def test_the_oldest_or_a_sample_of_the_selected_follow_ups_is_decided_about(
    weighbridge: Run, deliver: Deliver, service: Service
) -> None:
    for number in range(4):
        deliver("polygonannotation/polygons", task_id=f"task-{number}")
        run_due_jobs(service)

    def decided(*options: str) -> list[str]:
        done = weighbridge(
            "follow-ups", "approve", "--workflow", "polygons-to-boxes", "--yes", "--json", *options
        )
        return json.loads(done.stdout)["decided"]

    assert decided("--since", "2099-01-01") == []
    assert decided("--limit", "1") == ["polygons-to-boxes.boxes.task-0"]
    assert len(decided("--sample", "2")) == 2
    assert len(decided("--since", "1h")) == 1


def test_a_dismissed_job_is_deleted_and_kept_in_the_audit_log(
    weighbridge: Run, dead: Sequence[UUID], service: Service
) -> None:
    done = weighbridge("jobs", "dismiss", str(dead[0]), "--reason", "known", "--json")
    assert json.loads(done.stdout) == {"dismissed": [str(dead[0])], "errors": {}}
    assert [row["id"] for row in json.loads(weighbridge("jobs", "list", "--json").stdout)] == [str(dead[1])]
    (entry,) = json.loads(weighbridge("audit", "--action", "job.dismiss", "--json").stdout)
    assert entry["subject"] == "plan:one"
    assert entry["details"] == {"reason": "known", "last_error": "it went wrong", "attempts": 0}
    assert weighbridge("jobs", "dismiss", str(dead[0]), "--reason", "again").exit_code == 1
    assert weighbridge("jobs", "dismiss", "--dead", "--reason", "all").exit_code == 0
    assert json.loads(weighbridge("jobs", "list", "--json").stdout) == []


def test_a_dismissed_delivery_stays_stored_and_is_no_warning_any_more(
    weighbridge: Run, deliver: Deliver
) -> None:
    def warnings() -> set[str]:
        checks = json.loads(weighbridge("doctor", "--json").stdout)["checks"]
        return {check["name"] for check in checks if check["state"] == "warning"}

    receipt = deliver(b"no JSON")
    sound = deliver("polygonannotation/polygons")
    assert "quarantine" in warnings()
    refused = weighbridge("deliveries", "dismiss", str(sound.delivery_id), "--reason", "x")
    assert refused.exit_code == 1
    assert "processed" in refused.stderr
    assert weighbridge("deliveries", "dismiss", "--quarantined", "--reason", "a test of ours").exit_code == 0
    assert "quarantine" not in warnings()
    shown = json.loads(weighbridge("deliveries", "show", str(receipt.delivery_id), "--json").stdout)
    assert shown["status"] == "quarantined"
    assert shown["dismissed_at"]


# Planning again.


@pytest.fixture
def skipped(held: str, service: Service) -> str:
    """The unique_id of a follow-up that a dry run has skipped, of a file that has changed since."""
    with service.engine.begin() as connection:
        request = connection.scalars(select(FollowUp.request)).one()
        columns = {"state": "skipped", "reason": "dry run", "reason_code": "dry_run"}
        connection.execute(update(FollowUp).values(**columns, request={**request, "with_labels": False}))
    return held


def test_a_skipped_follow_up_is_planned_again_after_its_change_was_shown(
    weighbridge: Run, skipped: str, service: Service
) -> None:
    selection = ("--workflow", "polygons-to-boxes", "--state", "skipped")
    shown = weighbridge("follow-ups", "replan", *selection, "--dry-run")
    assert f"{skipped}: skipped (dry run)" in shown.stdout
    assert "with_labels: false → true" in shown.stdout
    assert "1 held follow-ups, as far as the limits allow. Cost: " in shown.stdout
    assert state_of(service, skipped)[0] == "skipped"
    assert weighbridge("follow-ups", "replan", *selection, input="n\n").exit_code == 1
    assert state_of(service, skipped)[0] == "skipped"
    done = weighbridge("follow-ups", "replan", skipped, "--yes")
    assert done.exit_code == 0
    assert "Planned 1 follow-ups again." in done.stdout
    assert state_of(service, skipped)[0] == "held"  # no API key is set


def test_what_cannot_be_planned_again_is_reported_together(weighbridge: Run, skipped: str) -> None:
    unknown = [f"x.y.{number}" for number in range(30)]
    done = weighbridge("follow-ups", "replan", *unknown, skipped, "--yes", "--json")
    assert done.exit_code == 1
    assert {one["unique_id"] for one in json.loads(done.stdout) if one["refused"]} == set(unknown)
    said = weighbridge("follow-ups", "cancel", *unknown).stderr.splitlines()
    (line,) = [one for one in said if "x.y" in one]
    assert line.startswith("x.y.0, x.y.1, ")
    assert "and 10 more: " in line


# Backfills.


def test_a_workflow_is_run_over_stored_results_after_a_preview(
    weighbridge: Run, deliver: Deliver, service: Service
) -> None:
    deliver("polygonannotation/polygons")
    command = ("workflows", "backfill", "polygons-to-boxes", "--since", "2000-01-01")
    shown = weighbridge(*command, "--dry-run").stdout
    assert "polygons-to-boxes.boxes.5f10aa1900c4e10017d2aa19  annotation" in shown
    assert "1 of 1 results have new follow-ups (1 match the filters): 1 created." in shown
    assert "Cost of what would be created: " in shown
    assert weighbridge("backfills", "list").stdout == "No matching backfills.\n"
    assert weighbridge(*command, input="n\n").exit_code == 1
    started = json.loads(weighbridge(*command, "--yes", "--json").stdout)
    assert (started["state"], started["total"]) == ("running", 1)
    assert json.loads(weighbridge("backfills", "stop", started["id"], "--json").stdout)["state"] == "stopped"
    assert "the backfill is stopped" in weighbridge("backfills", "stop", started["id"]).stderr
    weighbridge("backfills", "resume", started["id"])
    run_due_jobs(service)
    (row,) = json.loads(weighbridge("backfills", "list", "--json").stdout)
    assert (row["state"], row["evaluated"]) == ("completed", 1)
    assert weighbridge("workflows", "backfill", "nosuch", "--yes").exit_code == 1


def test_a_bulk_action_is_listed_shown_and_stopped(
    weighbridge: Run, deliver: Deliver, service: Service
) -> None:
    assert weighbridge("bulk-actions", "list").stdout == "No bulk actions.\n"
    deliver(b"no JSON")
    with service.engine.begin() as connection:
        action = bulk_actions.find_action("deliveries.dismiss")
        bulk_actions.request_action(connection, action, {}, "ana", 1, None)
    (row,) = json.loads(weighbridge("bulk-actions", "list", "--json").stdout)
    assert (row["action"], row["actor"], row["state"]) == ("deliveries.dismiss", "ana", "running")
    stopped = json.loads(weighbridge("bulk-actions", "stop", row["id"], "--json").stdout)
    assert stopped["state"] == "stopped"
    assert json.loads(weighbridge("bulk-actions", "show", row["id"], "--json").stdout) == stopped
    run_due_jobs(service)
    (delivery,) = json.loads(weighbridge("deliveries", "list", "--json").stdout)
    assert delivery["dismissed_at"] is None
    again = weighbridge("bulk-actions", "stop", row["id"])
    assert again.exit_code == 1
    assert "stopped" in again.stderr
