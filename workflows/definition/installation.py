"""Reads the files of the whole installation: the price list and the limits. A file with errors is not used, and reports all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from scale.task_types import TASK_TYPES
from workflows.definition.document import Document, FileProblem, read
from workflows.definition.document import Path as Place
from workflows.definition.expressions import suggestion
from workflows.definition.fields import LimitField, doc, flatten_messages, integer
from workflows.definition.model import InstallationLimits, Limits
from workflows.definition.money import (
    ANY_TYPE,
    DEFAULT_CURRENCY,
    MAX_AMOUNT,
    Price,
    Prices,
    parse_amount,
    parse_money,
)
from workflows.definition.reading import is_absent, read_regular_file
from workflows.definition.sections import Section, separate_amounts

MAX_FILE_BYTES = 1024 * 1024
KNOWN_TYPES = frozenset((*(known.name for known in TASK_TYPES), ANY_TYPE))


class SectionFile(NamedTuple):
    """The fields of a file, where its values stand, and its problems. Without problems every field is valid."""

    path: str
    fields: Mapping[str, Any]
    document: Document
    problems: tuple[FileProblem, ...]

    def problem(self, at: Place, message: str) -> FileProblem:
        """Return a problem of the value at this place."""
        return _problem(self.path, self.document, at, message)


def read_section_file(path: Path, schema: Section) -> SectionFile:
    """Return the fields of a YAML file that one section describes. Never raises for its content."""
    try:
        text = read_regular_file(path, path.parent, MAX_FILE_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        problem = FileProblem(str(path), 1, "", f"cannot be read: {error}")
        return SectionFile(str(path), {}, Document(), (problem,))
    document = read(text)
    problems = {_problem(str(path), document, at, message, line) for at, line, message in document.faults}
    values: Mapping[str, Any] = {}
    if isinstance(document.data, dict):
        try:
            values = schema.load(document.data)
        except ValidationError as error:
            found = flatten_messages(error.messages)
            problems |= {_problem(str(path), document, at, message) for at, message in found}
    elif not document.faults:
        message = f"expected a mapping with {', '.join(schema.fields)}"
        problems.add(_problem(str(path), document, (), message))
    in_order = sorted(problems, key=lambda problem: (problem.line, problem.field, problem.message))
    return SectionFile(str(path), values, document, tuple(in_order))


def _problem(path: str, document: Document, at: Place, message: str, line: int | None = None) -> FileProblem:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
    return FileProblem(path, line or document.line(at), field, message)


class AmountField(fields.Field[Decimal]):
    """An amount in the currency of the price list."""

    label = "amount such as `0.80`"

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Decimal:
        text = f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        amount = parse_amount(text)
        if amount is None or amount > MAX_AMOUNT:
            hint = "; set `currency` once for the whole file" if parse_money(str(value)) else ""
            raise ValidationError(
                f"expected an amount such as 0.80 with at most six decimals, not {value!r}{hint}"
            )
        return amount


class DayField(fields.Field[date]):
    """A day (UTC)."""

    label = "day such as `2026-01-31`"

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> date:
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            raise ValidationError(f"expected a day such as 2026-01-31, not {value!r}") from None


class PriceSchema(Section):
    """The price of one task type."""

    type = fields.String(
        required=True,
        metadata=doc(f"Task type, or `{ANY_TYPE}` for every type without a price of its own.", "annotation"),
    )
    project = fields.String(
        metadata=doc("Project that has its own price. Without it: every other project.", "street-scenes")
    )
    task = AmountField(metadata=doc("Price of each task.", 0.8))
    annotation = AmountField(metadata=doc("Price of each annotation of the result.", 0.05))
    expected_annotations = integer(
        0,
        metadata=doc(
            "Annotations that a result usually has: the cost of a task whose result is not there yet.", 12
        ),
    )
    since = DayField(metadata=doc("First day (UTC) on which the price is valid.", "2026-01-31"))

    @validates_schema(skip_on_field_errors=True)
    def require_a_price(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse a line without a price, and expected annotations that nothing is charged for."""
        if "task" not in data and "annotation" not in data:
            raise ValidationError("has no price: add `task` or `annotation`")
        if "expected_annotations" in data and "annotation" not in data:
            raise ValidationError("`expected_annotations` needs a price for each `annotation`")


class InstallationLimitsSchema(Section):
    """Limits of everything that the installation creates: follow-ups of all workflows, and submitted tasks."""

    per_day = LimitField(
        metadata=doc("Tasks a day (UTC), their expected cost a day, or both.", [500, "$200"])
    )
    total = LimitField(metadata=doc("Tasks in total, their expected cost, or both.", 20_000))

    @post_load
    def separate_amounts(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Return the limits as model.Limits has them."""
        return separate_amounts(data)


class PricesSchema(Section):
    """The price list."""

    currency = fields.String(
        load_default=DEFAULT_CURRENCY,
        validate=validate.Regexp(r"[A-Z]{3}\Z", error="expected a code such as USD, not {input!r}"),
        metadata=doc("Currency of all prices (ISO 4217).", "USD"),
    )
    prices = fields.List(fields.Nested(PriceSchema), required=True, metadata=doc("One price a line."))


def load_prices(path: str | Path) -> Prices:
    """Return the price list in a file: an empty one without a file, one with `problems` if the file has errors."""
    path = Path(path)
    if is_absent(path):
        return Prices(str(path))
    found = read_section_file(path, PricesSchema())
    if found.problems:
        return Prices(found.path, problems=found.problems)
    prices = [Price(**price) for price in found.fields["prices"]]
    warnings = [
        found.problem(("prices", index, "type"), _unknown_type(price.type))
        for index, price in enumerate(prices)
        if price.type not in KNOWN_TYPES
    ]
    if problems := tuple(_repeated(found, prices)):
        return Prices(found.path, problems=problems)
    return Prices(found.path, found.fields["currency"], tuple(prices), warnings=tuple(warnings))


def load_limits(path: str | Path) -> InstallationLimits:
    """Return the limits in a file: none without a file, `problems` if the file has errors."""
    path = Path(path)
    if is_absent(path):
        return InstallationLimits(str(path))
    found = read_section_file(path, InstallationLimitsSchema())
    if found.problems:
        return InstallationLimits(found.path, problems=found.problems)
    return InstallationLimits(found.path, Limits(**found.fields))


def _repeated(found: SectionFile, prices: Sequence[Price]) -> Iterator[FileProblem]:
    """Yield a problem for each price that a line before it has set already."""
    firsts: dict[tuple[Any, ...], int] = {}
    for index, price in enumerate(prices):
        first = firsts.setdefault((price.type, price.project, price.since), index)
        if first != index:
            line = found.document.line(("prices", first))
            yield found.problem(
                ("prices", index), f"is a second price of {price.type}; the first is on line {line}"
            )


def _unknown_type(name: str) -> str:
    return f"no task type {name!r} is known{suggestion(name, KNOWN_TYPES)}"
