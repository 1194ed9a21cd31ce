"""Words that were retired do not come back. docs/glossary.md has the standard term for each thing."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
THIS = Path(__file__).name
RETIRED = re.compile(
    r"(?<![A-Za-z])(bells?|rung|told|anew|mends?|mended|mending|beside|deeds?|whoever|set aside|so many|what it came to"
    r"|has not the|is none that|a little later|for ever|waiting[ _]room|(most|longest|least|deepest)_[A-Z]\w*"
    r"|[A-Z]\w*_AT_ONCE)(?![A-Za-z])|\b(MOST|LONGEST|LEAST|DEEPEST)_\w+"
)
SUFFIXES = (".py", ".md", ".html", ".js", ".css", ".yaml", ".toml", ".in")


def written_files() -> list[Path]:
    """Every source and page of the project, without recorded payloads and vendored code."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    return [
        ROOT / name
        for name in listed.splitlines()
        if name.endswith((*SUFFIXES, "Makefile", "Procfile"))
        and not name.startswith("tests/payloads/")
        and "/vendor/" not in name
        and not name.endswith(THIS)
        and (ROOT / name).is_file()
    ]


def retired_words(path: Path) -> list[str]:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for number, line in lines
        for match in RETIRED.finditer(line)
    ]


def test_no_retired_word_is_used() -> None:
    assert [found for path in written_files() for found in retired_words(path)] == []


def test_the_check_finds_a_retired_word() -> None:
    assert RETIRED.search("the bell is rung")
    assert RETIRED.search("MOST_SHOWN = 5")
    assert RETIRED.search("def test_nobody_is_told_twice")
    assert not RETIRED.search("retold stories of a doorbell")
