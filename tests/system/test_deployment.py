"""The files for deployment agree with the code and with each other."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

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


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


def test_no_container_has_more_rights_or_memory_than_it_needs() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name


def test_every_image_from_outside_is_fixed_by_its_digest() -> None:
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    images = [service["image"] for service in compose()["services"].values() if "build" not in service]
    assert bases
    assert len(images) == 2
    for image in (*bases, *images):
        assert re.fullmatch(r"[a-z]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}", image), image


def test_the_image_holds_what_every_export_format_and_setting_needs() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name in ("requirements.txt", "requirements-exports.txt", "requirements-telemetry.txt"):
        assert f"-r {name}" in dockerfile
        assert (ROOT / name).is_file()


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
