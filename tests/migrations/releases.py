"""Copies of this code as its next releases: one replaces a column of `tasks` and adds an index, one removes what is no longer used."""

import shutil
from pathlib import Path

from tests.service import ROOT

COPIED = (
    *(
        "app",
        "config",
        "exports",
        "migrations",
        "models",
        "pipeline",
        "sandbox",
        "scale",
        "workers",
        "workflows",
    ),
    *("gunicorn.conf.py", "gunicorn_worker.py", "pyproject.toml", "wsgi.py"),
)
USES = {
    "models/task.py": ("    urgency: Mapped", "    service_level: Mapped"),
    "pipeline/receive/ordering.py": ('"urgency": task.urgency', '"service_level": task.urgency'),
}
"""Where the code uses the column, and what the next release has there."""
REVISION = '''"""{what}."""

import sqlalchemy as sa
from alembic import op

from pipeline.db.migrations import build_index

revision, down_revision, branch_labels, depends_on = "{number}", "{previous}", None, None


def upgrade() -> None:
    {statement}
'''
EXPANDING = (
    ("Add a column", 'op.add_column("tasks", sa.Column("service_level", sa.String(), nullable=True))'),
    ("Index it", 'build_index(op, "ix_tasks_service_level", "tasks", ["service_level"])'),
)
DROP = 'op.execute("{}ALTER TABLE tasks DROP COLUMN urgency")'
HASTY = ("Remove a column that is used", DROP.format(""))
CONTRACTING = ("Remove a column", DROP.format(r"-- squawk-ignore ban-drop-column\n"))


def release(folder: Path, *revisions: tuple[str, str], code: Path = ROOT) -> Path:
    """Copy the code into `folder`, with more revisions: what each does, and its statement."""
    folder.mkdir()
    for name in COPIED:
        if (code / name).is_dir():
            shutil.copytree(code / name, folder / name)
        else:
            shutil.copy2(code / name, folder / name)
    versions = folder / "migrations/versions"
    for what, statement in revisions:
        last = max(path.name.partition("_")[0] for path in versions.glob("[0-9]*_*.py"))
        number = f"{int(last) + 1:04}"
        revision = REVISION.format(what=what, number=number, previous=last, statement=statement)
        (versions / f"{number}_{what.lower().replace(' ', '_')}.py").write_text(revision)
    return folder


def next_release(folder: Path) -> Path:
    """Copy the code with another column in place of one: the revisions expand, and the old column is no longer used."""
    release(folder, *EXPANDING)
    for name, (old, new) in USES.items():
        text = (folder / name).read_text()
        assert text.count(old) == 1, name
        (folder / name).write_text(text.replace(old, new))
    return folder
