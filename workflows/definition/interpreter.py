"""Evaluates JMESPath within bounds: a number of steps, and a size of the values that an expression builds.

Bounds are counted, not timed, so that a loaded machine decides the same as an idle one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jmespath.exceptions
import jmespath.visitor

from workflows.definition.functions import FUNCTIONS
from workflows.definition.recipes import RECIPES

MAX_STEPS = 10_000_000
"""Steps of one evaluation: a node that is visited, or an element that a function reads. About ten seconds."""
MAX_PLAN_STEPS = 100_000_000
"""Steps of all evaluations for one result and one workflow."""
MAX_VALUE_SIZE = 5_000_000
"""Size of all values that one evaluation builds: one for each element and each 64 characters."""
MAX_NUMBER_BITS = 1_024
"""Larger whole numbers are no number in most JSON readers."""


_SCALARS = (str, bool, int, float, *RECIPES)


class TooExpensive(jmespath.exceptions.JMESPathError):
    """Raised when an evaluation exceeds its bounds."""


class PlanBudget:
    """Steps, and size of values, that are left for one result and one workflow."""

    def __init__(self, steps: int, size: float) -> None:
        self.left = steps
        self.size_left = size

    def take_size(self, size: int) -> None:
        """Count the size of a value that a request is given. Raises TooExpensive."""
        self.size_left -= size
        if self.size_left < 0:
            raise TooExpensive("gives more than all values of the plan together may have")


_PLAN: ContextVar[PlanBudget | None] = ContextVar("plan_budget", default=None)


@contextlib.contextmanager
def plan_budget(steps: int = MAX_PLAN_STEPS, size: float = math.inf) -> Iterator[PlanBudget]:
    """Bound the steps of all evaluations within the block, and the size of all values that they give to requests.

    A block inside another one shares its budget.
    """
    if (outer := _PLAN.get()) is not None:
        yield outer
        return
    budget = PlanBudget(steps, size)
    token = _PLAN.set(budget)
    try:
        yield budget
    finally:
        _PLAN.reset(token)


def interpret(tree: Any, names: Any) -> Any:
    """Return the value of a parsed expression. Raises TooExpensive, or what jmespath raises."""
    budget = _PLAN.get()
    interpreter = _Interpreter(MAX_STEPS if budget is None else min(MAX_STEPS, budget.left))
    try:
        return interpreter.visit(tree, names)
    finally:
        if budget is not None:
            budget.left = max(0, budget.left - interpreter.steps)


class _Interpreter(jmespath.visitor.TreeInterpreter):
    """jmespath's interpreter, with counters, and with a null that equals no other null."""

    def __init__(self, max_steps: int) -> None:
        super().__init__(jmespath.visitor.Options(custom_functions=FUNCTIONS))
        self.steps = 0
        self._max_steps = max_steps
        self._built = 0
        self._sizes: dict[int, tuple[Any, int]] = {}
        """id → (the value, kept so that its id is not given to another one; its size)."""

    def visit(self, node: Any, value: Any) -> Any:
        """Evaluate one node. Called for each element of a result: `_charge` is written out here."""
        self.steps += 1
        if self.steps > self._max_steps:
            raise self._too_many_steps()
        return _METHODS[node["type"]](self, node, value)

    def _charge(self, steps: int) -> None:
        self.steps += steps
        if self.steps > self._max_steps:
            raise self._too_many_steps()

    def _too_many_steps(self) -> TooExpensive:
        return TooExpensive(f"needs more than {self._max_steps:,} evaluation steps")

    def visit_comparator(self, node: Any, value: Any) -> Any:
        """Compare two values. Two nulls that come from data are not equal: a missing value matches nothing."""
        if node["value"] in ("eq", "ne"):
            first, second = node["children"]
            left, right = self.visit(first, value), self.visit(second, value)
            if left is None and right is None and "literal" not in (first["type"], second["type"]):
                return False
            equal = isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
            return equal if node["value"] == "eq" else not equal
        return super().visit_comparator(node, value)

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        """Call a function, and count what it reads."""
        args = [self.visit(child, value) for child in node["children"]]
        for arg in args:
            if isinstance(arg, list | dict):
                self._charge(len(arg))
            elif isinstance(arg, str):
                self._charge(len(arg) >> 6)
        return FUNCTIONS.call_function(node["value"], args)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        """Flatten a list, and count its elements."""
        flat = super().visit_flatten(node, value)
        self._charge(len(flat or ()))
        return flat

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        """Build a list, and count its size."""
        return self._count(super().visit_multi_select_list(node, value))

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        """Build a mapping, and count its size."""
        return self._count(super().visit_multi_select_dict(node, value))

    def _count(self, built: Any) -> Any:
        """Add the size of a value to what was built. Chains such as `[@, @] | [@, @]` double it with each link."""
        if built is not None:
            self._built += measure(built, MAX_VALUE_SIZE - self._built, self._sizes)
        return built


_METHODS = {
    name.removeprefix("visit_"): getattr(_Interpreter, name)
    for name in dir(_Interpreter)
    if name.startswith("visit_")
}


def measure(value: Any, limit: int, known: dict[int, tuple[Any, int]] | None = None) -> int:
    """Return the size of a value as JSON would write it, repeated parts each time. Raises TooExpensive above `limit`."""
    sizes = {} if known is None else known
    total, stack = 0, [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, list | dict):
            if (measured := sizes.get(id(inner))) is not None:
                total += measured[1]
            else:
                total += 1
                stack.extend(inner.values() if isinstance(inner, dict) else inner)
        else:
            total += 1 + (len(inner) >> 6 if isinstance(inner, str) else 0)
        if total + len(stack) > limit:
            raise TooExpensive(f"gives a value with more than {MAX_VALUE_SIZE:,} elements")
    if known is not None:
        known[id(value)] = (value, total)
    return total


def check_value(value: Any) -> None:
    """Check that a value can be part of a request: JSON and recipes, of a bounded size.

    ValueError says what is wrong; TooExpensive if it is too large.
    """
    budget = _PLAN.get()
    if budget is not None:
        budget.take_size(0)  # nothing more is measured once the budget is spent
    size = measure(value, MAX_VALUE_SIZE)
    if budget is not None:
        budget.take_size(size)
    stack = [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, dict):
            stack.extend(inner.values())
        elif isinstance(inner, list):
            stack.extend(inner)
        elif isinstance(inner, float) and not math.isfinite(inner):
            raise ValueError(f"gives {inner}, which is not a number in JSON")
        elif isinstance(inner, int) and inner.bit_length() > MAX_NUMBER_BITS:
            raise ValueError("gives a whole number that is too large")
        elif inner is not None and not isinstance(inner, _SCALARS):
            raise ValueError("gives a whole view; name a part of it, such as parent.task")
