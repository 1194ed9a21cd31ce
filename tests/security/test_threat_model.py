"""docs/threat-model.md names the modules of this folder, all of them and no other test."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_page_names_every_attack_and_no_test_elsewhere() -> None:
    named = set(re.findall(r"`(tests/[^`]+)`", (ROOT / "docs/threat-model.md").read_text()))
    attacks = {f"tests/security/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert attacks - named == {"tests/security/test_threat_model.py"}
    assert named - attacks == set()
