"""`python:` steps: functions of the operator's own. They run with all rights of the service, so a setting must allow them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable
from typing import Any


def is_allowed(name: str, modules: Collection[str]) -> bool:
    """Return whether the module of `module:function` is one of `modules`, or inside one of them."""
    module = name.partition(":")[0]
    return any(module == allowed or module.startswith(f"{allowed}.") for allowed in modules)


def load_function(name: str) -> Callable[[Any], Iterable[Any] | None]:
    """Import the function that `module:function` names. This runs the module's code.

    Raises ImportError, AttributeError, TypeError if it is not a function, or whatever the module raises.
    """
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    if not callable(function):
        raise TypeError(f"{name} is not a function")
    return function  # type: ignore[no-any-return]
