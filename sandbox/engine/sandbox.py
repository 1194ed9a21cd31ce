"""One running sandbox: its settings, database, fault rules and files, and its current speed."""

import threading
from typing import Any

from sandbox.engine.faults import Faults
from sandbox.engine.responses import ScriptedResponses
from sandbox.errors import ScaleError
from sandbox.settings import SPEEDS, SandboxSettings
from sandbox.storage.files import Files
from sandbox.storage.store import Store


class Sandbox:
    """Hold the parts that the web application, the engine and the scheduler share.

    `work_available` wakes the scheduler: set it after committing work that is due.
    """

    def __init__(self, settings: SandboxSettings) -> None:
        """Open the database and load what an earlier run stored. Raises UnusableDatabase."""
        self.settings = settings
        self.store = Store(settings.database)
        self.faults = Faults(self.store, settings.seed)
        self.responses = ScriptedResponses(self.store)
        self.files = Files(self.store, settings.url)
        self.speed = settings.speed
        self.rejection_share = settings.rejection_share
        self.confidences = settings.confidences
        self.work_available = threading.Event()

    def reset(self) -> None:
        """Delete all data and rules, and return to the behavior of the start."""
        self.faults.remove_rules()
        self.responses.clear()
        self.store.delete_all()
        self.speed = self.settings.speed
        self.rejection_share = self.settings.rejection_share
        self.confidences = self.settings.confidences

    def set_speed(self, speed: str) -> None:
        """Set when live tasks are completed. Raises ScaleError (400) for an unknown speed."""
        if speed not in SPEEDS:
            raise ScaleError(400, f"speed must be one of {', '.join(SPEEDS)}")
        self.speed = speed

    def set_rejection_share(self, share: Any) -> None:
        """Set the share of completed tasks to reject; None: review none. Raises ScaleError (400)."""
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if share is not None and not (is_number and 0 <= share <= 1):
            raise ScaleError(400, "rejection_share must be a number from 0 to 1, or null")
        self.rejection_share = share

    def set_confidences(self, confidences: Any) -> None:
        """Set whether document responses have confidences. Raises ScaleError (400)."""
        if not isinstance(confidences, bool):
            raise ScaleError(400, "confidences must be true or false")
        self.confidences = confidences
