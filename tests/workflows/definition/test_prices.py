"""The price list: which price is valid for a task, how amounts read, and what is said of a broken file."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from workflows.definition.installation import load_prices
from workflows.definition.money import Money, Prices, format_amount, from_micros, parse_money, to_micros

LIST = """
currency: EUR
prices:
  - {type: annotation, task: 0.80}
  - {type: annotation, project: street, task: 1.2}
  - {type: annotation, project: street, task: 1.5, since: 2026-03-01}
  - {type: polygonannotation, task: 0.1, annotation: 0.05, expected_annotations: 12}
  - {type: lidarannotation, annotation: 0.05}
  - {type: "*", task: 3}
"""


def load(folder: Path, text: str) -> Prices:
    (folder / "prices.yaml").write_text(text)
    return load_prices(folder / "prices.yaml")


@pytest.mark.parametrize(
    ("given", "cost"),
    [
        (("annotation",), "0.80"),
        (("annotation", "other"), "0.80"),
        (("annotation", "street"), "1.5"),
        (("annotation", "street", None, date(2026, 2, 28)), "1.2"),
        (("annotation", "street", None, date(2026, 3, 1)), "1.5"),
        (("polygonannotation",), "0.70"),
        (("polygonannotation", None, 3), "0.25"),
        (("polygonannotation", None, 0), "0.1"),
        (("lidarannotation", None, 4), "0.20"),
        (("lidarannotation",), None),
        (("categorization", "street"), "3"),
    ],
)
def test_the_most_specific_and_newest_price_counts(
    tmp_path: Path, given: tuple[str], cost: str | None
) -> None:
    assert load(tmp_path, LIST).cost(*given) == (cost and Decimal(cost))


def test_without_a_file_or_a_price_the_reason_is_said(tmp_path: Path) -> None:
    nothing = load_prices(tmp_path / "prices.yaml")
    assert nothing.cost("annotation") is None
    assert not nothing.problems
    assert nothing.why_unknown("annotation") == "no price is set"
    prices = load(tmp_path, LIST.replace('"*"', "documenttranscription"))
    assert prices.why_unknown("categorization", "a") == "no price is set for categorization of the project a"
    assert "expected_annotations" in prices.why_unknown("lidarannotation")


def test_every_error_of_a_file_names_its_line_and_field(tmp_path: Path) -> None:
    prices = load(
        tmp_path,
        "currency: usd\n"
        "prices:\n"
        "  - {type: annotation, task: $0.80}\n"
        "  - {type: annotation, project: a}\n"
        "  - {type: annotation, taks: 1}\n"
        "  - {type: annotation, task: 0.12345678}\n"
        "  - {type: annotation, task: 1, since: soon}\n"
        "  - {type: annotation, task: 1, expected_annotations: 3}\n",
    )
    assert prices.cost("annotation") is None
    found = {(problem.line, problem.field) for problem in prices.problems}
    assert found == {
        (1, "currency"),
        (3, "prices[0].task"),
        (4, "prices[1]"),
        (5, "prices[2]"),
        (5, "prices[2].taks"),
        (6, "prices[3].task"),
        (7, "prices[4].since"),
        (8, "prices[5]"),
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prices: [\n", 2),
        ("- 1\n", 1),
        ("", 1),
        ("currency: USD\n", 1),
        ("prices:\n- {type: annotation, task: 1}\n- {type: annotation, task: 2}\n", 3),
    ],
)
def test_a_file_that_is_no_price_list_is_refused(tmp_path: Path, text: str, line: int) -> None:
    prices = load(tmp_path, text)
    assert [problem.line for problem in prices.problems] == [line]
    assert prices.problems[0].path == str(tmp_path / "prices.yaml")


def test_a_mistyped_type_is_a_warning_with_a_suggestion(tmp_path: Path) -> None:
    prices = load(tmp_path, "prices:\n- {type: polygonanotation, task: 1}\n")
    assert not prices.problems
    assert prices.cost("polygonanotation") == 1
    assert "did you mean `polygonannotation`?" in prices.warnings[0].message


@pytest.mark.parametrize(
    ("text", "money"),
    [
        ("$200", Money(Decimal(200), "USD")),
        ("€ 0.80", Money(Decimal("0.80"), "EUR")),
        ("200 CHF", Money(Decimal(200), "CHF")),
        ("200", None),
        ("-5 USD", None),
        ("$1,000", None),
    ],
)
def test_an_amount_has_a_sign_or_a_code(text: str, money: Money | None) -> None:
    assert parse_money(text) == money


def test_amounts_read_as_people_write_them() -> None:
    assert format_amount(Decimal("1234.5"), "USD") == "$1,234.50"
    assert format_amount(Decimal("0.005"), "EUR") == "€0.005"
    assert format_amount(Decimal("-2"), "GBP") == "-£2.00"
    assert format_amount(Decimal("200"), "CHF") == "200.00 CHF"
    assert from_micros(to_micros(Decimal("0.000001") * 3)) == Decimal("0.000003")
