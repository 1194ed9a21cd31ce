"""One running sandbox: its settings, tables, faults and files, and the speed at which its people work."""

from sandbox.engine.faults import Faults
from sandbox.errors import ScaleError
from sandbox.settings import SPEEDS, SandboxSettings
from sandbox.storage.files import Files
from sandbox.storage.store import Store


class Sandbox:
    """What every room of the sandbox is given. `wake` tells the office that there is work."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.store = Store(settings.database)
        self.faults = Faults(self.store, settings.seed)
        self.files = Files(self.store, settings.address)
        self.speed = settings.speed

    def wake(self) -> None:
        """Replaced by the office when it opens."""

    def deliver_now(self, number: int) -> None:
        """Replaced by the office when it opens."""

    def reset(self) -> None:
        """Forget everything, and work as at the start."""
        self.faults.remove_rules()
        self.store.empty()
        self.speed = self.settings.speed

    def set_speed(self, speed: str) -> None:
        if speed not in SPEEDS:
            raise ScaleError(400, f"speed must be one of {', '.join(SPEEDS)}")
        self.speed = speed
