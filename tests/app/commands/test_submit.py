"""`weighbridge tasks submit`: checked first, created once, and the same file again creates nothing again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from models import AuditEntry
from sandbox.pytest_plugin import ScaleSandbox, running_sandbox
from tests.app.commands.conftest import Run, commands_of
from tests.assertions import table
from tests.service import ROOT

REQUEST = """
instruction: Which kind of ${{ row.what }}?
attachment_type: image
attachment: ${{ row.image }}
categories: [old, young]
metadata: {city: "${{ row.city }}"}
tags: [first]
"""
CSV = "image,what,city\nhttps://images.example/1.png,car,Bern\nhttps://images.example/2.png,van,\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ScaleSandbox]:
    with running_sandbox(ROOT, None, "--memory", "--speed", "manual") as one:
        yield one


@pytest.fixture
def weighbridge(make_app: Callable[..., Flask], sandbox: ScaleSandbox) -> Run:
    sandbox.reset()
    sandbox.clear_faults()
    app = make_app(
        SCALE_API_URL=sandbox.api_url, SCALE_API_KEY=sandbox.live_key, PUBLIC_URL="http://127.0.0.1:9"
    )
    return commands_of(app)


@pytest.fixture
def submit(weighbridge: Run, tmp_path: Path) -> Callable[..., Result]:
    """`submit("a.csv", CSV, "--request", …)`: write the file and submit it, without being asked."""
    (tmp_path / "request.yaml").write_text(REQUEST)

    def one(name: str, content: str, *options: str) -> Result:
        (tmp_path / name).write_text(content)
        return weighbridge("tasks", "submit", str(tmp_path / name), "--yes", *options)

    return one


def with_request(tmp_path: Path) -> tuple[str, ...]:
    return ("--type", "categorization", "--request", str(tmp_path / "request.yaml"))


def test_each_row_becomes_one_task_however_often_the_file_is_submitted(
    submit: Callable[..., Result], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    assert submit("street.csv", CSV, *with_request(tmp_path)).stdout.endswith("\n2 created.\n")
    first, second = sandbox.tasks()
    assert first["instruction"].startswith("Which kind of")
    assert {task["callback_url"] for task in (first, second)} == {"http://127.0.0.1:9/callbacks/scale"}
    assert sorted(task["metadata"] == {"city": "Bern"} for task in (first, second)) == [False, True]
    assert all(task["unique_id"].startswith("street.") for task in (first, second))
    assert submit("street.csv", CSV, *with_request(tmp_path)).stdout.endswith("\n2 already_exists.\n")
    assert (
        submit("street.csv", CSV + "https://images.example/3.png,car,\n", *with_request(tmp_path)).exit_code
        == 0
    )
    assert len(sandbox.tasks()) == 3


def test_rows_that_ask_for_different_tasks_under_one_unique_id_are_wrong(
    submit: Callable[..., Result], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    one, other = "1,https://images.example/1.png,car\n", "1,https://images.example/2.png,car\n"
    head = "unique_id,image,what\n"
    done = submit("street.csv", head + one + other + one, *with_request(tmp_path))
    assert "1 invalid rows" in done.stderr
    assert "line 3: its unique_id is already used by line 2 for another task" in done.stderr
    assert sandbox.tasks() == []
    nameless = "unique_id,type\nu,\nu,\nline 2,categorization\n"
    assert "3 invalid rows" in submit("street.csv", nameless).stderr
    assert submit("street.CSV", head + one + one, *with_request(tmp_path)).stdout.endswith("\n1 created.\n")


def test_the_type_may_stand_in_the_request(
    submit: Callable[..., Result], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    (tmp_path / "typed.yaml").write_text(f"type: categorization\n{REQUEST}")
    assert submit("a.csv", CSV, "--request", str(tmp_path / "typed.yaml")).stdout.endswith("\n2 created.\n")
    assert {task["type"] for task in sandbox.tasks()} == {"categorization"}


def test_lines_of_json_are_whole_requests(submit: Callable[..., Result], sandbox: ScaleSandbox) -> None:
    lines = [
        {"type": "categorization", "unique_id": "mine", "instruction": "?", "attachment_type": "text",
         "attachment": str(number), "categories": ["a", "b"]}
        for number in range(1)
    ]  # fmt: skip
    done = submit("lines.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n", "--json")
    (output,) = json.loads(done.stdout)
    assert (output["outcome"], output["unique_id"]) == ("created", "mine")
    assert output["task_id"] == sandbox.tasks()[0]["task_id"]


def test_columns_of_a_table_are_fields_of_the_request(
    submit: Callable[..., Result], sandbox: ScaleSandbox
) -> None:
    content = (
        "type,instruction,attachment_type,attachment,categories:json,metadata.shot,metadata.night:json\n"
        'categorization,?,text,a,"[""x"", ""y""]",007,true\n'
    )
    assert submit("table.csv", content).exit_code == 0
    (task,) = sandbox.tasks()
    assert task["metadata"] == {"shot": "007", "night": True}
    assert task["params"]["categories"] == ["x", "y"]


def test_if_one_row_would_be_refused_nothing_is_created(
    submit: Callable[..., Result], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    done = submit("street.csv", CSV + ",car,Bern\n", *with_request(tmp_path))
    assert done.exit_code == 1
    assert "1 invalid rows; nothing was created" in done.stderr
    assert "line 4" in done.stderr
    assert sandbox.tasks() == []


def test_a_check_creates_nothing(
    submit: Callable[..., Result], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    done = submit("street.csv", CSV, "--check", *with_request(tmp_path))
    assert "Would create 2 categorization tasks (live)." in done.stdout
    assert sandbox.tasks() == []


def test_a_limit_takes_the_first_rows_only(
    submit: Callable[..., Result], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    assert submit("street.csv", CSV, "--limit", "1", *with_request(tmp_path)).stdout.endswith(
        "\n1 created.\n"
    )
    assert len(sandbox.tasks()) == 1


def test_doubtful_answers_end_in_one_task_each(
    submit: Callable[..., Result], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    sandbox.add_fault("error_after", times=2)
    sandbox.add_fault("throttled", times=1, retry_after=1)
    assert submit("street.csv", CSV, *with_request(tmp_path)).exit_code == 0
    assert len(sandbox.tasks()) == 2


def test_what_scale_refuses_is_listed_line_by_line(
    submit: Callable[..., Result], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    sandbox.add_fault("refused", status=402, times=1)
    done = submit("street.csv", CSV, "--at-once", "1", *with_request(tmp_path))
    assert done.exit_code == 1
    assert "1 created, 1 refused." in done.stdout
    assert "line 2: Scale refused it with 402" in done.stderr


def test_a_key_that_scale_refuses_ends_it_and_says_how_to_go_on(
    make_app: Callable[..., Flask], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    app = make_app(SCALE_API_URL=sandbox.api_url, SCALE_API_KEY="live_wrong", PUBLIC_URL="http://127.0.0.1:9")
    (tmp_path / "street.csv").write_text(CSV)
    (tmp_path / "request.yaml").write_text(REQUEST)
    done = commands_of(app)("tasks", "submit", str(tmp_path / "street.csv"), "--yes", *with_request(tmp_path))
    assert done.exit_code == 1
    assert "Submit the same file again to continue." in done.stderr
    assert [entry["action"] for entry in table(app.extensions["weighbridge"], AuditEntry)] == ["tasks.submit"]


def test_nothing_is_submitted_while_creating_is_stopped(
    submit: Callable[..., Result], weighbridge: Run, sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    weighbridge("creating", "stop")
    done = submit("street.csv", CSV, *with_request(tmp_path))
    assert done.exit_code == 1
    assert "creation is paused" in done.stderr
    assert sandbox.tasks() == []


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("odd.jsonl", '{"a": 1}\nnonsense', "line 2 is not JSON"),
        ("odd.jsonl", "[1]", "line 1 is not a JSON object"),
        ("odd.jsonl", '{"instruction": "?"}', "line 1: has no task type"),
        ("odd.csv", "a,b\n1,2,3\n", "line 2 does not have one cell"),
        ("odd.csv", "a:json\n{\n", "line 2, a:json: not JSON"),
        (
            "odd.csv",
            "type,unique_id,callback_url\nannotation,u,https://x\n",
            "callback_url is set by the service",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_line(
    submit: Callable[..., Result], sandbox: ScaleSandbox, name: str, content: str, why: str
) -> None:
    done = submit(name, content)
    assert done.exit_code == 1
    assert why in done.stderr
    assert sandbox.tasks() == []


def test_it_is_written_to_the_audit_log(
    make_app: Callable[..., Flask], sandbox: ScaleSandbox, tmp_path: Path
) -> None:
    sandbox.reset()
    app = make_app(
        SCALE_API_URL=sandbox.api_url, SCALE_API_KEY=sandbox.live_key, PUBLIC_URL="http://127.0.0.1:9"
    )
    (tmp_path / "street.csv").write_text(CSV)
    (tmp_path / "request.yaml").write_text(REQUEST)
    commands_of(app)("tasks", "submit", str(tmp_path / "street.csv"), "--yes", *with_request(tmp_path))
    (entry,) = table(app.extensions["weighbridge"], AuditEntry)
    assert (entry["action"], entry["subject"], entry["details"]) == (
        "tasks.submit",
        "street.csv",
        {"created": 2},
    )


STARTING = """
workflow: three
steps:
  label:
    start: {columns: [image]}
    copies: [{project: team-a}, {project: team-b}]
    create:
      type: annotation
      params: {attachment: "${{ row.image }}", objects_to_annotate: [car], metadata: {city: "${{ row.city }}"}}
"""


def test_a_workflow_is_started_with_the_rows_of_a_file(
    submit: Callable[..., Result], workflows_dir: Path
) -> None:
    (workflows_dir / "three.yaml").write_text(STARTING)
    rows = "image,city\nhttps://images.example/1.png,Bern\nhttps://images.example/2.png,Rome\n"
    preview = submit("street.csv", rows, "--workflow", "three", "--check").stdout
    assert "Would start three with 2 inputs (live). Tasks: 4 created." in preview
    outcomes = [
        json.loads(submit("street.csv", rows, "--workflow", "three", "--json").stdout) for _ in (1, 2)
    ]
    assert [[one["outcome"] for one in found["inputs"]] for found in outcomes] == [
        ["created"] * 2,
        ["already_exists"] * 2,
    ]
    refused = submit("street.csv", rows + ",Oslo\n", "--workflow", "three")
    assert "line 4: has no image" in refused.output
    assert (
        "cannot be combined"
        in submit("street.csv", rows, "--workflow", "three", "--type", "annotation").output
    )
    assert "takes no inputs" in submit("street.csv", rows, "--workflow", "polygons-to-boxes").output
