"""Messages of `make` on a machine where something is missing."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout without a virtualenv."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(project: Path, *words: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    env = {"PATH": path, "HOME": str(project)}
    return subprocess.run(["make", *words], cwd=project, capture_output=True, text=True, env=env, check=False)


def python_that(project: Path, does: str) -> Path:
    """A stand-in for an interpreter that this machine need not have."""
    script = project / "bin/python3"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_make_alone_lists_every_target(project: Path) -> None:
    listed = {line.split()[1] for line in make(project).stdout.splitlines()}
    phony = (project / "Makefile").read_text().partition(".PHONY: ")[2].split("\n")[0].split()
    assert listed == set(phony)


def test_a_python_that_is_too_old_is_named_with_what_to_do(project: Path) -> None:
    old = python_that(project, 'case "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac')
    said = make(project, "run", f"PYTHON={old}")
    assert said.returncode != 0
    assert "is Python 3.9.2; Weighbridge needs Python 3.11 or newer" in said.stderr
    assert "make run PYTHON=" in said.stderr


def test_no_python_at_all_says_what_to_install(project: Path) -> None:
    python_that(project, 'case "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac')
    for tool in ("sh", "make", "grep", "sed", "touch", "echo"):
        if found := shutil.which(tool):
            (project / "bin" / tool).symlink_to(found)
    said = make(project, "run", path=str(project / "bin"))
    assert said.returncode != 0
    assert "needs Python 3.11 or newer, and found none (python3 is Python 3.9.2)" in said.stderr


def test_a_python_without_venv_says_which_package_brings_it(project: Path) -> None:
    bare = python_that(
        project,
        'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.11;; *) exit 0;; esac',
    )
    said = make(project, "run", f"PYTHON={bare}")
    assert said.returncode != 0
    assert "apt install python3.11-venv" in said.stderr
