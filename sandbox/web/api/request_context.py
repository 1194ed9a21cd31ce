"""Read what all API calls share: the account, query parameters and pages of lists."""

import base64
import re
from typing import Any, cast

from flask import current_app, g, request

from sandbox.engine.parameters import is_true
from sandbox.engine.sandbox import Sandbox
from sandbox.errors import ScaleError
from sandbox.storage import clock


def current_sandbox() -> Sandbox:
    """Return the sandbox of the running application."""
    return cast(Sandbox, current_app.extensions["sandbox"])


def authenticate() -> None:
    """Set the account of the request from its API key. Raises ScaleError (401).

    Both versions of the API accept HTTP Basic (the key as user name, no password) and Bearer.
    """
    authorization = request.authorization
    key = None
    if authorization is not None:
        key = authorization.token if authorization.type == "bearer" else authorization.username
    account = current_sandbox().settings.accounts.get(key or "")
    if account is None:
        raise ScaleError(401, "Your API key does not correspond to a registered user.")
    g.account = account


def current_account() -> str:
    """Return the account of the request. Each API key has an account of its own."""
    return cast(str, g.account)


def query_value(name: str) -> str | None:
    """Return a query parameter, or None if it is absent or empty."""
    return request.args.get(name) or None


def query_list(name: str) -> list[str]:
    """Return the values of a repeatable query parameter."""
    return [value for key in (name, f"{name}[]") for value in request.args.getlist(key) if value]


def query_flag(name: str) -> bool:
    """Return whether a query parameter is true."""
    return is_true(query_value(name))


def query_date(name: str) -> float | None:
    """Return a date in milliseconds, or None. Raises ScaleError (400) if the value is not a date."""
    text = query_value(name)
    return None if text is None else clock.parse_timestamp(text, name)


def query_limit(default: int = 100) -> int:
    """Return the page size, 1 to 100. Raises ScaleError (400)."""
    return query_number("limit", default, 1, 100)


def query_number(name: str, default: int, minimum: int, maximum: int | None = None) -> int:
    """Return an integer query parameter within bounds. Raises ScaleError (400)."""
    text = query_value(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,15}", text):
        raise ScaleError(400, f'"{name}" must be a number')
    number = int(text)
    if number < minimum or (maximum is not None and number > maximum):
        raise ScaleError(
            400,
            f'"{name}" must be between {minimum} and {maximum}'
            if maximum
            else f'"{name}" must be at least {minimum}',
        )
    return number


def time_range(column: Any, after: str, before: str) -> list[Any]:
    """Return conditions that limit a column of milliseconds by two query parameters, both inclusive."""
    conditions = []
    if (start := query_date(after)) is not None:
        conditions.append(column >= start)
    if (end := query_date(before)) is not None:
        conditions.append(column <= end)
    return conditions


def encode_token(number: int) -> str:
    """Return a `next_token` that continues after the row with this number, whatever is inserted later."""
    return base64.urlsafe_b64encode(f"before {number}".encode()).decode()


def decode_token(token: str) -> int:
    """Return the number in a `next_token`. Raises ScaleError (400)."""
    try:
        match = re.fullmatch(rb"before ([0-9]{1,15})", base64.urlsafe_b64decode(token))
    except ValueError:
        match = None
    if match is None:
        raise ScaleError(400, '"next_token" is invalid; omit it to start at the first page')
    return int(match[1])
