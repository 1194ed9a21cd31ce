"""Recognize a response that holds nothing but the word that its task was canceled."""

from typing import Any

CANCELED = ("canceled", "cancelled")


def only_says_canceled(response: Any) -> bool:
    """Return whether a response says that the task was canceled, and nothing else. No result came, and none will."""
    if not isinstance(response, dict) or not response:
        return False
    return all(
        value is True if key in CANCELED else key == "status" and value in CANCELED
        for key, value in response.items()
    )
