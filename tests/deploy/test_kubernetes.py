"""The Kubernetes manifests: every overlay builds, is valid in strict mode, and fits the settings and the processes."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from config import load_settings
from tests.service import ROOT

OVERLAYS = ("production", "sandbox")
VERSION = "1.31"
"""Of Kubernetes, for the schemas: the oldest one that is supported."""
BACKING_SERVICES = ("weighbridge-postgres", "weighbridge-redis")
SECRET = {
    "DATABASE_URL": "postgresql://weighbridge:password@postgres/weighbridge",
    "SECRET_KEY": "secret",
    "SCALE_LIVE_CALLBACK_KEYS": "live_callback",
}


@pytest.fixture(params=OVERLAYS)
def resources(request: pytest.FixtureRequest, kubectl: Path) -> list[dict[str, Any]]:
    """The resources of one overlay as `kubectl apply -k` sends them."""
    return build(kubectl, request.param)


@cache
def build(kubectl: Path, overlay: str) -> list[dict[str, Any]]:
    folder = ROOT / "deploy/kubernetes/overlays" / overlay
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


def pods(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name of the workload → its pod."""
    return {
        resource["metadata"]["name"]: resource["spec"]["template"]
        for resource in resources
        if resource["kind"] in ("Deployment", "Job")
    }


def own_containers(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {name: pod["spec"]["containers"][0] for name, pod in pods(resources).items()}
    return {name: container for name, container in found.items() if "weighbridge:" in container["image"]}


def test_every_resource_is_valid(resources: list[dict[str, Any]]) -> None:
    assert len(resources) > 8
    for resource in resources:
        kubernetes_validate.validate(resource, VERSION, strict=True)


def test_the_settings_can_be_read(resources: list[dict[str, Any]]) -> None:
    (given,) = (resource["data"] for resource in resources if resource["kind"] == "ConfigMap")
    settings = load_settings({**given, **SECRET})
    assert settings.callback_url
    assert {name.lower() for name in given} <= set(vars(settings))


def test_processes_are_those_of_the_procfile(resources: list[dict[str, Any]]) -> None:
    procfile = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    containers = own_containers(resources)
    assert " ".join(containers["weighbridge-worker"]["command"]) == procfile["worker"]
    assert " ".join(containers["weighbridge-migrate"]["command"]) == procfile["release"]
    assert "command" not in containers["weighbridge-web"]  # that of the image


def test_nothing_runs_as_root_or_writes_outside_of_its_volume(resources: list[dict[str, Any]]) -> None:
    workloads = pods(resources)
    containers = own_containers(resources)
    assert containers.keys() == {name for name in workloads if name not in BACKING_SERVICES}
    for name, container in containers.items():
        assert workloads[name]["spec"]["securityContext"]["runAsNonRoot"], name
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["limits"]["memory"], name


def test_each_selector_finds_its_pods(resources: list[dict[str, Any]]) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(resources).items()}
    checked = 0
    for resource in resources:
        spec = resource.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector"))
        if selector is None or resource["kind"] == "Job":
            continue
        wanted = selector.get("matchLabels", selector)
        found = [name for name, given in labels.items() if wanted.items() <= given.items()]
        assert found == [resource["metadata"]["name"]], resource["kind"]
        checked += 1
    assert checked > 6
