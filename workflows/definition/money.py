"""Amounts of money, and the price list: what a task of a type costs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from workflows.definition.document import FileProblem

SYMBOLS = {"$": "USD", "€": "EUR", "£": "GBP"}
DEFAULT_CURRENCY = "USD"
MICROS = 1_000_000
"""Parts of one unit of a currency in which counters count, so that sums are exact."""
MAX_AMOUNT = 1_000_000_000
ANY_TYPE = "*"

_NUMBER = r"([0-9]{1,10}(?:\.[0-9]{1,6})?)"
_WITH_SYMBOL = re.compile(rf"([{''.join(SYMBOLS)}]) ?{_NUMBER}\Z")
_WITH_CODE = re.compile(rf"{_NUMBER} ?([A-Z]{{3}})\Z")
_PLAIN = re.compile(rf"{_NUMBER}\Z")


class Money(NamedTuple):
    """An amount in a currency (ISO 4217)."""

    amount: Decimal
    currency: str

    def __str__(self) -> str:
        return format_amount(self.amount, self.currency)


def parse_money(text: str) -> Money | None:
    """Return the amount that `$200`, `€ 0.80` or `200 USD` says; None for anything else."""
    if found := _WITH_SYMBOL.match(text):
        return Money(Decimal(found[2]), SYMBOLS[found[1]])
    if found := _WITH_CODE.match(text):
        return Money(Decimal(found[1]), found[2])
    return None


def parse_amount(text: str) -> Decimal | None:
    """Return a plain number with at most six decimals; None for anything else."""
    return Decimal(text) if _PLAIN.match(text) else None


def format_amount(amount: Decimal, currency: str) -> str:
    """Return an amount for people: `$1,234.50`, `0.005 CHF`. At least two decimals, and as many as it needs."""
    text = f"{amount:,.6f}".rstrip("0")
    whole, _, decimals = text.partition(".")
    number = f"{whole}.{decimals.ljust(2, '0')}"
    symbol = next((sign for sign, code in SYMBOLS.items() if code == currency), None)
    if symbol is None:
        return f"{number} {currency}"
    return f"-{symbol}{number[1:]}" if number.startswith("-") else f"{symbol}{number}"


def to_micros(amount: Decimal) -> int:
    """Return an amount in millionths of its currency. Amounts have at most six decimals."""
    return int(amount * MICROS)


def from_micros(micros: int) -> Decimal:
    """Return the amount that a number of millionths is."""
    return (Decimal(micros) / MICROS).normalize()


@dataclass(frozen=True, slots=True)
class Price:
    """One line of the price list."""

    type: str  # task type, or ANY_TYPE
    project: str | None = None  # None: every project without a price of its own
    task: Decimal | None = None  # for each task
    annotation: Decimal | None = None  # for each annotation of its result
    expected_annotations: int | None = None  # how many a result has, for the cost before it is there
    since: date | None = None  # first day (UTC) on which it is valid; None: always

    def total(self, tasks: int, annotations: int | None) -> Decimal | None:
        """Return the cost of some tasks. annotations: of all their results; None: as many as expected.

        None if it depends on annotations whose number is unknown.
        """
        of_tasks = (self.task or Decimal(0)) * tasks
        if self.annotation is None:
            return of_tasks
        if annotations is None and self.expected_annotations is not None:
            annotations = self.expected_annotations * tasks
        return None if annotations is None else of_tasks + self.annotation * annotations


@dataclass(frozen=True)
class Prices:
    """The price list of an installation. Empty if there is none, or if its file has problems."""

    path: str = ""
    currency: str = DEFAULT_CURRENCY
    prices: tuple[Price, ...] = ()
    problems: tuple[FileProblem, ...] = ()
    warnings: tuple[FileProblem, ...] = ()  # valid, but probably not intended

    def format(self, amount: Decimal) -> str:
        """Return an amount in the list's currency, for people."""
        return format_amount(amount, self.currency)

    def price(self, task_type: str | None, project: str | None, on: date | None = None) -> Price | None:
        """Return the price of a type that is valid on a day: the project's own before the type's, the newest of each."""
        fits = (
            price
            for price in self.prices
            if price.type in (task_type, ANY_TYPE)
            and price.project in (project, None)
            and (price.since is None or on is None or price.since <= on)
        )
        return max(
            fits,
            key=lambda price: (
                price.type != ANY_TYPE,
                price.project is not None,
                price.since or date.min,
            ),
            default=None,
        )

    def cost(
        self,
        task_type: str | None,
        project: str | None = None,
        annotations: int | None = None,
        on: date | None = None,
    ) -> Decimal | None:
        """Return what one task costs in `currency`; None if no price is set, or if it depends on unknown annotations.

        annotations: of the result; None while there is no result, which costs `expected_annotations`.
        on: the UTC day of its creation; None: at the newest price.
        """
        price = self.price(task_type, project, on)
        return price.total(1, annotations) if price else None

    def why_unknown(self, task_type: str | None, project: str | None = None) -> str:
        """Return why `cost` is None, as a clause."""
        if self.problems:
            return f"the price list {self.path} has errors"
        if not self.prices:
            return "no price is set"
        if self.price(task_type, project) is None:
            return f"no price is set for {task_type}" + (f" of the project {project}" if project else "")
        return f"the price of {task_type} is for each annotation, and expected_annotations is not set"
