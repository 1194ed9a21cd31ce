"""A container that was taken over: what it may do on its machine, and which secrets it holds."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import Settings, load_settings
from tests.deploy.test_kubernetes import build, own_containers
from tests.service import ROOT

LIVE_KEY, TEST_KEY = "live_callback_of_the_trial", "test_callback_of_the_trial"
REAL = {
    **{field.name.upper(): f"REAL_{field.name}" for field in fields(Settings)},
    "POSTGRES_PASSWORD": "REAL_password",
    "AWS_SECRET_ACCESS_KEY": "REAL_bucket",
}
VARIABLE = re.compile(r"\$\{(\w+):[-?]([^}]*)\}")
TRIAL = {
    "SANDBOX_LIVE_CALLBACK_KEY": LIVE_KEY,
    "SANDBOX_TEST_CALLBACK_KEY": TEST_KEY,
    "SANDBOX_API_KEYS": "live_trial,test_trial",
    "SANDBOX_SPEED": "realistic",
    "SANDBOX_REJECTION_SHARE": "0.5",
}
"""What a `.env` file, or a Secret, says for the sandbox."""


def compose(variables: Mapping[str, str] = REAL) -> dict[str, Any]:
    """Return the services of compose.yaml, as Docker Compose reads them with `variables` in `.env`."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(one) for key, one in value.items()}
        if isinstance(value, list):
            return [replaced(one) for one in value]
        if isinstance(value, str):
            return VARIABLE.sub(lambda found: variables.get(found[1]) or found[2], value)
        return value

    services: dict[str, Any] = replaced(yaml.safe_load((ROOT / "compose.yaml").read_text()))["services"]
    for service in services.values():
        given = dict(variables) if service.get("env_file") else {}
        service["environment"] = {**given, **service.get("environment", {})}
    return services


def test_no_container_has_more_rights_or_memory_than_it_needs() -> None:
    for name, service in compose().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name


def test_every_image_from_outside_is_fixed_by_its_digest() -> None:
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    images = [service["image"] for service in compose().values() if "build" not in service]
    assert bases
    assert len(images) == 2
    for image in (*bases, *images):
        assert re.fullmatch(r"[a-z]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}", image), image


def test_the_password_of_the_database_is_not_in_the_files() -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert re.findall(r"POSTGRES_PASSWORD: (.*?:\?)", text) == ['"${POSTGRES_PASSWORD:?']
    assert re.findall(r"postgresql://weighbridge:(.*?:\?)", text) == ["${POSTGRES_PASSWORD:?"]


def test_only_the_web_is_published_to_other_machines() -> None:
    ports = {name: service.get("ports", []) for name, service in compose().items()}
    assert {name for name, published in ports.items() if published} == {"web", "sandbox"}
    assert all(port.startswith("127.0.0.1:") for port in ports["sandbox"])


def test_the_sandbox_of_compose_gets_no_key_or_secret_of_the_service() -> None:
    services = compose({**REAL, **TRIAL})
    for name in ("release", "web", "worker"):
        assert services[name]["environment"]["SCALE_API_KEY"] == REAL["SCALE_API_KEY"]
    sandbox = services["sandbox"]
    assert "REAL" not in json.dumps(sandbox)
    assert_is_of_the_trial(sandbox["environment"])
    shared = {
        volume for name, one in services.items() if name != "sandbox" for volume in one.get("volumes", ())
    }
    assert not shared & set(sandbox["volumes"])


def test_the_sandbox_of_compose_reaches_the_service_but_no_database() -> None:
    networks = {name: set(service.get("networks", ["default"])) for name, service in compose().items()}
    reached = {name for name, joined in networks.items() if joined & networks["sandbox"]}
    assert reached == {"sandbox", "web", "worker"}


def test_the_sandbox_of_compose_starts_without_any_setting() -> None:
    settings = load_settings(compose({"POSTGRES_PASSWORD": "p"})["sandbox"]["environment"])
    assert settings.sandbox_api_keys == Settings.sandbox_api_keys
    assert settings.scale_live_callback_keys == ()


@pytest.fixture
def trial(kubectl: Path) -> dict[str, dict[str, str]]:
    """The environment of each container of the trial on Kubernetes, where the Secret holds real keys as well."""
    resources = build(kubectl, "sandbox")
    secret = {**REAL, **TRIAL}
    sources = {
        resource["metadata"]["name"]: resource["data"]
        for resource in resources
        if resource["kind"] == "ConfigMap"
    }
    found: dict[str, dict[str, str]] = {}
    for name, container in own_containers(resources).items():
        environment = found[name] = {}
        for source in container.get("envFrom", ()):
            environment |= secret if "secretRef" in source else sources[source["configMapRef"]["name"]]
        for one in container.get("env", ()):
            environment[one["name"]] = one.get("value") or secret[one["valueFrom"]["secretKeyRef"]["key"]]
    return found


def test_the_sandbox_of_kubernetes_gets_no_key_or_secret_of_the_service(
    trial: dict[str, dict[str, str]],
) -> None:
    sandbox = trial["weighbridge-sandbox"]
    assert "REAL" not in json.dumps(sandbox)
    assert_is_of_the_trial({**TRIAL, **sandbox})


def test_no_key_of_scale_is_sent_to_the_sandbox_of_kubernetes(trial: dict[str, dict[str, str]]) -> None:
    for name in ("weighbridge-web", "weighbridge-worker"):
        assert trial[name]["SCALE_API_URL"] == "http://weighbridge-sandbox:8001/v1"
        assert {trial[name][key] for key in ("SCALE_API_KEY", "SCALE_TEST_API_KEY")} == set(
            Settings.sandbox_api_keys
        )


def assert_is_of_the_trial(environment: Mapping[str, str]) -> None:
    settings = load_settings(environment)
    assert settings.scale_live_callback_keys == (LIVE_KEY.encode(),)
    assert settings.scale_test_callback_keys == (TEST_KEY.encode(),)
    assert settings.sandbox_api_keys == ("live_trial", "test_trial")
    assert (settings.sandbox_speed, settings.sandbox_rejection_share) == ("realistic", 0.5)


def test_metrics_have_a_token_on_heroku() -> None:
    assert json.loads((ROOT / "app.json").read_text())["env"]["METRICS_TOKEN"]["generator"] == "secret"
