"""What every call of the API shares: who asks, what for, and how lists are asked for."""

import base64
import re
from typing import Any, cast

from flask import current_app, g, request

from sandbox.engine.sandbox import Sandbox
from sandbox.errors import ScaleError
from sandbox.storage import clock
from sandbox.web.bodies import is_true


def current_sandbox() -> Sandbox:
    return cast(Sandbox, current_app.extensions["sandbox"])


def authenticate() -> None:
    """HTTP Basic with the key as user name and no password, or Bearer; each works in both versions of the API."""
    authorization = request.authorization
    key = None
    if authorization is not None:
        key = authorization.token if authorization.type == "bearer" else authorization.username
    if not key or key not in current_sandbox().settings.api_keys:
        raise ScaleError(401, "Your API key does not correspond to a registered user.")
    g.account = key


def account() -> str:
    """The key of the request. Each key is a world of its own."""
    return cast(str, g.account)


def query(name: str) -> str | None:
    """A query parameter; one with an empty value counts as absent."""
    return request.args.get(name) or None


def query_list(name: str) -> list[str]:
    """A repeatable query parameter; any of its values matches."""
    return [value for key in (name, f"{name}[]") for value in request.args.getlist(key) if value]


def query_flag(name: str) -> bool:
    return is_true(query(name))


def query_date(name: str) -> float | None:
    """Milliseconds, or None. Raises ScaleError (400) for what is no date."""
    text = query(name)
    return None if text is None else clock.parse(text, name)


def query_limit(default: int = 100) -> int:
    """The size of a page, 1 to 100."""
    return query_number("limit", default, 1, 100)


def query_number(name: str, default: int, least: int, most: int | None = None) -> int:
    text = query(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,15}", text):
        raise ScaleError(400, f'"{name}" must be a number')
    number = int(text)
    if number < least or (most is not None and number > most):
        raise ScaleError(
            400,
            f'"{name}" must be between {least} and {most}' if most else f'"{name}" must be at least {least}',
        )
    return number


def within(column: Any, after: str, before: str) -> list[Any]:
    """Conditions that keep a column of milliseconds between two query parameters, both included."""
    conditions = []
    if (start := query_date(after)) is not None:
        conditions.append(column >= start)
    if (end := query_date(before)) is not None:
        conditions.append(column <= end)
    return conditions


def encode_token(number: int) -> str:
    """A `next_token` that goes on after the row with this number, whatever was added meanwhile."""
    return base64.urlsafe_b64encode(f"before {number}".encode()).decode()


def decode_token(token: str) -> int:
    try:
        named = re.fullmatch(rb"before ([0-9]{1,15})", base64.urlsafe_b64decode(token))
    except ValueError:
        named = None
    if named is None:
        raise ScaleError(400, '"next_token" is not one that a list gave')
    return int(named[1])
