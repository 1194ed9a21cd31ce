"""`python -m benchmarks.exports`: exports of a million boxes as ratios to a plain loop over the same rows, and their memory.

The floor reads the rows with psycopg (server-side cursors, JSON with orjson) and writes each with orjson. Every run is a
process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
import psycopg
from psycopg.types.json import set_json_loads
from rich.console import Console
from rich.table import Table

from benchmarks.stack import DURABLE
from pipeline.db.migrations import migrate
from tests.servers import start_postgres

FORMATS = ("coco", "yolo-detect", "parquet")
GOAL_RATIO = 2.0
GOAL_MEMORY_MB = 200
BOXES_PER_TASK = 50

FILL = """
INSERT INTO tasks (task_id, id, environment, type, status, project, params, metadata, created_at, updated_at,
                   completed_at, clock, response_id, response_count)
SELECT lpad(to_hex(n), 24, '0'), ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'live',
       'annotation', 'completed', 'street',
       jsonb_build_object('attachment_type', 'image', 'attachment', 'https://images.example/' || n || '.jpg'),
       '{"width": 1920, "height": 1080}', now(), now(), now(), now(),
       ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, 1
FROM generate_series(1, %(tasks)s) AS n;
INSERT INTO responses (id, task_id, number, digest, event, delivery_id, clock, received_at, annotation_count)
SELECT ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, lpad(to_hex(n), 24, '0'), 1,
       encode(sha256(n::text::bytea), 'hex'), 'completed', gen_random_uuid(), now(), now(), %(boxes)s
FROM generate_series(1, %(tasks)s) AS n;
INSERT INTO annotations (response_id, file, position, uuid, type, label, attributes, geometry)
SELECT ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, 0, b, gen_random_uuid()::text, 'box',
       (ARRAY['car', 'truck', 'person', 'bicycle'])[1 + b %% 4], '{"occluded": "no"}',
       jsonb_build_object('left', (n * 7 + b * 13) %% 1800 + 0.25, 'top', (n * 3 + b * 11) %% 1000 + 0.5,
                          'width', 20 + b, 'height', 30 + b)
FROM generate_series(1, %(tasks)s) AS n, generate_series(0, %(boxes)s - 1) AS b;
INSERT INTO image_sizes (address_sha256, width, height, orientation, media_type, measured_at)
SELECT encode(sha256(('https://images.example/' || n || '.jpg')::bytea), 'hex'), 1920, 1080, 1, 'image/jpeg', now()
FROM generate_series(1, %(tasks)s) AS n;
"""

TASKS = """
SELECT i.position, i.task_id, i.split, t.params, t.metadata
FROM dataset_items i JOIN dataset_versions v ON v.id = i.version_id JOIN tasks t ON t.task_id = i.task_id
WHERE v.name = %s ORDER BY i.position
"""
ANNOTATIONS = """
SELECT i.position, a.position, a.uuid, a.type, a.label, a.frame, a.attributes, a.geometry
FROM dataset_items i JOIN dataset_versions v ON v.id = i.version_id
JOIN annotations a ON a.response_id = i.response_id
WHERE v.name = %s ORDER BY i.position, a.file, a.position
"""


def fill(url: str, tasks: int, name: str) -> None:
    """Insert tasks with their boxes, and freeze them as the dataset `name`."""
    migrate(url.replace("postgresql://", "postgresql+psycopg://"))
    with psycopg.connect(url) as connection:
        for statement in FILL.split(";"):
            if statement.strip():
                connection.execute(statement, {"tasks": tasks, "boxes": BOXES_PER_TASK})  # type: ignore[arg-type]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    run("create", url, name)


def run(what: str, url: str, name: str) -> dict[str, float]:
    """Run once in a process of its own: {seconds, idle_mb, peak_mb}."""
    command = [sys.executable, "-m", "benchmarks.exports", "--run", what, url, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(what: str, url: str, name: str) -> None:
    """Write one export in a process of its own, and print its seconds and its memory."""
    from config import Settings
    from exports.engine import write_export
    from exports.export import Options
    from exports.formats import find_format
    from pipeline.bootstrap import build_service
    from pipeline.datasets import versions

    address = url.replace("postgresql://", "postgresql+psycopg://")
    with tempfile.TemporaryDirectory() as folder:
        service = build_service(Settings(database_url=address, artifact_store=folder, secret_key="benchmark"))
        with service.reader.begin() as connection:
            version = versions.find(connection, name) if what not in ("create", "plain") else None
        format_ = find_format(what) if what in FORMATS else None
        if format_ is not None and format_.packages:
            import pyarrow.parquet  # noqa: F401  # what is loaded is not what an export takes
        idle = resident_mb()
        start = time.perf_counter()
        if what == "create":
            versions.create(service, name, versions.Request(), "ana")
        elif what == "plain":
            plain(url, name, Path(folder) / "plain.jsonl")
        else:
            assert format_ is not None
            assert version is not None
            write_export(service, version, format_, Options(), f"{folder}/out")
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "idle_mb": idle, "peak_mb": peak}))


def plain(url: str, name: str, path: Path) -> None:
    """Run the floor: read the same rows of both tables with psycopg, JSON with orjson, and write each with orjson."""
    set_json_loads(orjson.loads)
    with psycopg.connect(url) as connection, path.open("wb") as file:
        for query in (TASKS, ANNOTATIONS):
            with connection.cursor("plain") as cursor:
                cursor.itersize = 10_000
                for row in cursor.execute(query, (name,)):
                    file.write(orjson.dumps(row) + b"\n")


def resident_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024 / 1024


def main() -> None:
    """Compare each export with a plain reader of the same rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000, help="of 50 boxes each")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return child(*options.run)
    table = Table("format", "boxes", "seconds", "plain loop", "÷ plain loop", "goal", "MB above idle", "goal")
    with start_postgres(DURABLE) as postgres:
        for tasks in (options.tasks // 10, options.tasks):
            url = postgres.create_database(f"exports_{tasks}").replace("+psycopg", "")
            fill(url, tasks, "bench")
            run("plain", url, "bench")  # warm
            for name in FORMATS:
                floor, found = run("plain", url, "bench")["seconds"], run(name, url, "bench")
                table.add_row(
                    name, f"{tasks * BOXES_PER_TASK:,}", f"{found['seconds']:.1f}", f"{floor:.1f}",
                    f"{found['seconds'] / floor:.2f}", f"≤ {GOAL_RATIO}",
                    f"{found['peak_mb'] - found['idle_mb']:.0f}", f"≤ {GOAL_MEMORY_MB}",
                )  # fmt: skip
    Console(width=120).print(table)
    return None


if __name__ == "__main__":
    main()
