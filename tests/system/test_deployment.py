"""The files for deployment agree with the code and with each other."""

import json
import re
from dataclasses import fields
from pathlib import Path

import yaml
from honcho.environ import parse_procfile

from config import Settings

ROOT = Path(__file__).parent.parent.parent


def setting_names() -> set[str]:
    """The settings that a person sets: not those of the platform, of `make run`, or derived from another."""
    return {field.name.upper() for field in fields(Settings)} - {"DYNO", "DEMONSTRATION", "SECRET_KEY_IS_SET"}


def test_the_example_names_every_setting_and_no_other() -> None:
    example = re.findall(r"^#? ?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert len(example) == len(set(example))
    assert set(example) == setting_names()


def test_heroku_asks_only_for_settings_that_exist() -> None:
    asked = set(json.loads((ROOT / "app.json").read_text())["env"])
    # The first is Celery's, the second gunicorn's.
    assert asked - setting_names() == {"REMAP_SIGTERM", "FORWARDED_ALLOW_IPS"}


def test_containers_run_what_the_procfile_runs() -> None:
    procfile = parse_procfile((ROOT / "Procfile").read_text()).processes
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert services["release"]["command"] == procfile["release"]
    assert services["worker"]["command"] == procfile["worker"]
    command = re.search(r"^CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert command is not None
    assert " ".join(json.loads(command[1])) == procfile["web"]


def test_the_image_holds_what_every_export_format_and_setting_needs() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name in ("requirements.txt", "requirements-exports.txt", "requirements-telemetry.txt"):
        assert f"-r {name}" in dockerfile
        assert (ROOT / name).is_file()
