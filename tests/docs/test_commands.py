"""The commands of the pages, run in their order against a running service; what cannot run here is named with its reason."""

import json
import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import Settings
from docs.site.pages import collect
from tests.docs.state import PLACEHOLDERS, Prepared, Value
from tests.factories.callbacks import BOX
from tests.service import ROOT
from workflows.planning.view import view

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:[^`\n]* )?weighbridge [^`]*)`")
WEIGHBRIDGE = re.compile(
    r"(?:^|docker compose exec \S+ |heroku run |kubectl .*-- |^\.venv/bin/)weighbridge (.*)", re.DOTALL
)
WHOLE = {"README.md": "tests/test_readme.py runs it next to `make run`"}
GENERATED = ("docs/reference/", "docs/task-types/", "CHANGELOG.md", "docs/decisions/")
"""Pages that name commands without using them."""
RECORDED = (ROOT / "tests/payloads/polygonannotation/polygons.json").read_text()
FILES = {
    "first.jsonl": '{"type": "annotation", "attachment": "https://static.example.com/PAGE.jpg", "objects_to_annotate": ["car"]}',
    "images.csv": "image\nhttps://static.example.com/PAGE.jpg\n",
    "images.jsonl": '{"image": "https://static.example.com/PAGE.jpg"}\n',
    "request.yaml": "attachment: ${{ row.image }}\ngeometries: {box: {objects_to_annotate: [car]}}\n",
    "body.json": RECORDED,
    "mail-1.json": RECORDED,
    "mail-2.json": RECORDED.replace("5774cc78b01249ab09f089dd", "5774cc78b01249ab09f089de"),
    "export.json": "[" + json.dumps(json.loads(RECORDED)["task"]) + "]",
    "answer.json": '{"annotations": []}',
}
"""What a reader has in his folder."""
ENDLESS = {
    "up": "tests/app/commands/test_up.py",
    "demo": "tests/app/commands/test_up.py",
    "sandbox serve": "tests/sandbox",
    "deliveries tail": "tests/app/commands/test_deliveries.py",
}
"""Commands that start processes or never end, and where they are tested."""
MISSING = {
    "export huggingface": "needs requirements-exports.txt; tests/exports reads its files",
}
OTHER_TOOLS = {
    "docker": "no container runtime; tests/deploy checks compose.yaml and Dockerfile",
    "git": "changes this clone",
    "heroku": "a platform",
    "kubectl": "no cluster; tests/deploy builds the overlays with kustomize",
    "pip": "the network; the lock files are checked by `make audit`",
    "yolo": "needs a GPU; tests/exports reads the files with its tools",
}
"""Commands that cannot run here."""
FOREIGN_NAMES = {
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
    *("FORWARDED_ALLOW_IPS", "REMAP_SIGTERM", "POSTGRES_PASSWORD", "PASSWORD", "TMPDIR", "MINUTES"),
    *("SANDBOX_LIVE_CALLBACK_KEY", "SANDBOX_TEST_CALLBACK_KEY", "LIVE_KEY", "TEST_KEY"),
}
"""Variables of others than Weighbridge."""
PYTHON = {
    "docs/develop-without-an-account.md": "tests/sandbox/test_pytest_plugin.py",
    "docs/exports.md": "tests/exports",
    "docs/subscribers.md": "tests/pipeline/events/test_sending.py",
    "docs/task-types.md": "tests/test_readme.py",
    "docs/upgrades.md": "tests/migrations/test_rolling_upgrades.py",
    "docs/workflow-language.md": "tests/docs/test_commands.py::test_a_step_in_python_is_called",
    "docs/workflows.md": "tests/docs/test_commands.py::test_a_step_in_python_is_called",
}
"""Where the code of a page runs."""
TEXT = {
    "docs/deploy-compose.md": "a file of Caddy",
    "docs/performance.md": "a measurement",
    "docs/reference/commands.md": "docs/site/pages.py writes it",
}
"""Blocks that are no input of anything here."""
CHECKED_ELSEWHERE = {
    "yaml": "tests/test_docs.py",
    "json": "tests/test_docs.py",
    "mermaid": "tests/system/test_example_pages.py",
}

SHELL = ("sh", "console")
PARTS = {
    "guides": (
        "CONTRIBUTING.md",
        "README.md",
        "deploy/",
        *(f"docs/{letter}" for letter in "bcdhkprsuw"),
        "docs/examples.md",
    ),
    "examples": ("docs/examples/",),
    "exports": ("docs/exports.md",),
    "task types": ("docs/task-types/",),
}
"""Pages that are read together, by the beginnings of their names."""
MIN_SENTENCES = 50


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the site is built from."""
    folder = tmp_path_factory.mktemp("pages")
    collect(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    with Prepared(tmp_path_factory.mktemp("docs"), migrated_sqlite_file) as one:
        yield one


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for _, language, text in FENCE.findall(page.read_text()):
        if not languages or language in languages:
            yield textwrap.dedent(text)


def commands(block: str) -> Iterator[str]:
    """Return the commands of a block, each with all its lines."""
    lines = block.splitlines()
    is_console = lines[0].startswith("$ ")
    command = ""
    for line in lines:
        # The page shows no output. Once it does, compare it here.
        assert command or not is_console or line.startswith("$ "), line
        command += f"\n{line}" if command else line.removeprefix("$ ")
        if is_whole(command):
            if command.strip():
                yield command
            command = ""
    assert not command, block


def is_whole(command: str) -> bool:
    """Return whether a command does not go on in the next line: after a backslash, or within quotation marks."""
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return not command.endswith("\\")


def names(folder: Path, *places: str) -> list[str]:
    """Return the pages whose names begin with one of `places`."""
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.md"))
    return [name for name in found if name.startswith(places)]


def known_names() -> set[str]:
    """Return the names of all settings."""
    return {field.name.upper() for field in fields(Settings)}


class Reader:
    """Someone who does what a page says, in a folder of his own."""

    def __init__(self, prepared: Prepared, name: str, page: Path) -> None:
        self.prepared, self.name = prepared, name
        self.values: dict[Value, str] = {}
        for file, content in FILES.items():
            Path(file).write_text(content.replace("PAGE", page.stem))
        for text in blocks(page, "json"):
            if "…" not in text:
                Path("first.jsonl").write_text(json.dumps(json.loads(text)))
            break
        if (ROOT / "examples" / f"{page.stem}.yaml").exists():
            shutil.copy(ROOT / "examples" / f"{page.stem}.yaml", prepared.workflows)
        for own in (".env.example", "examples"):
            if not Path(own).exists():
                Path(own).symlink_to(ROOT / own)

    def run(self, command: str) -> None:
        """Do what one command says, or check what can be checked of it."""
        self.check_names(command)
        self.check_files(command)
        if found := re.search("_WEIGHBRIDGE_COMPLETE=([a-z]+_source)", command):
            assert "weighbridge" in self.prepared.weighbridge(_WEIGHBRIDGE_COMPLETE=found[1]).output
        elif found := WEIGHBRIDGE.search(command):
            self.weighbridge(found[1])
        elif command.startswith(("curl", "cp ", "echo ")):
            self.shell(command)
        elif found := re.match(r"make ([a-z-]+)", command):
            assert re.search(rf"^{found[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        elif found := re.search(r"\.venv/bin/python -m (\S+)", command):
            assert find_spec(found[1]), command
        elif not re.match(r"[A-Z_]+=", command):
            assert command.split()[0] in OTHER_TOOLS, f"{self.name}: {command}"

    def weighbridge(self, text: str, *, is_mention: bool = False) -> bool:
        """Run a command. Return False if it cannot run here, or is only mentioned."""
        words = shlex.split(re.sub(r" [>|] .*", "", text), comments=True)
        line = " ".join(words)
        if line.startswith((*ENDLESS, *MISSING)):
            return False
        words = [self.value(line, word) for word in words]
        if words[0] == "doctor":
            self.prepared.resume()
        elsewhere = {"DATABASE_URL": self.prepared.empty_url} if words[0] == "restore" else {}
        done = self.prepared.weighbridge(*words, **elsewhere)
        if is_mention and done.exit_code == 2 and "No such command" not in done.output:
            return False
        unforeseen = None if isinstance(done.exception, SystemExit) else done.exception
        assert (done.exit_code, unforeseen) == (0, None), f"{self.name}: {text}\n{words}\n{done.output}"
        if "--json" in words:
            json.loads(done.stdout)
        return True

    def value(self, line: str, word: str) -> str:
        """Return the value of a placeholder, the same one for all commands of a block."""
        word = re.sub(r"https://[\w.]*example\.com/\S+", self.prepared.receiver, word)
        for start, placeholder, value in PLACEHOLDERS:
            if word == placeholder and line.startswith(start):
                if value not in self.values:
                    self.values[value] = value(self.prepared)
                return self.values[value]
        return word

    def shell(self, command: str) -> None:
        """Run another command, with the addresses of this service and its sandbox."""
        service = self.prepared.service
        command = command.replace("https://api.scale.com/v1", service.sandbox_url)
        command = command.replace("first-task", f"first-{Path(self.name).stem}")
        command = re.sub(
            r"https://(weighbridge\.example\.com|YOUR-APP\.herokuapp\.com)", service.web_url, command
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.replace("curl -sS", "curl -sS --fail-with-body")],
            env=self.prepared.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {command}\n{done.stdout}{done.stderr}"
        if command.startswith("curl"):
            assert json.loads(done.stdout)

    def check_names(self, command: str) -> None:
        """Every variable that a command sets is a setting."""
        named = set(re.findall(r"(?:^|[\s=\"])([A-Z][A-Z_]+)=", command))
        assert named <= known_names() | FOREIGN_NAMES, f"{self.name}: {command}"

    def check_files(self, command: str) -> None:
        """Check the files and services of this project in a command, also of a tool that is not here."""
        if found := re.match(r"docker compose exec (\S+)", command):
            assert found[1] in yaml.safe_load((ROOT / "compose.yaml").read_text())["services"], command
        if found := re.match(r"(?:kubectl .* apply -k|pip install -r) (\S+)", command):
            assert (ROOT / found[1]).exists(), command


@pytest.fixture
def reader(
    prepared: Prepared, pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Reader]:
    monkeypatch.chdir(tmp_path)
    return lambda name: Reader(prepared, name, pages / name)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_command_of_a_block_runs(part: str, reader: Callable[[str], Reader], pages: Path) -> None:
    for name in names(pages, *PARTS[part]):
        one = reader(name)
        for block in blocks(pages / name, *(("console",) if name in WHOLE else SHELL)):
            one.values = {}
            for command in commands(block):
                one.run(command)


@pytest.mark.slow
def test_every_command_of_a_sentence_runs(reader: Callable[[str], Reader], pages: Path) -> None:
    """Unless a sentence names only the command, without saying on what it is used."""
    places: dict[str, str] = {}
    for name in set(names(pages, "")) - set(names(pages, *GENERATED)):
        for text in INLINE.findall(FENCE.sub("", (pages / name).read_text())):
            if match := WEIGHBRIDGE.search(text):
                places[match[1]] = name
    ran = 0
    for text, name in sorted(places.items()):
        has_only_names = re.fullmatch(r"[a-z]+(-[a-z]+)*( [a-z]+(-[a-z]+)*)*", text) is not None
        ran += reader(name).weighbridge(text, is_mention=has_only_names)
    assert ran > MIN_SENTENCES


def test_every_block_is_of_a_kind_that_is_used(pages: Path) -> None:
    tests = {*ENDLESS.values(), *PYTHON.values(), *CHECKED_ELSEWHERE.values()}
    assert [one for one in tests if not (ROOT / one.partition("::")[0]).exists()] == []
    read = names(pages, *(place for part in PARTS.values() for place in part))
    seen = set()
    for name in names(pages, ""):
        for _, language, text in FENCE.findall((pages / name).read_text()):
            if language == "python":
                compile(textwrap.dedent(text), name, "exec")
                assert name in PYTHON, f"{name}: say in PYTHON where its code runs"
            elif language == "text":
                assert name in TEXT, f"{name}: say in TEXT what it is"
            elif language == "ini":
                settings = set(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE))
                assert settings <= known_names() | FOREIGN_NAMES, name
            else:
                assert language in (*SHELL, *CHECKED_ELSEWHERE), f"{name}: {language}\n{text}"
            seen.add(name)
            assert language not in SHELL or name in read, f"{name}: say in PARTS when it is read"
    assert set(PYTHON) | set(TEXT) <= seen


@pytest.mark.parametrize("page", ["docs/workflow-language.md", "docs/workflows.md"])
def test_a_step_in_python_is_called(page: str, pages: Path) -> None:
    (text,) = blocks(pages / page, "python")
    names: dict[str, Any] = {}
    exec(compile(text, page, "exec"), names)
    (function,) = (value for value in names.values() if callable(value))
    task = {"task_id": "t", "type": "annotation", "params": {"attachment": "https://example.com/a.png"}}
    boxes = {"annotations": [{**BOX, "label": "car"}, {**BOX, "label": "bus"}]}
    assert [one["type"] for one in function(view(task, boxes))]
