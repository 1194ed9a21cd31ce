"""Find out whether a test starts processes, from the names that its code and its helpers refer to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Any

STARTERS = frozenset(("subprocess", "Popen", "multiprocessing", "running_sandbox"))
"""Names of what starts a process."""


@cache
def starts_processes(function: Callable[..., Any]) -> bool:
    """Return whether a function, or a function or class of the tests that it refers to, starts a process."""
    seen: set[Any] = set()
    pending: list[Any] = [function]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        names = set(_names(current.__code__))
        if names & STARTERS:
            return True
        for name in names:
            pending += _functions(current.__globals__.get(name))
    return False


def _names(code: CodeType) -> Iterator[str]:
    """Yield the global names in the code of a function and of the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _functions(value: Any) -> list[FunctionType]:
    """Return the functions behind a name: a function of the tests, or the methods of a class of the tests."""
    if isinstance(value, type) and value.__module__.startswith("tests"):
        members = [getattr(member, "func", member) for member in vars(value).values()]
        return [member for member in members if isinstance(member, FunctionType)]
    value = getattr(value, "__wrapped__", value)  # a context manager, or a cached function
    if isinstance(value, FunctionType) and value.__module__.startswith("tests"):
        return [value]
    return []
