"""Print a software bill of materials (CycloneDX 1.6) with the Python packages and, in the image, the Debian packages.

`make sbom` lists what requirements files name. `docker run --rm weighbridge python deploy/sbom.py` lists what an image
holds. Needs nothing but Python.
"""

import json
import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
DPKG_STATUS = Path("/var/lib/dpkg/status")
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)(.*(?:\n +--hash=.*)*)", re.MULTILINE)


def main(files: list[str]) -> None:
    """Print the bill of the requirements files, without any of this system."""
    found = [one for file in files for one in required(Path(file))] if files else [*installed(), *debian()]
    if not found:
        sys.exit("No package was found.")
    components = {one["bom-ref"]: one for one in found}
    version = re.search(r'"([^"]+)"', (ROOT / "config/version.py").read_text())
    application = {"type": "application", "name": "weighbridge", "version": version[1] if version else "0"}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": {"bom-ref": "weighbridge", **application},
        },
        "components": [components[ref] for ref in sorted(components)],
    }
    print(json.dumps(bill, indent=1))


def required(file: Path) -> Iterator[dict[str, Any]]:
    """Return the packages that a locked requirements file names."""
    for name, version, rest in REQUIREMENT.findall(file.read_text()):
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", rest)
        yield python_package(name, version, [{"alg": "SHA-256", "content": one} for one in hashes])


def installed() -> Iterator[dict[str, Any]]:
    """Return the Python packages that are installed here."""
    for one in distributions():
        if one.name != "weighbridge":
            yield python_package(one.name, one.version)


def python_package(name: str, version: str, hashes: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """Return the component of a Python package."""
    normalized = re.sub(r"[-_.]+", "-", name).lower()
    purl = f"pkg:pypi/{normalized}@{quote(version)}"
    references = [
        {"type": "distribution", "url": f"https://pypi.org/project/{normalized}/", "hashes": hashes}
    ]
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return {**component, "externalReferences": references} if hashes else component


def debian() -> Iterator[dict[str, Any]]:
    """Return the Debian packages that are installed here."""
    for entry in DPKG_STATUS.read_text().split("\n\n") if DPKG_STATUS.exists() else ():
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if fields.get("Status") == "install ok installed":
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={fields['Architecture']}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    main(sys.argv[1:])
