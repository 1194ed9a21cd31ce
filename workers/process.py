"""The settings of a worker process. celery_app.py imports this module before any other.

prometheus_client decides when it is imported whether several processes count together, by PROMETHEUS_MULTIPROC_DIR.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile

from config import SettingsError, load_settings
from config.private_files import make_new_files_private
from config.temporary import ensure_temporary_folder

gc.disable()  # importing makes objects that stay; celery_app.py switches collection on again

try:
    settings = load_settings(process="worker")
except SettingsError as error:
    raise SystemExit(f"Weighbridge cannot start:\n{error}") from None
make_new_files_private()
ensure_temporary_folder()  # the worker's pool needs one

if settings.worker_metrics_port:
    # Each process of the pool counts in a file of this folder; the main process adds them up and deletes the folder.
    folder = tempfile.mkdtemp(prefix="weighbridge-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # noqa: TID251  # the only way to tell prometheus_client
    main_process = os.getpid()

    @atexit.register
    def delete_metrics() -> None:
        """Delete the folder when the main process ends."""
        if os.getpid() == main_process:
            shutil.rmtree(folder, ignore_errors=True)
