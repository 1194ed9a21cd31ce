"""One running sandbox: its settings, database, fault rules and files, and its current speed."""

import threading

from sandbox.engine.faults import Faults
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
        self.files = Files(self.store, settings.url)
        self.speed = settings.speed
        self.work_available = threading.Event()

    def reset(self) -> None:
        """Delete all data and fault rules, and return to the speed of the start."""
        self.faults.remove_rules()
        self.store.delete_all()
        self.speed = self.settings.speed

    def set_speed(self, speed: str) -> None:
        """Set when live tasks are completed. Raises ScaleError (400) for an unknown speed."""
        if speed not in SPEEDS:
            raise ScaleError(400, f"speed must be one of {', '.join(SPEEDS)}")
        self.speed = speed
