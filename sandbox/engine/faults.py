"""Fault injection rules: decide which callbacks, results and API calls fail, and how. Deciding has no side effects."""

import contextlib
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from sandbox.errors import ScaleError
from sandbox.settings import account_of
from sandbox.storage.store import State, Store


class Fault(NamedTuple):
    """Describe a kind of fault that a rule can inject.

    `target` is "callback", "result" (the outcome of a task) or "call" (a request to the API). `options` holds the settings
    of the fault with their defaults. The option `on` of call faults is "create" (task creation only) or "any".
    """

    name: str
    target: str
    summary: str
    options: Mapping[str, Any] = {}


FAULTS = (
    Fault("duplicated", "callback", "Send the same bytes twice at the same time."),
    Fault("delayed", "callback", "Delay the first attempt.", {"seconds": 2.0}),
    Fault(
        "reordered",
        "callback",
        "Hold the first attempt until a later callback was sent, at most for the given seconds.",
        {"seconds": 5.0},
    ),
    Fault("dropped", "callback", "Never send the callback; the task says callback_succeeded false."),
    Fault("wrong_key", "callback", "Send a wrong callback key in the first attempts.", {"attempts": 1}),
    Fault("no_key", "callback", "Send no callback key in the first attempts.", {"attempts": 1}),
    Fault(
        "repeated",
        "callback",
        "Send the same bytes again after a 2xx, as if that answer was lost.",
        {"repeats": 1, "seconds": 0.05},
    ),
    Fault(
        "volatile",
        "callback",
        "Send the result again after a 2xx, with other volatile fields.",
        {"repeats": 1, "seconds": 0.05},
    ),
    Fault("reset_after_sending", "callback", "Reset the connection after sending the body.", {"attempts": 1}),
    Fault("slow_body", "callback", "Spread the body over the given seconds.", {"seconds": 1.0}),
    Fault("chunked", "callback", "Send the body in chunks, without a Content-Length."),
    Fault(
        "huge",
        "callback",
        "Add an unknown field of the given size to the task.",
        {"bytes": 8 * 2**20},
    ),
    Fault("attachments", "result", "End the task in error: its attachments could not be downloaded."),
    Fault("frames", "result", "End the task in error: a frame could not be read."),
    Fault("message", "result", "End the task in error with a message only."),
    Fault("throttled", "call", "Answer 429 with Retry-After.", {"retry_after": 1, "on": "create"}),
    Fault(
        "refused",
        "call",
        "Answer with the given error status, such as 401 or 402.",
        {"status": 402, "on": "create"},
    ),
    Fault("error_before", "call", "Answer 500 without doing anything.", {"on": "create"}),
    Fault("error_after", "call", "Process the request, then answer 500.", {"on": "create"}),
    Fault(
        "hang",
        "call",
        "Do not answer for the given seconds, then close the connection without doing anything.",
        {"seconds": 30.0, "on": "create"},
    ),
    Fault(
        "hang_after",
        "call",
        "Process the request, do not answer for the given seconds, then close the connection.",
        {"seconds": 30.0, "on": "create"},
    ),
    Fault("reset", "call", "Reset the connection without doing anything.", {"on": "create"}),
    Fault("reset_after", "call", "Process the request, then reset the connection.", {"on": "create"}),
    Fault(
        "callback_first",
        "call",
        "Complete the task at once and deliver its callback before answering.",
        {"on": "create"},
    ),
)
_FAULTS = {fault.name: fault for fault in FAULTS}
MATCH_FIELDS = ("task_id", "unique_id", "type", "project", "batch", "event", "account", "method", "path")


@dataclass
class FaultRule:
    """Hold one active fault: what it matches (everything if `match` is empty), its `share`, and its limit `times`.

    `hits` counts how often the rule applied.
    """

    number: int
    fault: str
    match: dict[str, str] = field(default_factory=dict)
    share: float = 1.0
    times: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    hits: int = 0

    @property
    def is_exhausted(self) -> bool:
        """Return whether the rule has applied as often as `times` allows."""
        return self.times is not None and self.hits >= self.times

    def matches(self, target: str, subject: Mapping[str, Any]) -> bool:
        """Return whether the rule is about this target and these fields of a subject, chance aside."""
        if _FAULTS[self.fault].target != target or self.is_exhausted:
            return False
        if self.options.get("on") == "create" and not subject.get("creates"):
            return False
        return all(str(subject.get(name)) == value for name, value in self.match.items())


class Faults:
    """Hold the fault rules of one sandbox. They survive a restart."""

    def __init__(self, store: Store, seed: int) -> None:
        """Load the rules that an earlier run stored."""
        self._store = store
        self._seed = seed
        self._lock = threading.Lock()
        self._calls = 0
        with store.read() as session:
            stored = session.get(State, "faults")
            self._rules = [FaultRule(**rule) for rule in (stored.value["rules"] if stored else ())]

    def add_rule(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Add the rule of a request: `fault`, any of MATCH_FIELDS, `share`, `times` and the fault's options.

        Raises ScaleError (400) for an unknown name or a value of the wrong form.
        """
        fault = _check_request(request)
        options = {name: request.get(name, default) for name, default in fault.options.items()}
        with self._lock:
            rule = FaultRule(
                number=max((rule.number for rule in self._rules), default=0) + 1,
                fault=fault.name,
                match=_match_of(request),
                share=float(request.get("share", 1.0)),
                times=request.get("times"),
                options=options,
            )
            self._rules.append(rule)
        self._save()
        return asdict(rule)

    def remove_rules(self, number: int | None = None) -> None:
        """Remove one rule, or all of them; removing all also restarts the random sequence."""
        with self._lock:
            self._calls = 0 if number is None else self._calls
            self._rules = [rule for rule in self._rules if number not in (None, rule.number)]
        self._save()

    def rules(self) -> list[dict[str, Any]]:
        """Return the active rules in the order in which they were added."""
        with self._lock:
            return [asdict(rule) for rule in self._rules]

    def inject(
        self,
        target: str,
        subject: Mapping[str, Any],
        ordinal: int | None = None,
        session: Session | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Return the faults to inject into this callback, result or call, each with its options.

        Chance depends on the seed, the rule and `ordinal` (the number of the task; calls are counted here), so the same
        work under the same seed meets the same faults, whatever the threads do. Pass the `session` of an open write
        transaction: rules with a limit store their hits in it.
        """
        applied: list[FaultRule] = []
        with self._lock:
            if not self._rules:
                return {}
            if ordinal is None:
                self._calls += 1
                ordinal = self._calls
            for rule in self._rules:
                if rule.matches(target, subject) and self._draw(rule, ordinal, subject.get("event")):
                    rule.hits += 1
                    applied.append(rule)
        if any(rule.times is not None for rule in applied):
            self._save(session)
        return {rule.fault: rule.options for rule in applied}

    def _draw(self, rule: FaultRule, ordinal: int, event: Any) -> bool:
        """Return whether chance selects this subject for the rule, the same for the same seed."""
        if rule.share >= 1:
            return True
        digest = hashlib.sha256(f"{self._seed}/{rule.number}/{rule.fault}/{ordinal}/{event}".encode())
        return int.from_bytes(digest.digest()[:8]) / 2**64 < rule.share

    def _save(self, session: Session | None = None) -> None:
        """Store the rules, in the caller's transaction if there is one."""
        with self._store.write() if session is None else contextlib.nullcontext(session) as writing:
            writing.merge(State(key="faults", value={"rules": self.rules()}))


def _match_of(request: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields that a rule must match; an account is named by its API key and stored as a digest."""
    match = {name: str(request[name]) for name in MATCH_FIELDS if name in request}
    return {**match, "account": account_of(match["account"])} if "account" in match else match


def _check_request(request: Mapping[str, Any]) -> Fault:
    """Return the fault that a request names. Raises ScaleError (400) if the request is not valid."""
    fault = _FAULTS.get(str(request.get("fault")))
    if fault is None:
        raise ScaleError(400, f"fault must be one of {', '.join(_FAULTS)}")
    for name in request:
        if name not in ("fault", "share", "times", *MATCH_FIELDS, *fault.options):
            raise ScaleError(400, f"{fault.name} takes no {name}")
    _check_option("share", request.get("share", 1.0), 1.0)
    _check_option("times", request.get("times") or 0, 0)
    for name, default in fault.options.items():
        _check_option(name, request.get(name, default), default)
    return fault


def _check_option(name: str, value: Any, default: Any) -> None:
    """Raise ScaleError (400) unless a value has the form of its default."""
    maximum = 1 if name == "share" else 2**53
    if isinstance(default, str):
        if value not in ("create", "any"):
            raise ScaleError(400, f"{name} must be create or any")
    elif isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else int | float):
        raise ScaleError(400, f"{name} must be {'an integer' if isinstance(default, int) else 'a number'}")
    elif not 0 <= value <= maximum:
        raise ScaleError(400, f"{name} must be between 0 and {maximum}")
    elif name == "status" and not 400 <= value <= 599:
        raise ScaleError(400, "status must be between 400 and 599")
