"""The files for deployment agree with the code and with each other."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from honcho.environ import parse_procfile

from config import load_settings

ROOT = Path(__file__).parent.parent.parent


class RecordingEnvironment(Mapping[str, str]):
    """An empty environment that records which names are read."""

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
    environment = RecordingEnvironment()
    load_settings(environment)
    # The first is set by the platform, the second by `make run`.
    return environment.names - {"DYNO", "DEMONSTRATION"}


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


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


def test_no_container_has_more_rights_or_memory_than_it_needs() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name


def test_the_password_of_the_database_is_not_in_the_files() -> None:
    services = compose()["services"]
    given = [services["postgres"]["environment"]["POSTGRES_PASSWORD"]]
    given += [
        url for service in services.values() if (url := service.get("environment", {}).get("DATABASE_URL"))
    ]
    assert len(given) > 3
    assert all("${POSTGRES_PASSWORD:?" in value for value in given)


def test_only_the_web_is_published_to_other_machines() -> None:
    ports = {name: service.get("ports", []) for name, service in compose()["services"].items()}
    assert {name for name, published in ports.items() if published} == {"web", "sandbox"}
    assert all(port.startswith("127.0.0.1:") for port in ports["sandbox"])


def test_metrics_have_a_token_on_heroku() -> None:
    assert json.loads((ROOT / "app.json").read_text())["env"]["METRICS_TOKEN"]["generator"] == "secret"
