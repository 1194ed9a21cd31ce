"""`weighbridge backup` and `restore`: what they print, what they refuse, and that no setting is in the folder."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

from flask import Flask

from tests.app.commands.conftest import Deliver, Run, commands_of


def test_a_backup_is_checked_refused_and_restored(weighbridge: Run, deliver: Deliver, tmp_path: Path) -> None:
    deliver("annotation/accepted")
    folder = str(tmp_path / "backup")
    done = weighbridge("backup", folder)
    assert done.stdout.startswith("Backed up ")
    manifest = json.loads(weighbridge("restore", folder, "--dry-run", "--json").stdout)
    assert manifest["tables"]["tasks"]["rows"] == 1
    refused = weighbridge("restore", folder)
    assert refused.exit_code == 1
    assert "--force deletes them" in refused.output
    assert weighbridge("restore", folder, "--force").stdout.startswith("Restored ")
    assert weighbridge("restore", str(tmp_path)).exit_code == 1


def test_a_backup_holds_no_setting(make_app: Callable[..., Flask], deliver: Deliver, tmp_path: Path) -> None:
    canaries = {
        name: f"canary-{name.lower()}"
        for name in ("SCALE_API_KEY", "SCALE_LIVE_CALLBACK_KEYS", "API_TOKEN", "METRICS_TOKEN", "SECRET_KEY")
    }
    app = make_app(**canaries)
    deliver("annotation/accepted")
    commands_of(app)("backup", str(tmp_path / "backup"))
    for file in (tmp_path / "backup").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            content = gzip.decompress(content) if file.suffix == ".gz" else content
            assert b"canary-" not in content, file
            assert file.stat().st_mode & 0o077 == 0, file
