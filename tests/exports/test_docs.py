"""The pages on datasets and exports: their table is that of the registry, and their commands and examples run."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from app.application import create_app
from config import load_settings
from tests.exports.labeled import Labeled

DOCS = Path(__file__).parents[2] / "docs"
READERS = Path(__file__).parents[2] / ".venv-readers" / "bin" / "python"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def commands(page: str) -> list[str]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("weighbridge ")]


def test_every_command_runs(filled: Labeled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    settings = filled.service.settings
    app = create_app(
        load_settings(
            {
                "SECRET_KEY": "secret",
                "DATABASE_URL": settings.database_url,
                "ARTIFACT_STORE": settings.artifact_store,
                "ATTACHMENT_HOSTS": filled.files.host,
            }
        )
    )
    monkeypatch.chdir(tmp_path)
    for line in [*commands("datasets.md"), *commands("exports.md")]:
        done = app.test_cli_runner().invoke(args=shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
    assert (tmp_path / "out" / "yolo" / "data.yaml").is_file()
    assert (tmp_path / "out" / "coco-images" / "annotations_train.json").is_file()
    load = next(block for block in blocks("exports.md", "python") if "load_dataset" in block)
    if READERS.exists():
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
        done_loading = subprocess.run(
            [str(READERS), "-c", load],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Fußgänger" in done_loading.stdout, done_loading.stderr
    app.extensions["weighbridge"].engine.dispose()
