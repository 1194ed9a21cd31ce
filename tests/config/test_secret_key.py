"""The secret key that is generated when none is set."""

import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import stored_secret_key

ROOT = Path(__file__).parents[2]


def test_a_key_is_made_once_and_only_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key = stored_secret_key()
    assert len(key) >= 32
    assert stored_secret_key() == key
    assert (tmp_path / "var/secret_key").stat().st_mode & 0o077 == 0


def test_an_empty_file_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that was cut short leaves one; everybody could sign with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/secret_key").touch()
    key = stored_secret_key()
    assert len(key) >= 32
    assert stored_secret_key() == key


def test_processes_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from config.settings import stored_secret_key; input(); print(stored_secret_key())"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    keys = {one.communicate()[0].strip() for one in processes}
    assert len(keys) == 1
    assert len(keys.pop()) >= 32


def test_where_nothing_can_be_kept_there_is_a_key_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "var").write_text("no folder")
    monkeypatch.chdir(tmp_path)
    assert len(stored_secret_key()) >= 32
