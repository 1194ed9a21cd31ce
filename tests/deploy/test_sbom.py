"""The software bill of materials: complete, and valid CycloneDX."""

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.service import ROOT

LOCKED = ("requirements.txt", "requirements-exports.txt", "requirements-telemetry.txt")


def bill(*files: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "deploy/sbom.py", *files], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(done.stdout) is None
    return json.loads(done.stdout)


def test_every_locked_package_is_listed_with_its_version_and_hashes() -> None:
    found = {(one["name"], one["version"]): one for one in bill(*LOCKED)["components"]}
    for name in LOCKED:
        for line in re.findall(r"^([\w.-]+)==([^\s;\\]+)", (ROOT / name).read_text(), re.MULTILINE):
            assert line in found
    flask = next(one for (name, _), one in found.items() if name == "flask")
    assert flask["externalReferences"][0]["hashes"]


def test_every_installed_package_is_listed() -> None:
    found = {one["name"] for one in bill()["components"]}
    assert {one.name for one in distributions()} - found == {"weighbridge"}


def test_a_bill_of_nothing_is_an_error(tmp_path: Any) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(subprocess.CalledProcessError):
        bill(str(tmp_path / "empty.txt"))
