"""Attacks by an author of workflow files: what a file costs is bounded, and a broken file never disables anything else."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import workflow_files
from pipeline.follow_ups import limits
from pipeline.workflow_files import WorkflowFiles
from tests.servers import wait_until
from tests.service import ROOT, Service
from tests.workflows.kit import REQUEST, seen, step, written
from workflows.definition import interpreter
from workflows.definition.expressions import ExpressionError, compile_expression
from workflows.definition.interpreter import plan_budget
from workflows.definition.loader import MAX_FILES, MAX_STEPS, load, load_file, parse
from workflows.definition.model import InvalidWorkflow, Workflow
from workflows.docs.examples import run_examples
from workflows.planning.plan import plan

DOUBLING = "'aaaaaaaaaa'" + " | join('', [@, @])" * 40
COPIES = "task" + " | [@, @]" * 60
COMPARED = f"({COPIES}) == ({COPIES.replace('task', 'response')})"
NESTED = "(" * 3_000 + "task" + ")" * 3_000


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("round(`5`, `-1000000000`)", "takes -15 to 15 digits"),
        (DOUBLING, "at most 1,000,000 are possible"),
        (COPIES, "more than 5,000,000 elements"),
        (COMPARED, "more than 5,000,000 elements"),
        (f"to_string({COPIES})", "more than 5,000,000 elements"),
        ("'a'" + " | replace(@, 'a', 'aa')" * 25, "at most 1,000,000 are possible"),
        ("[`1e308`, `1e308`] | sum(@)", "not a number in JSON"),
        pytest.param("annotations" + "[].[@, @][]" * 20, "more than", marks=pytest.mark.slow),
    ],
    ids=["round", "join", "copies", "comparison", "to_string", "replace", "infinity", "flatten"],
)
def test_an_expression_that_grows_without_bound_fails_on_that_result_alone(
    expression: str, message: str
) -> None:
    with pytest.raises(ExpressionError, match=message):
        compile_expression(expression).evaluate(seen())
    loaded = parse(
        written({"bad": step(create=_create(metadata={"x": f"${{{{ {expression} }}}}"})), "good": step()}),
        "w.yaml",
    )
    assert isinstance(loaded, Workflow), loaded
    assert {one.step: one.state for one in plan(seen(), loaded)} == {"bad": "skipped", "good": "planned"}


def _create(**params: Any) -> dict[str, Any]:
    return {"type": "annotation", "params": {**REQUEST, **params}}


def test_unique_reads_each_value_once() -> None:
    """Steps, not seconds: a comparison with each earlier value would need 245,000."""
    numbers = json.dumps([{"n": number} for number in range(700)])
    expression = compile_expression(f"length(unique(`{numbers}`))")
    with plan_budget(2_000):
        assert expression.evaluate(seen()) == 700


def test_one_evaluation_has_a_budget_and_all_for_one_result_share_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = compile_expression("length(`[1, 2, 3]`)")
    long = compile_expression(f"length(`{json.dumps(list(range(600)))}`)")
    monkeypatch.setattr(interpreter, "MAX_STEPS", 500)
    with pytest.raises(ExpressionError, match="more than 500 evaluation steps"):
        long.evaluate(seen())
    with plan_budget(12):
        assert [short.evaluate(seen()), short.evaluate(seen())] == [3, 3]
        with pytest.raises(ExpressionError, match="evaluation steps"):
            short.evaluate(seen())
    assert short.evaluate(seen()) == 3


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (NESTED, "nested too deeply"),
        ("!" * 200 + "task", "nested too deeply"),
        ("task" + ".a" * 6_000, "at most 10,000 are possible"),
        ("`" + "[" * 4_000 + "]" * 4_000 + "`", "nested too deeply"),
    ],
    ids=["parentheses", "not", "length", "literal"],
)
def test_an_expression_that_is_too_deep_or_long_is_an_error_of_its_own_field(
    expression: str, message: str
) -> None:
    found = parse(written({"bad": step(when=expression)}), "w.yaml")
    assert isinstance(found, InvalidWorkflow)
    (problem,) = found.errors
    assert problem.field == "steps.bad.when"
    assert message in problem.message


def test_a_file_that_is_too_large_is_an_error_before_it_is_loaded() -> None:
    steps = parse(written({f"s{number}": step() for number in range(MAX_STEPS + 1)}), "w.yaml")
    assert isinstance(steps, InvalidWorkflow)
    assert f"at most {MAX_STEPS} are possible" in steps.errors[0].message
    for text in (
        written({f"s{number}": step() for number in range(5_000)}),
        "a: " + "[" * 5_000,
        "- a\n" * 50_000,
    ):
        found = parse(text, "w.yaml")
        assert isinstance(found, InvalidWorkflow)
        assert "at most 20,000 values and 100 levels" in found.errors[0].message


def test_one_file_never_disables_the_others(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(written({"x": step()}, workflow="good"))
    (tmp_path / "deep.yaml").write_text(written({"x": step(when=NESTED)}, workflow="deep"))
    (tmp_path / "large.yaml").write_bytes(b"a: " + b"x" * 2_000_000)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\xfe")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "link.yaml").symlink_to("/etc/passwd")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.yaml")
    found = load(tmp_path)
    assert [workflow.name for workflow in found.loaded] == ["good"]
    invalid = {Path(one.path).name: one.errors[0].message for one in found.invalid}
    assert invalid.keys() == {
        "deep.yaml", "large.yaml", "latin.yaml", "folder.yaml", "link.yaml", "zero.yaml", "pipe.yaml",
        "loop.yaml",
    }  # fmt: skip
    assert "outside of the folder" in invalid["link.yaml"]
    assert "not a regular file" in invalid["pipe.yaml"]
    assert "larger than" in invalid["large.yaml"]


def test_a_link_inside_of_the_folder_is_followed(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap as links into a folder that it replaces as a whole."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "w.yaml").write_text(written({"x": step()}))
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "w.yaml").symlink_to("..data/w.yaml")
    assert [workflow.name for workflow in load(tmp_path).loaded] == ["w"]


def test_a_folder_with_too_many_files_loads_the_first_ones_and_says_so(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number:04}.yaml").write_text(written({"x": step()}, workflow=f"w{number}"))
    found = load(tmp_path)
    assert len(found.loaded) == MAX_FILES
    assert "only the first" in found.invalid[0].errors[0].message


def make_special_file(kind: str, folder: Path) -> Path:
    """Return a path that must not be read, or cannot be."""
    path = folder / "limits.yaml"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "too large":
        path.write_bytes(b"per_day: 1  #" + b"x" * 2_000_000)
    elif kind == "no text":
        path.write_bytes(b"per_day: \xff\xfe")
    elif kind == "name too long":
        path = folder / ("x" * 300)
    elif kind.startswith("/"):
        path = Path(kind)
    else:
        path.symlink_to(kind.removeprefix("link to "))
    return path


SPECIAL_FILES = (
    "FIFO", "folder", "too large", "no text", "name too long", "/dev/zero",
    "link to /dev/zero", "link to /etc/passwd", "link to nothing.yaml", "link to limits.yaml",
)  # fmt: skip


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", SPECIAL_FILES)
def test_a_price_list_or_limits_that_cannot_be_read_are_a_mistake_and_hold_what_they_limit(
    open_service: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    path = str(make_special_file(kind, tmp_path))
    workflows = open_service(prices_file=path, limits_file=path).workflows
    for problems in (workflows.prices.problems, workflows.limits.problems):
        assert "cannot be read: " in problems[0].message
        assert "root:" not in problems[0].message
    with open_service().engine.begin() as connection:
        (reason,) = limits.reserve(
            connection, workflows, [limits.submission_claim(workflows, "annotation", {})]
        )
    assert reason is not None
    assert "the limits have errors" in reason.text


def test_nothing_is_created_before_the_limits_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while the files are loaded for the first time, nor after that has failed."""
    (tmp_path / "limits.yaml").write_text("per_day: 0\n")
    released = threading.Event()

    def load(*_: Any, **__: Any) -> None:
        released.wait()
        raise MemoryError

    monkeypatch.setattr(workflow_files, "FIRST_LOAD_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(workflow_files, "load", load)
    files = WorkflowFiles([tmp_path], limits_file=tmp_path / "limits.yaml")
    assert "are still being loaded" in files.read().limits.problems[0].message
    released.set()
    wait_until(lambda: "MemoryError" in files.read().limits.problems[0].message, what="the load has failed")


@pytest.mark.parametrize("given", ["/dev/zero", "pipe.json", "../secret.json", "link.json", "/etc/passwd"])
def test_an_example_reads_only_regular_files_below_its_folder(tmp_path: Path, given: str) -> None:
    folder = tmp_path / "workflows"
    folder.mkdir()
    os.mkfifo(folder / "pipe.json")
    (tmp_path / "secret.json").write_text('{"task": {"task_id": "secret"}}')
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "w.yaml").write_text(written({"x": step()}, examples=[{"given": given, "expect": []}]))
    loaded = load_file(folder / "w.yaml")
    assert isinstance(loaded, Workflow), "loading reads no file that an example names"
    (result,) = run_examples(loaded)
    assert "outside of the folder" in result.differences[0] or "not a regular file" in result.differences[0]


def test_a_python_step_runs_nothing_unless_its_module_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "evil_steps.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef f(view): return []\n"
    )
    after = {"after": {"type": "annotation"}, "python": "evil_steps:f"}
    (tmp_path / "w.yaml").write_text(written({"x": after}))
    code = (
        "import sys; from workflows.definition.loader import load;"
        f"print(len(load({str(tmp_path)!r}, python_modules=sys.argv[1:]).loaded))"
    )
    path = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}

    def run(*modules: str) -> str:
        command = [sys.executable, "-c", code, *modules]
        return subprocess.run(command, env=path, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    for modules in ((), ("evil",), ("evil_steps.f",), ("config",)):
        assert run(*modules) == "0\n"
        assert not (tmp_path / "ran").exists()
    assert run("evil_steps") == "1\n"
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_callbacks_are_answered_and_followed_whatever_the_files_contain(
    database_url: str, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    shutil.copy(ROOT / "tests/workflows/files/polygons-to-boxes.yaml", folder)
    os.mkfifo(folder / "pipe.json")
    os.mkfifo(folder / "pipe.yaml")
    polygons = {"after": {"type": "polygonannotation"}}
    hostile = {
        "round": {"x": step(when="round(`5`, `-1000000000`) > `0`")},
        "join": {"x": step(when=f"length({DOUBLING}) > `0`")},
        "compare": {"x": step(when=COMPARED)},
        "nested": {"x": step(when=NESTED)},
        "steps": {f"s{number}": step() for number in range(5_000)},
        "python": {"x": {**polygons, "python": "this:c"}},
    }
    for name, steps in hostile.items():
        (folder / f"a-{name}.yaml").write_text(written(steps, workflow=name))
    for name, given in (("zero", "/dev/zero"), ("pipe", "pipe.json")):
        text = written({"x": step()}, workflow=name, examples=[{"given": given, "expect": []}])
        (folder / f"b-{name}.yaml").write_text(text)
    one = start_service(database_url, env={"WORKFLOWS_DIR": str(folder)})
    body = json.loads((ROOT / "tests/payloads/polygonannotation/polygons.json").read_bytes())
    for number in range(5):
        body["task_id"] = body["task"]["task_id"] = f"task-{number}"
        assert one.post_callback(json.dumps(body).encode()).status_code == 200
    wanted = {f"polygons-to-boxes.boxes.task-{number}" for number in range(5)}
    wait_until(
        lambda: wanted <= {row["unique_id"] for row in one.api("/follow-ups", limit=1000)["data"]},
        seconds=90,
        what="the follow-ups of the honest workflow",
    )
    files = {Path(file["path"]).name: file for file in one.api("/workflows")["data"]}
    states = {name: bool(file["problems"]) for name, file in files.items()}
    assert not states["polygons-to-boxes.yaml"]
    assert all(states[f"a-{name}.yaml"] for name in ("nested", "steps", "python"))
    assert states["pipe.yaml"]
    assert one.api("/tasks/task-0/plan")["data"]
