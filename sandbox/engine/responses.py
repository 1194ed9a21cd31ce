"""Scripted responses: rules that give chosen tasks a fixed response instead of that of the simulated annotators."""

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from sandbox.errors import ScaleError
from sandbox.settings import account_of
from sandbox.storage.store import State, Store

MATCH_FIELDS = ("task_id", "unique_id", "type", "project", "batch", "account")


@dataclass
class ResponseRule:
    """Hold a response and the tasks it is for: `match` holds a pattern (`*`, `?`) for each field.

    `times` limits how many tasks get it, `hits` counts them.
    """

    number: int
    response: Any
    match: dict[str, str]
    times: int | None = None
    hits: int = 0

    def matches(self, subject: Mapping[str, Any]) -> bool:
        """Return whether the rule applies to a task with these fields."""
        if self.times is not None and self.hits >= self.times:
            return False
        return all(
            subject.get(name) is not None and fnmatchcase(str(subject[name]), pattern)
            for name, pattern in self.match.items()
        )


class ScriptedResponses:
    """Hold the response rules of one sandbox. They survive a restart."""

    def __init__(self, store: Store) -> None:
        """Load the rules that an earlier run stored."""
        self._store = store
        self._lock = threading.Lock()
        with store.read() as session:
            stored = session.get(State, "responses")
            self._rules = [ResponseRule(**rule) for rule in (stored.value["rules"] if stored else ())]

    def add_rule(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Add the rule of a request: `response`, any of MATCH_FIELDS, and `times`. Raises ScaleError (400)."""
        unknown = request.keys() - {"response", "times", *MATCH_FIELDS}
        if "response" not in request:
            raise ScaleError(400, "response is required")
        if unknown:
            raise ScaleError(
                400, f"A response takes no {sorted(unknown)[0]}; it takes {', '.join(MATCH_FIELDS)}"
            )
        times = request.get("times")
        if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
            raise ScaleError(400, "times must be an integer of at least 1")
        match = {name: str(request[name]) for name in MATCH_FIELDS if request.get(name) is not None}
        if "account" in match:
            match["account"] = account_of(match["account"])
        with self._lock:
            number = max((rule.number for rule in self._rules), default=0) + 1
            rule = ResponseRule(number, request["response"], match, times)
            self._rules.append(rule)
        self._save()
        return asdict(rule)

    def take(self, subject: Mapping[str, Any]) -> ResponseRule | None:
        """Return the newest rule for a task with these fields and count the hit; None if there is none.

        Writes to the database, so call it outside of transactions.
        """
        with self._lock:
            rule = next((rule for rule in reversed(self._rules) if rule.matches(subject)), None)
            if rule is None:
                return None
            rule.hits += 1
        self._save()
        return rule

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules in the order in which they were added."""
        with self._lock:
            return [asdict(rule) for rule in self._rules]

    def clear(self) -> None:
        """Remove all rules."""
        with self._lock:
            self._rules = []
        self._save()

    def _save(self) -> None:
        with self._store.write() as session:
            session.merge(State(key="responses", value={"rules": self.rules()}))
