"""Print the tests of the cases in docs/reliability.md, for `make faults`."""

import re

from tests.service import ROOT

CASE = re.compile(r"^\| (\d+) \|(?:[^|]*\|){2} ([^|]*) \|$", re.MULTILINE)


def cases() -> dict[int, list[str]]:
    """Return number → ids of tests, as pytest takes them."""
    page = (ROOT / "docs/reliability.md").read_text()
    return {int(number): re.findall("`([^`]+)`", tests) for number, tests in CASE.findall(page)}


if __name__ == "__main__":
    print(*sorted({test for tests in cases().values() for test in tests}), sep="\n")
