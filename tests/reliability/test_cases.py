"""docs/reliability.md names every case, and tests that exist."""

import ast

from tests.reliability.cases import cases
from tests.service import ROOT


def test_each_of_the_40_cases_names_tests_that_exist() -> None:
    assert list(cases()) == list(range(1, 41))
    for number, tests in cases().items():
        assert tests, number
        for test in tests:
            path, _, name = test.partition("::")
            functions = ast.parse((ROOT / path).read_text()).body
            names = {one.name for one in functions if isinstance(one, ast.FunctionDef)}
            assert (name in names) if name else any(one.startswith("test_") for one in names), test
