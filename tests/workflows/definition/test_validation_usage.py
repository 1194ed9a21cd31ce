"""Filters that no task has ever matched are reported, with the name that was probably meant."""

import json
from pathlib import Path
from typing import Any

from tests.workflows.kit import REQUEST, step, written
from workflows.definition.loader import load_file
from workflows.definition.model import Workflow
from workflows.definition.validation.usage import circles, unseen_filters

TYPES, PROJECTS = {"annotation", "polygonannotation"}, {"street-scenes"}


def found(folder: Path, steps: dict[str, Any], types: set[str] = TYPES) -> list[tuple[str, str]]:
    (folder / "w.yaml").write_text(written(steps))
    loaded = load_file(folder / "w.yaml")
    assert isinstance(loaded, Workflow)
    return [(problem.field, problem.message) for problem in unseen_filters(loaded, types, PROJECTS)]


def test_a_project_that_no_task_has_is_reported_with_the_nearest_one(tmp_path: Path) -> None:
    after = {"type": ["polygonannotation", "my-type"], "project": "street-scense"}
    assert found(tmp_path, {"x": step(after=after)}) == [
        ("steps.x.after.type", "no task of the type 'my-type' was ever seen"),
        (
            "steps.x.after.project",
            "no task of the project 'street-scense' was ever seen, did you mean `street-scenes`?",
        ),
    ]


def test_what_a_step_itself_creates_needs_no_task_yet(tmp_path: Path) -> None:
    create = {"type": "imageannotation", "params": {"project": "second", "attachment": "a", "geometries": {}}}
    steps = {
        "a": step(create=create),
        "b": step(
            after={"type": "imageannotation", "project": "second"},
            create={"type": "annotation", "params": REQUEST},
        ),
    }
    assert found(tmp_path, steps) == []


def test_nothing_is_reported_before_there_is_any_task(tmp_path: Path) -> None:
    assert found(tmp_path, {"x": step(after={"project": "nothing"})}, types=set()) == []


def test_workflows_that_follow_each_other_s_tasks_are_reported(tmp_path: Path) -> None:
    points = {"type": "pointannotation", "params": {**REQUEST, "tags": ["once"]}}

    def load(name: str, after: Any, create: Any) -> Workflow:
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps({"workflow": name, "steps": {"x": step(after=after, create=create)}}))
        loaded = load_file(path)
        assert isinstance(loaded, Workflow)
        return loaded

    boxes = {"type": "annotation", "params": REQUEST}
    first = load("first", {"type": "annotation"}, points)
    (problem,) = circles([first, load("second", {"type": "pointannotation"}, boxes)])
    assert "`first.x` and `second.x` trigger each other" in problem.message
    assert (Path(problem.path).name, problem.field) == ("second.yaml", "steps.x.after")
    for narrowed in ({"project": "street"}, {"tags": ["twice"]}, {"metadata": {"city": "Bern"}}):
        other = load("second", {"type": "pointannotation", **narrowed}, boxes)
        assert list(circles([first, other])) == []
