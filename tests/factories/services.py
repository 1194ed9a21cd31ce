"""Services on databases that a test chooses itself."""

from config import Settings
from pipeline.bootstrap import build_service
from pipeline.service import Service


def open_on(database_url: str) -> Service:
    return build_service(
        Settings(database_url=database_url, workflows_dir="config/workflows", secret_key="s")
    )
