"""`weighbridge workflows …`, `weighbridge tasks …` and `weighbridge task-types`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import func, select

from app.api.tasks import TaskSummary
from models import FollowUp
from pipeline.service import Service
from scale.task_types import TASK_TYPES
from tests.app.commands.conftest import PAYLOADS, Deliver, Run, commands_of
from workers.runner import run_due_jobs

POLYGONS = PAYLOADS / "polygonannotation/polygons.json"
TASK = json.loads(POLYGONS.read_text())["task"]["task_id"]


@pytest.fixture
def broken(workflows_dir: Path) -> Path:
    file = workflows_dir / "wrong.yaml"
    file.write_text(
        "workflow: wrong\nsteps:\n  one:\n    after: {state: done}\n    create: {type: annotation}\n"
    )
    return file


def test_the_own_workflow_is_in_order(weighbridge: Run) -> None:
    done = weighbridge("workflows", "check")
    assert (done.exit_code, done.stdout) == (0, "1 valid, 0 invalid.\n")


def test_every_error_of_an_invalid_file_has_its_file_line_and_field(weighbridge: Run, broken: Path) -> None:
    done = weighbridge("workflows", "check")
    assert done.exit_code == 1
    assert f"{broken}:4: steps.one.after.state: " in done.stdout
    assert f"{broken}:5: steps.one.create.params: " in done.stdout
    assert "1 valid, 1 invalid." in done.stdout
    output = json.loads(weighbridge("workflows", "check", str(broken), "--json").stdout)
    assert output["workflows"] == []
    assert {error["line"] for error in output["errors"]} == {4, 5}
    states = {
        row["name"]: row["state"] for row in json.loads(weighbridge("workflows", "list", "--json").stdout)
    }
    assert states == {"polygons-to-boxes": "active", "wrong": "invalid"}


def test_a_workflow_is_drawn_by_name_or_from_a_file(weighbridge: Run, workflows_dir: Path) -> None:
    assert weighbridge("workflows", "graph", "polygons-to-boxes").stdout.startswith("flowchart")
    drawn = weighbridge(
        "workflows", "graph", str(workflows_dir / "polygons-to-boxes.yaml"), "--format", "svg"
    ).stdout
    assert drawn.lstrip().startswith("<svg")
    done = weighbridge("workflows", "graph", "unknown")
    assert done.exit_code == 1
    assert "known: polygons-to-boxes" in done.stderr


def test_examples_in_a_file_are_tried(weighbridge: Run, workflows_dir: Path) -> None:
    assert weighbridge("workflows", "test").stdout.endswith("1 of 1 examples pass.\n")
    file = workflows_dir / "polygons-to-boxes.yaml"
    file.write_text(file.read_text().replace("- step: boxes", "- step: boxes\n        state: held"))
    done = weighbridge("workflows", "test", str(file))
    assert done.exit_code == 1
    assert "state is 'planned'; expected 'held'" in done.stdout


def test_a_plan_shows_the_exact_request_and_writes_nothing(
    make_app: Callable[..., Flask], service: Service
) -> None:
    weighbridge = commands_of(make_app(PUBLIC_URL="https://weighbridge.example"))
    (one,) = json.loads(weighbridge("workflows", "plan", "--payload", str(POLYGONS), "--json").stdout)
    assert one["state"] == "created"
    assert one["type"] == "annotation"
    assert one["request"]["callback_url"] == "https://weighbridge.example/callbacks/scale"
    assert one["request"]["unique_id"] == one["unique_id"] == f"polygons-to-boxes.boxes.{TASK}"
    assert one["request"]["layers"]["polygons"]
    output = weighbridge("workflows", "plan", "--payload", str(POLYGONS)).stdout
    assert "POST /v1/task/annotation" in output
    with service.reader.begin() as connection:
        assert connection.scalar(select(func.count()).select_from(FollowUp)) == 0


def test_a_plan_over_many_says_where_limits_stop(
    weighbridge: Run, deliver: Deliver, workflows_dir: Path
) -> None:
    file = workflows_dir / "polygons-to-boxes.yaml"
    file.write_text(
        file.read_text().replace("workflow: polygons-to-boxes", "workflow: limited\nlimits: {total: 2}")
    )
    for number in range(3):
        deliver("polygonannotation/polygons", task_id=f"task{number}")
    output = weighbridge("workflows", "plan", "--since", "9999d").stdout.splitlines()
    assert [line.split() for line in output[1:]] == [
        ["limited", "boxes", "annotation", "created", "2"],
        ["limited", "boxes", "annotation", "held", "1"],
    ]
    requests = json.loads(weighbridge("workflows", "plan", "--since", "9999d", "--json").stdout)
    assert [one["reason"] for one in requests if one["state"] == "held"] == [
        "held by the limit of 2 tasks in all of limited"
    ]


def test_what_would_be_planned_and_what_is_there_already_differ(
    weighbridge: Run, deliver: Deliver, service: Service
) -> None:
    deliver("polygonannotation/polygons")
    run_due_jobs(service)
    assert "already_exists" in weighbridge("workflows", "plan", "--task", TASK).stdout
    output = weighbridge("workflows", "explain", TASK).stdout
    assert "yes           after.type" in output
    assert f"→ polygons-to-boxes.boxes.{TASK} held: SCALE_API_KEY is not set" in output


def test_why_nothing_follows_is_explained(weighbridge: Run, deliver: Deliver) -> None:
    deliver("annotation/live_form", task_id="a-box-task")
    output = weighbridge("workflows", "explain", "a-box-task").stdout
    assert "no            after.type: is 'annotation'; expected 'polygonannotation'" in output
    assert "→ no follow-up" in output
    assert weighbridge("workflows", "explain", "unknown").exit_code == 1


def test_a_payload_that_cannot_be_read_is_an_error(weighbridge: Run, tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text("{}")
    done = weighbridge("workflows", "plan", "--payload", str(file))
    assert done.exit_code == 1
    assert "would be quarantined" in done.stderr
    assert weighbridge("workflows", "plan").exit_code == 2


def test_a_workflow_is_paused_and_resumed(weighbridge: Run) -> None:
    weighbridge("workflows", "pause", "polygons-to-boxes")
    assert json.loads(weighbridge("workflows", "list", "--json").stdout)[0]["state"] == "paused"
    assert weighbridge("workflows", "resume", "polygons-to-boxes").exit_code == 0
    assert json.loads(weighbridge("workflows", "list", "--json").stdout)[0]["state"] == "active"
    assert weighbridge("workflows", "pause", "unknown").exit_code == 1


def test_a_task_is_shown_with_its_tree(weighbridge: Run, deliver: Deliver, service: Service) -> None:
    deliver("polygonannotation/polygons")
    run_due_jobs(service)
    assert "polygonannotation" in weighbridge("tasks", "show", TASK).stdout
    shown = json.loads(weighbridge("tasks", "show", TASK, "--json").stdout)
    assert [follow_up["step"] for follow_up in shown["follow_ups"]] == ["boxes"]
    tree = weighbridge("tasks", "tree", TASK).stdout
    assert tree.startswith(f"{TASK}  polygonannotation, completed")
    assert f"└── polygons-to-boxes.boxes.{TASK}  annotation, held" in tree
    assert "Run: held, 1 tasks" in tree
    for command in ("show", "tree"):
        assert weighbridge("tasks", command, "unknown").exit_code == 1


def test_tasks_are_listed_as_the_api_lists_them(weighbridge: Run, deliver: Deliver) -> None:
    deliver("polygonannotation/polygons")
    deliver("categorization/one")
    newest, older = json.loads(weighbridge("tasks", "list", "--json").stdout)
    assert (newest["type"], older["type"]) == ("categorization", "polygonannotation")
    assert set(newest) == set(TaskSummary().fields)
    chosen = json.loads(weighbridge("tasks", "list", "--type", "polygonannotation", "--json").stdout)
    assert [task["task_id"] for task in chosen] == [TASK]
    assert TASK in weighbridge("tasks", "list", "--limit", "5").stdout
    grouped = ("tasks", "list", "--group-by", "type,status", "--type", "polygonannotation")
    (group,) = json.loads(weighbridge(*grouped, "--json").stdout)["data"]
    assert (group["type"], group["status"], group["created"]) == ("polygonannotation", "completed", 1)
    assert "cannot be combined with --label" in weighbridge(*grouped, "--label", "car").output
    for option in (("--tag", "none"), ("--since", "2099-01-01")):
        assert json.loads(weighbridge("tasks", "list", *option, "--json").stdout) == []


def test_every_task_type_is_listed_with_what_it_yields(weighbridge: Run) -> None:
    listed = {row["name"]: row for row in json.loads(weighbridge("task-types", "--json").stdout)}
    assert {known.name for known in TASK_TYPES} < set(listed)
    assert listed["polygonannotation"]["yields"] == ["polygon"]
    assert "polygonannotation" in weighbridge("task-types").stdout


def test_the_pages_about_the_language_can_be_made_again(weighbridge: Run) -> None:
    assert weighbridge("workflows", "reference").stdout == Path("docs/workflow-language.md").read_text()
    published = json.loads(Path("workflows/workflow.schema.json").read_text())
    assert json.loads(weighbridge("workflows", "schema").stdout) == published


def test_what_a_join_waits_for_is_explained(
    weighbridge: Run, service: Service, workflows_dir: Path, tmp_path: Path
) -> None:
    (workflows_dir / "consensus.yaml").write_text(Path("examples/three-way-consensus.yaml").read_text())
    (tmp_path / "images.csv").write_text("image\nhttps://images.example/street.jpg\n")
    submit = ("tasks", "submit", str(tmp_path / "images.csv"), "--workflow", "three-way-consensus")
    started = json.loads(weighbridge(*submit, "--yes", "--json").stdout)
    task_id = started["inputs"][0]["task_id"]
    run_due_jobs(service)
    output = weighbridge("workflows", "explain", task_id, "--workflow", "three-way-consensus").stdout
    assert (
        "three-way-consensus.agreed\n  no            join: wait: 0 of 3 tasks are completed; waiting for 3"
        in output
    )
