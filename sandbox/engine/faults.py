"""Scale's bad days, by switch: which callbacks and which calls of the API go wrong, and how. Decides, never acts."""

import contextlib
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from sandbox.errors import Refused
from sandbox.storage.store import State, Store


class Fault(NamedTuple):
    """`strikes` a callback, an answer of the annotators, or a call of the API. `options` are what a switch may set, with
    their defaults. `on` of those that strike calls is "create" (only the creation of tasks) or "any".
    """

    name: str
    strikes: str
    summary: str
    options: Mapping[str, Any] = {}


FAULTS = (
    Fault("duplicated", "callback", "The same bytes are sent twice at once."),
    Fault("delayed", "callback", "The first try comes late.", {"seconds": 2.0}),
    Fault(
        "reordered",
        "callback",
        "The first try waits until a later callback went out, or for so many seconds.",
        {"seconds": 5.0},
    ),
    Fault("dropped", "callback", "It is never sent; the task says callback_succeeded false."),
    Fault("wrong_key", "callback", "The first tries carry a key that is none.", {"tries": 1}),
    Fault("no_key", "callback", "The first tries carry no key.", {"tries": 1}),
    Fault(
        "repeated",
        "callback",
        "As if the 2xx was lost: the same bytes come again.",
        {"repeats": 1, "seconds": 0.05},
    ),
    Fault(
        "volatile",
        "callback",
        "As if the 2xx was lost: the body comes again with other volatile fields.",
        {"repeats": 1, "seconds": 0.05},
    ),
    Fault("reset_after_sending", "callback", "The connection is reset once the body is out.", {"tries": 1}),
    Fault("slow_body", "callback", "The body trickles for so many seconds.", {"seconds": 1.0}),
    Fault("chunked", "callback", "The body is sent in chunks, without its length."),
    Fault(
        "huge",
        "callback",
        "The task carries so many bytes of a field that nobody knows.",
        {"bytes": 8 * 2**20},
    ),
    Fault("attachments", "answer", "The task ends in error: its attachments could not be downloaded."),
    Fault("frames", "answer", "The task ends in error: a frame could not be read."),
    Fault("message", "answer", "The task ends in error, with a message and no more."),
    Fault("throttled", "call", "429 with Retry-After.", {"retry_after": 1, "on": "create"}),
    Fault(
        "refused",
        "call",
        "Another status that means no, such as 401 or 402.",
        {"status": 402, "on": "create"},
    ),
    Fault("error_before", "call", "500, and nothing was done.", {"on": "create"}),
    Fault("error_after", "call", "500, but it was done.", {"on": "create"}),
    Fault(
        "hang",
        "call",
        "No answer for so many seconds, then the connection ends.",
        {"seconds": 30.0, "on": "create"},
    ),
    Fault("hang_after", "call", "The same, but it was done.", {"seconds": 30.0, "on": "create"}),
    Fault("reset", "call", "The connection is reset, and nothing was done.", {"on": "create"}),
    Fault("reset_after", "call", "The connection is reset, but it was done.", {"on": "create"}),
    Fault(
        "callback_first",
        "call",
        "The task is done at once; its callback comes before the answer.",
        {"on": "create"},
    ),
)
_FAULTS = {fault.name: fault for fault in FAULTS}
MATCHES = ("task_id", "unique_id", "type", "project", "batch", "event", "account", "method", "path")


@dataclass
class Switch:
    """One fault that is switched on: for what `match` names (everything if empty), for a `share` of it, so many `times`."""

    number: int
    fault: str
    match: dict[str, str] = field(default_factory=dict)
    share: float = 1.0
    times: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    struck: int = 0


def _check(name: str, value: Any, default: Any) -> None:
    """Refused (400) unless a value has the form of its default."""
    most = 1 if name == "share" else 2**53
    if isinstance(default, str):
        if value not in ("create", "any"):
            raise Refused(400, f"{name} must be create or any")
    elif isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else int | float):
        raise Refused(
            400, f"{name} must be a number{' without a fraction' if isinstance(default, int) else ''}"
        )
    elif not 0 <= value <= most:
        raise Refused(400, f"{name} must be between 0 and {most}")
    elif name == "status" and not 400 <= value <= 599:
        raise Refused(400, "status must be between 400 and 599")


class Faults:
    """The switches of one sandbox. They outlive a restart."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._seed = seed
        self._lock = threading.Lock()
        self._calls = 0
        with store.read() as session:
            kept = session.get(State, "faults")
            self._switches = [Switch(**switch) for switch in (kept.value["switches"] if kept else ())]

    def switch_on(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Add a switch: `fault`, any of MATCHES, `share`, `times`, and the fault's options, side by side.

        Raises Refused (400) for a name that is none.
        """
        fault = _FAULTS.get(str(request.get("fault")))
        if fault is None:
            raise Refused(400, f"fault must be one of {', '.join(_FAULTS)}")
        for name in request:
            if name not in ("fault", "share", "times", *MATCHES, *fault.options):
                raise Refused(400, f"{fault.name} takes no {name}")
        _check("share", request.get("share", 1.0), 1.0)
        _check("times", request.get("times") or 0, 0)
        for name, default in fault.options.items():
            _check(name, request.get(name, default), default)
        with self._lock:
            switch = Switch(
                number=max((switch.number for switch in self._switches), default=0) + 1,
                fault=fault.name,
                match={name: str(request[name]) for name in MATCHES if name in request},
                share=float(request.get("share", 1.0)),
                times=request.get("times"),
                options={
                    **fault.options,
                    **{name: request[name] for name in fault.options if name in request},
                },
            )
            self._switches.append(switch)
        self._keep()
        return asdict(switch)

    def switch_off(self, number: int | None = None) -> None:
        """Remove one switch, or all; chance begins anew with the latter."""
        with self._lock:
            self._calls = 0 if number is None else self._calls
            self._switches = [switch for switch in self._switches if number not in (None, switch.number)]
        self._keep()

    def switches(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(switch) for switch in self._switches]

    def strike(
        self,
        what: str,
        subject: Mapping[str, Any],
        ordinal: int | None = None,
        session: Session | None = None,
    ) -> dict[str, dict[str, Any]]:
        """The faults that hit this callback, answer or call, each with its options.

        Chance is drawn from the seed, the switch and `ordinal` (the number of the task; calls are counted here), so the
        same work under the same seed meets the same faults, whatever the threads do. Within a transaction its `session`
        is needed: how often a switch struck is written where it strikes so many times only.
        """
        counted = False
        with self._lock:
            if not self._switches:
                return {}
            if ordinal is None:
                self._calls += 1
                ordinal = self._calls
            hits: dict[str, dict[str, Any]] = {}
            for switch in self._switches:
                if _FAULTS[switch.fault].strikes != what or (
                    switch.times is not None and switch.struck >= switch.times
                ):
                    continue
                if switch.options.get("on") == "create" and not subject.get("creates"):
                    continue
                if any(str(subject.get(name)) != value for name, value in switch.match.items()):
                    continue
                if switch.share < 1 and self._draw(switch, ordinal, subject.get("event")) >= switch.share:
                    continue
                switch.struck += 1
                counted |= switch.times is not None
                hits[switch.fault] = switch.options
        if counted:
            self._keep(session)
        return hits

    def _draw(self, switch: Switch, ordinal: int, event: Any) -> float:
        drawn = hashlib.sha256(
            f"{self._seed}/{switch.number}/{switch.fault}/{ordinal}/{event}".encode()
        ).digest()
        return int.from_bytes(drawn[:8]) / 2**64

    def _keep(self, session: Session | None = None) -> None:
        with self._store.write() if session is None else contextlib.nullcontext(session) as writing:
            writing.merge(State(key="faults", value={"switches": self.switches()}))
