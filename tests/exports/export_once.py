"""`python -m tests.exports.export_once DATABASE_URL STORE HOST OUT`: one export for each line on stdin, in a child that a test kills.

Prints the id of each child when it begins and the child's exit status when it ended. A child costs a fork, not an import.
"""

import os
import sys
import time
from pathlib import Path

from config import Settings
from exports.engine import write_export
from exports.export import Options
from exports.formats import find_format
from pipeline.bootstrap import build_service
from pipeline.datasets import versions

MOVE_SECONDS = 0.02
_move = Path.replace


def move_slowly(self: Path, target: Path) -> Path:
    """Rename a file after a while, so that kills hit between two moves as often as before the first."""
    time.sleep(MOVE_SECONDS)
    return _move(self, target)


def export(database_url: str, store: str, host: str, out: str) -> None:
    """Write the dataset `all` to `out` with its images."""
    service = build_service(
        Settings(
            database_url=database_url, artifact_store=store, secret_key="secret", attachment_hosts=(host,)
        )
    )
    with service.reader.begin() as connection:
        version = versions.find(connection, "all")
    format_ = find_format("yolo-detect")
    assert format_ is not None
    print(os.getpid(), flush=True)
    write_export(service, version, format_, Options(images="copy"), out)


Path.replace = move_slowly
for _ in sys.stdin:
    child = os.fork()
    if not child:
        export(*sys.argv[1:])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
