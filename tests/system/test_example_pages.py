"""The pages of the example pipelines show what stands in their files, and first tasks that Scale would take."""

import json
import re
from pathlib import Path

import pytest

from pipeline.follow_ups.submit import Row, task_for_row
from workflows.definition.loader import load_file
from workflows.definition.model import Workflow
from workflows.docs.graph import mermaid
from workflows.planning.conditions import conditions
from workflows.planning.inputs import missing_columns
from workflows.planning.view import view

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def block(page: str, language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)\n```", page, re.DOTALL)
    return str(found)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_each_example_has_a_page_with_its_drawing_and_a_first_task(file: Path) -> None:
    workflow = load_file(file)
    assert isinstance(workflow, Workflow)
    assert workflow.examples, "weighbridge workflows test has something to try"
    page = (ROOT / "docs/examples" / f"{file.stem}.md").read_text()
    assert block(page, "mermaid") == mermaid(workflow).strip()
    row = json.loads(block(page, "json"))
    if workflow.steps[0].start is not None:
        assert missing_columns(workflow, row) == []
        return
    first = task_for_row(Row(1, row), "first", "")
    assert first.fault is None
    task = {"task_id": "t", "type": first.type, "tags": first.request["tags"], "status": "completed"}
    asked = {one.name: one.held for one in conditions(view(task, {}), workflow, workflow.steps[0])}
    assert (asked["after.type"], asked["after.tags"]) == (True, True)


def test_the_guide_names_every_example() -> None:
    guide = (ROOT / "docs/workflows.md").read_text()
    assert sorted(re.findall(r"examples/([\w-]+)\.md", guide)) == [file.stem for file in EXAMPLES]
