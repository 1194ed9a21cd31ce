"""The schema in its three forms: as it is loaded, as editors get it, and as it is documented."""

import json
from typing import Any

import jsonschema
import pytest

from tests.workflows.kit import REQUEST, ROOT, step
from workflows.definition.document import read
from workflows.definition.json_schema import json_schema
from workflows.docs.reference import reference

EDITORS = jsonschema.Draft202012Validator(json_schema())


def test_the_published_schema_is_the_one_that_is_used() -> None:
    published = json.loads((ROOT / "workflows/workflow.schema.json").read_text())
    assert published == json_schema(), (
        "make it again: weighbridge workflows schema > workflows/workflow.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(published)


def test_the_reference_page_is_made_from_the_schema() -> None:
    page = (ROOT / "docs/workflow-language.md").read_text()
    assert page == reference(), "make it again: weighbridge workflows reference > docs/workflow-language.md"


def test_every_key_is_documented_with_an_example() -> None:
    def keys(schema: dict[str, Any], path: str = "") -> list[str]:
        missing = []
        for name, found in schema.get("properties", {}).items():
            if not found.get("description") or (
                "examples" not in found and name not in ("steps", "examples")
            ):
                missing.append(f"{path}.{name}")
            for inner in (found, found.get("items", {}), found.get("additionalProperties", {})):
                missing += keys(inner, f"{path}.{name}") if isinstance(inner, dict) else []
        return missing

    assert keys(json_schema()) == []


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("config/demonstration/*.yaml"), *ROOT.glob("examples/*.yaml")],
    ids=lambda path: path.name,
)
def test_an_editor_finds_nothing_wrong_with_the_shipped_files(path: Any) -> None:
    assert [error.message for error in EDITORS.iter_errors(read(path.read_text()).data)] == []


@pytest.mark.parametrize(
    "keys",
    [
        {"foreach": "annotation"},
        {"after": {"typ": "a"}},
        {"after": {"type": "a", "state": "approved"}},
        {"copies": 0},
        {"copies": "3"},
        {"sample": "0.05"},
        {"sample": "0%"},
        {"sample": "0.0 %"},
        {"sample": "101%"},
        {"sample": "0 of 3"},
        {"mirror": ""},
        {"repeat": "always"},
        {"hold": "yes"},
        {"limits": {"per_day": 0}},
        {"on_error": {"retry": 99}},
        {"on_error": {"mirror": "attachment"}},
        {"on_error": {"retry": 1, "start": "x"}},
        {"join": {"within": "7 days"}},
        {"join": {"reduce": "mean"}},
        {"join": {"reduce": {"by": "mean"}}},
        {"crop": {"padding": "10px"}},
        {"create": {"type": "annotation"}},
        {"python": "nothing"},
    ],
)
def test_an_editor_finds_what_loading_would_refuse(keys: dict[str, Any]) -> None:
    assert list(EDITORS.iter_errors({"workflow": "w", "steps": {"x": step(**keys)}}))


@pytest.mark.parametrize(
    "keys",
    [
        {"after": {"type": ["a", "b"], "state": ["accepted", "fixed"], "metadata": {"a": 1}}},
        {"for_each": "task.params.pages", "where": "item", "copies": 3, "sample": "1 in 20"},
        {"sample": "0.5%"},
        {"sample": "100 %"},
        {"for_each": "annotation", "crop": {"padding": "10%", "min_size": 64}, "mirror": "attachment"},
        {"join": {"quorum": "2 of 3", "within": "7d", "on_deadline": "continue", "reduce": {"by": "majority"}}},
        {"on_error": {"retry": 2, "params": REQUEST}, "on_recall": "cancel", "hold": True, "limits": {"total": 5}},
        {"on_error": "stop", "repeat": "each_response", "dry_run": False, "create": {"type": "a", "params": "${{ task.params }}"}},
    ],
)  # fmt: skip
def test_an_editor_takes_what_loading_takes(keys: dict[str, Any]) -> None:
    assert [
        error.message for error in EDITORS.iter_errors({"workflow": "w", "steps": {"x": step(**keys)}})
    ] == []
