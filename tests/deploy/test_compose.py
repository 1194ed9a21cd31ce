"""compose.yaml, against the schema that Docker Compose reads files by."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.service import ROOT

SCHEMA = json.loads((Path(__file__).parent / "vendor/compose-spec.json").read_text())


@pytest.fixture
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def problems(compose: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft7Validator(SCHEMA).iter_errors(compose)]


def test_the_file_follows_the_schema(compose: dict[str, Any]) -> None:
    assert problems(compose) == []


@pytest.mark.parametrize(("key", "value"), [("comand", "x"), ("ports", "8000"), ("mem_limit", [1])])
def test_a_wrong_key_or_value_is_found(compose: dict[str, Any], key: str, value: Any) -> None:
    wrong = copy.deepcopy(compose)
    wrong["services"]["web"][key] = value
    assert problems(wrong) != []


def test_every_service_that_is_waited_for_exists_and_can_say_that_it_is_ready(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in services, name
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[other], other


def test_every_volume_that_is_mounted_is_declared(compose: dict[str, Any]) -> None:
    mounted = {
        volume.partition(":")[0] for one in compose["services"].values() for volume in one.get("volumes", ())
    }
    assert mounted == set(compose["volumes"])
