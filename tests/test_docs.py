"""The pages of the documentation site: their links lead somewhere, and what they show can be used."""

import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from PIL import Image

from app.commands.main import make_main
from docs.site.pages import collect, configuration
from scale.task_types import TASK_TYPES
from workflows.definition.loader import parse
from workflows.definition.model import Workflow

FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
PICTURE = re.compile(r"!\[([^\]]*)\]\(pictures/task-types/([^)]*)\.webp\)")
NOT_PICTURED = {"phonecall", "videopolygonannotation"}
"""Task types that Scale's API no longer creates: the sandbox has no example of them."""
MAX_PICTURES_BYTES = 600_000
MIN_COMMANDS, MIN_WORKFLOWS, MIN_LINKS = 150, 35, 150


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the site is built from."""
    folder = tmp_path_factory.mktemp("pages")
    collect(folder)
    return folder


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.md")):
        yield str(path.relative_to(folder)), path.read_text()


def blocks(folder: Path, *languages: str) -> Iterator[tuple[str, str]]:
    for name, text in texts(folder):
        yield from (
            (name, textwrap.dedent(block))
            for _, language, block in FENCE.findall(text)
            if language in languages
        )


def anchors(text: str) -> set[str]:
    """Return the ids that both GitHub and the site give to the headings of a page."""
    headings = HEADING.findall(FENCE.sub("", text))
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_every_link_leads_to_a_file_and_a_heading(pages: Path) -> None:
    found = 0
    for name, text in texts(pages):
        for path, anchor in LINK.findall(FENCE.sub("", text)):
            target = (pages / name).parent / path if path else pages / name
            assert target.is_file(), f"{name}: {path}"
            assert not anchor or anchor in anchors(target.read_text()), f"{name}: {path}#{anchor}"
            found += 1
    assert found > MIN_LINKS


def test_every_page_is_in_the_navigation(pages: Path) -> None:
    named = set(re.findall(r"(\S+\.md)$", configuration(pages), re.MULTILINE))
    assert {name for name, _ in texts(pages)} - named == {
        "deploy/grafana/README.md",
        "deploy/prometheus/README.md",
        "examples/README.md",
    }


def test_every_workflow_can_be_loaded_and_other_yaml_and_json_be_read(pages: Path) -> None:
    found = 0
    for name, block in blocks(pages, "yaml"):
        if block.startswith("workflow:") and "…" not in block:
            loaded = parse(block, name)
            wrong = [] if isinstance(loaded, Workflow) else [problem.message for problem in loaded.errors]
            # A page may show a part of a file.
            assert [
                message for message in wrong if not re.match("is required|has no action", message)
            ] == [], name
            found += 1
        else:
            yaml.safe_load(block)
    assert found > MIN_WORKFLOWS
    for name, block in blocks(pages, "json"):
        for value in re.split(r"\n(?=\{)", block.strip()):
            if "…" not in value:
                assert json.loads(value) is not None, name


def test_every_command_has_the_options_that_are_shown(pages: Path) -> None:
    main = make_main()
    root = click.Context(main, info_name="weighbridge")
    found = 0
    for name, block in blocks(pages, "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = re.search(
                r"(?:^|\.venv/bin/|exec \S+ |exec \S+ -- |run )weighbridge (.*)", line.removeprefix("$ ")
            )
            if (
                words is None
                or "_COMPLETE" in line
                or "weighbridge=" in line
                or "&&" in words[1]
                or "create secret" in line
            ):
                continue
            arguments = [word for word in shlex.split(words[1], comments=True) if word != "|"]
            command: click.Command = main
            context = root
            while isinstance(command, click.Group) and arguments:
                child = command.get_command(context, arguments[0])
                if child is None:
                    break
                command, context = child, click.Context(child, info_name=child.name, parent=context)
                arguments = arguments[1:]
            assert command is not main, f"{name}: {line}"
            try:
                command.make_parser(context).parse_args(arguments)
            except click.UsageError as error:
                raise AssertionError(f"{name}: {line}\n{error.format_message()}") from None
            found += 1
    assert found > MIN_COMMANDS


def test_every_task_type_has_a_picture_that_its_page_shows(pages: Path) -> None:
    shown = PICTURE.findall((pages / "docs/task-types.md").read_text())
    names = [name for _, name in shown]
    assert sorted(names) == sorted({known.name for known in TASK_TYPES} - NOT_PICTURED)
    assert len({alternative for alternative, _ in shown}) == len(shown)
    assert all(len(alternative.split()) > 2 for alternative, _ in shown), "say what is seen"
    files = sorted((pages / "docs/pictures/task-types").iterdir())
    assert [file.name for file in files] == sorted(f"{name}.webp" for name in names)
    assert sum(file.stat().st_size for file in files) < MAX_PICTURES_BYTES
    for file in files:
        with Image.open(file) as picture:
            width, height = picture.size
            assert (700 < width < 800, 100 < height < 1600) == (True, True), file.name
            assert len(picture.convert("RGB").getcolors(width * height)) > 50, f"{file.name} shows nothing"
        assert f"pictures/task-types/{file.name}" in (pages / f"docs/task-types/{file.stem}.md").read_text()
