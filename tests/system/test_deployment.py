"""The files that deploy the service say the same as its code, and as each other."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from honcho.environ import parse_procfile

from config import load_settings

ROOT = Path(__file__).parent.parent.parent


class Asked(Mapping[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def settings_read() -> set[str]:
    asked = Asked()
    load_settings(asked)
    # Set by the platform, not by a person.
    return asked.names - {"DYNO"}


def test_the_example_names_every_setting_and_no_other() -> None:
    example = re.findall(r"^#? ?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert len(example) == len(set(example))
    assert set(example) == settings_read()


def test_heroku_asks_only_for_settings_that_exist() -> None:
    asked = set(json.loads((ROOT / "app.json").read_text())["env"])
    # The first is Celery's, the second gunicorn's.
    assert asked - settings_read() == {"REMAP_SIGTERM", "FORWARDED_ALLOW_IPS"}


def test_containers_run_what_the_procfile_runs() -> None:
    procfile = parse_procfile((ROOT / "Procfile").read_text()).processes
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert services["release"]["command"] == procfile["release"]
    assert services["worker"]["command"] == procfile["worker"]
    command = re.search(r"^CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert command is not None
    assert " ".join(json.loads(command[1])) == procfile["web"]
