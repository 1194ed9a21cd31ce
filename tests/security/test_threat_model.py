"""docs/threat-model.md names tests that exist, and every module of this folder."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def named_tests() -> set[str]:
    return set(re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "docs/threat-model.md").read_text()))


def test_every_test_that_is_named_exists() -> None:
    assert {path for path in named_tests() if not (ROOT / path).is_file()} == set()


def test_every_attack_is_named() -> None:
    attacks = {f"tests/security/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert attacks - named_tests() == {"tests/security/test_threat_model.py"}
