"""Packages: each is installed by its hash, and an audit that looked at nothing does not pass."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pip_requirements_parser import RequirementsFile

from tests.service import BIN, ROOT

LOCK_FILES = sorted(ROOT.glob("requirements*.txt"))
IN_IMAGE = re.findall(r"-r (\S+)", (ROOT / "Dockerfile").read_text())
DIGEST = "sha256:" + "0" * 64
FOR_ANOTHER_PLATFORM = f'six==1.17.0 ; sys_platform == "none" --hash={DIGEST}\n'
"""A locked package that pip-audit need not look up."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout whose virtualenv has been made."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements-dev.txt").touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / ".venv/bin/pip-audit").symlink_to(BIN / "pip-audit")
    (tmp_path / ".venv/installed-dev").touch()
    return tmp_path


def make(project: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(project), **env}
    command = ["make", *words, f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize("path", LOCK_FILES, ids=lambda path: path.name)
def test_every_locked_package_has_hashes_and_no_file_names_an_index(path: Path) -> None:
    locked = RequirementsFile.from_file(path)
    assert len(locked.requirements) > 10
    assert locked.invalid_lines == locked.options == []
    assert [str(one.req) for one in locked.requirements if not one.hash_options] == []
    assert "://" not in path.read_text()


def test_every_installation_requires_hashes(project: Path) -> None:
    for path in LOCK_FILES:
        shutil.copy(path, project)
    (project / ".venv/installed-dev").unlink()
    targets = [".venv/installed", ".venv/installed-dev", ".venv/installed-exports"]
    targets += [f".venv-{group}/installed" for group in ("readers", "labelstudio", "docs")]
    planned = make(project, "--dry-run", *targets).stdout + (ROOT / "Dockerfile").read_text()
    commands = re.findall(r"pip install [^&|;]*-r [^&|;\n]*", planned)
    named = {name for command in commands for name in re.findall(r"-r (requirements\S*)", command)}
    assert named == {path.name for path in LOCK_FILES}
    assert [command for command in commands if "--require-hashes" not in command] == []


def test_the_audit_looks_at_all_that_an_image_installs(project: Path) -> None:
    (audited,) = re.findall(r"for file in (.*?); do", make(project, "--dry-run", "audit").stdout)
    assert audited.split() == IN_IMAGE


def test_the_audit_passes_where_nothing_has_to_be_looked_up(project: Path) -> None:
    """So it is not the lack of a network that fails the other audits."""
    (project / "locked.txt").write_text(FOR_ANOTHER_PLATFORM)
    done = make(project, "audit", "INSTALLED=locked.txt")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "content",
    ["", "# nothing\n", "six==1.17.0\n", "six\n", "<html>\n", f"six>=1 --hash={DIGEST}\n", None],
    ids=["empty", "comment", "no hash", "no version", "no requirement", "a range", "missing"],
)
def test_an_audit_of_a_file_that_locks_nothing_fails(project: Path, content: str | None) -> None:
    """Also between two good ones: pip-audit finds no vulnerabilities where it looks at no package, and ends with 0."""
    files = [project / f"{number}.txt" for number in range(3)]
    for path in files:
        path.write_text(FOR_ANOTHER_PLATFORM)
    if content is None:
        files[1].unlink()
    else:
        files[1].write_text(content)
    done = make(project, "audit", f"INSTALLED={' '.join(path.name for path in files)}")
    assert done.returncode != 0, done.stdout
    assert "Error 1" in done.stderr


def test_an_audit_that_cannot_look_a_package_up_fails(project: Path) -> None:
    """Without --strict pip-audit skips it, and ends with 0."""
    (project / "locked.txt").write_text(f"six==1.17.0 --hash={DIGEST}\n")
    away = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    assert make(project, "audit", "INSTALLED=locked.txt", **away).returncode != 0
    assert "--strict" in make(project, "--dry-run", "audit").stdout


def test_an_audit_without_its_tool_fails(project: Path) -> None:
    (project / "locked.txt").write_text(FOR_ANOTHER_PLATFORM)
    (project / ".venv/bin/pip-audit").unlink()
    assert make(project, "audit", "INSTALLED=locked.txt").returncode != 0
