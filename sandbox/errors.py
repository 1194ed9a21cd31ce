"""The errors of Scale's API."""


class ScaleError(Exception):
    """Raised when Scale would answer a request with this status and text."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the HTTP status and the text of the answer."""
        super().__init__(message)
        self.status = status
        self.message = message


def invalid(reason: str) -> ScaleError:
    """Return a 400 in the wording of Scale's parameter check."""
    return ScaleError(400, f"Parameter is invalid, reason: {reason}")
